"""Joins observed calls and OpenTelemetry's spans to traces. Pure.

1. Spans hang below the spans that they name.
2. A call with a traceparent hangs below the span that made it; the span of the service that
   answered it hangs below the call. Where an id is missing, time decides.
3. A call without one hangs below the call that its service was answering (``infer``).
4. What has the same trace id, or the same X-Request-Id within a minute, is one trace.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from gemel.observe.tracing.infer import SLACK, Inference
from gemel.observe.tracing.records import Call, Span
from gemel.observe.tracing.tree import Node, Timeline, key_of

#: Seconds that clocks of guests and of the host may differ by.
SKEW = 0.25
#: Seconds between calls with one X-Request-Id beyond which they are not one trace.
APART = 60.0
#: Protocols whose entry is a connection, not a call: too long to be a cause.
CONNECTIONS = frozenset(("tcp", "tls", "websocket"))

#: Kinds of spans that answer a call.
ANSWERS = frozenset(("server", "consumer"))
_DEEPEST = 32

_Spans = dict[tuple[str, str], Node]


class Joined:
    """One trace: its id and roots, each a tree."""

    __slots__ = ("id", "roots")

    def __init__(self, id: str, roots: list[Node]) -> None:
        self.id = id
        self.roots = roots

    def nodes(self) -> list[Node]:
        """All of it, parents first, in the order of time among siblings."""
        found: list[Node] = []
        waiting = sorted(self.roots, key=_when, reverse=True)
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting.extend(sorted(node.children, key=_when, reverse=True))
        return found


def _when(node: Node) -> tuple[float, float, str]:
    return node.start, -node.end, node.id


def join(calls: Iterable[Call], spans: Iterable[Span], epoch: str = "") -> list[Joined]:
    """All traces, in the order in which they began."""
    nodes = sorted((Node.of_call(call, epoch) for call in calls), key=_when)
    by_named: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for node in nodes:
        if node.call is not None and node.call.trace:
            by_named[node.call.trace, node.call.parent].append(node)
    known: _Spans = {}
    for span in spans:  # of two with one id the first stays
        known.setdefault((span.trace, span.id), Node.of_span(span))
    _named_parents(known, by_named)
    _named_makers(by_named, known)
    _answers(nodes, known)
    _causes(nodes, _free_clients(known, by_named))
    return _traces([*known.values(), *nodes])


def _named_parents(known: _Spans, by_named: dict[tuple[str, str], list[Node]]) -> None:
    """Hangs spans below the call that they answer, else below the span that they name."""
    for node in known.values():
        span = node.span
        assert span is not None
        if not span.parent:
            continue
        named = (span.trace, span.parent)
        call = _call_to(span, by_named.get(named, ())) if span.kind in ANSWERS else None
        parent = call or known.get(named)
        if parent is not None and node.attach(parent, inferred=False) and call is not None:
            call.inner = node


def _call_to(span: Span, calls: Sequence[Node]) -> Node | None:
    """Of the calls that name the same parent the one that came to the span's service."""
    for node in calls:
        assert node.call is not None
        there, here = key_of(node.call.target), key_of(span.source)
        if node.inner is None and (there == here or not there or not here):
            return node
    return None


def _named_makers(by_named: dict[tuple[str, str], list[Node]], known: _Spans) -> None:
    """Hangs calls below the spans that made them. One that only passes a header on did not."""
    for named, nodes in by_named.items():
        maker = known.get(named)
        if maker is None or maker.span is None:
            continue
        home = key_of(maker.span.source)
        for node in nodes:
            assert node.call is not None
            if not home or home == key_of(node.call.source):
                node.attach(maker, inferred=False)


def _free_clients(
    known: _Spans, by_named: dict[tuple[str, str], list[Node]]
) -> dict[str, Timeline]:
    """Spans of clients whose call names no trace (of databases), by instance."""
    free: dict[str, Timeline] = defaultdict(Timeline)
    for place, node in known.items():
        span = node.span
        if span is not None and span.kind == "client" and place not in by_named:
            free[key_of(span.source)].add(node)
    free.pop("", None)
    return free


