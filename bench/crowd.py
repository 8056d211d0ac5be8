"""Many clients at once, in a process of its own: what each route took, as JSON.

usage: python -m bench.crowd SOCKET IMAGE SECONDS FOLLOWED    (FOLLOWED: a container with a log)

Fifty clients: ten list the containers ten times a second, ten run programs in a
container, ten create, start and remove one after the other, ten follow the log, ten the
events. asyncio and plain sockets, so that the generator takes as little as it can of the
processors that it shares with the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import defaultdict
from typing import Any

EACH = 10
#: Seconds between two requests of a client.
_LISTS, _WORKS = 0.1, 0.2


class Client:
    """One client with a connection that stays open, opened again where an engine closes it."""

    def __init__(self, socket: str, took: dict[str, list[float]]) -> None:
        self._socket = socket
        self._took = took
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, what: str, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; the time it took is noted under ``what``."""
        begin = time.perf_counter()
        if self._open is None:
            self._open = await asyncio.open_unix_connection(self._socket, limit=1 << 22)
        reader, writer = self._open
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(data)}\r\n"
        head += "Content-Type: application/json\r\n" if data else ""
        writer.write(head.encode() + b"\r\n" + data)
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        answer = await self._body(reader, text)
        self._took[what].append(time.perf_counter() - begin)
        if int(text.split()[1]) >= 400:
            raise RuntimeError(f"{method} {path}: {text.split()[1]} {answer[:200]!r}")
        try:
            return json.loads(answer) if answer else None
        except ValueError:
            return answer

    async def _body(self, reader: asyncio.StreamReader, head: str) -> bytes:
        fields = dict(
            line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line
        )  # fmt: skip
        if "content-length" in fields:
            return await reader.readexactly(int(fields["content-length"]))
        if "chunked" in fields.get("transfer-encoding", ""):
            data = b""
            while size := int(await reader.readline(), 16):
                data += await reader.readexactly(size)
                await reader.readline()
            await reader.readline()
            return data
        if head.split()[1] in ("204", "304"):
            return b""
        data = await reader.read()
        self.close()
        return data

    def close(self) -> None:
        """May be called twice."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


async def _lists(client: Client, image: str, followed: str) -> None:
    while True:
        await client.call("GET /containers/json", "GET", "/containers/json")
        await asyncio.sleep(_LISTS)


async def _execs(client: Client, image: str, followed: str) -> None:
    body = {"Cmd": ["true"], "AttachStdout": True}
    while True:
        made = await client.call("exec: create", "POST", f"/containers/{followed}/exec", body)
        await client.call("exec: start to end", "POST", f"/exec/{made['Id']}/start", {})
        await asyncio.sleep(_WORKS)


async def _makes(client: Client, image: str, followed: str) -> None:
    body = {"Image": image, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    while True:
        id = (await client.call("create", "POST", "/containers/create", body))["Id"]
        await client.call("start", "POST", f"/containers/{id}/start")
        await client.call("remove", "DELETE", f"/containers/{id}?force=1")
        await asyncio.sleep(_WORKS)


async def _follows(client: Client, image: str, followed: str) -> None:
    await client.call("", "GET", f"/containers/{followed}/logs?stdout=1&follow=1&tail=10")


async def _events(client: Client, image: str, followed: str) -> None:
    await client.call("", "GET", "/events")


async def crowd(socket: str, image: str, seconds: float, followed: str) -> dict[str, list[float]]:
    """What every request took, by route."""
    took: dict[str, list[float]] = defaultdict(list)
    clients = [Client(socket, took) for _ in range(5 * EACH)]
    works = (_lists, _execs, _makes, _follows, _events)
    tasks = [
        asyncio.create_task(works[number % len(works)](client, image, followed))
        for number, client in enumerate(clients)
    ]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for client in clients:
        client.close()
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    took.pop("", None)
    return took


def main() -> None:
    """See the module's text."""
    socket, image, seconds, followed = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        print(json.dumps(asyncio.run(crowd(socket, image, float(seconds), followed))))


if __name__ == "__main__":
    main()
