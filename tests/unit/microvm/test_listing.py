from __future__ import annotations

import pytest

from gemel.errors import InvalidInput
from gemel.runtime.microvm.listing import table
from gemel.runtime.microvm.protocol import GuestProcess

ONE = GuestProcess(
    pid=1,
    parent=0,
    uid=33,
    user="www",
    state="S",
    cpu_ns=3_725_000_000_000,
    started=1_000_000,
    resident=2048 << 10,
    terminal="?",
    command="/usr/bin/nginx -g x",
)
NOW = 1_007_450.0


def test_as_ps_has_it() -> None:
    titles, rows = table([ONE], "-ef", NOW)
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert rows == [["www", "1", "0", "50", "13:46", "?", "01:02:05", "/usr/bin/nginx -g x"]]
    assert table([ONE], "", NOW)[0] == titles
    assert table([ONE], "aux", NOW)[1][0][2:4] == ["50.0", "2048"]
    assert table([ONE], "-o pid,comm", NOW) == (["PID", "COMMAND"], [["1", "nginx"]])
    assert table([ONE], "-eo pid,uid", NOW)[1] == [["1", "33"]]


@pytest.mark.parametrize("args", ["-o nonsense", "-o", "--forest", "-Z"])
def test_what_is_not_understood_is_refused(args: str) -> None:
    with pytest.raises(InvalidInput):
        table([ONE], args, NOW)
