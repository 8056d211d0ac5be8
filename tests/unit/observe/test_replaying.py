"""Which recorded answer a request gets."""

from __future__ import annotations

from gemel.model.replay import RecordedCall, RecordedService
from gemel.observe.replaying.answers import Answers


def call(path: str, answer: bytes, body: bytes = b"", method: str = "GET") -> RecordedCall:
    return RecordedCall(method=method, path=path, port=80, body=body, answer=answer)


def service(name: str, *calls: RecordedCall, alias: str = "") -> RecordedService:
    return RecordedService(name=name, aliases=[alias] if alias else [], calls=list(calls))


def test_answers_come_in_their_order_and_the_last_stays() -> None:
    of = Answers([service("a", call("/x", b"1"), call("/x", b"2"), call("/y", b"3"))])
    got = [of.find("a", "get", "/x", 80, b"") for _ in range(4)]
    assert [one.answer for one in got if one] == [b"1", b"2", b"2", b"2"]
    assert of.find("a", "POST", "/x", 80, b"") is None
    assert of.find("a", "GET", "/x?n=1", 80, b"") is None
    assert of.find("a", "GET", "/x", 81, b"") is None
    assert of.near("a") == ["GET /x", "GET /y"]


def test_the_same_body_goes_first() -> None:
    of = Answers([service("a", call("/p", b"1", b"one", "POST"), call("/p", b"2", b"two", "POST"))])
    chosen = [of.find("a", "POST", "/p", 80, body) for body in (b"two", b"new", b"one", b"new")]
    assert [one.answer for one in chosen if one] == [b"2", b"1", b"1", b"2"]


def test_who_is_meant() -> None:
    of = Answers([service("a", call("/", b"")), service("b", call("/", b""), alias="bee")])
    assert [of.service(host, 80) for host in ("a", "A:80", "bee:80", "other")] == [
        "a",
        "a",
        "b",
        "",
    ]
    alone = Answers([service("a", call("/", b""))])
    assert alone.service("anything", 80) == "a"
    assert alone.ports == [80]
