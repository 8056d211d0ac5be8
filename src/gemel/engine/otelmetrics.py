"""Metrics that services sent by OTLP, in Prometheus' text format.

Names as Prometheus itself translates them, with ``otel_`` before: dots become underscores, the
unit and ``_total`` come at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gemel.observe.tracing.records import Point

if TYPE_CHECKING:
    from gemel.engine.metrics import Page

_UNITS = {
    "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "min": "minutes", "h": "hours", "d": "days", "By": "bytes", "KiBy": "kibibytes",
    "MiBy": "mebibytes", "GiBy": "gibibytes", "kBy": "kilobytes", "MBy": "megabytes", "1": "",
    "%": "percent",
}  # fmt: skip
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_]")
_RESERVED = frozenset(("service", "le", "quantile"))


def name_of(point: Point) -> str:
    """The name of a metric's family."""
    unit = "" if point.unit.startswith("{") else _UNITS.get(point.unit, point.unit)
    name = "otel_" + _NOT_ALLOWED.sub("_", point.name)
    unit = _NOT_ALLOWED.sub("_", unit)
    if unit and not name.endswith(f"_{unit}"):
        name += f"_{unit}"
    if point.kind == "counter":
        return name.removesuffix("_total") + "_total"
    return name.removesuffix("_total")


def labels_of(point: Point) -> dict[str, str]:
    """Labels that are allowed; of two that become the same the first stays."""
    labels = {"service": point.service}
    for key, value in point.labels.items():
        name = _NOT_ALLOWED.sub("_", key)
        if name[:1].isdigit() or name.startswith("__") or name in _RESERVED or not name:
            name = f"label_{name}"
        labels.setdefault(name, value)
    return labels


def add(made: Page, points: Iterable[Point]) -> None:
    """Adds the points; a family has the type of its first one, others are left out."""
    kinds: dict[str, str] = {}
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for point in points:
        name, labels = name_of(point), labels_of(point)
        key = (name, tuple(sorted(labels.items())))
        if kinds.setdefault(name, point.kind) != point.kind or key in seen:
            continue
        seen.add(key)
        help = " ".join(point.help.split()).replace("\\", "\\\\") or f"{point.name} of a service."
        if point.kind == "histogram":
            made.buckets(name, help, labels, point.bounds, point.buckets, point.count, point.value)
        else:
            made.add(name, point.kind, help, point.value, labels)
