// What is known of one instance, in the drawer: why it is as it is, and how it was made.

import { h } from "../dom.js";
import { ask } from "../live.js";
import { called } from "../state.js";
import { clock, took } from "../format.js";
import { clean } from "../loglines.js";

let asked = 0;

export async function show(frame, one) {
  const mine = ++asked;
  frame.drawer(called(one), h("p", { class: "quiet" }, "…"));
  let found;
  try { found = await ask("GET", `/api/instances/${one.id}`); }
  catch (error) { if (mine === asked) frame.drawer(called(one), h("p", {}, error.message)); return; }
  if (mine !== asked || !frame.open) return;
  const { inspect, why } = found;
  frame.drawer(called(one),
    h("p", { class: "buttons" },
      h("a", { href: `#/logs/${encodeURIComponent(one.name)}` }, "Logs"),
      h("a", { href: `#/calls/${encodeURIComponent(one.service || one.name)}` }, "Traffic"),
      one.state === "running" ? h("a", { href: `#/terminal/${one.id}` }, "Terminal") : null,
    ),
    h("p", {}, h("b", {}, one.name), ` ${why.Headline}`),
    why.Reasons.length ? h("ul", { class: "reasons" }, why.Reasons.map((r) => h("li", {}, clean(r)))) : null,
    facts(one, inspect),
    section("Environment", pairs((inspect.Config.Env || []).map(split).sort((a, b) => a[0].localeCompare(b[0])))),
    section("Last lines", why.Log.length ? h("pre", {}, why.Log.map(clean).join("\n")) : null),
    section("Asked last", calls(why.Served)),
    section("Has asked last", calls(why.Made)),
    section("What happened", pairs(why.Changed.map((c) => [clock(c.Time * 1000).slice(0, 8), clean(c.What)]))),
    h("details", {}, h("summary", {}, "Everything (inspect)"), h("pre", {}, JSON.stringify(inspect, null, 2))),
  );
}

function split(entry) {
  const at = entry.indexOf("=");
  return at < 0 ? [entry, ""] : [entry.slice(0, at), clean(entry.slice(at + 1))];
}

export function section(name, content) {
  return content ? h("section", {}, h("h3", {}, name), content) : null;
}

export function pairs(list) {
  if (!list.length) return null;
  return h("table", { class: "pairs" }, list.map(([key, value]) => h("tr", {}, h("th", {}, key), h("td", {}, value))));
}

function facts(one, inspect) {
  const health = inspect.State.Health;
  const probe = health?.Log?.at(-1);
  const networks = Object.entries(inspect.NetworkSettings.Networks || {}).map(([name, end]) => `${name} ${end.IPAddress || ""}`);
  return section("Facts", pairs([
    ["Image", one.image],
    ["Command", [inspect.Path, ...inspect.Args].join(" ")],
    ["Runtime", one.runtime + (inspect.Boot ? `, ${inspect.Boot}` : "")],
    [inspect.Boot === "cloned" ? "Not warm" : "Not cloned", inspect.BootReason],
    ["Networks", networks.join(", ")],
    ["Mounts", inspect.Mounts.map((m) => `${m.Name || m.Source} → ${m.Destination}${m.RW ? "" : " (read-only)"}`).join("\n")],
    ["Restart", inspect.HostConfig.RestartPolicy?.Name || "no"],
    ["Health", health ? `${health.Status}${probe ? `: ${clean(String(probe.Output).trim()).slice(0, 300)}` : ""}` : ""],
    ["Id", one.id.slice(0, 12)],
  ].filter(([, value]) => value)));
}

function calls(list) {
  if (!list.length) return null;
  return h("ul", { class: "calls" }, list.map((c) => h("li", {},
    h("a", { href: `#/calls/id:${c.id}` }, `${c.method} ${c.path}`.trim() || c.protocol),
    ` ${c.status ?? "no answer"} · ${took(c.duration)}`)));
}
