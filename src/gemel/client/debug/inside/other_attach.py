"""Makes a running service accept a debugger that is not Python's. Runs in the toolbox.

argument: JSON {"kind": "node" or "gdb", "pid": 0 or which, "wait": whether it was started
for this, "seconds": patience}. Says one line of JSON, then waits for the end of its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from gemel.client.debug.inside import processes
from gemel.client.debug.inside.tracee import Trouble

_INSPECTOR = 9229


def choose(kind: str, wanted: int) -> tuple[int, list[int]]:
    """The process, and all that it could have been. Raises Trouble."""
    of_service = processes.all_of_service()
    fits = [pid for pid in of_service if kind == "gdb" or processes.program(pid).startswith("node")]
    if wanted:
        if wanted not in fits:
            raise Trouble(f"process {wanted} is none of the service's that {kind} fits")
        return wanted, fits
    if not fits:
        seen = ", ".join(f"{pid} {processes.program(pid)}" for pid in of_service[:8])
        raise Trouble(f"the service runs no Node.js; it runs: {seen}")
    return fits[0], fits


def node(pid: int, end: float, signalled: bool) -> int:
    """Has Node open its inspector; its port. It opens it on SIGUSR1 (Node's documents)."""
    if signalled and not processes.listening(_INSPECTOR):
        os.kill(pid, signal.SIGUSR1)
    while not processes.listening(_INSPECTOR):
        if not processes.alive(pid):
            raise Trouble("the service ended instead of opening its inspector")
        if time.monotonic() > end:
            raise Trouble(f"Node did not open its inspector (port {_INSPECTOR}) in time")
        time.sleep(0.05)
    return _INSPECTOR


def gdb(pid: int, end: float) -> tuple[int, subprocess.Popen[bytes]]:
    """gdbserver, attached: its port, and it itself. It ends when its client does."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(
        ["/usr/bin/gdbserver", "--attach", f"127.0.0.1:{port}", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not processes.listening(port):
        if server.poll() is not None or time.monotonic() > end:
            server.kill()
            text = server.communicate()[1].decode("utf-8", "replace").strip()
            raise Trouble(f"gdbserver does not attach to process {pid}: {text}")
        time.sleep(0.05)
    return port, server


def main() -> int:
    """See the module's text."""
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    end = time.monotonic() + float(wanted["seconds"])
    server: subprocess.Popen[bytes] | None = None
    try:
        kind = str(wanted["kind"])
        pid, fits = choose(kind, int(wanted["pid"]))
        if kind == "node":
            port = node(pid, end, not wanted["wait"])
        else:
            port, server = gdb(pid, end)
        told = {
            "port": port,
            "pid": pid,
            "others": [p for p in fits if p != pid],
            "program": processes.program(pid),
            "exe": os.readlink(f"/proc/{pid}/exe"),
            "folder": processes.folder(pid),
            "words": processes.words(pid),
        }
        print(json.dumps(told), flush=True)
        while processes.alive(pid) and (server is None or server.poll() is None):
            ready, _, _ = select.select([0], [], [], 1.0)
            if ready and not os.read(0, 4096):
                return 0
        print(json.dumps({"ended": True}), flush=True)
        return 0
    except (Trouble, OSError, subprocess.SubprocessError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    finally:
        if server is not None:
            with contextlib.suppress(OSError):
                server.terminate()  # which detaches
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(5)


if __name__ in ("__main__", "<gemel>"):
    sys.exit(main())
