"""HAR files written and read, and what differs between two answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.cli import har
from gemel.cli.differing import Answer, differences
from gemel.errors import InvalidInput

CALL: dict[str, Any] = {
    "id": "7",
    "protocol": "http",
    "start": 1_700_000_000.25,
    "duration": 0.2,
    "first_byte": 0.05,
    "source": {"address": "10.0.0.2", "service": "orders"},
    "target": {"address": "10.0.0.3", "port": 8080, "service": "payments"},
    "method": "POST",
    "path": "/pay?n=1&n=2",
    "host": "payments",
    "status": 201,
    "message": "Created",
    "request": {
        "headers": [["Content-Type", "application/json"]],
        "body": '{"a": 1}',
        "size": 8,
    },
    "response": {"headers": [["Location", "/pay/1"]], "body": "AAE=", "size": 2, "binary": True},
    "connection": 3,
}


def test_a_call_as_an_entry_and_back(tmp_path: Path) -> None:
    file = tmp_path / "calls.har"
    har.write(str(file), har.document([har.entry(CALL)], "1"))
    content = json.loads(file.read_text())
    assert content["log"]["version"] == "1.2"
    (one,) = har.read(str(file))
    assert one["startedDateTime"] == "2023-11-14T22:13:20.250+00:00"
    assert one["request"]["url"] == "http://payments:8080/pay?n=1&n=2"
    assert one["request"]["queryString"] == [
        {"name": "n", "value": "1"},
        {"name": "n", "value": "2"},
    ]
    assert one["timings"] == {"send": 0, "wait": 50, "receive": 150}
    assert one["response"]["redirectURL"] == "/pay/1"
    assert har.body(one["response"]["content"]) == b"\0\1"
    assert har.body(one["request"]["postData"]) == b'{"a": 1}'
    assert (har.target(one), har.port(one), har.path(one)) == ("payments", 8080, "/pay?n=1&n=2")
    assert list(tmp_path.iterdir()) == [file]  # nothing half-written beside it


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "no JSON"),
        ("[]", "no HAR"),
        ('{"log": {"entries": [1]}}', r"entries\[0\]: not an object"),
        ('{"log": {"entries": [{"request": {}, "response": {}}]}}', "no method"),
        (
            '{"log": {"entries": [{"request": {"method": "GET", "url": "http://a:b/"},'
            ' "response": {"status": 200}}]}}',
            "ort",
        ),
        (
            '{"log": {"entries": [{"request": {"method": "GET", "url": "/x"}, "response": {}}]}}',
            "no host",
        ),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "x.har"
    file.write_text(text)
    with pytest.raises(InvalidInput) as told:
        har.read(str(file))
    assert __import__("re").search(words, str(told.value))


def answer(body: str, status: int = 200, **headers: str) -> Answer:
    return Answer(status, list(headers.items()), body.encode())


def test_json_is_compared_by_field() -> None:
    before = answer(
        '{"id": 1, "items": [{"price": 3}], "at": "x", "token": "***"}', a="1", Date="x"
    )
    now = answer(
        '{"id": 1, "items": [{"price": 4}, {}], "new": true, "token": "s"}', a="2", Date="y"
    )
    assert differences(before, now) == [
        "header a: 1 → 2",
        "$.items[0].price: 3 → 4",
        "$.items: 1 entries → 2 entries",
        "$.at: x → gone",
        "$.new: new: true",
    ]
    assert differences(before, now, ["A"], ["price", "$.items", "at", "new"]) == []
    assert differences(answer("a"), answer("a", 500)) == ["status: 200 → 500"]
    assert differences(answer("1"), answer("true")) == ["$: 1 → true"]


def test_what_was_cut_is_compared_as_far_as_it_goes() -> None:
    cut = Answer(200, [], b"abc", cut=True)
    assert differences(cut, answer("abcdef")) == []
    assert differences(cut, answer("xbcdef")) == ["body: differs in the part that was recorded"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(values, values)
def test_equal_values_and_only_those_do_not_differ(one: Any, other: Any) -> None:
    before, now = answer(json.dumps(one)), answer(json.dumps(other))
    assert differences(before, before) == []
    if json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True) and "***" not in (
        before.body.decode()
    ):
        assert differences(before, now)
