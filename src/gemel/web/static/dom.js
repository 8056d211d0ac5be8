// Elements made by hand: text is always text, so nothing that a service says becomes markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [key, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, v] of Object.entries(value)) element.style.setProperty(name, v);
    else if (key === "value" || key === "checked" || key === "disabled") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** An HTML element: h("a", {href: "#", onclick: f}, "text", child, [children]). */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** An SVG element. */
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Sets text only where it differs: a row that stays the same costs nothing. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Sets an attribute only where it differs. */
export function attr(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

const ICONS = {
  services: "M4 5h16v5H4zM4 14h16v5H4zM7 7.5h.01M7 16.5h.01",
  map: "M6 6m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0M18 8m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0M9 18m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0M8.5 6.5l7 1M7 8.300l1.500 7.300M16.500 10l-5.500 6.500",
  calls: "M4 8h14l-4-4M20 16H6l4 4",
  traces: "M4 6h9M7 12h10M12 18h8",
  logs: "M4 6h16M4 10h11M4 14h16M4 18h8",
  terminal: "M5 8l4 4-4 4M12 17h7",
  reports: "M5 20V10M12 20V4M19 20v-7",
  theme: "M12 4a8 8 0 1 0 8 8 6 6 0 0 1-8-8z",
  help: "M9.500 9a2.500 2.500 0 1 1 3.500 2.300c-.7.3-1 .9-1 1.700M12 17h.01",
  start: "M8 5l10 7-10 7z",
  stop: "M7 7h10v10H7z",
  restart: "M18 8a7 7 0 1 0 1 6M18 4v4h-4",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v14M6 13l6 6 6-6",
  pause: "M9 6v12M15 6v12",
};

/** A small drawing by name. */
export const icon = (name) =>
  s("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, s("path", { d: ICONS[name] || "" }));

/** A button with an icon. */
export const tool = (name, title, onclick) =>
  h("button", { class: "tool", title, "aria-label": title, onclick }, icon(name));
