// Agents: who is there, how busy, how well they do; and what the scaling matrix says about their queues.

import { $, el, fillMeter, keyed, meter, pill, setAttribute, setPill, setText } from "./dom.js";
import { DASH, count, known, milliseconds, moment, percent, plural, seconds, short, words } from "./format.js";

const TONES = { healthy: "good", suspect: "warn", draining: "busy", lost: "bad", quarantined: "bad" };
const URGENT = { none: null, monitor: "busy", scale_up: "warn", emergency: "bad" };
const opened = new Set();
let latest = null;

export function renderFleet(overview) {
  latest = overview;
  // Engines without task types (performance, optimizing) are part of the house, not of the fleet.
  const all = overview.agents.filter((agent) => agent.capabilities?.length || agent.agent_type === "custom");
  // Who looks during an incident must not have to search: what is wrong stands first, each part in its order.
  const ill = all.filter(unwell);
  const agents = [...ill, ...all.filter((agent) => !unwell(agent))];
  $("fleet-empty").hidden = agents.length > 0;
  $("fleet").hidden = agents.length === 0;
  const replicas = agents.reduce((sum, agent) => sum + (agent.replicas?.length ?? 0), 0);
  setText($("fleet-note"), agents.length ? `${plural(agents.length, "agent")}, ${plural(replicas, "replica")}${ill.length ? `, ${count(ill.length)} not well` : ""}` : "");
  const rows = agents.flatMap((agent) => [
    { key: `agent:${agent.name}`, agent, more: false },
    ...(opened.has(agent.name) ? [{ key: `more:${agent.name}`, agent, more: true }] : []),
  ]);
  keyed($("fleet-rows"), rows, (row) => row.key, (row) => (row.more ? moreRow() : agentRow(row.agent)), (node, row) => {
    if (row.more) fillMore(node, row.agent, overview);
    else fillRow(node, row.agent, overview);
  });
}

function agentRow(agent) {
  const name = el("button", { class: "name", type: "button", "aria-expanded": "false", text: agent.name });
  name.addEventListener("click", () => {
    if (!opened.delete(agent.name)) opened.add(agent.name);
    renderFleet(latest);
  });
  const number = (label, extra = "") => el("td", { role: "cell", class: `num ${extra}`, "data-label": label });
  return el(
    "tr",
    { role: "row" },
    el("td", { role: "cell", class: "who" }, name, el("p", { class: "kinds" })),
    el("td", { role: "cell", class: "state" }, pill("", null), el("span", { class: "tag" }), el("p", { class: "cause" })),
    el("td", { role: "cell", class: "loads" }, el("div", { class: "load" }, meter(), el("span", { class: "figure" }))),
    number("Waiting"),
    number("Tasks/s"),
    number("Success"),
    number("p50", "p50"),
    number("p95"),
  );
}

function fillRow(row, agent, { performance, scaling }) {
  const figures = performance?.agents?.find((r) => r.agent === agent.name && r.task_type === null) ?? {};
  const advice = scaling?.agents?.find((r) => r.agent === agent.name) ?? {};
  const [who, state, loads, waiting, rate, success, p50, p95] = row.children;
  const open = opened.has(agent.name);
  setAttribute(who.firstChild, "aria-expanded", String(open));
  setAttribute(row, "class", open ? "has-more" : null);
  setText(who.lastChild, (agent.capabilities ?? []).join(", "));
  const status = agent.breaker && agent.breaker !== "closed" ? `breaker ${words(agent.breaker)}` : agent.status;
  setPill(state.firstChild, words(status), status === agent.status ? TONES[status] : "bad");
  setText(state.children[1], plural(agent.replicas?.length ?? 0, "replica"));
  setText(state.lastChild, cause(agent));
  const { running, slots, queued } = load(agent);
  const share = slots ? running / slots : 0;
  fillMeter(loads.firstChild.firstChild, share, advice.capacity_warning ? "warn" : "");
  setText(loads.firstChild.lastChild, slots ? `${count(running)} of ${count(slots)} slots` : "nobody there");
  setText(waiting, count(advice.queue ?? queued));
  setAttribute(waiting, "class", `num ${toneClass(URGENT[advice.action])}`);
  const measured = figures.count > 0;
  setText(rate, measured ? short(figures.rate_per_s) : DASH);
  setText(success, measured ? percent(1 - figures.error_rate, 1) : DASH);
  setAttribute(success, "class", `num ${measured && figures.error_rate > 0.05 ? "tone-bad" : ""}`);
  setText(p50, milliseconds(figures.p50_ms));
  setText(p95, milliseconds(figures.p95_ms));
  setAttribute(p95, "class", `num ${figures.anomalies?.length ? "tone-warn" : ""}`);
}

