"""The only way by which this package reads files, so that tests can give their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from gemel.errors import InvalidInput, NotFound, Unsupported


def no_remote(reference: str) -> str:
    """What the loader is given where nothing may be fetched. Raises Unsupported."""
    raise Unsupported(
        f"a Compose file is not read from an address here: {reference}",
        resolution="fetch it first, then name the file",
    )


class Remote(Protocol):
    """Fetches the artifact ``oci://…``; the path of its Compose file. Raises GemelError."""

    def __call__(self, reference: str, /) -> str: ...


class Fetching:
    """A ``Remote`` that remembers what it has fetched, for messages."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._references: dict[str, str] = {}

    def __call__(self, reference: str, /) -> str:
        path = self._remote(reference)
        self._references.setdefault(os.path.dirname(path), reference)
        return path

    def shown(self, path: str) -> str:
        """A file of an artifact by the artifact's name; "" for any other."""
        folder, name = os.path.split(path)
        found = self._references.get(folder)
        return f"{found}/{name}" if found else ""


class Reader(Protocol):
    """Reads text files. Paths are absolute, or ``-`` for standard input."""

    def read(self, path: str) -> str: ...
    def is_file(self, path: str) -> bool: ...
    def is_dir(self, path: str) -> bool: ...


class DiskReader:
    """The real files. ``stdin`` is what ``-`` gives."""

    LARGEST = 16 << 20

    def __init__(self, stdin: str = "") -> None:
        self._stdin = stdin

    def read(self, path: str) -> str:
        """The text of a file.

        Raises NotFound if it is not there, InvalidInput if it cannot be read,
        is larger than LARGEST bytes, or is not UTF-8.
        """
        if path == "-":
            return self._stdin
        try:
            if os.path.getsize(path) > self.LARGEST:
                raise InvalidInput(f"{path} is larger than {self.LARGEST >> 20} MiB")
            return Path(path).read_bytes().decode("utf-8-sig")
        except FileNotFoundError as error:
            raise NotFound(f"{path} does not exist", "", "Check the path") from error
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{path} cannot be read", str(error)) from error

    def is_file(self, path: str) -> bool:
        return path == "-" or (os.path.exists(path) and not os.path.isdir(path))

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)
