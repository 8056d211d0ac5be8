// Traffic: the calls between services as they come, with filters; one whole in the drawer.

import { h, icon, text } from "../dom.js";
import { ask } from "../live.js";
import { state } from "../state.js";
import { bytes, clock, hue, matcher, took } from "../format.js";
import { clean } from "../loglines.js";
import { VList } from "../vlist.js";
import { pairs, section } from "./details.js";

export const topics = ["calls"];

const MOST = 20000, HEIGHT = 26;
const SORTS = [["", "All"], ["error", "Failed"], ["4", "4xx"], ["5", "5xx"], ["slow", "> 100 ms"]];

let frame, list, counter, newest, empty;
let all = [], shown = [], waiting = [], asked = 0, dropped = 0, fresh = 0;
let query = null, kind = "", between = "";

export function mount(root, given, argument) {
  frame = given;
  all = []; shown = []; waiting = []; dropped = 0; fresh = 0; query = null; between = "";
  list = new VList({ height: HEIGHT, make, fill, onopen: (call) => detail(call.id), label: "Calls" });
  counter = h("span", { class: "quiet num" });
  newest = h("button", { class: "newest", hidden: true, onclick: () => list.toNewest() }, icon("down"), h("span", {}, "newest"));
  list.onfollow = (follow) => { newest.hidden = follow; fresh = 0; };
  empty = h("div", { class: "empty" }, h("p", {}, "No calls yet."), h("p", {}, "Calls between services are recorded from now on."));
  frame.bar.append(
    h("div", { class: "chips" }, SORTS.map(([id, words]) => h("button", {
      class: "chip one", "aria-current": String(id === kind), onclick: (e) => {
        kind = id;
        for (const chip of e.currentTarget.parentNode.children) chip.setAttribute("aria-current", String(chip === e.currentTarget));
        again();
      } }, words))), counter);
  root.append(
    h("div", { class: "callhead call" }, ["Time", "From", "To", "", "Call", "Status", "Took", "Size"].map((t) => h("span", {}, t))),
    empty, list.element, newest);
  argument_(argument);
}

export function unmount() { cancelAnimationFrame(asked); asked = 0; all = []; shown = []; waiting = []; }
export function argument(value) { argument_(value); }
export function search(value) { query = matcher(value); again(); }
export const project = () => again();
export const move = (by) => list.move(by);
export const open = () => list.open();
export function key(pressed) {
  if (pressed === "f" || pressed === "G") { list.toNewest(); return true; }
  return false;
}

/** id:4711 opens a call; a>b those of an edge; a name those of a service. */
function argument_(value) {
  if (!value) return;
  if (value.startsWith("id:")) { detail(value.slice(3)); return; }
  if (value.includes(">")) { between = value; again(); return; }
  frame.search(value);
}

function wanted(call) {
  if (state.project && call.from.project !== state.project && call.to.project !== state.project) return false;
  if (kind === "error" && !call.failed) return false;
  if (kind === "slow" && call.duration < 0.1) return false;
  if ((kind === "4" || kind === "5") && Math.floor(call.status / 100) !== Number(kind)) return false;
  if (between && `${call.from.id}>${call.to.id}` !== between) return false;
  return !query || query.test(call.words);
}

export function calls(message) {
  dropped += message.dropped;
  for (const row of message.rows) waiting.push(row);
  if (waiting.length > MOST) waiting = waiting.slice(-MOST);
  if (!asked) asked = requestAnimationFrame(take);
}

function take() {
  asked = 0;
  for (const [id, start, from, to, protocol, method, path, status, duration, sent, got, failed, note, faults] of waiting) {
    const what = clean(`${method} ${path}`.trim() || protocol);
    const call = { id, start, from, to, protocol, what, status, duration, size: sent + got, failed, note: clean(note), faults };
    call.words = `${from.name} ${to.name} ${protocol} ${what} ${status ?? ""} ${call.note} ${faults ? `fault ${faults}` : ""}`;
    all.push(call);
    if (wanted(call)) { shown.push(call); fresh++; }
  }
  waiting = [];
  let gone = 0;
  if (all.length > MOST * 1.2) {
    const before = shown.length;
    all = all.slice(-MOST);
    const first = Number(all[0].id);
    shown = shown.filter((call) => Number(call.id) >= first);
    gone = before - shown.length;
  }
  if (list.follow) fresh = 0;
  else text(newest.lastChild, fresh ? `${fresh.toLocaleString()} new` : "newest");
  list.set(shown, gone);
  count();
}

