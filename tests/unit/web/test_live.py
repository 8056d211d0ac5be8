"""What waits for a page is bounded, and what is left out is counted."""

from __future__ import annotations

import json
from typing import Any

from gemel.engine.metrics import Page
from gemel.observe.capture.records import Exchange, Peer
from gemel.web import calls, details, logfeed, stage
from gemel.web.hub import BATCH, BYTES, ROWS, Box, Hub


def messages(box: Box) -> list[dict[str, Any]]:
    return [json.loads(message) for message in box.take()]


async def test_of_a_state_the_latest_is_kept() -> None:
    box, hub = Box(), Hub()
    hub.boxes.add(box)
    hub.put("services", b'{"t":"services","n":0}')
    assert not box.filled.is_set()  # it does not look at that
    assert box.choose(["services", "nonsense"]) == {"services"}
    for n in range(3):
        hub.put("services", b'{"t":"services","n":%d}' % n)
    assert messages(box) == [{"t": "services", "n": 2}]
    assert not box.filled.is_set()


async def test_rows_that_nobody_reads_are_dropped_and_counted() -> None:
    box = Box()
    box.choose(["logs"])
    box.add("logs", [b"%d" % n for n in range(ROWS + 500)])
    got: list[int] = []
    dropped = 0
    while box.filled.is_set():
        for message in messages(box):
            assert len(message["rows"]) <= BATCH
            got += message["rows"]
            dropped += message["dropped"]
    assert got == list(range(500, ROWS + 500))
    assert dropped == 500


async def test_long_rows_are_bounded_by_their_bytes() -> None:
    box = Box()
    box.choose(["logs"])
    box.add("logs", [b'"' + b"x" * (1 << 20) + b'"'] * 20)
    assert sum(len(m) for _ in range(20) for m in box.take()) <= BYTES + (1 << 20)


async def test_rows_are_forgotten_when_nobody_looks_any_more() -> None:
    box = Box()
    box.choose(["logs", "calls"])
    box.add("logs", [b"1"])
    box.add("calls", [b"2"])
    box.choose(["calls"])
    assert [m["t"] for m in messages(box)] == ["calls"]


def test_frames_cut_anywhere_come_whole() -> None:
    data = b"".join(
        bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text
        for stream, text in ((1, b"one\n"), (2, b"two\n"), (1, b""))
    )
    for cut in range(len(data)):
        first, rest = logfeed.unframe(data[:cut])
        second, rest = logfeed.unframe(rest + data[cut:])
        assert first + second == [(1, b"one\n"), (2, b"two\n"), (1, b"")]
        assert rest == b""


def test_rows_of_a_log() -> None:
    when, encoded = logfeed.row("id", 2, b"2026-11-28T13:00:00.5Z a \xff line\r\n", 0)
    assert when == 1795870800_500000000
    assert json.loads(encoded) == ["id", 1795870800500, 2, "a \ufffd line"]
    # without a time: binary output, or the rest of a line
    assert logfeed.row("id", 1, b"\x00\x01", 7)[0] == 7
    assert len(logfeed.row("id", 1, b"x" * (1 << 20), 7)[1]) < logfeed.LONGEST * 2


def test_figures_are_those_of_the_engine() -> None:
    page = Page()
    labels = {"name": 'a"b', "service": "s", "project": "p", "runtime": "microvm"}
    page.add("gemel_instance_cpu_seconds_total", "counter", "", 1.5, labels)
    page.add("gemel_instance_memory_true_bytes", "gauge", "", 4096, labels)
    page.add("gemel_instance_up", "gauge", "", 1, labels)
    page.add("gemel_build_info", "gauge", "", 1, {"version": "1"})
    found = stage.figures(page.text().encode())
    assert list(found.values()) == [{"cpu_seconds_total": 1.5, "memory_true_bytes": 4096.0}]


def test_cpu_is_told_from_two_samples() -> None:
    curve = stage.Curve()
    curve.add(10.0, {"cpu_seconds_total": 1.0, "memory_true_bytes": 5.0})
    curve.add(12.0, {"cpu_seconds_total": 2.0, "memory_true_bytes": 6.0})
    curve.add(14.0, {})  # it has ended
    curve.add(16.0, {"cpu_seconds_total": 0.1, "memory_true_bytes": 1.0})
    assert list(curve.cpu) == [0, 50, 0, 0]
    assert list(curve.memory) == [5, 6, 0, 1]


def test_secrets_are_not_shown() -> None:
    shown = details.masked(
        {
            "Args": ['{"password": "geheim"}'],
            "Config": {
                "Env": [
                    "DB_PASSWORD=geheim",
                    "PATH=/bin",
                    "URL=postgresql://shop:geheim@db:5432/shop",
                    "EMPTY",
                ],
                "Cmd": ["run", "--token=geheim"],
            },
            "Name": "/a",
        }
    )
    assert "geheim" not in json.dumps(shown)
    assert shown["Config"]["Env"][1:3] == ["PATH=/bin", "URL=postgresql://shop:***@db:5432/shop"]
    assert shown["Name"] == "/a"


def exchange(**more: Any) -> Exchange:
    source = Peer(address="10.0.0.1", name="shop-web-1", service="web", project="shop")
    target = Peer(address="10.0.0.9")
    return Exchange("1", "http", 100.0, source, target, **more)


def test_an_edge_sums_up_the_calls_of_late() -> None:
    edge = calls.Edge(calls.end(Peer(service="a")), calls.end(Peer(address="10.0.0.9")), "http")
    for n in range(100):
        edge.add(1000.0, n / 1000, failed=n < 10)
    edge.add(1000.0 - calls.WINDOW - 10, 50.0, failed=True)  # long ago
    shown = edge.shown(1005.0)
    assert (shown["from"], shown["to"]) == ("/a", "/10.0.0.9")
    assert shown["rate"] == round(100 / calls.WINDOW, 2)
    assert shown["errors"] == 0.1
    assert (shown["p50"], shown["p95"]) == (0.05, 0.095)
    assert (shown["total"], shown["failed"]) == (101, 11)
    assert edge.shown(1005.0 + calls.WINDOW)["rate"] == 0


def test_which_calls_have_failed() -> None:
    assert not calls.is_failure(exchange(status=404))
    assert calls.is_failure(exchange(status=503))
    assert calls.is_failure(exchange(failed=True))
    assert calls.is_failure(exchange(error="broken off"))
