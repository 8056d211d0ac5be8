"""The only way by which this package reads files, so that tests can give their own."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Protocol

from gemel.compose.problems import Place
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


class NotText(InvalidInput):
    """A file that holds other bytes than text; ``place`` is where they are."""

    def __init__(self, brief: str, place: Place) -> None:
        super().__init__(brief, f"{place.file}:{place.line}:{place.column}")
        self.place = place


def _decoded(content: bytes, path: str) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", "replace")
        rest = content[error.start :].split(b"\n", 1)[0].decode("utf-8", "replace")
        begun = before.rpartition("\n")[2]
        place = Place(path, before.count("\n") + 1, len(begun) + 1, begun + rest.rstrip("\r"))
        words = f"the byte 0x{content[error.start]:02x} is no text: save the file as UTF-8"
        raise NotText(words, place) from None


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
        is larger than LARGEST bytes; NotText (an InvalidInput) if it is neither UTF-8
        nor, with its mark at the beginning, UTF-16.
        """
        if path == "-":
            return self._stdin
        try:
            if os.path.getsize(path) > self.LARGEST:
                raise InvalidInput(f"{path} is larger than {self.LARGEST >> 20} MiB")
            return _decoded(Path(path).read_bytes(), path)
        except FileNotFoundError as error:
            raise NotFound(f"{path} does not exist", "", "Check the path") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InvalidInput(f"{path} cannot be read: {why}") from error

    def is_file(self, path: str) -> bool:
        return path == "-" or (os.path.exists(path) and not os.path.isdir(path))

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)
