"""A start waits until the capturing process knows of the instance: no longer, and not for ever."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gemel.observe import traffic
from gemel.observe.capture.records import Done, Order, Snapshot
from gemel.observe.traffic import Traffic


class Told(Traffic):
    """With the test in the place of the process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Snapshot)
        self.engine, self.process = socket.socketpair()

    async def _launch(self) -> None:
        self.engine.setblocking(False)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(sock=self.engine)

    async def order(self) -> None:
        """Takes what the engine tells it."""
        loop = asyncio.get_running_loop()
        self.process.setblocking(False)
        async with asyncio.timeout(30):
            line = b""
            while not line.endswith(b"\n"):
                line += await loop.sock_recv(self.process, 65536)
        assert msgspec.json.decode(line, type=Order).snapshot is not None

    async def done(self) -> None:
        """Answers that it knows."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.process, msgspec.json.encode(Done(1)) + b"\n")


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    made = Told(tmp_path)
    yield made
    await made.stop()
    made.process.close()
    made.engine.close()


async def _begin(told: Told) -> None:
    start = asyncio.create_task(told.start())
    await told.order()
    await told.done()
    assert await start


async def test_it_waits_until_what_was_noticed_is_known(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "AWAIT", 600.0)
    await told.caught_up()  # nobody looks
    await _begin(told)
    await told.caught_up()  # nothing has changed
    told.notice()
    waiting = asyncio.create_task(told.caught_up())
    await told.order()
    told.notice()  # of later: nobody waits for that
    await asyncio.sleep(0)
    assert not waiting.done()
    await told.done()
    async with asyncio.timeout(30):
        await waiting
    late = asyncio.create_task(told.caught_up())
    await told.order()
    assert not late.done()
    await told.done()
    async with asyncio.timeout(30):
        await late


async def test_it_does_not_wait_for_who_is_silent_or_gone(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "AWAIT", 0.05)
    await _begin(told)
    told.notice()
    async with asyncio.timeout(30):
        await told.caught_up()
    monkeypatch.setattr(traffic, "AWAIT", 600.0)
    waiting = asyncio.create_task(told.caught_up())
    await told.order()
    told.process.shutdown(socket.SHUT_RDWR)
    async with asyncio.timeout(30):
        await waiting
