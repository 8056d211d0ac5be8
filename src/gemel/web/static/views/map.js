// The map: who calls whom, how often, how long it takes, what fails; faults on the edges.

import { h, s, attr, text } from "../dom.js";
import { ask } from "../live.js";
import { state } from "../state.js";
import { percent, rate, span, took } from "../format.js";
import { NODE, arrange, curve } from "../layout.js";
import { pairs, section } from "./details.js";
import { show } from "./details.js";
import { tone } from "./services.js";

export const topics = ["map"];

let frame, svg, note, box, room = 0, told = null, drawn = "", nodes = new Map(), edges = new Map(), chosen = "", drawnFaults = "", query = "";

export function mount(root, given) {
  frame = given;
  drawn = "";
  chosen = "";
  query = "";
  nodes = new Map();
  edges = new Map();
  svg = s("svg", { class: "map", role: "img", "aria-label": "Map of calls" });
  note = h("p", { class: "note quiet" });
  box = h("div", { class: "scroll mapbox", tabindex: "0" }, svg);
  root.append(box, note);
  new ResizeObserver(() => {
    if (Math.abs(box.clientWidth - room) > 40) { room = box.clientWidth; drawn = ""; draw(); }
  }).observe(box);
  draw();
}

export function map(message) { told = message; draw(); }
export function services() { draw(); }
export function project() { draw(); }
export function search(value) { query = value.toLowerCase(); draw(); }
export function closed() { chosen = ""; mark(); }

const idOf = (one) => `${one.project}/${one.service || one.name}`;

function things() {
  const all = new Map();
  for (const one of state.shown) {
    const id = idOf(one);
    if (!all.has(id)) all.set(id, { id, name: one.service || one.name, ones: [] });
    all.get(id).ones.push(one);
  }
  const joined = new Map();
  for (const edge of told?.edges || []) {
    const known = (told.nodes || []).filter((n) => n.id === edge.from || n.id === edge.to);
    if (state.project && !known.some((n) => n.project === state.project)) continue;
    for (const node of known) if (!all.has(node.id)) all.set(node.id, { id: node.id, name: node.name, ones: [] });
    const key = `${edge.from}>${edge.to}`;
    if (!joined.has(key)) joined.set(key, { key, from: edge.from, to: edge.to, parts: [] });
    joined.get(key).parts.push(edge);
  }
  return [all, joined];
}

function sums(edge) {
  const all = edge.parts.reduce((sum, part) => sum + part.rate, 0);
  const main = edge.parts.reduce((a, b) => (b.rate > a.rate ? b : a));
  const errors = all ? edge.parts.reduce((sum, part) => sum + part.errors * part.rate, 0) / all : 0;
  return { rate: all, errors, p50: main.p50, p95: main.p95, protocols: edge.parts.map((part) => part.protocol).join(", ") };
}

/** The faults that hold on an edge: some in both directions, those of delays and HTTP in one. */
function faultsOf(edge, all) {
  const names = [all.get(edge.from)?.name, all.get(edge.to)?.name];
  const of = (end, n) => end === names[n] || all.get(n ? edge.to : edge.from)?.ones.some((one) => one.name === end);
  const back = (f) => (f.Down || f.Loss || f.Rate) && of(f.From, 1) && of(f.To, 0);
  return (told?.faults || []).filter((f) => (of(f.From, 0) && of(f.To, 1)) || back(f));
}

export const faultWords = (fault) => fault.Fault + (fault.Left ? `, ${span(fault.Left)} left` : "");

/** The first fault of an edge in short lines. */
function faultLines(found) {
  if (!found.length) return [];
  const lines = faultWords(found[0]).split(", ").slice(0, 4);
  lines[0] = `⚡ ${lines[0]}`;
  return found.length > 1 ? [...lines, `+${found.length - 1} more`] : lines;
}

const held = (found) => (found || []).map((fault) => fault.Id).join();

function draw() {
  const [all, joined] = things();
  const key = [...all.keys()].sort().join() + [...joined.keys()].sort().join();
  if (key !== drawn) { drawn = key; build(all, joined); }
  for (const [id, node] of nodes) node.update(all.get(id));
  for (const [id, edge] of edges) edge.update(joined.get(id), faultsOf(joined.get(id), all));
  const problem = told?.problem ? `${told.problem.brief}. ${told.problem.resolution || ""}` : "";
  text(note, problem || (!all.size ? "No services yet." : !joined.size ? "No calls seen yet. They are recorded from now on." : "Figures of the last 30 seconds: calls, ✗ failed, median and 95th percentile. Click an edge for its calls and for faults."));
  mark();
  const now = edges.get(chosen);
  if (now && frame.open && held(now.faults) !== drawnFaults) pick(chosen);
}

