"""Attached programs: run with a terminal or without, exec, attach; their exit status."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Any

from gemel.client import terminal
from gemel.client.engine import Client
from gemel.client.hijack import DetachKeys, Hijacked, pump
from gemel.client.http import Json, Response
from gemel.errors import Failed, GemelError

#: Signals that an attached command hands on, as `docker run --sig-proxy` does.
_HANDED_ON = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]


class Wanted:
    """How a caller is connected: whether input goes in, with or without a terminal."""

    def __init__(
        self,
        *,
        stdin: bool,
        tty: bool,
        detach_keys: str = "ctrl-p,ctrl-q",
        sig_proxy: bool = True,
    ) -> None:
        self.stdin = stdin
        self.tty = tty
        self.keys = DetachKeys(detach_keys)
        self.sig_proxy = sig_proxy

    @property
    def raw(self) -> bool:
        """Whether the caller's terminal becomes the program's."""
        return self.tty and self.stdin and terminal.is_terminal(0)


def need_terminal(tty: bool, stdin: bool) -> None:
    """Docker's refusal of -it without a terminal. Raises Failed."""
    if tty and stdin and not terminal.is_terminal(0):
        raise Failed(
            "the input device is not a TTY",
            resolution="leave out -t (-i alone passes a pipe on)",
        )


def connect(
    client: Client,
    stream: Hijacked,
    wanted: Wanted,
    *,
    resize: str,
    kill: str = "",
) -> bool:
    """Carries input, output, window size and signals until the end; False if detached from.

    resize: path of the route that sets the size. kill: path of the route that
    takes a signal, or empty.
    """

    def tell_size(rows: int, columns: int) -> None:
        client.call("POST", resize, query={"h": rows, "w": columns}, timeout=10).read()

    def hand_on(number: int) -> None:
        name = signal.Signals(number).name
        with contextlib.suppress(GemelError):
            client.call("POST", kill, query={"signal": name}, timeout=10).read()

    with contextlib.ExitStack() as stack:
        stack.callback(stream.close)
        if wanted.tty and terminal.is_terminal(1):
            stack.enter_context(terminal.following_size(tell_size))
        if wanted.raw:
            stack.enter_context(terminal.raw_mode())
        elif kill and wanted.sig_proxy:
            stack.enter_context(terminal.handled(list(_HANDED_ON), hand_on))
        return pump(
            stream,
            terminal.standard_output(),
            stdin=0 if wanted.stdin else None,
            raw=wanted.tty,
            detach=wanted.keys if wanted.raw else None,
        )


class Waiter:
    """A wait that was registered before the start, so that no end is missed."""

    def __init__(self, client: Client, id: str, condition: str) -> None:
        self._response: Response = client.call(
            "POST", f"/containers/{id}/wait", query={"condition": condition}, timeout=None
        )

    def result(self) -> int:
        """Exit status. Raises Failed with the engine's reason if the wait itself failed."""
        answer = self._response.json() or {}
        problem = answer.get("Error")
        if problem and problem.get("Message"):
            raise Failed(str(problem["Message"]))
        return int(answer.get("StatusCode", 0))

    def close(self) -> None:
        """Gives up waiting."""
        self._response.close()


def run_attached(client: Client, id: str, wanted: Wanted, *, remove: bool) -> int | None:
    """Attaches, starts, and gives back the exit status; None if it was detached from."""
    stream = client.hijack(
        f"/containers/{id}/attach", stream=1, stdin=wanted.stdin, stdout=1, stderr=1
    )
    try:
        waiter = Waiter(client, id, "removed" if remove else "next-exit")
    except BaseException:
        stream.close()
        raise
    try:
        client.call("POST", f"/containers/{id}/start", timeout=120).read()
        base = f"/containers/{id}"
        if not connect(client, stream, wanted, resize=f"{base}/resize", kill=f"{base}/kill"):
            return None
        return waiter.result()
    finally:
        stream.close()
        waiter.close()


def exec_in(client: Client, id: str, config: Json, wanted: Wanted) -> int | None:
    """Runs a further program, attached; its exit status, or None if detached from."""
    return exec_made(client, f"/containers/{id}/exec", config, wanted)


def exec_made(client: Client, route: str, config: Json, wanted: Wanted) -> int | None:
    """The same for any route that makes an exec."""
    if wanted.tty and terminal.is_terminal(1):
        config = {**config, "ConsoleSize": list(terminal.size())}
    created = client.post(route, config)
    exec_id = created["Id"]
    body: dict[str, Any] = {"Detach": False, "Tty": wanted.tty}
    if "ConsoleSize" in config:
        body["ConsoleSize"] = config["ConsoleSize"]
    stream = client.hijack(f"/exec/{exec_id}/start", body)
    if not connect(client, stream, wanted, resize=f"/exec/{exec_id}/resize"):
        return None
    return exec_status(client, exec_id)


def exec_status(client: Client, exec_id: str, patience: float = 20.0) -> int:
    """The exit status, which may be known a moment after the end of the output."""
    deadline = time.monotonic() + patience
    while True:
        state = client.get(f"/exec/{exec_id}/json")
        if not state.get("Running") or time.monotonic() > deadline:
            return int(state.get("ExitCode") or 0)
        time.sleep(0.02)


def exec_detached(client: Client, id: str, config: Json) -> str:
    """Starts a further program and lets it run; its id."""
    exec_id = str(client.post(f"/containers/{id}/exec", config)["Id"])
    client.call("POST", f"/exec/{exec_id}/start", body={"Detach": True}, timeout=60).read()
    return exec_id
