"""OTLP's messages, as protobuf or JSON, and gemel's values. Pure; everything is cut to size."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from gemel.errors import InvalidInput
from gemel.observe.tracing.records import Attributes, Log, Peer, Point, Span

#: What is kept of one attribute's value, of a name, of a body; attributes of one thing; events.
VALUE, NAME, BODY, ATTRIBUTES, EVENTS = 1024, 256, 4096, 64, 32
KINDS = ("internal", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")
_IDS = frozenset(("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"))
REQUESTS: dict[str, tuple[type[Any], type[Any]]] = {
    "traces": (trace_service.ExportTraceServiceRequest, trace_service.ExportTraceServiceResponse),
    "logs": (logs_service.ExportLogsServiceRequest, logs_service.ExportLogsServiceResponse),
    "metrics": (
        metrics_service.ExportMetricsServiceRequest,
        metrics_service.ExportMetricsServiceResponse,
    ),
}


def decode(what: str, data: bytes, as_json: bool) -> Any:
    """A request to export ``what``: traces, logs, metrics. Raises InvalidInput."""
    message = REQUESTS[what][0]()
    try:
        if as_json:
            value = _hex_ids(msgspec.json.decode(data, type=dict[str, Any]), 0)
            json_format.ParseDict(value, message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(data)
    except (DecodeError, json_format.ParseError, msgspec.MsgspecError, ValueError, TypeError,
            RecursionError) as error:  # fmt: skip
        raise InvalidInput(f"no OTLP request of {what}", details=str(error)[:300]) from error
    return message


def answer(what: str, as_json: bool) -> bytes:
    """What is answered to a request that was taken whole."""
    return b"{}" if as_json else REQUESTS[what][1]().SerializeToString()


def _hex_ids(value: Any, depth: int) -> Any:
    """OTLP/JSON writes ids as hexadecimal digits, protobuf's JSON as base64."""
    if depth > 64:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [_hex_ids(one, depth + 1) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _base64(one) if key in _IDS and isinstance(one, str) else _hex_ids(one, depth + 1)
        for key, one in value.items()
    }


def _base64(text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an id that is not hexadecimal: {text[:40]}") from error


# --- from messages ----------------------------------------------------------------------


def _value(value: Any, depth: int = 0) -> Any:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value[:VALUE]
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value[:VALUE]).decode()
    if kind in ("array_value", "kvlist_value"):
        if depth > 3:
            return "…"
        inner = getattr(value, kind).values[:ATTRIBUTES]
        if kind == "array_value":
            return [_value(one, depth + 1) for one in inner]
        return {one.key[:NAME]: _value(one.value, depth + 1) for one in inner}
    found = getattr(value, kind) if kind else None
    return str(found) if isinstance(found, float) and not math.isfinite(found) else found


def attributes(items: Any) -> Attributes:
    """Attributes as JSON's values."""
    return {item.key[:NAME]: _value(item.value) for item in items[:ATTRIBUTES]}


def _service(resource: Attributes, source: Peer) -> str:
    """The name that it bears in gemel where its address tells, else the one that it says."""
    return source.service or str(resource.get("service.name") or source.name or source.address)


def spans(message: Any, source: Peer) -> Iterator[Span]:
    """The spans of a request; those with ids of a wrong size are left out."""
    for group in message.resource_spans:
        resource = attributes(group.resource.attributes)
        service = _service(resource, source)[:NAME]
        for scope in group.scope_spans:
            name = scope.scope.name[:NAME]
            for span in scope.spans:
                if len(span.trace_id) == 16 and len(span.span_id) == 8:
                    yield _span(span, resource, service, source, name)


def _span(span: Any, resource: Attributes, service: str, source: Peer, scope: str) -> Span:
    events = [
        {"name": one.name[:NAME], "time": one.time_unix_nano / 1e9, **_extra(one.attributes)}
        for one in span.events[:EVENTS]
    ]
    return Span(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex() if len(span.parent_span_id) == 8 else "",
        name=span.name[:NAME],
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else "internal",
        start=span.start_time_unix_nano / 1e9,
        end=max(span.start_time_unix_nano, span.end_time_unix_nano) / 1e9,
        service=service,
        source=source,
        status=STATUSES[span.status.code] if 0 <= span.status.code < len(STATUSES) else "unset",
        message=span.status.message[:VALUE],
        attributes=attributes(span.attributes),
        events=events,
        resource=resource,
        scope=scope,
    )


def _extra(items: Any) -> Attributes:
    return {"attributes": attributes(items)} if items else {}


def logs(message: Any, source: Peer) -> Iterator[Log]:
    """The log records of a request."""
    for group in message.resource_logs:
        service = _service(attributes(group.resource.attributes), source)[:NAME]
        for scope in group.scope_logs:
            for one in scope.log_records:
                body = _value(one.body)
                yield Log(
                    at=(one.time_unix_nano or one.observed_time_unix_nano) / 1e9,
                    service=service,
                    severity=(one.severity_text or _severity(one.severity_number))[:20],
                    body=body[:BODY]
                    if isinstance(body, str)
                    else msgspec.json.encode(body).decode()[:BODY],
                    trace=one.trace_id.hex() if len(one.trace_id) == 16 else "",
                    span=one.span_id.hex() if len(one.span_id) == 8 else "",
                    attributes=attributes(one.attributes),
                )


def _severity(number: int) -> str:
    names = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    return names[(number - 1) // 4] if 1 <= number <= 24 else ""


def points(message: Any, source: Peer) -> Iterator[Point]:
    """The data points of a request: sums, gauges and histograms that are cumulative."""
    for group in message.resource_metrics:
        service = _service(attributes(group.resource.attributes), source)[:NAME]
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                yield from _metric(metric, service)


def _metric(metric: Any, service: str) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind not in ("gauge", "sum", "histogram"):
        return
    data = getattr(metric, kind)
    if kind != "gauge" and data.aggregation_temporality != 2:
        return  # differences cannot be shown as counters
    shown = {"gauge": "gauge", "histogram": "histogram"}.get(kind) or (
        "counter" if data.is_monotonic else "gauge"
    )
    for one in data.data_points[:1000]:
        labels = {
            key: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for key, value in attributes(one.attributes).items()
        }
        made = Point(metric.name[:NAME], metric.unit[:20], shown, metric.description[:NAME],
                     labels, service)  # fmt: skip
        if kind == "histogram":
            if len(one.bucket_counts) != len(one.explicit_bounds) + 1 or len(labels) > 32:
                continue
            made.value, made.count = one.sum, one.count
            made.bounds, made.buckets = list(one.explicit_bounds), list(one.bucket_counts)
        else:
            which = one.WhichOneof("value")
            made.value = float(getattr(one, which)) if which else 0.0
        if math.isfinite(made.value):
            yield made
