// What `gemel compare` has measured: each service as a container and as a micro VM.

import { h, text } from "../dom.js";
import { ask } from "../live.js";
import { state } from "../state.js";
import { bytes, matcher, took } from "../format.js";

export const topics = [];

let list, note, all = [], query = null;

export function mount(root) {
  query = null;
  list = h("div", {});
  note = h("div", { class: "empty" }, "…");
  root.append(h("div", { class: "scroll", tabindex: "0" }, list, note));
  load();
}

export function search(value) { query = matcher(value); draw(); }
export const project = () => draw();

async function load() {
  try {
    all = await ask("GET", "/api/comparisons");
    note.replaceChildren(h("p", {}, "Nothing was compared yet."), h("p", {}, "Run ", h("code", {}, "gemel compare SERVICE"), ": it measures the service both ways."));
  } catch (error) { text(note, `${error.message} ${error.resolution || ""}`); }
  draw();
}

const middle = (values) => {
  const sorted = [...(values || [])].sort((a, b) => a - b);
  return sorted.length ? (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2 : 0;
};
const words = (runtime) => (runtime === "microvm" ? "micro VM" : "container");

function draw() {
  const shown = all.filter((one) => (!state.project || one.Project === state.project || !one.Project) && (!query || query.test(`${one.Name} ${one.Image}`)));
  note.hidden = shown.length > 0;
  list.replaceChildren(...shown.map(report));
}

function report(one) {
  const rows = one.Variants.map((v) => [`Start, ${v.Name}`, v.Runtime, middle(v.Start), took, v.Failure]);
  for (const load of one.Load) {
    const at = `${load.Connections} connection${load.Connections === 1 ? "" : "s"}`;
    rows.push([`Requests a second, ${at}`, load.Runtime, middle(load.RequestsPerSecond), (n) => Math.round(n).toLocaleString(), ""]);
    rows.push([`p99, ${at}`, load.Runtime, middle(load.P99), took, load.Errors ? `${load.Errors} errors` : ""]);
  }
  for (const use of one.Use) {
    rows.push(["Memory at rest", use.Runtime, middle(use.MemoryRest), bytes, ""]);
    rows.push(["Memory under load", use.Runtime, middle(use.MemoryLoad), bytes, ""]);
  }
  const group = (row) => row[0].startsWith("Start") ? "Start" : row[0];
  rows.sort((a, b) => rows.findIndex((r) => group(r) === group(a)) - rows.findIndex((r) => group(r) === group(b)));
  const longest = new Map();
  for (const row of rows) longest.set(group(row), Math.max(longest.get(group(row)) || 0, row[2]));
  return h("div", { class: "report" },
    h("h2", {}, one.Name), h("small", {}, `${one.Image} · ${one.When.slice(0, 16).replace("T", " ")} · ${one.Rounds} rounds · ${one.Accelerator}`),
    one.Advice ? h("p", {}, h("span", { class: `badge ${one.Advice.Runtime}` }, words(one.Advice.Runtime)), one.Advice.Summary) : null,
    h("table", {}, rows.map((row) => {
      const [name, runtime, value, form, trouble] = row;
      return h("tr", {}, h("td", {}, name), h("td", {}, words(runtime)), h("td", {}, value ? form(value) : "—", trouble ? ` (${trouble})` : ""),
        h("td", {}, h("div", { class: "bars" }, h("i", { class: runtime, style: { width: `${value && longest.get(group(row)) ? Math.max(1, (value / longest.get(group(row))) * 100) : 0}%` } }))));
    })),
  );
}
