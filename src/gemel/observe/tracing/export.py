"""Traces as OTLP/JSON, for a collector. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from gemel.observe.tracing.join import Joined
from gemel.observe.tracing.otlp import KINDS, STATUSES
from gemel.observe.tracing.records import Attributes, Shown
from gemel.observe.tracing.shown import show

#: Spans of one request at most.
PIECE = 500


def requests(joined: Joined) -> Iterator[bytes]:
    """The ExportTraceServiceRequests of a trace, each a line of OTLP/JSON."""
    nodes = joined.nodes()
    for first in range(0, len(nodes), PIECE):
        groups: dict[str, list[Any]] = defaultdict(list)
        resources: dict[str, Attributes] = {}
        for node in nodes[first : first + PIECE]:
            shown = show(node)
            groups[shown.service].append(_span(shown, joined.id))
            if node.span is not None:
                resources.setdefault(shown.service, node.span.resource)
        yield msgspec.json.encode(
            {
                "resourceSpans": [
                    _group(name, resources.get(name, {}), spans) for name, spans in groups.items()
                ]
            }
        )


def _group(name: str, resource: Attributes, spans: list[Any]) -> Any:
    return {
        "resource": {"attributes": _attributes({**resource, "service.name": name})},
        "scopeSpans": [{"scope": {"name": "gemel"}, "spans": spans}],
    }


def _span(shown: Shown, trace: str) -> Any:
    own = {"gemel.source": shown.source, "gemel.inferred": shown.inferred}
    if shown.peer:
        own["peer.service" if shown.source == "otlp" else "client.address"] = shown.peer
    status = "error" if shown.error else "unset"
    if shown.source == "otlp":
        status = shown.status
    return {
        "traceId": trace,
        "spanId": shown.id,
        "parentSpanId": shown.parent_id,
        "name": shown.name,
        "kind": max(1, KINDS.index(shown.kind, 1)),
        "startTimeUnixNano": str(round(shown.start * 1e9)),
        "endTimeUnixNano": str(round((shown.start + shown.duration) * 1e9)),
        "attributes": _attributes({**shown.attributes, **own}),
        "events": [_event(event) for event in shown.events],
        "status": {
            "code": STATUSES.index(status),
            "message": str(shown.attributes.get("error.message", "")),
        },
    }


def _event(event: Attributes) -> Any:
    return {
        "name": event.get("name", ""),
        "timeUnixNano": str(round(event.get("time", 0) * 1e9)),
        "attributes": _attributes(event.get("attributes", {})),
    }


def _attributes(items: Attributes) -> list[Any]:
    return [{"key": key, "value": _value(value)} for key, value in items.items()]


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes(value)}}
    return {"stringValue": "" if value is None else str(value)}