function build(all, joined) {
  const ids = [...all.keys()].sort();
  const pairs_ = [...joined.values()].sort((a, b) => a.key.localeCompare(b.key)).map((e) => [e.from, e.to]);
  const pad = 30;
  const wide = arrange(ids, pairs_);
  const narrow = arrange(ids, pairs_, true);
  const scale = (one) => (room - 36) / (one.width + 2 * pad);
  const down = room > 0 && scale(wide) < 0.8 && scale(narrow) > scale(wide);
  const placed = down ? narrow : wide;
  const degree = (n, id) => pairs_.filter((pair) => pair[n] === id).length;
  const width = placed.width + 2 * pad, height = placed.height + 2 * pad;
  attr(svg, "viewBox", `${-pad} ${-pad} ${width} ${height}`);
  svg.style.setProperty("--width", `${Math.round(width * 1.12)}px`);
  nodes = new Map();
  edges = new Map();
  const below = s("g", {}), above = s("g", {}), labels = s("g", {});
  for (const edge of joined.values()) {
    const more = down ? degree(0, edge.from) - degree(1, edge.to) : 0;
    const way = curve(placed.at.get(edge.from), placed.at.get(edge.to), placed.ways.get(edge.key), down, more > 0 ? 0.66 : more < 0 ? 0.34 : 0.5);
    const made = edgeOf(edge, way);
    edges.set(edge.key, made);
    below.append(made.line);
    labels.append(made.label);
  }
  for (const node of all.values()) {
    const made = nodeOf(node, placed.at.get(node.id));
    nodes.set(node.id, made);
    above.append(made.element);
  }
  svg.replaceChildren(
    s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 2, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" }, s("path", { d: "M0 0L8 4L0 8z" }))),
    below, above, labels,
    placed.alone ? s("text", { class: "alone", x: 0, y: placed.alone }, joined.size ? "no calls seen" : "") : "",
  );
}

function nodeOf(node, at) {
  const x = at.x - NODE.width / 2, y = at.y - NODE.height / 2;
  const dot = s("circle", { cx: x + 16, cy: at.y - 8, r: 4.5 });
  const name = s("text", { x: x + 28, y: at.y - 3, class: "name" });
  const under = s("text", { x: x + 28, y: at.y + 14, class: "under" });
  const element = s("g", { class: "node", onclick: () => open_(node.id) }, s("rect", { x, y, width: NODE.width, height: NODE.height, rx: 10 }), dot, name, under);
  return {
    element,
    update(now) {
      if (!now) return;
      const running = now.ones.filter((one) => one.state === "running");
      const worst = now.ones.map(tone).sort((a, b) => "bad busy off good".indexOf(a) - "bad busy off good".indexOf(b))[0] || "off";
      attr(dot, "class", `dot ${worst}`);
      text(name, now.name.length > 17 ? `${now.name.slice(0, 16)}…` : now.name);
      const vm = now.ones.some((one) => one.runtime === "microvm");
      const words = !now.ones.length ? "outside" : vm ? "micro VM" : "container";
      text(under, now.ones.length > 1 ? `${words} · ${running.length} of ${now.ones.length}` : words);
      attr(element, "class", `node ${vm ? "microvm" : ""} ${now.ones.length ? "" : "outside"} ${query && !now.name.toLowerCase().includes(query) ? "faint" : ""}`);
    },
  };
}

function edgeOf(edge, way) {
  const path = s("path", { d: way.d, class: "wire", "marker-end": "url(#arrow)" });
  const flow = s("path", { d: way.d, class: "flow" });
  const wide = s("path", { d: way.d, class: "wide" });
  const line = s("g", { class: "edge", onclick: () => pick(edge.key) }, path, flow, wide);
  const back = s("rect", { rx: 7 });
  const first = s("text", { x: way.x, y: way.y - 3, class: "rate" });
  const second = s("text", { x: way.x, y: way.y + 11, class: "times" });
  const third = s("text", { x: way.x, y: way.y + 25, class: "fault" });
  const label = s("g", { class: "label", onclick: () => pick(edge.key) }, back, first, second, third);
  return {
    line, label, edge,
    update(now, found) {
      if (!now) return;
      this.edge = now;
      this.faults = found;
      const fault = found.length > 0;
      const sum = sums(now);
      const quiet = sum.rate === 0;
      text(first, quiet ? "quiet" : `${rate(sum.rate)}${sum.errors ? ` · ✗ ${percent(sum.errors)}` : ""}`);
      text(second, quiet ? sum.protocols : `${took(sum.p50)} · p95 ${took(sum.p95)}`);
      const lines = faultLines(found);
      if (third.dataset.words !== lines.join()) {
        third.dataset.words = lines.join();
        third.replaceChildren(...lines.map((line, n) => s("tspan", { x: way.x, dy: n ? 14 : 0 }, line)));
      }
      const chars = Math.max(first.textContent.length, second.textContent.length);
      const width = Math.max(chars * 6.1, ...lines.map((line) => line.length * 6.9)) + 14;
      attr(back, "x", way.x - width / 2);
      attr(back, "y", way.y - 17);
      attr(back, "width", width);
      attr(back, "height", 35 + lines.length * 14);
      path.style.setProperty("stroke-width", `${Math.min(7, 1.4 + Math.log10(1 + sum.rate) * 1.8).toFixed(1)}`);
      flow.style.setProperty("animation-duration", `${Math.max(0.4, 2.4 - Math.log10(1 + sum.rate) * 0.8).toFixed(1)}s`);
      const words = `${quiet ? "quiet" : ""} ${sum.errors > 0.005 ? "bad" : ""} ${fault ? "faulty" : ""}`;
      attr(line, "class", `edge ${words}`);
      attr(label, "class", `label ${words}`);
    },
  };
}

