// The tiles on top: throughput with its last five minutes, speed, success, waiting work, dead letters.

import { $, el, setAttribute, setText, svg } from "./dom.js";
import { count, known, milliseconds, percent, plural, short, words } from "./format.js";

const STATUSES = ["success", "running", "queued", "retrying", "failed", "dead_letter", "cancelled", "expired"];
const tiles = new Map();

function tile(key, label, wide = false) {
  const value = el("p", { class: "tile-value" });
  const note = el("p", { class: "tile-note" });
  const main = [el("p", { class: "tile-label", text: label }), value, note];
  const node = el("div", { class: wide ? "tile tile-wide" : "tile" });
  let chart = null;
  if (wide) {
    chart = svg("svg", { class: "spark", viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img" });
    node.append(el("div", { class: "tile-main" }, ...main), chart);
  } else node.append(...main);
  $("tiles").append(node);
  tiles.set(key, { node, value, note, chart });
}

function show(key, value, unit, note, tone = null) {
  const found = tiles.get(key);
  found.value.replaceChildren(value, ...(unit ? [el("small", { text: unit })] : []));
  setText(found.note, note);
  setAttribute(found.node, "data-tone", tone);
}

export function startSummary() {
  tile("rate", "Throughput", true);
  tile("speed", "95 % run within");
  tile("success", "Success");
  tile("waiting", "Waiting");
  tile("dead", "Dead letters");
}

export function renderSummary({ performance, scaling, counts }) {
  const fleet = performance?.fleet ?? {};
  show("rate", short(fleet.rate_per_s), "tasks/s", fleet.count > 0 ? `${count(fleet.count)} in the last minute` : "nothing ran lately");
  show("speed", milliseconds(fleet.p95_ms), "", known(fleet.p50_ms) ? `half within ${milliseconds(fleet.p50_ms)}` : "nothing measured");
  const success = fleet.count > 0 ? 1 - fleet.error_rate : null;
  const quality = known(fleet.quality) ? `, quality ${percent(fleet.quality)}` : "";
  const errors = fleet.count > 0 ? `${plural(fleet.errors, "error")}${quality}` : "nothing ran lately";
  show("success", percent(success, 1), "", errors, tone(success));
  const waiting = scaling?.fleet?.queue ?? counts?.queued;
  const full = scaling?.fleet?.capacity_warnings?.length ?? 0;
  show("waiting", count(waiting), "", full ? `${plural(full, "agent")} over 80 %` : `${count(fleet.running ?? counts?.running ?? 0)} running`, full ? "warn" : null);
  const dead = counts === null ? null : (counts.dead_letter ?? 0);
  show("dead", count(dead), "", dead === null ? "not known now" : dead ? "need a person" : "none", dead ? "bad" : null);
  drawTimeline(tiles.get("rate").chart, fleet.timeline);
}

function tone(success) {
  if (!known(success) || success >= 0.95) return null;
  return success >= 0.8 ? "warn" : "bad";
}

function drawTimeline(chart, timeline) {
  const rates = (timeline?.counts ?? []).map((n) => n / timeline.slice_seconds);
  const errors = (timeline?.errors ?? []).map((n) => n / timeline.slice_seconds);
  const top = Math.max(...rates, 0);
  chart.replaceChildren(svg("line", { class: "base", x1: 0, x2: 100, y1: 39.5, y2: 39.5 }));
  setAttribute(chart, "aria-label", `Throughput of the last five minutes, at most ${short(top)} tasks a second`);
  if (top <= 0 || rates.length < 2) return;
  const line = (values) => values.map((v, i) => `${((i / (values.length - 1)) * 100).toFixed(2)},${(39.5 - (v / top) * 37).toFixed(2)}`).join(" ");
  chart.append(svg("polygon", { class: "area", points: `0,39.5 ${line(rates)} 100,39.5` }));
  chart.append(svg("polyline", { class: "line", points: line(rates) }));
  if (errors.some((n) => n > 0)) chart.append(svg("polyline", { class: "errors", points: line(errors) }));
}

export function renderCounts({ counts }) {
  const total = Object.values(counts ?? {}).reduce((sum, n) => sum + n, 0);
  setText($("counts-note"), counts === null ? "not known now" : total ? `${count(total)} in all` : "");
  const box = $("counts");
  if (!box.firstChild) box.append(el("div", { class: "stack", "aria-hidden": "true" }), el("ul", { class: "legend" }));
  const [stack, legend] = box.children;
  if (!stack.firstChild) {
    for (const status of STATUSES) {
      stack.append(el("span", { "data-status": status }));
      legend.append(el("li", { "data-status": status }, el("span", { text: words(status) }), el("b")));
    }
  }
  STATUSES.forEach((status, i) => {
    const n = counts === null ? null : (counts[status] ?? 0);
    stack.children[i].style.flexGrow = String(n ?? 0);
    stack.children[i].hidden = !n;
    setText(legend.children[i].lastChild, count(n));
    setAttribute(legend.children[i], "data-none", n === 0 ? "true" : null);
  });
}
