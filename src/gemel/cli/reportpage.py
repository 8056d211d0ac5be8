"""A comparison's report as one HTML page that needs nothing else: plots with their spread."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence
from typing import Any

from gemel.cli import reporttext
from gemel.cli.reporttext import CONTAINER, MICROVM, Units

Json = dict[str, Any]
_WIDE, _BAR, _GAP, _LEFT, _RIGHT = 460, 18, 9, 140, 80

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #5d6b7e; --paper: #fff; --line: #d8dee8;
  --one: #2f6fde; --two: #d9722b; --card: #f6f8fb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf2; --dim: #93a1b5; --paper: #12161d;
  --line: #2b3442; --one: #6ea0ff; --two: #f0a060; --card: #1a2029; } }
* { box-sizing: border-box } body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.2rem;
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .6rem }
.dim { color: var(--dim) } .advice { background: var(--card); border-left: 4px solid var(--one);
  padding: .8rem 1rem; margin: 1.2rem 0; border-radius: 4px } .advice p { margin: 0 0 .4rem }
.advice ul { margin: 0; padding-left: 1.2rem } .plots { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)) } figure { margin: 0; padding: .8rem;
  background: var(--card); border-radius: 6px }
  figcaption { font-weight: 600; margin-bottom: .4rem }
svg { width: 100%; height: auto; display: block } text { font: 13px system-ui, sans-serif;
  fill: var(--ink) } .one { fill: var(--one) } .two { fill: var(--two) }
  .whisker { stroke: var(--ink); stroke-width: 1.5 } table { border-collapse: collapse;
  width: 100%; font-size: .93rem }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top } th { color: var(--dim); font-weight: 600 } .scroll { overflow-x: auto }
"""


def page(report: Json) -> str:
    """The page."""
    body = "\n".join(
        (_head(report), _advice(report), _plots(report), _table(report), _isolation(report))
    )
    title = html.escape(f"{report['Name']}: container or micro VM")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body>{body}\n</body></html>\n"
    )


def _head(report: Json) -> str:
    return (
        f"<h1>{html.escape(report['Name'])}: container or micro VM</h1>"
        f'<div class="dim">{html.escape(reporttext.heading(report))}; {report["When"][:16]} UTC'
        "</div>"
    )


def _advice(report: Json) -> str:
    advice = report["Advice"]
    if not advice:
        return ""
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in advice["Reasons"])
    notes = "".join(f'<p class="dim">{html.escape(note)}</p>' for note in report["Notes"])
    summary = html.escape(advice["Summary"])
    return (
        f'<div class="advice"><p><b>Recommended:</b> {summary}</p><ul>{reasons}</ul>{notes}</div>'
    )


def _plots(report: Json) -> str:
    starts = [
        (v["Name"].replace("microvm ", "micro VM, "), v["Start"], v["Runtime"])
        for v in report["Variants"]
    ]
    plots = [_plot("Time to the first healthy answer", starts, reporttext.SECONDS)]
    by_load = sorted(report["Load"], key=lambda o: (o["Connections"], o["Runtime"]))
    for key, title, units in (
        ("RequestsPerSecond", "Throughput (more is better)", reporttext.RATE),
        ("P50", "Latency, median", reporttext.SECONDS),
        ("P99", "Latency, slowest hundredth", reporttext.SECONDS),
        ("CpuPerRequest", "CPU of the host for a request", reporttext.SECONDS),
    ):
        bars = [(f"{_noun(o)}, {o['Connections']} at once", o[key], o["Runtime"]) for o in by_load]
        plots.append(_plot(title, bars, units))
    memory = [
        (f"{_noun(one)}, {words}", one[key], one["Runtime"])
        for key, words in (("MemoryRest", "at rest"), ("MemoryLoad", "under load"))
        for one in report["Use"]
    ]
    plots.append(_plot("Memory as the host pays it", memory, reporttext.BYTES))
    return f'<h2>Measured</h2><div class="plots">{"".join(plots)}</div>'


def _noun(one: Json) -> str:
    return "container" if one["Runtime"] == CONTAINER else "micro VM"


def _plot(title: str, bars: Sequence[tuple[str, Sequence[float], str]], units: Units) -> str:
    """Bars of medians; a line from the least to the most of all rounds."""
    known = [bar for bar in bars if bar[1]]
    if not known:
        return ""
    most = max(max(values) for _, values, _ in known) or 1.0
    scale = (_WIDE - _LEFT - _RIGHT) / most
    parts = []
    for n, (label, values, runtime) in enumerate(known):
        top = n * (_BAR + _GAP)
        middle = top + _BAR / 2
        kind = "two" if runtime == MICROVM else "one"
        end = _LEFT + max(values) * scale + 8
        told = reporttext.middle(values, units)
        parts.append(
            f'<text x="{_LEFT - 8}" y="{middle + 4}" text-anchor="end">{html.escape(label)}</text>'
            f'<rect class="{kind}" x="{_LEFT}" y="{top}" height="{_BAR}" rx="3" '
            f'width="{max(statistics.median(values) * scale, 1):.1f}"/>'
            f'<line class="whisker" x1="{_LEFT + min(values) * scale:.1f}" y1="{middle}" '
            f'x2="{_LEFT + max(values) * scale:.1f}" y2="{middle}"/>'
            f'<text x="{end:.1f}" y="{middle + 4}">{html.escape(told)}</text>'
        )
    high = len(known) * (_BAR + _GAP)
    caption = html.escape(title)
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg viewBox="0 0 {_WIDE} {high}" role="img" aria-label="{caption}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _table(report: Json) -> str:
    heads = "".join(f"<th>{html.escape(title)}</th>" for title, _ in reporttext.COLUMNS)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(str(row[key]))}</td>" for _, key in reporttext.COLUMNS)
        + "</tr>"
        for row in reporttext.rows(report)
    )
    return (
        "<h2>Figures: the median, and from least to most of the rounds</h2>"
        f'<div class="scroll"><table><tr>{heads}</tr>{rows}</table></div>'
    )


def _isolation(report: Json) -> str:
    rows = []
    for one in report["Isolation"]:
        if one["Failure"]:
            cells = [_noun(one), html.escape(one["Failure"]), "", "", ""]
        else:
            whose = "the host's" if one["SharesKernel"] else "its own"
            cells = [
                _noun(one),
                html.escape(f"{one['Kernel']} ({whose})"),
                html.escape(", ".join(one["HostFacts"]) or "nothing"),
                html.escape(", ".join(one["Capabilities"]) or "none"),
                f"{len(one['Reaches'])} of {one['Tried']}: "
                + html.escape(", ".join(one["Reaches"]) or "none"),
            ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(
        f"<th>{words}</th>"
        for words in (
            "", "kernel", "sees of the host", "capabilities", "risky system calls that reach it",
        )
    )  # fmt: skip
    return (
        "<h2>Seen from inside</h2>"
        f'<div class="scroll"><table><tr>{heads}</tr>{"".join(rows)}</table></div>'
    )
