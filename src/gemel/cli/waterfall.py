"""A trace as a waterfall of lines, as wide as the terminal. Pure but for colour."""

from __future__ import annotations

import time
from typing import Any

from gemel.cli.output import paint

Json = dict[str, Any]
#: Columns of the duration; narrowest and widest place for bars, and for names.
_TOOK, _BARS, _MOST_BARS, _NAMES = 8, 12, 60, 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def clean(words: str) -> str:
    """Bytes of others never steer the terminal."""
    return "".join(c if c.isprintable() else "·" for c in words)


def took(seconds: float) -> str:
    """A duration with three digits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms" if seconds >= 1e-5 else f"{seconds * 1e6:.0f}µs"
    return f"{seconds:.3g}s" if seconds < 100 else f"{seconds:.0f}s"


def clock(seconds: float) -> str:
    """Time of day with milliseconds."""
    whole = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}"


def head(trace: Json) -> str:
    """What a trace is, in a line."""
    errors = trace["Errors"]
    words = f"{trace['RootService']}  {trace['Root']}"
    facts = [took(trace["Duration"]), f"{trace['SpanCount']} spans", clock(trace["Start"])]
    line = paint(clean(words), "bold") + "  " + ", ".join(facts)
    if errors:
        line += "  " + paint(f"{errors} failed", "red")
    return line


def lines(trace: Json, width: int) -> list[str]:
    """The whole of it: a line a span, its bar at its time; what went wrong below it."""
    spans = trace["Spans"]
    marks = _branches(spans)
    width = max(50, width)
    bars = max(_BARS, min(_MOST_BARS, width // 3))
    names = max(_NAMES, width - bars - _TOOK - 4)
    start, whole = trace["Start"], max(trace["Duration"], 1e-9)
    found = [head(trace), ""]
    for span, mark in zip(spans, marks, strict=True):
        found.append(_line(span, mark, names, _bar(span, start, whole, bars)))
        problem = span["Attributes"].get("error.message", "") if span["Error"] else ""
        if problem:
            found.append(" " * min(len(mark) + 2, 20) + paint(clean(str(problem))[:width], "red"))
    found += _legend(spans, trace)
    return found


def _branches(spans: list[Json]) -> list[str]:
    """The branches that are drawn before each span. Parents come first."""
    depth: dict[str, int] = {}
    depths = []
    for span in spans:
        depths.append(depth.get(span["ParentId"], -1) + 1)
        depth[span["Id"]] = depths[-1]
    marks = []
    open_below: set[int] = set()
    for level in reversed(depths):  # from below: does a branch go on?
        open_below = {one for one in open_below if one <= level}
        bars = ["│ " if one in open_below else "  " for one in range(1, level)]
        mark = "".join(bars) + (("├ " if level in open_below else "└ ") if level else "")
        marks.append(mark if level < 12 else "… " + mark[-20:])
        open_below.add(level)
    return marks[::-1]


def _line(span: Json, mark: str, names: int, bar: str) -> str:
    service, name = clean(span["Service"]), clean(span["Name"])
    met = " ⚡" if span.get("Faults") else ""
    flags = (" ~" if span["Inferred"] else "") + met + _status(span)
    room = max(4, names - len(mark) - len(service) - 2 - len(flags))
    if len(name) > room:
        name = name[: room - 1] + "…"
    pad = " " * max(0, names - len(mark) - len(service) - 2 - len(name) - len(flags))
    style = "red" if span["Error"] else "cyan" if span["Source"] == "observed" else "magenta"
    shown_flags = paint(flags, "red" if span["Error"] else "dim")
    return (
        f"{paint(mark, 'dim')}{paint(service, 'bold')}  {name}{shown_flags}{pad} "
        f"{paint(bar, style)} {took(span['Duration']):>{_TOOK}}"
    )


def _status(span: Json) -> str:
    status = str(span["Status"])
    plain = status in ("ok", "unset", "0", "200")
    return "" if plain and not span["Error"] else f" {clean(status)}"


def _bar(span: Json, start: float, whole: float, width: int) -> str:
    """A bar in its place, in eighths of a character."""
    begin = min(max(0.0, (span["Start"] - start) / whole), 1.0) * width
    end = min(max(begin, (span["Start"] + span["Duration"] - start) / whole * width), width)
    first = min(int(begin), width - 1)
    full = int(end - first)
    rest = round((end - first - full) * 8)
    drawn = "█" * full + (_EIGHTHS[rest] if rest and full + first < width else "")
    return (" " * first + (drawn or "▏"))[:width].ljust(width)


def _legend(spans: list[Json], trace: Json) -> list[str]:
    notes = []
    if any(span["Inferred"] for span in spans):
        notes.append("~ the caller is inferred from time and connection, not named")
    if {span["Source"] for span in spans} == {"observed", "otlp"}:
        notes.append("lines of OpenTelemetry and observed calls, joined")
    met = {one["Id"]: one for span in spans for one in span.get("Faults") or []}
    for one in met.values():
        how = "" if one["Sure"] else " held on its edge at the time"
        notes.append(f"⚡ fault {one['Id']}: {one['Fault']}{how}")
    if trace.get("Truncated"):
        notes.append(f"only the first {len(spans)} spans are shown")
    logs = [
        f"{clock(log['Time'])}  {clean(log['Service'])}  {clean(log['Severity'])}  "
        f"{clean(log['Body'])[:500]}"
        for log in trace.get("Logs") or []
    ]
    return [*([""] if notes else []), *(paint(note, "dim") for note in notes),
            *(["", *logs] if logs else [])]  # fmt: skip