function again() {
  shown = all.filter(wanted);
  list.selected = null;
  list.set(shown);
  list.redraw();
  count();
}

function count() {
  empty.hidden = all.length > 0;
  const some = shown.length === all.length ? `${all.length.toLocaleString()} calls` : `${shown.length.toLocaleString()} of ${all.length.toLocaleString()} calls`;
  counter.replaceChildren(dropped ? `${some}, ${dropped.toLocaleString()} skipped` : some);
  if (between) counter.append(" ", h("button", { class: "chip", onclick: () => { between = ""; again(); } }, "this edge only ×"));
}

function make() {
  return h("div", { class: "call", role: "option" }, h("time", {}), h("b", {}), h("b", {}), h("i", {}), h("span", { class: "what" }), h("span", { class: "status" }), h("span", { class: "took" }), h("span", { class: "size" }));
}

function fill(row, call) {
  const [time, from, to, protocol, what, status, took_, size] = row.children;
  time.textContent = clock(call.start * 1000);
  from.textContent = call.from.name;
  from.style.setProperty("--hue", hue(call.from.name));
  to.textContent = call.to.name;
  to.style.setProperty("--hue", hue(call.to.name));
  protocol.textContent = call.protocol;
  what.textContent = call.faults ? `⚡ ${call.what}` : call.what;
  what.title = call.faults ? `fault: ${call.faults}` : "";
  status.textContent = call.status ?? (call.failed ? "failed" : "");
  status.className = `status ${tone(call)}`;
  took_.textContent = took(call.duration);
  took_.style.setProperty("--share", `${Math.min(100, Math.max(0, (Math.log10(Math.max(call.duration, 1e-4)) + 4) * 20))}%`);
  size.textContent = bytes(call.size);
}

const tone = (call) => (call.failed ? "bad" : call.status >= 400 ? "busy" : "good");

/** One call whole, in the drawer. */
export async function detail(id, to = frame) {
  let call;
  try { call = await ask("GET", `/api/calls/${encodeURIComponent(id)}`); }
  catch (error) { to.fail(error); return; }
  const who = (peer) => `${peer.service || peer.name || peer.address}${peer.port ? `:${peer.port}` : ""}`;
  to.drawer(`${call.method} ${call.path}`.trim() || call.protocol,
    pairs([
      ["From", who(call.source)], ["To", who(call.target)], ["Protocol", call.protocol],
      ["Status", `${call.status ?? "no answer"} ${call.message || ""}`],
      ["Began", `${new Date(call.start * 1000).toLocaleDateString()} ${clock(call.start * 1000)}`],
      ["First byte", call.first_byte === null ? "" : took(call.first_byte)], ["Took", took(call.duration)],
      ["Trouble", call.error], ["Fault", faultsOf(call.faults)], ["Number", call.id],
    ].filter(([, value]) => value)),
    message("Request", call.request),
    message("Response", call.response),
  );
}

/** The faults that a call met, and how that is known. */
export const faultsOf = (found) => (found || []).map((f) => `⚡ ${f.Fault} (${f.Sure ? "its answer says so" : "held on this edge at the time"})`).join(", ");

function message(name, part) {
  const headers = part.headers || [];
  if (!headers.length && !part.body) return null;
  return [
    section(`${name} headers`, pairs(headers.map(([k, v]) => [k, clean(v)]))),
    section(`${name} body, ${bytes(part.size)}${part.cut ? ", its start" : ""}`, part.body ? h("pre", {}, pretty(part)) : null),
  ];
}

function pretty(part) {
  if (part.binary) {
    const raw = atob(part.body);
    return [...raw.slice(0, 512)].map((c, n) => c.charCodeAt(0).toString(16).padStart(2, "0") + ((n + 1) % 16 ? " " : "\n")).join("");
  }
  try { return JSON.stringify(JSON.parse(part.body), null, 2); } catch { return part.body.replace(/[^\x20-\x7e\n\t\u00a0-\uffff]/g, "·"); }
}
