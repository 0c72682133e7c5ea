// The latest decisions with their reasons. While one is open the list holds still, so that it can be read.

import { $, el, fillMeter, keyed, meter, setText } from "./dom.js";
import { DASH, count, known, milliseconds, percent, short, timeOfDay } from "./format.js";

const SHOWN = 14;
let waiting = null;

export function renderDecisions({ decisions }) {
  if (decisions === null) return; // Unreadable now: what was read before stays, and the banner says so.
  const list = $("decisions");
  if (list.querySelector("details[open]")) {
    waiting = decisions;
    showNote();
    return;
  }
  waiting = null;
  showNote();
  $("decisions-empty").hidden = decisions.length > 0;
  keyed(list, decisions.slice(0, SHOWN), (decision) => decision.request_id, decisionRow);
}

function showNote() {
  const note = $("decisions-note");
  if (waiting === null) {
    note.replaceChildren("open one to see who else was asked");
    return;
  }
  if (note.querySelector("button")) return;
  const resume = el("button", { class: "hold", type: "button", text: "resume" });
  resume.addEventListener("click", () => {
    for (const open of $("decisions").querySelectorAll("details[open]")) open.open = false;
    renderDecisions({ decisions: waiting ?? [] });
  });
  note.replaceChildren("held while you read, ", resume);
}

function decisionRow(decision) {
  const route = el("p", { class: "route" }, el("span", { text: `${decision.task_type} → ` }), decision.selected_agent);
  const node = el(
    "details",
    { class: "decision" },
    el(
      "summary",
      {},
      el("time", { text: timeOfDay(decision.created_at) }),
      route,
      el("p", { class: "odds", text: `${percent(decision.confidence)} sure` }),
      el("p", { class: "because", text: decision.reasoning || DASH }),
    ),
  );
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(detail(decision));
    if (!node.open && waiting !== null) renderDecisions({ decisions: waiting });
  });
  return node;
}

const COLUMNS = [
  ["success", (c) => percent(c.success)],
  ["quality", (c) => (known(c.quality) ? percent(c.quality) : DASH)],
  ["expected", (c) => milliseconds(c.completion_ms)],
  ["in flight", (c) => `${count(c.in_flight)} / ${count(c.slots)}`],
  ["cost", (c) => short(c.cost)],
  ["utility", (c) => (known(c.score) ? c.score.toFixed(3) : DASH)],
];

function detail(decision) {
  const candidates = [...(decision.candidates ?? [])].sort((a, b) => (b.probability ?? 0) - (a.probability ?? 0));
  const head = el("tr", {}, el("th", { scope: "col", text: "candidate" }), el("th", { scope: "col", text: "probability" }));
  for (const [name] of COLUMNS) head.append(el("th", { scope: "col", class: "num", text: name }));
  const body = el("tbody", {}, ...candidates.map((c) => candidateRow(c, decision.selected_agent)));
  const box = el("div", { class: "detail" }, el("table", {}, el("thead", {}, head), body));
  const rejected = (decision.rejected ?? []).map((r) => (Array.isArray(r) ? { agent: r[0], reason: r[1] } : r));
  if (rejected.length) {
    const names = el("dl");
    for (const { agent, reason } of rejected) names.append(el("dt", { text: agent }), el("dd", { text: reason }));
    box.append(el("h3", { text: "could not be chosen" }), names);
  }
  if (decision.explanation?.length) {
    box.append(el("h3", { text: "in plain words" }), el("ul", { class: "told" }, ...decision.explanation.map((text) => el("li", { text }))));
  }
  const facts = [
    `strategy ${decision.strategy}`,
    `policy ${decision.policy_version}`,
    `chosen with probability ${percent(decision.propensity, 1)}`,
    ...(decision.explored ? ["explored"] : []),
    ...(decision.fallback ? ["by the fallback"] : []),
    `request ${decision.request_id}`,
  ];
  box.append(el("p", { class: "ids", text: facts.join(" · ") }));
  return box;
}

function candidateRow(candidate, selected) {
  const bar = meter();
  fillMeter(bar, candidate.probability ?? 0);
  const chosen = candidate.agent === selected;
  const chance = el("div", { class: "chance" }, bar, el("span", { text: known(candidate.probability) ? percent(candidate.probability, 1) : DASH }));
  const row = el("tr", { "data-chosen": String(chosen) }, el("td", { text: chosen ? `${candidate.agent} ✓` : candidate.agent }), el("td", {}, chance));
  for (const [, show] of COLUMNS) row.append(el("td", { class: "num", text: show(candidate) }));
  return row;
}

const TASK_TONES = { success: "good", running: "busy", queued: null, retrying: "warn", failed: "bad", dead_letter: "bad", expired: "warn", cancelled: null };

export function renderTasks({ tasks }) {
  $("tasks-card").hidden = tasks === null;
  if (tasks === null) return;
  $("tasks-empty").hidden = tasks.length > 0;
  keyed($("tasks"), tasks, (task) => task.task_id, taskRow, fillTask);
}

function taskRow() {
  return el("li", {}, el("p", { class: "what" }, el("b"), el("span")), el("span", { class: "pill" }), el("p", { class: "meta" }));
}

function fillTask(node, task) {
  const [what, tag, meta] = node.children;
  setText(what.firstChild, task.task_type);
  setText(what.lastChild, task.selected_agent ? ` on ${task.selected_agent}` : "");
  setText(tag, String(task.status).replaceAll("_", " "));
  const tone = TASK_TONES[task.status];
  if (tone) tag.dataset.tone = tone;
  else delete tag.dataset.tone;
  const parts = [timeOfDay(task.submitted_at)];
  if (known(task.execution_time_ms)) parts.push(`ran ${milliseconds(task.execution_time_ms)}`);
  if (task.attempts > 1) parts.push(`${task.attempts} attempts`);
  if (known(task.quality)) parts.push(`quality ${percent(task.quality)}`);
  if (task.error) parts.push(`${task.error.type}: ${task.error.message}`);
  setText(meta, parts.join(" · "));
}
