"""Where crash reports are kept: a folder each, so many and so large at most. Blocks."""

from __future__ import annotations

import contextlib
import re
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import msgspec

from gemel.errors import NotFound
from gemel.host import files

Json = dict[str, Any]
#: Reports that are kept, and the bytes that they may take together.
MOST = 100
MOST_BYTES = 64 << 20
#: Bytes of one file of a report.
FILE_MOST = 1 << 20
_ID = re.compile(r"[0-9]{13}-[0-9a-f]{12}")
FACTS = "report.json"


class Shelf:
    """The folder of reports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, id: str, facts: Json, parts: dict[str, bytes]) -> None:
        """Keeps a report, and lets the oldest go. parts: further files of it, by name."""
        folder = files.folder(files.folder(self._folder) / id)
        for name, data in parts.items():
            files.write(folder / name, data[-FILE_MOST:])
        files.write(folder / FACTS, msgspec.json.format(msgspec.json.encode(facts)))
        self._tidy()

    def _ids(self) -> list[str]:
        """The newest first."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((name for name in names if _ID.fullmatch(name)), reverse=True)

    def _tidy(self) -> None:
        total = 0
        for number, id in enumerate(self._ids()):
            folder = self._folder / id
            total += sum(path.stat().st_size for path in folder.iterdir())
            if number and (number >= MOST or total > MOST_BYTES):
                files.remove(folder)

    def facts(self, id: str) -> Json:
        """What a report says. Raises NotFound."""
        if _ID.fullmatch(id):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found: Json = msgspec.json.decode((self._folder / id / FACTS).read_bytes())
                return found
        raise NotFound(f"there is no report {id[:40]}", resolution="`gemel report list` shows them")

    def all(self) -> list[Json]:
        """What all say, the newest first, without what is long."""
        found = []
        for id in self._ids():
            with contextlib.suppress(NotFound):
                facts = self.facts(id)
                keys = ("Id", "Time", "Name", "Service", "Project", "Runtime", "Kind", "Headline")
                found.append({key: facts.get(key) for key in keys})
        return found

    def packed(self, id: str) -> IO[bytes]:
        """A zip of a report; the caller closes it. Raises NotFound."""
        self.facts(id)
        out = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((self._folder / id).iterdir()):
                archive.write(path, f"{id}/{path.name}")
        out.seek(0)
        return out