function mark() {
  for (const [key, { line, label }] of edges) {
    line.classList.toggle("chosen", key === chosen);
    label.classList.toggle("chosen", key === chosen);
  }
}

function open_(id) {
  const one = state.shown.find((each) => idOf(each) === id);
  if (!one) return;
  chosen = "";
  show(frame, one);
}

export function move(by) {
  const keys = [...edges.keys()].sort();
  if (!keys.length) return;
  const at = keys.indexOf(chosen);
  chosen = keys[at < 0 ? 0 : (at + by + keys.length) % keys.length];
  mark();
  if (frame.open) pick(chosen);
}

export function open() { if (chosen) pick(chosen); }

/** The drawer of an edge: its figures by protocol, its calls, its fault. */
function pick(key) {
  const found = edges.get(key);
  if (!found) return;
  const { edge, faults: holding } = found;
  const [all] = things();
  const from = all.get(edge.from), to = all.get(edge.to);
  chosen = key;
  drawnFaults = held(found.faults);
  frame.drawer(`${from.name} → ${to.name}`,
    h("p", { class: "buttons" }, h("a", { href: `#/calls/${encodeURIComponent(key)}` }, "Calls of this edge")),
    edge.parts.map((part) => section(part.protocol, pairs([
      ["Rate", rate(part.rate)], ["Failed", percent(part.errors)], ["Median", took(part.p50)], ["95 of 100 within", took(part.p95)],
      ["Since the start", `${part.total.toLocaleString()} calls, ${part.failed.toLocaleString()} failed`], ["Last call", `${span(part.quiet)} ago`],
    ]))),
    from.ones.length && to.ones.length ? faults(from, to, holding || []) : h("p", { class: "quiet" }, "Faults can be put between two services only."),
  );
  chosen = key;
  mark();
}

const number = (id, value, props) => h("input", { type: "number", min: "0", step: "any", id, value, ...props });
const field = (words, input) => [h("label", { for: input.id }, words), input];

function faults(from, to, holding) {
  const loss = number("loss", "", { max: "100", placeholder: "0" }), limit = number("rate", "", { placeholder: "no limit" });
  const down = h("input", { type: "checkbox", id: "down" });
  const latency = number("latency", "", { placeholder: "0" }), jitter = number("jitter", "", { placeholder: "0" });
  const status = number("status", "", { min: "200", max: "599", step: "1", placeholder: "503" });
  const body = number("body", "", { placeholder: "0" }), share = number("share", "100", { max: "100" });
  const port = number("port", "", { step: "1", placeholder: "any" }), time = number("for", "60", { step: "1" });
  const value = (input, times = 1) => Number(input.value || 0) * times;
  const send = () => act("POST", "/api/faults", {
    From: from.name, To: to.name, Project: from.ones[0].project, Down: down.checked, Loss: down.checked ? 0 : value(loss, 0.01),
    Rate: Math.round(value(limit, 1e6)), Latency: value(latency, 1e-3), Jitter: value(jitter, 1e-3), Status: value(status),
    BodyDelay: value(body, 1e-3), Share: value(status) || value(body) ? value(share, 0.01) : 1, Port: value(port), For: value(time),
  });
  const now = holding.map((fault) => h("p", { class: "fault" }, `⚡ ${faultWords(fault)} `,
    h("button", { class: "button", onclick: () => act("DELETE", `/api/faults?id=${fault.Id}`) }, "Clear it")));
  return [
    holding.length ? section(holding.length > 1 ? "Faults" : "Fault", now) : null,
    section(holding.length ? "Another fault" : "Put a fault here", h("form", { class: "form", onsubmit: (e) => { e.preventDefault(); send(); } },
      h("h4", {}, "In both directions"),
      field("Nothing passes", down), field("Packets lost, %", loss), field("Mbit/s each way", limit),
      h("h4", {}, `What ${from.name} asks ${to.name}`),
      field("Answers later by, ms", latency), field("more or less, ms", jitter), field("HTTP status instead", status),
      field("HTTP body later by, ms", body), field("of the HTTP requests, %", share), field("Only port", port),
      h("h4", {}, "How long"), field("Seconds (0: until cleared)", time),
      h("span", {}), h("button", { class: "button main" }, "Begin"))),
  ];
}

async function act(method, path, body) {
  try {
    await ask(method, path, body); // the next map tells of it
  } catch (error) { frame.fail(error); }
}