const unwell = (agent) => agent.status !== "healthy" || (agent.breaker ?? "closed") !== "closed" || Boolean(cause(agent));

/** Why an agent gets no work, or less: what its breaker says, and replicas that rest by themselves. */
function cause(agent) {
  const parts = agent.breaker && agent.breaker !== "closed" && agent.breaker_cause ? [agent.breaker_cause] : [];
  const resting = (agent.replicas ?? []).filter((replica) => replica.load?.paused);
  if (resting.length) parts.push(`${plural(resting.length, "replica")} paused: ${resting[0].load.paused}`);
  return parts.join("; ");
}

const toneClass = (tone) => (tone === "warn" || tone === "bad" ? `tone-${tone}` : "");

function load(agent) {
  const sum = (pick) => (agent.replicas ?? []).reduce((total, replica) => total + (replica.load?.[pick] ?? 0), 0);
  return { running: sum("running"), slots: sum("slots"), queued: sum("queued") };
}

function moreRow() {
  return el("tr", { role: "row", class: "more" }, el("td", { role: "cell", colspan: "8" }, el("div", { class: "inner" })));
}

function line(name, ...parts) {
  return el("p", { class: "inner-line" }, el("strong", { text: name }), ...parts.map((text) => el("span", { text })));
}

function fillMore(row, agent, { performance, serverTime }) {
  const types = (performance?.agents ?? []).filter((r) => r.agent === agent.name && r.task_type !== null);
  const lines = types.map((r) =>
    line(
      r.task_type,
      `${short(r.rate_per_s)} tasks/s`,
      ...(r.count > 0 ? [`${percent(1 - r.error_rate, 1)} success`] : ["nothing ran lately"]),
      `p50 ${milliseconds(r.p50_ms)}`,
      `p95 ${milliseconds(r.p95_ms)}`,
      `p99 ${milliseconds(r.p99_ms)}`,
      ...(known(r.quality) ? [`quality ${percent(r.quality, 1)}`] : []),
      ...(known(r.cost) ? [`cost ${short(r.cost)}`] : []),
      ...(r.anomalies ?? []).map((a) => (a.signal === "latency" ? `slower than usual (${milliseconds(a.usual)})` : `more errors than usual (${percent(a.usual, 1)})`)),
    ),
  );
  for (const replica of agent.replicas ?? []) {
    const busy = replica.load ?? {};
    lines.push(line(`replica ${replica.replica}`, words(replica.state), `${count(busy.running)} of ${count(busy.slots)} slots`, `${count(busy.queued)} queued`, `heard ${seconds(replica.age_seconds)} ago`));
  }
  const seen = moment(agent.last_seen);
  if (seen !== null && serverTime !== null && !(agent.replicas ?? []).length) lines.push(line("last seen", `${seconds((serverTime - seen) / 1000)} ago`));
  if (known(agent.metadata?.cost_per_task)) lines.push(line("declared cost", `${short(agent.metadata.cost_per_task)} a task`));
  row.firstChild.firstChild.replaceChildren(...lines);
}

export function renderScaling({ scaling }) {
  const rows = [...(scaling?.agents ?? [])].sort((a, b) => b.queue - a.queue || b.capacity_used - a.capacity_used);
  const notable = rows.filter((row) => row.action !== "none" || row.capacity_warning);
  const empty = $("scaling-empty");
  empty.hidden = notable.length > 0;
  setText(empty, scaling === null ? "The performance engine does not run, so there is no advice." : rows.length ? "Every queue is short and no agent is near its capacity. Nothing to do." : "No queue to look at yet.");
  const more = scaling?.fleet?.add_replicas ?? 0;
  setText($("scaling-note"), more ? `add ${plural(more, "replica")} in all` : "");
  keyed($("scaling"), notable, (row) => row.agent, () => el("li", {}, el("b"), pill("", null), el("p", { class: "why" })), (node, row) => {
    const [name, tag, why] = node.children;
    setText(name, row.agent);
    const warning = row.action === "none" || row.action === "monitor";
    setPill(tag, row.capacity_warning && warning ? "80 % of capacity" : words(row.action), row.capacity_warning && warning ? "warn" : URGENT[row.action]);
    const used = row.replicas ? `${count(row.running)} of ${count(row.slots)} slots busy on ${plural(row.replicas, "replica")}` : "No replica is alive";
    setText(why, row.action === "none" ? `${used}, ${count(row.queue)} waiting.` : `${row.reason}. ${used}.`);
  });
}
