"""A database in a micro VM whose VMM is killed while rows are written keeps what it told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.engine import EngineProcess

pytestmark = pytest.mark.root

DEADLINE = 300.0
#: Rows that must have been committed before the VMM is killed.
ROWS = 40
PSQL = ("psql", "-h", "/tmp", "-U", "shop", "-d", "shop", "-qtA")
ENV = ["POSTGRES_USER=shop", "POSTGRES_PASSWORD=shop", "POSTGRES_DB=shop"]


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    """An engine with the shop's images."""
    made = EngineProcess()
    try:
        made.import_shop()
        made.start()
        yield made
    finally:
        made.stop()


def sql(engine: EngineProcess, text: str) -> list[str]:
    """A command's rows, once the database takes commands."""
    end = time.monotonic() + DEADLINE
    while True:
        done = engine.gemel("exec", "db", *PSQL, "-c", text, check=False)
        if done.returncode == 0:
            return done.stdout.split()
        assert time.monotonic() < end, done.stdout + done.stderr
        time.sleep(0.5)


def written_until_killed(engine: EngineProcess) -> int:
    """Commits rows one by one, kills the VMM meanwhile; the last row that was told committed."""
    client = subprocess.Popen(
        [sys.executable, "-m", "gemel", "exec", "-i", "db", *PSQL, "-f", "-"],
        env=engine.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert client.stdin is not None and client.stdout is not None
    pipe = client.stdin

    def write() -> None:
        for number in range(1, 100 * ROWS):
            try:
                pipe.write(f"INSERT INTO rows VALUES ({number}) RETURNING id;\n")
                pipe.flush()
            except OSError:
                return

    writer = threading.Thread(target=write, daemon=True)
    timer = threading.Timer(DEADLINE, client.kill)
    writer.start()
    timer.start()
    last = 0
    killed = False
    try:
        for line in client.stdout:
            if not line.endswith("\n"):  # cut off by the end of the VM
                break
            last = int(line)
            if last == ROWS and not killed:
                vmm = engine.ok("GET", "/containers/db/json")["State"]["Pid"]
                os.kill(vmm, signal.SIGKILL)
                killed = True
    finally:
        timer.cancel()
        client.kill()
        client.wait()
        writer.join(10)
    assert killed, "the rows were not written in time"
    return last


@pytest.mark.timeout(900)
def test_no_committed_row_is_lost(engine: EngineProcess) -> None:
    request = {
        "Image": "shop/db",
        "Env": ENV,
        "HostConfig": {"Runtime": "microvm", "Binds": ["rows:/var/lib/postgresql/data"]},
    }
    engine.ok("POST", "/containers/create?name=db", request)
    engine.ok("POST", "/containers/db/start")
    sql(engine, "CREATE TABLE rows (id bigint)")
    last = written_until_killed(engine)
    assert engine.ok("POST", "/containers/db/wait", timeout=120)["StatusCode"] == 137
    engine.ok("POST", "/containers/db/start")
    rows = [int(row) for row in sql(engine, "SELECT id FROM rows ORDER BY id")]
    # some may have been committed whose answers were lost with the VM
    assert len(rows) >= last
    assert rows == list(range(1, len(rows) + 1))
