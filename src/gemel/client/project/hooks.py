"""Programs that a Compose file runs in an instance: post_start, pre_stop, exec of a watch rule."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import Any

from gemel.client.engine import Client
from gemel.client.hijack import Demultiplexer, Output
from gemel.errors import Failed

#: Seconds that a hook may take.
LONGEST = 600.0


def run_hook(
    client: Client, id: str, hook: dict[str, Any], what: str, tell: Callable[[str], None]
) -> None:
    """Runs a hook and tells its output by lines. Raises Failed if it does not end with 0."""
    command = hook.get("command") or []
    environment = hook.get("environment") or {}
    config = {
        "Cmd": shlex.split(command) if isinstance(command, str) else list(command),
        "User": hook.get("user") or "",
        "Privileged": str(hook.get("privileged", "")).lower() == "true",
        "WorkingDir": hook.get("working_dir") or "",
        "Env": [k if v is None else f"{k}={v}" for k, v in environment.items()],
        "AttachStdout": True,
        "AttachStderr": True,
    }
    exec_id = client.post(f"/containers/{id}/exec", config)["Id"]
    stream = client.hijack(f"/exec/{exec_id}/start", {"Detach": False, "Tty": False})
    pieces: list[bytes] = []
    try:
        stream.sock.settimeout(LONGEST)
        split = Demultiplexer(Output(pieces.append, pieces.append), raw=False)
        while data := stream.take():
            split.feed(data)
    except TimeoutError as error:
        raise Failed(f"{what} takes more than {LONGEST:g} s") from error
    finally:
        stream.close()
    text = b"".join(pieces).decode("utf-8", "replace").rstrip()
    for line in text.splitlines():
        tell(line)
    status = _status(client, exec_id)
    if status:
        raise Failed(f"{what} failed with exit code {status}", details=text[-2000:])


def _status(client: Client, exec_id: str) -> int:
    """The exit status, which may be known a moment after the end of the output."""
    deadline = time.monotonic() + 10
    while True:
        state = client.get(f"/exec/{exec_id}/json")
        if not state.get("Running") or time.monotonic() > deadline:
            return int(state.get("ExitCode") or 0)
        time.sleep(0.02)
