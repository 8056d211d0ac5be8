// Traces: what was done for one request, over all services, as a waterfall.

import { h, text } from "../dom.js";
import { ask } from "../live.js";
import { state } from "../state.js";
import { clock, hue, matcher, took } from "../format.js";
import { clean } from "../loglines.js";
import { detail, faultsOf } from "./calls.js";
import { pairs, section } from "./details.js";

export const topics = [];

let frame, list, chart, note, timer = 0, all = [], selected = "", query = null, alive = 0;
/** Whether somebody chose the trace that is shown; else it is the newest that is over. */
let picked = false;

export function mount(root, given, argument) {
  frame = given;
  all = [];
  query = null;
  list = h("div", { class: "tracelist", tabindex: "0" });
  chart = h("div", { class: "waterfall" });
  note = h("div", { class: "empty" });
  root.append(h("div", { class: "split" }, list, chart), note);
  selected = argument || "";
  picked = Boolean(argument);
  alive++;
  load(alive);
  if (selected) show(selected);
}

export function unmount() { clearTimeout(timer); alive++; }
export function argument(id) { if (id) { picked = true; if (id !== selected) show(id); } }
export function search(value) { query = matcher(value); draw(); }
export const project = () => { clearTimeout(timer); alive++; load(alive); };

async function load(mine) {
  try {
    const found = await ask("GET", `/api/traces?tail=300&project=${encodeURIComponent(state.project)}`);
    if (mine !== alive) return;
    all = found.filter((one) => one && one.Id).reverse();
    text(note, "No traces yet: calls between services are joined to traces from now on.");
  } catch (error) {
    if (mine !== alive) return;
    text(note, error.status === 404 ? "There are no traces: this engine does not record them." : `${error.message} ${error.resolution || ""}`);
  }
  if (!document.hidden) draw();
  timer = setTimeout(() => load(mine), 2000);
}

const shown = () => all.filter((one) => !query || query.test(`${one.Root} ${one.RootService} ${one.Services.join(" ")} ${one.Id}`));

function draw() {
  const some = shown();
  note.hidden = some.length > 0;
  list.parentNode.hidden = some.length === 0;
  const longest = Math.max(1e-6, ...some.map((one) => one.Duration));
  list.replaceChildren(...some.map((one) => h("a", {
    class: `trace ${one.Errors ? "bad" : ""} ${one.Id === selected ? "selected" : ""}`, href: `#/traces/${one.Id}`,
  },
    h("b", {}, clean(one.Root || one.Id.slice(0, 8))),
    h("span", { class: "num" }, took(one.Duration)),
    h("small", {}, `${clock(one.Start * 1000).slice(0, 8)} · ${one.RootService || one.Services[0] || ""} · ${one.SpanCount} span${one.SpanCount === 1 ? "" : "s"}, ${one.Services.length} service${one.Services.length === 1 ? "" : "s"}${one.Inferred ? " ~" : ""}`),
    one.Errors ? h("small", { class: "errors" }, `${one.Errors} failed`) : h("small", {}),
    h("i", { style: { width: `${(one.Duration / longest) * 100}%` } }),
  )));
  // one that still goes on may yet become a part of another
  const over = some.find((one) => Date.now() / 1000 - one.Start - one.Duration > 3);
  if (over && !picked && !some.some((one) => one.Id === selected)) show(over.Id);
}

export function move(by) {
  const some = shown();
  const at = some.findIndex((one) => one.Id === selected);
  const next = some[at < 0 ? 0 : Math.max(0, Math.min(some.length - 1, at + by))];
  if (next) { picked = true; show(next.Id); list.querySelector(".selected")?.scrollIntoView({ block: "nearest" }); }
}

async function show(id) {
  selected = id;
  for (const one of list.children) one.classList.toggle("selected", one.hash === `#/traces/${id}`);
  let whole;
  try { whole = await ask("GET", `/api/traces/${encodeURIComponent(id)}`); }
  catch (error) { if (id === selected) chart.replaceChildren(h("p", { class: "quiet" }, error.message)); return; }
  if (id !== selected) return;
  const depth = new Map();
  const begin = Math.min(...whole.Spans.map((one) => one.Start));
  const end = Math.max(...whole.Spans.map((one) => one.Start + one.Duration), begin + 1e-6);
  const rows = whole.Spans.slice(0, 1000).map((one) => {
    depth.set(one.Id, one.ParentId && depth.has(one.ParentId) ? depth.get(one.ParentId) + 1 : 0);
    const left = ((one.Start - begin) / (end - begin)) * 100;
    const width = Math.max(0.3, (one.Duration / (end - begin)) * 100);
    return h("button", { class: `span ${one.Error ? "bad" : ""}`, onclick: () => span(one) },
      h("span", { class: "name", style: { "padding-left": `${Math.min(12, depth.get(one.Id)) * 14}px` } },
        h("b", { style: { "--hue": hue(one.Service) } }, one.Service || "?"), one.Peer && one.Peer !== one.Service ? ` → ${one.Peer} ` : " ",
        h("em", {}, clean(one.Name)), one.Inferred ? h("small", { title: "Its place was inferred: no header tells it" }, " ~") : "",
        one.Faults ? h("small", { class: "fault", title: faultsOf(one.Faults) }, " ⚡") : ""),
      h("span", { class: "track" }, h("i", { class: one.Source === "otlp" ? "otlp" : "", style: { left: `${left}%`, width: `${width}%`, "--hue": hue(one.Service) } }),
        h("small", { class: left + width > 78 ? "before" : "", style: left + width > 78 ? { right: `${100 - left}%` } : { left: `${left + width}%` } }, took(one.Duration))));
  });
  chart.replaceChildren(
    h("header", {}, h("h2", {}, clean(whole.Root || whole.Id)), h("p", { class: "quiet" },
      `${took(whole.Duration)} · ${whole.Spans.length} span${whole.Spans.length === 1 ? "" : "s"} · ${whole.Services.join(", ")}${whole.Errors ? ` · ${whole.Errors} failed` : ""} · ${whole.Id.slice(0, 16)}`)),
    h("div", { class: "axis" }, [0, 0.25, 0.5, 0.75, 1].map((part) => h("span", {}, took((end - begin) * part)))),
    ...rows,
    (whole.Logs || []).length ? section("Logs", pairs(whole.Logs.slice(0, 200).map((l) => [`${clock(l.Time * 1000)} ${l.Service}`, clean(`${l.Severity || ""} ${l.Body}`)]))) : "",
  );
}

function span(one) {
  frame.drawer(one.Name || one.Id,
    one.CallId ? h("p", { class: "buttons" }, h("button", { class: "button", onclick: () => detail(one.CallId, frame) }, "The whole call")) : null,
    pairs([["Service", one.Service], ["Asked", one.Peer], ["Kind", one.Kind], ["Status", one.Status], ["Began", clock(one.Start * 1000)], ["Took", took(one.Duration)],
      ["Known by", one.Source === "otlp" ? "OpenTelemetry" : "observation"], ["Fault", faultsOf(one.Faults)], ["Place", one.Inferred ? "inferred" : "told by headers"]].filter(([, v]) => v)),
    section("Attributes", pairs(Object.entries(one.Attributes || {}).map(([k, v]) => [k, clean(typeof v === "string" ? v : JSON.stringify(v))]))),
    (one.Events || []).length ? section("Events", h("pre", {}, JSON.stringify(one.Events, null, 2))) : null,
  );
}
