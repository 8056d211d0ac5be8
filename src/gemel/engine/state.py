"""The state that lasts: one sqlite file in WAL mode, one table of JSON values.

A kill -9 leaves the last committed transaction; sqlite needs no repair. Writes
go through a thread of their own, in order, so that a slow disk does not stop
the event loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from gemel.errors import Failed

T = TypeVar("T")


class Store:
    """Values by kind (``container``, ``network``, ``volume``, ``meta``) and key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Opens (or makes) the file. Raises Failed if it is damaged or cannot be written."""
        await self._do(self._open)

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(self._path, check_same_thread=False, timeout=10)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS records"
                " (kind TEXT, key TEXT, value BLOB, PRIMARY KEY (kind, key)) WITHOUT ROWID"
            )
            db.commit()
        except sqlite3.Error as error:
            raise Failed(
                f"the engine's state {self._path} cannot be opened",
                details=str(error),
                resolution="move the file away to begin with an empty state",
            ) from error
        self._db = db

    async def all(self, kind: str, type: type[T]) -> list[T]:
        """All values of a kind. A value that cannot be read is left out, and kept."""
        rows = await self._do(self._all, kind)
        values = []
        for row in rows:
            try:
                values.append(msgspec.json.decode(row, type=type))
            except msgspec.MsgspecError:
                continue
        return values

    def _all(self, kind: str) -> list[bytes]:
        assert self._db is not None
        cursor = self._db.execute("SELECT value FROM records WHERE kind=?", (kind,))
        return [row[0] for row in cursor]

    async def put(self, kind: str, key: str, value: object) -> None:
        """Keeps a value; encoded now, so later changes to it do not matter."""
        await self._do(self._put, kind, key, msgspec.json.encode(value))

    def _put(self, kind: str, key: str, raw: bytes) -> None:
        assert self._db is not None
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (kind, key, raw))

    async def delete(self, kind: str, keys: Sequence[str]) -> None:
        """Forgets values; unknown keys are fine."""
        await self._do(self._delete, kind, list(keys))

    def _delete(self, kind: str, keys: list[str]) -> None:
        assert self._db is not None
        with self._db:
            self._db.executemany(
                "DELETE FROM records WHERE kind=? AND key=?", [(kind, key) for key in keys]
            )

    async def close(self) -> None:
        """Writes everything back and closes the file."""
        await self._do(self._close)
        self._thread.shutdown(wait=True)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    async def _do(self, function: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, function, *args)
        except sqlite3.Error as error:
            raise Failed(
                "the engine's state cannot be written",
                details=str(error),
                resolution=f"look at the free space of the disk of {self._path}",
            ) from error
