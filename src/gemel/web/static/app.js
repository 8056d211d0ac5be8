// The frame: navigation, project, search, keys, the drawer, and which view is shown.

import { h, icon, tool, text, attr } from "./dom.js";
import { connect, look, on, status } from "./live.js";
import { state } from "./state.js";
import * as calls from "./views/calls.js";
import * as logs from "./views/logs.js";
import * as map from "./views/map.js";
import * as reports from "./views/reports.js";
import * as services from "./views/services.js";
import * as terminal from "./views/terminal.js";
import * as traces from "./views/traces.js";

const VIEWS = { services, map, calls, traces, logs, terminal, reports };
const ORDER = [
  ["services", "Services", "s"],
  ["map", "Map", "m"],
  ["calls", "Traffic", "t"],
  ["traces", "Traces", "x"],
  ["logs", "Logs", "l"],
  ["terminal", "Terminal", "c"],
  ["reports", "Compare", "r"],
];

const main = h("main", { id: "view" });
const left = h("div", { id: "left" }, main);
const drawer = h("aside", { id: "drawer", hidden: true });
const banner = h("div", { id: "banner", role: "status", hidden: true });
const toast = h("div", { id: "toast", role: "alert", hidden: true });
const search = h("input", {
  id: "search", type: "search", placeholder: "Search   /", spellcheck: "false", autocomplete: "off",
  "aria-label": "Search", oninput: () => view?.search?.(search.value.trim()),
});
const project = h("select", { id: "project", "aria-label": "Project", onchange: () => choose(project.value) });
const title = h("h1", {});
const bar = h("div", { id: "bar" });
const links = new Map();
let view = null;
let name = "";

/** What views may use of the frame. */
export const frame = {
  /** Shows something beside the view. */
  drawer(heading, ...content) {
    drawer.replaceChildren(
      h("header", {}, h("h2", {}, heading), tool("close", "Close (Esc)", frame.close)),
      h("div", { class: "body" }, content),
    );
    drawer.hidden = false;
    document.body.classList.add("with-drawer");
  },
  close() {
    drawer.hidden = true;
    drawer.replaceChildren();
    document.body.classList.remove("with-drawer");
    view?.closed?.();
  },
  get open() { return !drawer.hidden; },
  /** Tells of something that has failed. */
  fail(error) {
    toast.replaceChildren(h("strong", {}, error.message), error.resolution ? h("p", {}, error.resolution) : "");
    toast.hidden = false;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => { toast.hidden = true; }, 8000);
  },
  go(to) { location.hash = `#/${to}`; },
  search(value) { search.value = value; view?.search?.(value); },
  bar,
  /** Keeps an element beside the views: it lives on when another is shown. */
  keep(element) { if (!element.isConnected) left.append(element); },
};

function choose(value) {
  state.project = value;
  localStorage.setItem("gemel.project", value);
  view?.project?.();
}

function projects() {
  const names = [...new Set(state.all.map((one) => one.project).filter(Boolean))].sort();
  const wanted = ["", ...names];
  const shown = [...project.options].map((o) => o.value);
  if (wanted.join("\n") !== shown.join("\n")) {
    project.replaceChildren(...wanted.map((n) => h("option", { value: n }, n || "All projects")));
    if (!names.includes(state.project)) state.project = "";
    project.value = state.project;
    view?.project?.();
  }
  project.hidden = names.length < 1;
}

function route() {
  const [, to = "", ...rest] = location.hash.split("/");
  const next = VIEWS[to] ? to : "services";
  const argument = decodeURIComponent(rest.join("/"));
  if (next === name) { view.argument?.(argument); return; }
  if (view) { view.unmount?.(); frame.close(); }
  name = next;
  view = VIEWS[next];
  bar.replaceChildren();
  main.className = next;
  main.replaceChildren();
  search.value = "";
  search.hidden = !view.search;
  text(title, ORDER.find(([id]) => id === next)[1]);
  document.title = `${title.textContent} · gemel`;
  for (const [id, link] of links) attr(link, "aria-current", id === next ? "page" : "false");
  view.mount(main, frame, argument);
  look([...new Set(["services", ...(view.topics || [])])]);
}