def _answers(nodes: Sequence[Node], known: _Spans) -> None:
    """Hangs spans that begin a trace below the calls, without a trace's id, that they answer."""
    targets: dict[str, Timeline] = defaultdict(Timeline)
    for node in nodes:
        if node.call is not None and not node.call.trace:
            targets[key_of(node.call.target)].add(node)
    targets.pop("", None)
    for node in sorted(known.values(), key=_when):
        span = node.span
        assert span is not None
        if span.kind in ANSWERS and node.parent is None and key_of(span.source) in targets:
            _answer(targets[key_of(span.source)], node, span)


def _answer(calls: Timeline, node: Node, span: Span) -> None:
    fitting = [
        one
        for one in calls.before(span.start + SKEW)
        if one.inner is None and one.start >= span.start - 600 and span.end <= one.end + SKEW
    ]
    if not fitting:
        return
    best = min(fitting, key=lambda one: (not _same_work(one, span), abs(one.start - span.start)))
    if node.attach(best, inferred=True):
        best.inner = node


def _same_work(node: Node, span: Span) -> bool:
    """Whether method and path of a call are those that the span's attributes tell."""
    assert node.call is not None
    told = [span.attributes.get(name) for name in ("url.path", "http.target", "http.route")]
    path = node.call.path.partition("?")[0]
    method = span.attributes.get("http.request.method") or span.attributes.get("http.method")
    named = any(str(one).partition("?")[0] == path for one in told if one)
    return (named or path in span.name) and (not method or method == node.call.method)


def _causes(nodes: Sequence[Node], clients: dict[str, Timeline]) -> None:
    """Hangs what is left below the calls that their services were answering."""
    inference = Inference()
    for node in nodes:
        call = node.call
        assert call is not None
        source = key_of(call.source)
        if node.parent is None and source:
            span = _around(clients.get(source), node) if not call.trace else None
            if span is not None:
                node.attach(span, inferred=True)
            else:
                found = inference.cause(call, node, source)
                if found is not None:
                    cause, inferred = found
                    node.attach(_deepest(cause, node), inferred)
        if call.protocol not in CONNECTIONS:
            inference.answering(node, key_of(call.target))


def _around(clients: Timeline | None, node: Node) -> Node | None:
    """The shortest client's span, without a call yet, around a call that names none."""
    if clients is None:
        return None
    for slack in (SLACK, SKEW):
        around = [
            one
            for one in clients.before(node.start + slack)
            if not one.children and node.end <= one.end + slack
        ]
        if around:
            return min(around, key=lambda one: one.end - one.start)
    return None


def _deepest(cause: Node, node: Node) -> Node:
    """Of the answering service's own spans the innermost in which the call was made."""
    place = cause.inner or cause
    for _ in range(_DEEPEST):
        inner = [
            one
            for one in place.children[-Timeline.MOST :]
            if one.span is not None
            and one.service == place.service
            and one.start - SLACK <= node.start
            and node.end <= one.end + SLACK
        ]
        if place.span is None or len(inner) != 1:
            break
        place = inner[0]
    return place


def _traces(nodes: Sequence[Node]) -> list[Joined]:
    """Trees by their traces; connections that are no part of one are left out."""
    named: dict[str, list[Node]] = defaultdict(list)
    asked: dict[str, list[Node]] = defaultdict(list)
    traces: list[Joined] = []
    for root in nodes:
        if root.parent is not None:
            continue
        call = root.call
        if root.trace:
            named[root.trace].append(root)
        elif call is not None and call.protocol in CONNECTIONS and not root.children:
            continue
        elif root.request:
            asked[root.request].append(root)
        else:
            traces.append(Joined(_made_up(root.id), [root]))
    traces += [Joined(id, roots) for id, roots in named.items()]
    for roots in asked.values():
        traces += [Joined(_made_up(group[0].id), group) for group in _groups(roots)]
    return sorted(traces, key=lambda one: min(map(_when, one.roots)))


def _groups(roots: list[Node]) -> list[list[Node]]:
    """Roots with one X-Request-Id, apart where much time lies between."""
    roots.sort(key=_when)
    groups = [[roots[0]]]
    for root in roots[1:]:
        if root.start - groups[-1][-1].end > APART:
            groups.append([])
        groups[-1].append(root)
    return groups


def _made_up(id: str) -> str:
    return hashlib.blake2b(id.encode(), digest_size=16).hexdigest()
