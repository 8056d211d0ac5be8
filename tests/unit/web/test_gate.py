"""Who is let in, and by what name."""

from __future__ import annotations

import pytest

from gemel.web.gate import CODE_LIFE, MOST, SESSION_LIFE, Gate, host_is_ours, origin_is_ours


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_code_opens_one_session_once() -> None:
    gate = Gate()
    gate.add_code("abc")
    assert not gate.redeem("abd")
    session = gate.redeem("abc")
    assert gate.knows(session)
    assert not gate.redeem("abc")
    assert not gate.knows("") and not gate.knows(session + "x") and not gate.knows("abc")


def test_codes_and_sessions_end() -> None:
    clock = Clock()
    gate = Gate(clock)
    gate.add_code("old")
    clock.now += CODE_LIFE + 1
    assert not gate.redeem("old")
    gate.add_code("new")
    session = gate.redeem("new")
    clock.now += SESSION_LIFE - 1
    assert gate.knows(session)
    clock.now += SESSION_LIFE - 1  # that it was used has kept it open
    assert gate.knows(session)
    clock.now += SESSION_LIFE + 1
    assert not gate.knows(session)


def test_many_codes_and_sessions_are_bounded() -> None:
    gate = Gate()
    sessions = []
    for n in range(MOST + 5):
        gate.add_code(f"code{n}")
        sessions.append(gate.redeem(f"code{n}"))
    assert sum(map(gate.knows, sessions)) == MOST
    for n in range(MOST + 5):
        gate.add_code(f"again{n}")
    assert not gate.redeem("again0")


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:7433", True),
        ("localhost:1", True),
        ("localhost", True),
        ("evil.example:7433", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1:7433", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_hosts(host: str, good: bool) -> None:
    assert host_is_ours(host) is good


def test_origins() -> None:
    host = "127.0.0.1:7433"
    assert origin_is_ours(None, host, needed=False)
    assert not origin_is_ours(None, host, needed=True)
    assert origin_is_ours(f"http://{host}", host, needed=True)
    for origin in ("null", "http://localhost:7433", "http://127.0.0.1:80", "https://" + host):
        assert not origin_is_ours(origin, host, needed=False)
