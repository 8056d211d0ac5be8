"""Traces as they are shown and given away. Pure."""

from __future__ import annotations

from gemel.observe.tracing.join import Joined
from gemel.observe.tracing.records import Ask, Attributes, Call, Log, Shown, Span, Trace, Whole
from gemel.observe.tracing.tree import Node, label

#: Spans and logs of one trace that are given out at most.
MOST = 5000
_HTTP = frozenset(("http", "h2"))


def name_of(call: Call) -> str:
    """A call in a few words."""
    if call.protocol in _HTTP:
        return f"{call.method} {call.path.partition('?')[0]}"[:200]
    if call.protocol in ("tcp", "tls", "websocket"):
        return f"{call.protocol} {call.host}".strip()
    if call.path.startswith(call.method):  # a statement
        return call.path[:200] or call.protocol
    return f"{call.method} {call.path}".strip()[:200]


def _of_call(node: Node, call: Call) -> Shown:
    attributes: Attributes = {"gemel.protocol": call.protocol}
    if call.protocol in _HTTP or call.protocol == "grpc":
        attributes |= {"http.request.method": call.method, "url.path": call.path}
        if call.status is not None and call.protocol in _HTTP:
            attributes["http.response.status_code"] = call.status
        if call.host:
            attributes["server.address"] = call.host
    else:
        attributes |= {"db.system.name": call.protocol, "db.query.text": call.path}
    attributes |= {"gemel.request.size": call.sent, "gemel.response.size": call.received}
    if call.fault:
        attributes["gemel.fault"] = call.fault
    if call.carried:
        attributes["gemel.carried"] = call.carried
    if call.message and call.failed:
        attributes["error.message"] = call.message
    return Shown(
        id=node.id,
        parent_id=node.parent.id if node.parent else "",
        service=label(call.target),
        peer=label(call.source),
        name=name_of(call),
        kind="server",
        start=node.start,
        duration=node.end - node.start,
        status=str(call.status) if call.status is not None else ("error" if call.failed else "ok"),
        error=failed(node),
        inferred=node.inferred,
        source="observed",
        call_id=call.id,
        attributes=attributes,
    )


_PEERS = ("peer.service", "server.address", "net.peer.name", "db.system.name", "db.system",
          "client.address")  # fmt: skip


def _of_span(node: Node, span: Span) -> Shown:
    attributes = dict(span.attributes)
    if span.message:
        attributes["error.message"] = span.message
    peer = next((attributes[key] for key in _PEERS if attributes.get(key)), "")
    return Shown(
        id=node.id,
        parent_id=node.parent.id if node.parent else "",
        service=span.service,
        peer=str(peer),
        name=span.name,
        kind=span.kind,
        start=node.start,
        duration=node.end - node.start,
        status=span.status,
        error=span.status == "error",
        inferred=node.inferred,
        source="otlp",
        attributes=attributes,
        events=span.events,
    )


def show(node: Node) -> Shown:
    """A node as it is shown."""
    if node.call is not None:
        return _of_call(node, node.call)
    assert node.span is not None
    return _of_span(node, node.span)


def failed(node: Node) -> bool:
    """Whether a call or span failed: a 4xx is the caller's doing, not counted."""
    if node.call is not None:
        return node.call.failed or (node.call.status or 0) >= 500
    return node.span is not None and node.span.status == "error"


def summary(joined: Joined) -> Trace:
    """A trace in a line."""
    nodes = joined.nodes()
    root = nodes[0]
    first = show(root)
    services = dict.fromkeys(node.service for node in nodes)
    start = min(node.start for node in nodes)
    return Trace(
        id=joined.id,
        root=first.name,
        root_service=first.service,
        services=list(services),
        start=start,
        duration=max(node.end for node in nodes) - start,
        errors=sum(map(failed, nodes)),
        inferred=any(node.inferred for node in nodes),
        span_count=len(nodes),
        status=first.status,
    )


def whole(joined: Joined, logs: list[Log]) -> Whole:
    """A trace with its spans, parents first, and the log records that name it."""
    line = summary(joined)
    nodes = joined.nodes()
    records = [
        {
            "Time": log.at, "Service": log.service, "Severity": log.severity, "Body": log.body,
            "SpanId": log.span, "Attributes": log.attributes,
        }
        for log in sorted(logs[-MOST:], key=lambda log: log.at)
    ]  # fmt: skip
    return Whole(
        **{name: getattr(line, name) for name in Trace.__struct_fields__},
        spans=[show(node) for node in nodes[:MOST]],
        logs=records,
        truncated=len(nodes) > MOST or len(logs) > MOST,
    )


def may_match(joined: Joined, ask: Ask) -> bool:
    """Whether a trace is of the project and service that is asked for.

    A lone statement to a database (a health check's) is one only where its service is asked for.
    """
    if not ask.service and _lone_statement(joined):
        return False
    if not ask.project and not ask.service:
        return True
    nodes = joined.nodes()
    return (not ask.project or any(ask.project in _projects(node) for node in nodes)) and (
        not ask.service or any(ask.service in _names(node) for node in nodes)
    )


def _lone_statement(joined: Joined) -> bool:
    root = joined.roots[0]
    return (
        root.call is not None
        and root.call.protocol in ("postgres", "redis")
        and len(joined.roots) == 1
        and not root.children
    )


def _projects(node: Node) -> tuple[str, ...]:
    if node.call is not None:
        return node.call.source.project, node.call.target.project
    return (node.span.source.project,) if node.span is not None else ()


def _names(node: Node) -> tuple[str, ...]:
    if node.call is not None:
        target = node.call.target
        return target.service, target.name, target.address, label(node.call.source)
    return node.service, node.span.source.name if node.span else ""


def matches(trace: Trace, ask: Ask) -> bool:
    """Whether a trace is among those that are asked for."""
    return (
        trace.duration >= ask.slower
        and (not ask.errors or trace.errors > 0)
        and trace.start + trace.duration > ask.after
    )
