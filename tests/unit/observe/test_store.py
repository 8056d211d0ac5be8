"""What is kept is bounded, found again by what is asked, and summed up."""

from __future__ import annotations

import pytest

from gemel.observe.capture import mask, store
from gemel.observe.capture.records import Exchange, Part, Peer, Query
from gemel.observe.capture.store import Looker, Store

A = Peer("10.0.0.1", 1000, "a" * 64, "shop-web-1", "web", "shop")
B = Peer("10.0.0.2", 80, "b" * 64, "shop-pay-1", "pay", "shop")


def call(status: int | None = 200, duration: float = 0.01, path: str = "/") -> Exchange:
    return Exchange("", "http", 1.0, A, B, "GET", path, status=status, duration=duration)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), ["1", "2", "3"]),
        (Query(status="5xx"), ["2"]),
        (Query(status="200"), ["1"]),
        (Query(status="none"), ["3"]),
        (Query(slower=0.1), ["2"]),
        (Query(source="web", target="shop-pay-1"), ["1", "2", "3"]),
        (Query(source="pay"), []),
        (Query(target="b" * 12), ["1", "2", "3"]),
        (Query(path="/b", tail=1), ["3"]),
        (Query(project="other"), []),
    ],
)
def test_what_a_query_finds(query: Query, found: list[str]) -> None:
    kept = Store()
    for one in (call(), call(503, 0.2, "/b/1"), call(None, path="/b/2")):
        kept.add(one)
    assert [e.id for e in kept.find(query)] == found


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEEP", 10)
    monkeypatch.setattr(store, "KEEP_BYTES", 20_000)
    kept = Store()
    for _ in range(30):
        kept.add(call())
    assert [e.id for e in kept.find(Query())] == [str(n) for n in range(21, 31)]
    big = call()
    big.response = Part(body="x" * 15_000)
    kept.add(big)
    assert len(kept.find(Query())) < 5


async def test_who_is_too_slow_misses_and_is_told() -> None:
    kept, looker = Store(), Looker(Query(follow=True))
    kept.lookers.add(looker)
    for _ in range(store.QUEUE + 5):
        kept.add(call())
    assert (looker.queue.qsize(), looker.dropped) == (store.QUEUE, 5)


def test_sums() -> None:
    kept = Store()
    for one in (call(duration=0.004), call(duration=20.0), call(503)):
        kept.add(one)
    first, second = kept.sums().edges
    assert (first.source, first.target, first.code, first.count) == ("web", "pay", "200", 2)
    assert sum(first.buckets) == 1  # what took longer than the last bound is in the count only
    assert (second.code, second.count) == ("503", 1)


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        (mask.header("Authorization", "Basic eHg="), "Basic ***"),
        (mask.header("X-Api-Key", "abc"), "***"),
        (mask.header("Set-Cookie", "sid=1; Path=/"), "sid=***; Path=/"),
        (mask.header("Accept", "text/html"), "text/html"),
        (mask.header("X", "eyJhbGciOiJ9.eyJzdWIiOiJ9.abc"), "***"),
        (mask.path("/x?a=1&access_token=abc&b=2"), "/x?a=1&access_token=***&b=2"),
        (mask.body('{"user": "u", "userPassword":"a\\"b", "n": 1}'),
         '{"user": "u", "userPassword":"***", "n": 1}'),
        (mask.body('{"token": "cut o'), '{"token": "***"'),
        (mask.body("user=u&password=p"), "user=u&password=***"),
        (mask.body("nothing = to hide"), "nothing = to hide"),
    ],
)  # fmt: skip
def test_secrets(hidden: str, shown: str) -> None:
    assert hidden == shown
