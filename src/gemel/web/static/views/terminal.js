// Terminals: a list of what runs, and frames that go on living while other views are shown.

import { h, attr, text, tool } from "../dom.js";
import { status } from "../live.js";
import { called, state } from "../state.js";

export const topics = ["services"];

const open = new Map();  // instance → { frame, tab }
const holder = h("div", { class: "frames" });
let list, tabs, empty, root, frameOf, current = "";

export function mount(given, frame, argument) {
  root = given;
  frameOf = frame;
  list = h("div", { class: "targets" });
  tabs = h("div", { class: "tabs" });
  empty = h("div", { class: "empty" });
  root.append(tabs, list, empty);
  frame.keep(holder);
  draw();
  if (argument) show(argument);
  else if (current) show(current);
  place();
}

export function unmount() { holder.classList.remove("shown"); }
export function argument(id) { if (id) show(id); }
export const services = () => draw();
export const project = () => draw();

function place() {
  holder.classList.toggle("shown", current !== "" && root.isConnected);
  for (const [id, one] of open) one.frame.hidden = id !== current;
  empty.hidden = current !== "" || list.children.length > 0;
  text(empty, status.terminal ? "Nothing runs." : "The terminal (xterm.js) is not installed: scripts/setup fetches it.");
}

function draw() {
  const running = status.terminal ? state.shown.filter((one) => one.state === "running") : [];
  const key = running.map((one) => one.id).join();
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...running.map((one) => h("a", { class: "target", href: `#/terminal/${one.id}` },
      h("b", {}, called(one)), h("span", { class: `badge ${one.runtime}` }, one.runtime === "microvm" ? "micro VM" : "container"))));
  }
  for (const [id, one] of open) text(one.tab.firstChild, state.byId.has(id) ? called(state.byId.get(id)) : one.name);
  place();
}

function show(id) {
  if (!status.terminal) return;
  const one = state.byId.get(id);
  if (!open.has(id)) {
    const name = one ? called(one) : id.slice(0, 12);
    const tab = h("div", { class: "tab" }, h("a", { href: `#/terminal/${id}` }, name), tool("close", "Close", () => close(id)));
    const frame = h("iframe", { src: `/terminal.html#${id}`, title: `Terminal in ${name}` });
    frame.addEventListener("load", () => frame.contentWindow.focus());
    open.set(id, { frame, tab, name });
    holder.append(frame);
  }
  current = id;
  tabs.replaceChildren(...[...open.values()].map((one) => one.tab));
  for (const [other, { tab }] of open) attr(tab, "aria-selected", other === id);
  place();
  open.get(id).frame.contentWindow?.focus();
}

function close(id) {
  const one = open.get(id);
  one.frame.remove();
  one.tab.remove();
  open.delete(id);
  current = [...open.keys()].at(-1) || "";
  if (current) show(current);
  else { place(); frameOf.go("terminal"); }
}
