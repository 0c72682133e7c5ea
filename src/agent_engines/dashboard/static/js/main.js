// Joins the feed with the views. Anything the server leaves out is shown as absent, never as an error.

import { $, setAttribute, setText } from "./dom.js";
import { renderDecisions, renderTasks } from "./decisions.js";
import { Feed } from "./feed.js";
import { renderFleet, renderScaling } from "./fleet.js";
import { moment, timeOfDay } from "./format.js";
import { renderCounts, renderSummary, startSummary } from "./summary.js";

let heardAt = null;
let views = [renderSummary, renderFleet, renderCounts, renderScaling, renderDecisions, renderTasks];

const list = (value) => (Array.isArray(value) ? value : []);
const object = (value) => (value !== null && typeof value === "object" && !Array.isArray(value) ? value : null);

function normalised(data) {
  return {
    agents: list(data.agents),
    performance: object(data.performance),
    scaling: object(data.scaling),
    counts: object(data.counts),
    decisions: Array.isArray(data.decisions) ? data.decisions : null,
    problem: typeof data.problem === "string" ? data.problem : null,
    tasks: Array.isArray(data.tasks) ? data.tasks : null,
    serverTime: moment(data.server_time),
  };
}

function show(state, data) {
  let problem = null;
  if (state === "live") {
    heardAt = Date.now() / 1000;
    const overview = normalised(object(data) ?? {});
    for (const view of views) view(overview);
    problem = overview.problem;
  }
  setAttribute($("link-state"), "data-state", state === "refused" ? "lost" : state);
  setText($("link-text"), { live: "Live", lost: "Not connected", refused: "Needs a token", paused: "Paused" }[state]);
  const page = state === "live" || state === "paused" ? "live" : "lost";
  if (heardAt !== null) setAttribute($("main"), "data-state", page);
  setAttribute($("main"), "aria-busy", heardAt === null ? "true" : null);
  $("token-form").hidden = state !== "refused";
  if (state === "paused") return;
  $("banner").hidden = state !== "lost" && problem === null;
  if (problem !== null) setText($("banner-text"), `Counts, tasks and decisions cannot be read: ${problem}. Agents and rates are live.`);
  if (state === "lost") setText($("banner-text"), lostText(data));
}

function lostText(said) {
  const known = heardAt === null ? "" : ` This is what was known at ${timeOfDay(heardAt)}.`;
  if (said !== null) return `The server answers, but cannot show the fleet: ${said}.${known} Trying again.`;
  return heardAt === null ? "The server has not answered yet; trying again." : `Connection lost.${known} Trying again.`;
}

startSummary();
const feed = new Feed(show);
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  feed.useToken($("token").value);
});
feed.wake();
