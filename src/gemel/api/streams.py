"""Between a client's raw connection and an instance's streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from gemel.api.hijack import RawConnection
from gemel.api.respond import close_iterator
from gemel.errors import GemelError, InvalidInput
from gemel.runtime.base import Stream

log = logging.getLogger("gemel.api")

_HEADER = struct.Struct(">BxxxI")
#: Seconds that input of a client that has gone is still handed on.
_GRACE = 5.0
#: Seconds between the head of an answer and output that is there already.
_AFTER_HEAD = 0.005
DEFAULT_DETACH_KEYS = b"\x10\x11"

Frame = Callable[[int, bytes], bytes]


def multiplexed(stream: int, data: bytes) -> bytes:
    """Docker's frame: stream number, three zero bytes, length, data."""
    return _HEADER.pack(stream, len(data)) + data


def multiplexed_lines(stream: int, data: bytes) -> bytes:
    """A frame for each line: loops over docker-py's logs take one for the other."""
    parts = data.split(b"\n")
    last = parts.pop()
    pack = _HEADER.pack
    framed = [pack(stream, len(part) + 1) + part + b"\n" for part in parts]
    if last:
        framed.append(pack(stream, len(last)) + last)
    return b"".join(framed)


def raw(stream: int, data: bytes) -> bytes:
    """The bytes as they are (a terminal's)."""
    return data


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes a terminal sends. Raises InvalidInput."""
    if not text:
        return DEFAULT_DETACH_KEYS
    codes = []
    for key in text.split(","):
        code = _key_code(key)
        if code is None:
            raise InvalidInput(
                f"invalid detach keys ({text[:80]}) provided",
                details=f"unknown character: {key[:40]!r}",
            )
        codes.append(code)
    return bytes(codes)


def _key_code(key: str) -> int | None:
    if len(key) == 1 and ord(key) < 128:
        return ord(key)
    if key.upper() == "DEL":
        return 127
    if key.startswith("ctrl-") and len(key) == 6:
        if "a" <= key[5] <= "z":
            return ord(key[5]) - ord("a") + 1
        found = "@[\\]^_".find(key[5])
        return None if found < 0 else (0, 27, 28, 29, 30, 31)[found]
    return None


class DetachScanner:
    """Finds the detach keys in a terminal's input, wherever the pieces are cut."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to hand on, and whether the keys were complete (the rest is dropped)."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            if self._matched:
                passed += self._keys[: self._matched]
                self._matched = 1 if byte == self._keys[0] else 0
                if self._matched:
                    continue
            passed.append(byte)
        return bytes(passed), False


class Session(NamedTuple):
    """What of an instance's streams goes where."""

    stream: Stream
    tty: bool
    stdin: bool
    wanted: frozenset[int] = frozenset((1, 2))
    detach_keys: bytes = DEFAULT_DETACH_KEYS
    history: AsyncIterator[tuple[int, bytes]] | None = None
    follow: bool = True

    @property
    def frame(self) -> Frame:
        """How output is written."""
        return raw if self.tty else multiplexed


async def carry(connection: RawConnection, session: Session) -> None:
    """Carries bytes both ways until the output ends, the client goes or detaches.

    The session's stream is closed at the end; the instance goes on.
    """
    output = asyncio.create_task(_output(connection, session), name="attach output")
    stdin = asyncio.create_task(_input(connection, session), name="attach input")
    gone = asyncio.create_task(connection.gone.wait(), name="attach hang-up")
    try:
        await _until_over(output, stdin, gone)
    finally:
        tasks = (output, stdin, gone)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await close_iterator(session.history)
        await session.stream.close()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                log.warning("a stream broke off: %s", result)


async def _until_over(
    output: asyncio.Task[None], stdin: asyncio.Task[bool], gone: asyncio.Task[bool]
) -> None:
    waiting: set[asyncio.Task[None] | asyncio.Task[bool]] = {output, stdin, gone}
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if output in done:
            return
        if stdin in done and not stdin.cancelled() and not stdin.exception() and stdin.result():
            return  # detached
        if gone in done or gone.done():
            # what the client sent before it went still reaches the program
            await asyncio.wait({stdin}, timeout=_GRACE)
            return


async def _output(connection: RawConnection, session: Session) -> None:
    frame = session.frame
    if session.history is not None:
        # docker-py loses what comes in one piece with the head of the answer
        await asyncio.sleep(_AFTER_HEAD)
        async for number, data in session.history:
            if number in session.wanted and data:
                await connection.write(frame(number, data))
    if not session.follow:
        return
    while (piece := await session.stream.read()) is not None:
        if piece[0] in session.wanted and piece[1]:
            await connection.write(frame(piece[0], piece[1]))


async def _input(connection: RawConnection, session: Session) -> bool:
    """Hands input on; True if the detach keys came. Without stdin it is read and dropped."""
    scanner = DetachScanner(session.detach_keys) if session.tty else None
    open_ = session.stdin
    while data := await connection.read():
        if not open_:
            continue
        detached = False
        if scanner is not None:
            data, detached = scanner.feed(data)
        try:
            if data:
                await session.stream.write(data)
        except (GemelError, OSError):
            open_ = False  # the program has closed its input: drop the rest
        if detached:
            return True
    if open_:
        with contextlib.suppress(GemelError, OSError):
            await session.stream.close_stdin()
    return False
