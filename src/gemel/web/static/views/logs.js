// Logs of all services in one time line. However many lines come, the page answers: what
// arrives is taken in once per frame, the buffer is bounded, and only rows in sight exist.

import { h, icon, text } from "../dom.js";
import { called, state } from "../state.js";
import { clock, hue, matcher } from "../format.js";
import { clean, fields, level, parts } from "../loglines.js";
import { VList } from "../vlist.js";
import { pairs, section } from "./details.js";

export const topics = ["logs"];

const MOST = 50000, SLACK = 10000, HEIGHT = 20;
const LEVELS = ["error", "warn", "info", "debug", ""];

let frame, list, counter, newest, chips, levels;
let lines = [], shown = [], waiting = [], dropped = 0, frameAsked = 0, fresh = 0;
let query = null, off = new Set(), only = null, hidden = new Set();

export function mount(root, given, argument) {
  frame = given;
  lines = []; shown = []; waiting = []; dropped = 0; fresh = 0; query = null;
  hidden = new Set();
  list = new VList({ height: HEIGHT, make, fill, onopen: detail, label: "Log lines" });
  counter = h("span", { class: "quiet num" });
  newest = h("button", { class: "newest", hidden: true, onclick: () => list.toNewest() }, icon("down"), h("span", {}, "newest"));
  list.onfollow = (follow) => { newest.hidden = follow; fresh = 0; };
  levels = h("div", { class: "chips" }, LEVELS.map((one) =>
    h("button", { class: `chip level-${one || "none"}`, "aria-pressed": String(!off.has(one)), onclick: (e) => toggle(e, one) }, one || "other")));
  chips = h("div", { class: "chips names" });
  frame.bar.append(levels, counter);
  root.append(chips, list.element, newest);
  only = argument || null;
  names();
}

export function unmount() { cancelAnimationFrame(frameAsked); frameAsked = 0; lines = []; shown = []; waiting = []; }
export function argument(value) { only = value || null; hidden = new Set(); names(); again(); }
export function search(value) { query = matcher(value); again(); }
export function project() { names(); again(); }
export function services() { names(); }
export const move = (by) => list.move(by);
export const open = () => list.open();
export function key(pressed) {
  if (pressed === "f" || pressed === "G") { list.toNewest(); return true; }
  return false;
}

function toggle(event, one) {
  if (off.has(one)) off.delete(one); else off.add(one);
  event.currentTarget.setAttribute("aria-pressed", String(!off.has(one)));
  again();
}

/** A chip for each instance: one click leaves it out, a double click shows it alone. */
let known = "";
function names() {
  const key = state.shown.map((one) => `${one.id}${called(one)}`).join() + [...hidden].join() + only;
  if (key === known && chips.children.length) return;
  known = key;
  chips.replaceChildren(...state.shown.map((one) => h("button", {
    class: "chip name", style: { "--hue": hue(label(one)) }, title: "Click: leave out or take in. Double click: this one alone.",
    "aria-pressed": String(sees(one)),
    onclick: () => { only = null; if (hidden.has(one.id)) hidden.delete(one.id); else hidden.add(one.id); names(); again(); },
    ondblclick: () => { only = one.name; hidden = new Set(); names(); again(); },
  }, called(one))));
}

const label = (one) => (one ? called(one) : "?");
const sees = (one) => (only ? one.name === only : !hidden.has(one.id)) && (!state.project || one.project === state.project);

function wanted(line) {
  if (off.has(line.level)) return false;
  const one = state.byId.get(line.id);
  if (one ? !sees(one) : only || state.project) return false;
  return !query || query.test(line.text) || query.test(line.name);
}

/** Rows as they come: [instance, milliseconds, stream, text]. */
export function logs(message) {
  dropped += message.dropped;
  for (const row of message.rows) waiting.push(row);
  if (waiting.length > MOST) { dropped += waiting.length - MOST; waiting = waiting.slice(-MOST); }
  if (!frameAsked) frameAsked = requestAnimationFrame(take);
}

function take() {
  frameAsked = 0;
  let added = 0;
  let late = false;
  const before = lines.length ? lines[lines.length - 1].at : 0;
  for (const [id, at, stream, raw] of waiting) {
    const one = state.byId.get(id);
    const cleaned = clean(raw);
    const line = { id, at, stream, text: cleaned, level: level(cleaned) || (stream === 2 && /error|exception|failed/i.test(cleaned) ? "error" : ""), name: label(one), hue: hue(label(one)) };
    if (at < before) late = true;
    lines.push(line);
    if (wanted(line)) { shown.push(line); added++; }
  }
  waiting = [];
  if (late) order();
  let gone = 0;
  if (lines.length > MOST + SLACK) {
    lines = lines.slice(-MOST);
    const first = lines[0].at;
    const at = shown.findIndex((line) => line.at >= first);
    gone = at < 0 ? shown.length : at;
    shown = shown.slice(gone);
  }
  list.set(shown, gone);
  if (!list.follow) { fresh += added; text(newest.lastChild, fresh ? `${fresh.toLocaleString()} new` : "newest"); }
  count();
}

/** A service whose lines come late: the last few thousand are put in order again. */
function order() {
  for (const some of [lines, shown]) {
    const from = Math.max(0, some.length - 8000);
    const tail = some.splice(from).sort((a, b) => a.at - b.at);
    for (const line of tail) some.push(line);
  }
}

function again() {
  shown = lines.filter(wanted);
  list.selected = null;
  list.redraw();
  list.set(shown);
  list.redraw();
  count();
}

function count() {
  const all = lines.length.toLocaleString();
  const some = shown.length === lines.length ? `${all} lines` : `${shown.length.toLocaleString()} of ${all} lines`;
  text(counter, dropped ? `${some}, ${dropped.toLocaleString()} skipped` : some);
}

function make() {
  return h("div", { class: "line", role: "option" },
    h("time", {}), h("b", {}), h("i", {}), h("span", { class: "text" }));
}

function fill(row, line) {
  const [time, name, mark, body] = row.children;
  time.textContent = clock(line.at);
  name.textContent = line.name;
  name.style.setProperty("--hue", line.hue);
  mark.textContent = line.level || (line.stream === 2 ? "err out" : "");
  row.className = `line vrow level-${line.level || "none"}`;
  const { message, rest } = parts(line.text);
  body.replaceChildren(...marked(message.slice(0, 2000)),
    ...rest.slice(0, 12).flatMap(([key, value]) => [" ", h("em", {}, `${key}=`), ...marked(value.slice(0, 200))]));
}

/** The text with what is searched for marked. */
function marked(value) {
  if (!query) return [value];
  const found = query.exec(value);
  if (!found || !found[0]) return [value];
  const at = found.index;
  return [value.slice(0, at), h("mark", {}, found[0]), value.slice(at + found[0].length)];
}

function detail(line) {
  const found = fields(line.text);
  frame.drawer(line.name,
    pairs([["Time", `${new Date(line.at).toLocaleDateString()} ${clock(line.at)}`], ["Level", line.level || "—"], ["Stream", line.stream === 2 ? "standard error" : "standard output"]]),
    found ? section("Fields", pairs(Object.entries(found).map(([k, v]) => [k, typeof v === "string" ? v : JSON.stringify(v, null, 2)]))) : null,
    section("Line", h("pre", {}, line.text)),
  );
}

/** For those who test how quick it is. */
export const figures = () => ({ lines: lines.length, shown: shown.length, dropped, rows: list?.rows.length || 0 });
