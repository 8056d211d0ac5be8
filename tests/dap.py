"""A small client of the Debug Adapter Protocol, as much as a test of a breakpoint needs."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

Json = dict[str, Any]


class Dap:
    """A connection to a debug adapter. Everything has a deadline."""

    def __init__(self, port: int, timeout: float = 120) -> None:
        self._end = time.monotonic() + timeout
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self.events: list[Json] = []
        self.answers: dict[int, Json] = {}

    def send(self, command: str, **arguments: Any) -> int:
        """Asks; the question's number."""
        self._number += 1
        body = {"seq": self._number, "type": "request", "command": command}
        data = json.dumps(body | {"arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        return self._number

    def _read(self) -> None:
        self._socket.settimeout(max(0.1, self._end - time.monotonic()))
        length = 0
        while line := self._file.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        assert length, "the adapter has closed the connection"
        message = json.loads(self._file.read(length))
        if message["type"] == "response":
            self.answers[message["request_seq"]] = message
        elif message["type"] == "event":
            self.events.append(message)

    def answer(self, number: int) -> Json:
        """The answer to a question."""
        while number not in self.answers:
            self._read()
        found = self.answers[number]
        assert found["success"], found
        body: Json = found.get("body") or {}
        return body

    def ask(self, command: str, **arguments: Any) -> Json:
        """Asks and waits."""
        return self.answer(self.send(command, **arguments))

    def event(self, name: str) -> Json:
        """The first event of a name."""
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    body: Json = event.get("body") or {}
                    return body
            self._read()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def stop_at(dap: Dap, file: str, line: int, mappings: list[Json]) -> Json:
    """Attaches, sets a breakpoint and waits until it is hit: the frame on top."""
    dap.ask("initialize", clientID="test", adapterID="debugpy", pathFormat="path")
    attach = dap.send(
        "attach", justMyCode=True, pathMappings=mappings, connect={"host": "127.0.0.1", "port": 1}
    )
    dap.event("initialized")
    dap.ask("setBreakpoints", source={"path": file}, breakpoints=[{"line": line}])
    dap.ask("configurationDone")
    dap.answer(attach)
    stopped = dap.event("stopped")
    assert stopped["reason"] == "breakpoint", stopped
    frames = dap.ask("stackTrace", threadId=stopped["threadId"])["stackFrames"]
    frame: Json = frames[0]
    return frame


def local(dap: Dap, frame: Json, name: str) -> str:
    """The value of a variable of the frame, as the debugger writes it."""
    scopes = dap.ask("scopes", frameId=frame["id"])["scopes"]
    found = dap.ask("variables", variablesReference=scopes[0]["variablesReference"])["variables"]
    return next(str(one["value"]) for one in found if one["name"] == name)
