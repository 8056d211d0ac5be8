// Numbers and times as a person reads them.

export function bytes(n) {
  if (!n) return "0";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return `${n >= 100 || i === 0 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

export function took(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.1) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return span(seconds);
}

export function span(seconds) {
  seconds = Math.max(0, seconds);
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function rate(n) {
  if (!n) return "0/s";
  if (n < 0.1) return `${(n * 60).toFixed(1)}/min`;
  return `${n < 10 ? n.toFixed(1) : Math.round(n)}/s`;
}

export function percent(share) {
  return `${share < 0.1 ? (share * 100).toFixed(1) : Math.round(share * 100)} %`;
}

const two = (n) => String(n).padStart(2, "0");

/** 13:04:05.123, of milliseconds since 1970. */
export function clock(ms) {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

/** A colour of its own for a name, the same every time; hues far apart for the first ones. */
const hues = new Map();
export function hue(name) {
  if (!hues.has(name)) hues.set(name, Math.round((210 + hues.size * 137.508) % 360));
  return hues.get(name);
}

/** Whether a text holds what is searched for; /…/ is a regular expression. */
export function matcher(query) {
  if (!query) return null;
  const regular = /^\/(.+)\/$/.exec(query);
  const source = regular ? regular[1] : query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  try { return new RegExp(source, "i"); } catch { return null; }
}
