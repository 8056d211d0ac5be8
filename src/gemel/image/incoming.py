"""Streams that come from a client, on their way into the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import IO

from gemel.image import threads
from gemel.image.blobs import Writer
from gemel.image.inflate import PIECE, Inflater


async def pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream in pieces of about a mebibyte, so that a thread is not asked for each few."""
    waiting = bytearray()
    async for data in stream:
        waiting += data
        if len(waiting) >= PIECE:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def inflate(stream: AsyncIterator[bytes], writer: Writer, limit: int) -> None:
    """Writes the stream to ``writer``, its compression taken off.

    Raises InvalidInput if it is damaged or holds more than ``limit`` bytes.
    """
    inflater = Inflater(limit)

    def take(found: Iterator[bytes]) -> None:
        for piece in found:
            writer.write(piece)

    async for data in pieces(stream):
        await threads.call(take, inflater.feed(data))
    await threads.call(take, inflater.finish())


async def spool(stream: AsyncIterator[bytes], file: IO[bytes], limit: int) -> None:
    """Writes the stream to ``file``, its compression taken off. Raises InvalidInput."""
    inflater = Inflater(limit)
    async for data in pieces(stream):
        await threads.call(file.writelines, inflater.feed(data))
    await threads.call(file.writelines, inflater.finish())
