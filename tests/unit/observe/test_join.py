"""Calls and spans become the traces that they were; what cannot be known is marked as inferred."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemel.observe.capture.records import Call, Peer
from gemel.observe.tracing import context
from gemel.observe.tracing.join import Joined, join
from gemel.observe.tracing.records import Span
from gemel.observe.tracing.tree import Node
from tests.unit.observe.trees import HOST, peer, world

WEB, PAY, DB = peer("web"), peer("pay"), peer("db")
T, OTHER = "a" * 32, "b" * 32
S1, S2, S3 = "1" * 16, "2" * 16, "3" * 16


def call(id: str, source: Peer, target: Peer, start: float, end: float, **more: object) -> Call:
    return Call(id, "http", start, end - start, source, target, "GET", f"/{id}", **more)  # type: ignore[arg-type]


def span(
    id: str, parent: str, who: Peer, kind: str, start: float, end: float, **more: object
) -> Span:
    return Span(T, id, parent, f"span {id[0]}", kind, start, end, who.service, who, **more)  # type: ignore[arg-type]


def said(node: Node) -> str:
    """A node and what is below: ``1(2?)``; ``?``: inferred. Spans begin with s."""
    name = node.call.id if node.call else f"s{node.id[0]}"
    below = " ".join(said(child) for child in sorted(node.children, key=lambda one: one.start))
    return name + ("?" if node.inferred else "") + (f"({below})" if below else "")


def told(traces: list[Joined]) -> list[str]:
    return [" + ".join(said(root) for root in trace.roots) for trace in traces]


def test_what_happens_meanwhile_was_caused_by_it() -> None:
    calls = [
        call("2", WEB, PAY, 1.1, 1.4),
        call("3", PAY, DB, 1.2, 1.3),
        call("1", HOST, WEB, 1.0, 2.0),
        call("4", WEB, DB, 1.5, 1.6),
        call("5", HOST, WEB, 3.0, 4.0),
    ]
    assert told(join(calls, [])) == ["1(2?(3?) 4?)", "5"]


def test_ids_go_before_time() -> None:
    calls = [
        call("1", HOST, WEB, 1.0, 2.0, trace=T, parent=S1),
        call("2", HOST, WEB, 1.01, 2.0, trace=OTHER, parent=S1),
        call("3", WEB, PAY, 1.1, 1.2, trace=OTHER, parent=S1),
        call("4", WEB, PAY, 1.3, 1.4, trace=T, parent=S2),
        call("5", WEB, PAY, 1.5, 1.6, trace="c" * 32, parent=S2),
    ]
    traces = join(calls, [])
    assert told(traces) == ["1(4)", "2(3)", "5"]
    assert [trace.id for trace in traces] == [T, OTHER, "c" * 32]


def test_request_ids_name_the_cause() -> None:
    calls = [
        call("1", HOST, WEB, 1.0, 2.0, request="r1"),
        call("2", HOST, WEB, 1.01, 2.0, request="r2"),
        call("3", WEB, PAY, 1.1, 1.2, request="r1"),
        call("4", HOST, DB, 2.5, 2.6, request="r1"),
        call("5", HOST, DB, 200.0, 201.0, request="r1"),
    ]
    assert told(join(calls, [])) == ["1(3) + 4", "2", "5"]


def test_calls_hang_between_the_spans_of_client_and_server() -> None:
    spans = [
        span(S1, "", WEB, "client", 1.0, 2.0),
        span(S2, S1, PAY, "server", 1.2, 1.8),
        span(S3, S2, PAY, "internal", 1.3, 1.7),
    ]
    calls = [
        call("1", WEB, PAY, 1.1, 1.9, trace=T, parent=S1),
        call("2", PAY, DB, 1.4, 1.5),
    ]
    assert told(join(calls, spans)) == ["s1(1(s2(s3(2?))))"]


def test_a_header_that_is_only_passed_on() -> None:
    spans = [span(S1, "", WEB, "client", 1.0, 2.0)]
    calls = [
        call("1", WEB, PAY, 1.1, 1.9, trace=T, parent=S1),
        call("2", PAY, DB, 1.2, 1.3, trace=T, parent=S1),
    ]
    assert told(join(calls, spans)) == ["s1(1(2))"]


def test_spans_that_begin_a_trace_answer_a_call() -> None:
    spans = [
        span(S1, "", PAY, "server", 1.2, 1.8, attributes={"url.path": "/1"}),
        span(S2, S1, PAY, "client", 1.29, 1.41, attributes={"db.system": "postgresql"}),
    ]
    calls = [
        call("1", WEB, PAY, 1.1, 1.9),
        call("2", HOST, PAY, 1.15, 1.9),
        call("3", PAY, DB, 1.3, 1.4),
    ]
    traces = join(calls, spans)
    assert told(traces) == ["1(s1?(s2(3?)))", "2"]
    assert traces[0].id == T


def test_rings_and_doubles_of_spans_do_no_harm() -> None:
    spans = [
        span(S1, S2, WEB, "server", 1.0, 2.0),
        span(S2, S1, WEB, "client", 1.0, 2.0),
        span(S2, S2, WEB, "client", 1.0, 2.0),
        span(S3, S3, WEB, "client", 1.0, 2.0),
    ]
    traces = join([call("1", WEB, PAY, 1.1, 1.2, trace=T, parent=S2)], spans)
    assert sorted(node.id[0] for node in traces[0].nodes() if node.span) == ["1", "2", "3"]
    deep = [span(f"{n:016x}", f"{n - 1:016x}", WEB, "internal", 1.0, 2.0) for n in range(1, 20_000)]
    assert len(join([], deep)[0].nodes()) == 19_999


def test_connections_are_no_cause_and_no_trace() -> None:
    tunnel = call("1", HOST, WEB, 1.0, 100.0)
    tunnel.protocol = "tls"
    assert told(join([tunnel, call("2", WEB, PAY, 2.0, 3.0)], [])) == ["2"]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("Traceparent", f"00-{T}-{S1}-01")], (T, S1, "")),
        ([("traceparent", f"00-{'0' * 32}-{S1}-01")], ("", "", "")),
        ([("traceparent", f"ff-{T}-{S1}-01")], ("", "", "")),
        ([("b3", f"{T}-{S1}-1-{S2}")], (T, S1, "")),
        ([("b3", f"{'A' * 16}-{S1}")], ("0" * 16 + "a" * 16, S1, "")),
        ([("b3", "0")], ("", "", "")),
        ([("X-B3-TraceId", T), ("X-B3-SpanId", S1), ("X-Request-Id", "r")], (T, S1, "r")),
        ([("X-B3-TraceId", T)], ("", "", "")),
        ([("x-correlation-id", " c ")], ("", "", "c")),
        ([("x-request-id", "x" * 1000)], ("", "", "")),
    ],
)
def test_contexts(headers: list[tuple[str, str]], found: tuple[str, str, str]) -> None:
    assert context.of(headers) == found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 1.0, 5.0]))
def test_every_call_is_in_one_trace_once(seed: int, at_once: float) -> None:
    made = world(seed, 20, at_once)
    nodes = [node for trace in join(made.calls, []) for node in trace.nodes()]
    assert sorted(node.call.id for node in nodes if node.call) == sorted(made.causes)
    for node in nodes:
        if node.parent is not None and node.parent.call and node.call:
            assert node.inferred
            assert node.parent.call.target == node.call.source
            assert node.parent.start <= node.start <= node.parent.end + 0.01


def precision(at_once: float, seeds: int = 5, fan: float = 0.2) -> float:
    """The share of calls whose cause is found."""
    right = total = 0
    for seed in range(seeds):
        made = world(seed, 300, at_once, fan=fan)
        for trace in join(made.calls, []):
            for node in trace.nodes():
                if node.call and (cause := made.causes[node.call.id]):
                    total += 1
                    right += bool(node.parent and node.parent.call) and (
                        node.parent.call.id == cause  # type: ignore[union-attr]
                    )
    return right / total


def test_without_overlap_every_cause_is_found() -> None:
    assert precision(0.001, seeds=2) > 0.95  # a service may call itself, or several at once


def test_with_overlap_most_causes_are_found() -> None:
    assert precision(1.0, seeds=2) > 0.8


if __name__ == "__main__":
    for at_once in (0.1, 0.5, 1, 2, 5, 10, 20):
        print(f"{at_once:5} at once: {precision(at_once):.1%}")
