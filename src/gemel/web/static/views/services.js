// Services: state, health, runtime, what they cost over time; start, stop, restart; details.

import { h, s, text, attr, tool } from "../dom.js";
import { ask } from "../live.js";
import { called, state } from "../state.js";
import { bytes, span } from "../format.js";
import { show } from "./details.js";

export const topics = ["services"];

let frame, body, tiles, table, empty;
let rows = new Map();
let selected = "";
let query = "";

export function mount(root, given) {
  frame = given;
  rows = new Map();
  body = h("tbody", {});
  tiles = h("div", { class: "tiles" });
  empty = h("div", { class: "empty", hidden: true });
  table = h("table", { class: "services" },
    h("thead", {}, h("tr", {},
      ["Service", "State", "Runtime", "CPU", "Memory", "Restarts", "Ports", "Since", ""].map((name, n) =>
        h("th", { class: `c${n}`, title: n === 4 ? "True cost: proportional memory, with the VMM and its helpers" : null }, name)))),
    body);
  root.append(tiles, h("div", { class: "scroll", tabindex: "0" }, table, empty));
  services();
}

export function search(value) { query = value.toLowerCase(); services(); }
export const project = () => services();

function matches(one) {
  return !query || `${one.name} ${one.image} ${one.state} ${one.health} ${one.runtime}`.toLowerCase().includes(query);
}

export function services() {
  const shown = state.shown.filter(matches);
  summary(shown);
  const heads = new Set();
  const wanted = [];
  for (const one of shown) {
    if (!heads.has(one.project)) {
      heads.add(one.project);
      wanted.push([`project ${one.project}`, one]);
    }
    wanted.push([one.id, one]);
  }
  const keys = new Set(wanted.map(([key]) => key));
  for (const [key, row] of rows) if (!keys.has(key)) { row.remove(); rows.delete(key); }
  wanted.forEach(([key, one], n) => {
    let row = rows.get(key);
    if (!row) {
      row = key === one.id ? make(one) : h("tr", { class: "head" }, h("th", { colspan: "9" }, one.project || "Without a project"));
      rows.set(key, row);
    }
    if (body.children[n] !== row) body.insertBefore(row, body.children[n] || null);
    if (row.update) row.update(one);
  });
  empty.hidden = shown.length > 0;
  table.hidden = shown.length === 0;
  if (!empty.hidden) {
    empty.replaceChildren(h("p", {}, query ? "Nothing matches." : "No services yet."),
      query ? "" : h("p", {}, "Run ", h("code", {}, "gemel up -d"), " in a folder with a Compose file."));
  }
}

function summary(shown) {
  const running = shown.filter((one) => one.state === "running");
  const ill = shown.filter((one) => one.health === "unhealthy" || one.state === "restarting" || (one.state === "exited" && one.exit));
  const add = (key) => running.reduce((sum, one) => sum + one[key], 0);
  const values = [
    ["Running", `${running.length}`, `of ${shown.length}`],
    ["In trouble", `${ill.length}`, ill.slice(0, 3).map(called).join(", ")],
    ["CPU", `${add("cpu").toFixed(0)} %`, "of one core"],
    ["Memory", bytes(add("memory")), "true cost"],
    ["Micro VMs", `${running.filter((one) => one.runtime === "microvm").length}`,
      `${running.filter((one) => one.boot === "cloned" || one.boot === "warm").length} cloned`],
  ];
  if (!tiles.children.length) {
    tiles.append(...values.map(([name]) => h("div", { class: "tile" }, h("span", {}, name), h("b", {}), h("small", {}))));
  }
  values.forEach(([, value, more], n) => {
    const tile = tiles.children[n];
    text(tile.children[1], value);
    text(tile.children[2], more);
    tile.classList.toggle("bad", n === 1 && ill.length > 0);
  });
}

const W = 88, H = 22;