// --- looks ---------------------------------------------------------------------------

function theme(value) {
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
}

function otherTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("gemel.theme", dark ? "light" : "dark");
  theme(dark ? "light" : "dark");
}

// --- keys ----------------------------------------------------------------------------

const KEYS = [
  ["g s", "Services"], ["g m", "Map"], ["g t", "Traffic"], ["g x", "Traces"], ["g l", "Logs"],
  ["g c", "Terminal"], ["g r", "Compare"], ["/", "Search"], ["j  k", "Next, previous"], ["Enter", "Open"],
  ["Esc", "Close, leave the search"], ["f", "Follow the newest (logs, traffic)"], ["d", "Light or dark"],
  ["?", "This help"],
];
const help = h("dialog", { id: "help", onclick: () => help.close() },
  h("h2", {}, "Keys"),
  h("dl", {}, KEYS.map(([keys, words]) => [
    h("dt", {}, keys.split(/ +/).map((key) => h("kbd", {}, key))), h("dd", {}, words),
  ])),
);
let begun = 0;

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) { event.target.blur(); main.querySelector("[tabindex]")?.focus(); }
    else if (frame.open) frame.close();
    return;
  }
  if (typing || help.open) {
    if (typing && event.key === "Enter" && event.target === search) { search.blur(); main.querySelector("[tabindex]")?.focus(); }
    return;
  }
  if (begun && Date.now() - begun < 1500) {
    begun = 0;
    const to = ORDER.find(([, , letter]) => letter === event.key);
    if (to) { frame.go(to[0]); event.preventDefault(); }
    return;
  }
  if (act(event.key)) event.preventDefault();
}

function step(by) {
  if (!view.move) return false;
  // a button that was clicked last must not take the Enter that is meant for the list
  document.activeElement?.closest("button, a")?.blur();
  view.move(by);
  return true;
}

function act(pressed) {
  switch (pressed) {
    case "g": begun = Date.now(); return true;
    case "/": if (!search.hidden) { search.focus(); search.select(); } return true;
    case "?": help.showModal(); return true;
    case "d": otherTheme(); return true;
    case "j": case "ArrowDown": return step(1);
    case "k": case "ArrowUp": return step(-1);
    case "Enter":
      if (document.activeElement?.closest("button, a")) return false;
      view.open?.();
      return true;
    default: return view.key?.(pressed) || false;
  }
}

// --- life ----------------------------------------------------------------------------

const REASONS = {
  connecting: "Connecting …",
  session: "This session has ended. Run `gemel dashboard` to get a new address.",
  away: "The dashboard is busy; trying again …",
  gone: "The dashboard has ended. Run `gemel dashboard` to start it again.",
};

function tell() {
  const problem = status.connected ? state.problem : null;
  banner.hidden = status.connected && !problem;
  text(banner, problem ? `${problem.brief}. ${problem.resolution || ""}` : REASONS[status.reason] || "");
}

function build() {
  theme(localStorage.getItem("gemel.theme"));
  state.project = localStorage.getItem("gemel.project") || "";
  for (const [id, label, letter] of ORDER) {
    links.set(id, h("a", { href: `#/${id}`, title: `${label} (g ${letter})` }, icon(id), h("span", {}, label)));
  }
  document.body.append(
    h("nav", { "aria-label": "Views" },
      h("div", { class: "brand" }, h("img", { src: "/icon.svg", alt: "" }), h("span", {}, "gemel")),
      [...links.values()],
      h("div", { class: "foot" }, tool("theme", "Light or dark (d)", otherTheme), tool("help", "Keys (?)", () => help.showModal())),
    ),
    h("div", { id: "page" },
      banner,
      h("header", { id: "top" }, title, bar, project, search),
      h("div", { id: "middle" }, left, drawer),
    ),
    toast, help,
  );
  addEventListener("hashchange", route);
  addEventListener("keydown", key);
  on("status", tell);
  on("services", (message) => { state.take(message); projects(); tell(); view.services?.(); });
  on("history", (message) => { state.past(message); view.services?.(); });
  for (const kind of ["map", "calls", "logs"]) on(kind, (message) => view[kind]?.(message));
  route();
  connect();
}

build();
