"""Blobs under their sha256: ``blobs/sha256/HEX``, as an OCI layout has them.

There is one way in, ``Writer``: what it commits has been hashed on its way, so
a blob in the store is what its name says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import IO, BinaryIO, cast

from gemel.errors import InvalidInput
from gemel.host import files
from gemel.image.inflate import HEAD, PIECE, Inflater, is_compressed

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check(digest: str) -> str:
    """Gives ``digest`` back if it is sha256's. Raises InvalidInput."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{digest!r} is not a sha256 digest")
    return digest


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Blobs:
    """The folder of blobs. Temporary files lie beside it, so a rename brings them in."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs" / "sha256"
        self.temporary = root / "tmp"

    def prepare(self) -> None:
        """Makes the folders; what a killed engine left half-written goes."""
        files.folder(self.folder)
        files.remove(self.temporary)
        files.folder(self.temporary)

    def path(self, digest: str) -> Path:
        return self.folder / check(digest)[7:]

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """In bytes; 0 if it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, digest: str, limit: int = 16 << 20) -> bytes:
        """A small blob (manifest, config). Raises InvalidInput if it is missing or too large."""
        if self.size(digest) > limit:
            raise InvalidInput(f"{digest} is too large for a manifest or config")
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise InvalidInput(f"the blob {digest} is missing") from None

    def put(self, data: bytes) -> str:
        """Stores bytes and gives their digest."""
        digest = digest_of(data)
        if not self.has(digest):
            files.write(self.path(digest), data)
        return digest

    def writer(self, digest: str = "") -> Writer:
        """Begins a blob; with ``digest``, the only one it may have."""
        return Writer(self, digest)

    def digests(self) -> set[str]:
        """All that are there."""
        return {"sha256:" + name for name in os.listdir(self.folder) if len(name) == 64}

    def remove(self, digest: str) -> int:
        """Removes a blob and says how many bytes that gave back."""
        size = self.size(digest)
        self.path(digest).unlink(missing_ok=True)
        return size

    def layer(self, digest: str, diff_id: str, limit: int) -> tuple[BinaryIO, int]:
        """Opens a layer's uncompressed tar and says its size. Blocks; for a thread.

        A compressed one goes into a file without a name, hashed against
        ``diff_id`` on the way. Raises InvalidInput if it is another, damaged or
        holds more than ``limit`` bytes. One that is stored uncompressed is there already.
        """
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(open(self.path(digest), "rb"))
            if not is_compressed(source.read(HEAD)):
                size = source.seek(0, os.SEEK_END)
                if digest != diff_id:
                    raise InvalidInput(
                        "a layer is not what its image says",
                        details=f"it is {digest}, not {diff_id}",
                    )
                stack.pop_all()
                return source, size
            source.seek(0)
            spool = stack.enter_context(tempfile.TemporaryFile(dir=self.temporary))
            size = _inflate(source, spool, diff_id, limit)
            source.close()
            stack.pop_all()
            return cast(BinaryIO, spool), size


def _inflate(source: BinaryIO, out: IO[bytes], diff_id: str, limit: int) -> int:
    inflater = Inflater(limit)
    hash = hashlib.sha256()
    for data in iter(lambda: source.read(PIECE), b""):
        for piece in inflater.feed(data):
            hash.update(piece)
            out.write(piece)
    for piece in inflater.finish():
        hash.update(piece)
        out.write(piece)
    if "sha256:" + hash.hexdigest() != diff_id:
        raise InvalidInput(
            "a layer is not what its image says",
            details=f"decompressed it is sha256:{hash.hexdigest()}, not {diff_id}",
        )
    return inflater.size


class Writer:
    """A blob on its way in. Blocks; big ones are written from a thread.

    A context manager: what has not been committed is removed at its end.
    """

    def __init__(self, blobs: Blobs, digest: str = "") -> None:
        self._blobs = blobs
        self._wanted = digest
        self._hash = hashlib.sha256()
        self._path = blobs.temporary / f"blob-{secrets.token_hex(8)}"
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115
        self.size = 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)

    def commit(self) -> str:
        """Brings it in and gives its digest. Raises InvalidInput if that is not the wanted one."""
        digest = "sha256:" + self._hash.hexdigest()
        if self._wanted and digest != self._wanted:
            raise InvalidInput(
                "a blob is not what its digest says",
                details=f"wanted {self._wanted}, it is {digest}",
                resolution="try again; if it stays so, the source is damaged",
            )
        self._file.close()
        os.replace(self._path, self._blobs.path(digest))
        return digest

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
