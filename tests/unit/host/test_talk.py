"""Programs that answer on standard output: their ends, and their bounds."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from gemel.errors import Failed
from gemel.host import talk
from gemel.host.talk import Talks


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def gone(path: Path) -> bool:
    """Whether the process whose id is in a file has ended (a zombie is nobody's work any more)."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{path.read_text()}/stat").read_text()
        except OSError:
            return True
        if stat.rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.05)
    return False


def test_lines_and_the_end() -> None:
    said: list[bytes] = []
    text = "import sys; print('a'); print(); sys.stdout.write('b'); sys.stderr.write('oh'); exit(3)"
    ended = Talks().run(program(text), said.append, timeout=60)
    assert said == [b"a", b"", b"b"]
    assert ended == (3, "oh")


def test_environment_and_no_input() -> None:
    said: list[bytes] = []
    text = "import os, sys; print(os.environ['A'], repr(sys.stdin.read()))"
    Talks().run(program(text), said.append, timeout=60, env={**os.environ, "A": "1"})
    assert said == [b"1 ''"]


def test_one_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    text = (
        "import os, subprocess, sys, time\n"
        "one = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(child)!r}, 'w').write(str(one.pid))\n"
        "sys.stderr.write('so far'); sys.stderr.flush()\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(Failed, match=r"took longer than 2 s and was ended") as problem:
        Talks().run(program(text), lambda line: None, timeout=2)
    assert problem.value.details in ("so far", "")  # "" if it did not come that far
    assert not child.exists() or gone(child)


def test_one_that_does_not_heed_a_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "GRACE", 0.3)
    mine = tmp_path / "pid"
    text = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(mine)!r}, 'w').write(str(os.getpid()))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )

    def told(line: bytes) -> None:
        raise Failed("enough")

    with pytest.raises(Failed, match="enough"):
        Talks().run(program(text), told, timeout=60)
    assert gone(mine)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("while True: print('x' * 1000)", "said more than 4 MiB"),
        ("import sys\nwhile True: sys.stdout.write('x' * 1000)", "a line of more than 64 KiB"),
    ],
)
def test_floods_are_ended(text: str, words: str) -> None:
    with pytest.raises(Failed, match=words):
        Talks().run(program(text), lambda line: None, timeout=120)


def test_what_it_leaves_running_does_not_hold_it_up(tmp_path: Path) -> None:
    child = tmp_path / "child"
    text = (
        "import subprocess\n"
        "one = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(child)!r}, 'w').write(str(one.pid))\n"
        "print('done')\n"
    )
    said: list[bytes] = []
    assert Talks().run(program(text), said.append, timeout=300).status == 0
    assert said == [b"done"]
    os.kill(int(child.read_text()), 9)  # it is there: it was left on purpose


def test_one_that_cannot_be_run() -> None:
    with pytest.raises(Failed, match="cannot be run"):
        Talks().run(["/nowhere/at/all"], lambda line: None, timeout=5)
    with pytest.raises(Failed, match="cannot be run"):
        Talks().run(["/bin/true", "a\0b"], lambda line: None, timeout=5)


def test_giving_up_ends_all_and_lets_none_begin(tmp_path: Path) -> None:
    talks, mine = Talks(), tmp_path / "pid"
    begun = threading.Event()
    text = (
        "import os, time\n"
        f"open({str(mine)!r}, 'w').write(str(os.getpid()))\n"
        "print('begun', flush=True); time.sleep(600)\n"
    )

    def work() -> None:
        talks.run(program(text), lambda line: begun.set(), timeout=600)

    thread = threading.Thread(target=work)
    with pytest.raises(KeyboardInterrupt), talks.guarded():
        thread.start()
        assert begun.wait(60)
        raise KeyboardInterrupt
    thread.join(60)
    assert not thread.is_alive() and gone(mine)
    with pytest.raises(Failed, match="interrupted"):
        talks.run(["/bin/true"], lambda line: None, timeout=5)
