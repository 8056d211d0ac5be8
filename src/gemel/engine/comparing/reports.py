"""Reports that are kept: the last one of each service, for ``runtime: auto`` and for people."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec

from gemel.engine.choosing.rules import Measured
from gemel.host import files
from gemel.model.comparison import Report
from gemel.model.docker import CreateRequest
from gemel.model.paths import Paths

#: At most so many are kept; the oldest go.
KEPT = 50
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"


def folder(paths: Paths) -> Path:
    """Where they lie."""
    return paths.root / "comparisons"


def _file(paths: Paths, project: str, service: str, image_id: str) -> Path:
    """A service is known by its name in its project; what is no service by its image."""
    key = f"{project}\0{service}" if service else image_id
    return folder(paths) / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def keep(paths: Paths, report: Report) -> None:
    """Writes a report in place of the one before. Raises Failed."""
    files.folder(folder(paths), 0o700)
    path = _file(paths, report.project, report.service, report.image_id)
    files.write(path, msgspec.json.encode(report))
    known = sorted(folder(paths).glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for old in known[KEPT:]:
        old.unlink(missing_ok=True)


def all_kept(paths: Paths) -> list[Report]:
    """Every report, newest first; one that cannot be read is left out."""
    found = []
    for path in folder(paths).glob("*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            found.append(msgspec.json.decode(path.read_bytes(), type=Report))
    return sorted(found, key=lambda report: report.when, reverse=True)


def measured(paths: Paths, request: CreateRequest, image_id: str) -> Measured | None:
    """What the last comparison of this service recommended, if there was one."""
    labels = request.labels or {}
    path = _file(paths, labels.get(_PROJECT, ""), labels.get(_SERVICE, ""), image_id)
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError):
        return None
    if report.advice is None:
        return None
    return Measured(
        runtime=report.advice.runtime,
        reason=report.advice.summary,
        when=report.when[:10],
        current=report.image_id == image_id,
    )