function spark(kind) {
  return s("svg", { class: `spark ${kind}`, viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    s("path", { class: "area" }), s("path", { class: "line" }));
}

function curve(svg, values, least) {
  const n = Math.max(values.length, 30);
  const top = Math.max(least, ...values) * 1.08;
  const points = values.map((v, i) => `${(((n - values.length + i) / (n - 1)) * W).toFixed(1)},${(H - 1 - (v / top) * (H - 3)).toFixed(1)}`);
  if (points.length < 2) return;
  const line = `M${points.join("L")}`;
  attr(svg.children[1], "d", line);
  attr(svg.children[0], "d", `${line}L${W},${H}L${points[0].split(",")[0]},${H}Z`);
}

function make(one) {
  const id = one.id;
  const name = h("b", {}), under = h("small", {});
  const dot = h("i", { class: "dot" }), words = h("span", {});
  const runtime = h("span", { class: "badge" }), boot = h("small", {});
  const cpu = spark("cpu"), cpuText = h("span", { class: "num" });
  const memory = spark("memory"), memoryText = h("span", { class: "num" });
  const restarts = h("td", { class: "c5 num" }), ports = h("td", { class: "c6" }), since = h("td", { class: "c7 num" });
  const start = tool("start", "Start", (e) => act(e, id, "start"));
  const stop = tool("stop", "Stop", (e) => act(e, id, "stop"));
  const restart = tool("restart", "Restart", (e) => act(e, id, "restart"));
  const row = h("tr", { class: "one", onclick: () => { choose(id); open(); } },
    h("td", { class: "c0" }, name, under),
    h("td", { class: "c1" }, dot, words),
    h("td", { class: "c2" }, runtime, boot),
    h("td", { class: "c3" }, h("div", {}, cpu, cpuText)),
    h("td", { class: "c4" }, h("div", {}, memory, memoryText)),
    restarts, ports, since,
    h("td", { class: "c8 tools" }, start, stop, restart),
  );
  let shownPorts = null;
  row.update = (now) => {
    text(name, called(now));
    text(under, now.image);
    row.dataset.name = now.name;
    dot.className = `dot ${tone(now)}`;
    text(words, stateWords(now));
    text(runtime, now.runtime === "microvm" ? "micro VM" : "container");
    runtime.className = `badge ${now.runtime}`;
    text(boot, now.boot);
    attr(boot, "title", now.bootReason || "");
    const [c, m] = state.curves.get(id) || [[], []];
    curve(cpu, c, 10);
    curve(memory, m, 1 << 20);
    const up = now.state === "running" || now.state === "paused";
    text(cpuText, up ? `${now.cpu.toFixed(now.cpu < 10 ? 1 : 0)} %` : "");
    text(memoryText, up ? bytes(now.memory) : "");
    attr(memoryText, "title", now.limit ? `limit ${bytes(now.limit)}` : "no limit");
    text(restarts, now.restarts ? String(now.restarts) : "");
    const key = JSON.stringify(now.ports);
    if (key !== shownPorts) { shownPorts = key; ports.replaceChildren(...portLinks(now)); }
    text(since, up && now.begun ? span(Date.now() / 1000 - now.begun) : "");
    start.hidden = up || now.state === "restarting";
    stop.hidden = !start.hidden ? true : false;
    restart.hidden = start.hidden === false;
    row.classList.toggle("selected", id === selected);
  };
  return row;
}

export function tone(one) {
  if (one.state === "running") {
    return one.health === "unhealthy" ? "bad" : one.health === "starting" ? "busy" : "good";
  }
  if (one.state === "restarting" || one.state === "paused") return "busy";
  return one.state === "exited" && one.exit ? "bad" : "off";
}

export function stateWords(one) {
  if (one.state === "running") return one.health === "none" ? "running" : one.health;
  if (one.state === "exited") return one.exit ? `exited (${one.exit})` : "exited";
  return one.state;
}

function portLinks(one) {
  const seen = new Set();
  return one.ports.filter(([, out]) => out).map(([ip, out, inside, kind]) => {
    if (seen.has(`${out}${kind}`)) return null;
    seen.add(`${out}${kind}`);
    const label = `${out}→${inside}`;
    const here = !ip || ip === "0.0.0.0" || ip === "::" || ip.startsWith("127.") ? location.hostname : ip;
    if (kind !== "tcp") return h("span", { class: "port" }, `${label}/${kind}`);
    return h("a", {
      class: "port", href: `http://${here}:${out}/`, target: "_blank", rel: "noreferrer",
      onclick: (e) => e.stopPropagation(),
    }, label);
  }).filter(Boolean);
}

async function act(event, id, what) {
  event.stopPropagation();
  const button = event.currentTarget;
  button.classList.add("busy");
  try { await ask("POST", `/api/instances/${id}/${what}`); }
  catch (error) { frame.fail(error); }
  finally { button.classList.remove("busy"); }
}

function choose(id) {
  selected = id;
  for (const [key, row] of rows) row.classList.toggle("selected", key === id);
}

export function move(by) {
  const ids = state.shown.filter(matches).map((one) => one.id);
  if (!ids.length) return;
  const at = ids.indexOf(selected);
  choose(ids[at < 0 ? (by > 0 ? 0 : ids.length - 1) : Math.max(0, Math.min(ids.length - 1, at + by))]);
  rows.get(selected)?.scrollIntoView({ block: "nearest" });
  if (frame.open) open();
}

export function open() {
  const one = state.byId.get(selected);
  if (one) show(frame, one);
}
