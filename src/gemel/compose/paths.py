"""Relative paths of the host become absolute, from the folder they are relative to."""

from __future__ import annotations

import os.path
from typing import Any

from gemel.compose.problems import Path
from gemel.compose.tables import Rewriter, Table, rewrite

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")


def is_remote(context: str) -> bool:
    """Whether a build context is an address rather than a folder."""
    return "://" in context or context.startswith((*_REMOTE, "service:"))


def is_artifact(file: str) -> bool:
    """Whether a Compose file is named that lies in a registry."""
    return file.startswith("oci://")


def absolute(path: str, folder: str, home: str) -> str:
    """``path`` from ``folder``; ``~`` is ``home``. Empty stays empty."""
    if path.startswith("~") and home:
        path = os.path.join(home, path[1:].lstrip("/"))
    if not path or path.startswith("/"):
        return path
    return os.path.normpath(os.path.join(folder, path))


def shown(path: str, folder: str) -> str:
    """A file's name in messages to one who is in ``folder``: short where that is clear."""
    if path == "-":
        return "(standard input)"
    if not path:
        return '""'
    near = os.path.relpath(path, folder)
    return near if not near.startswith("../..") else path


def _is_windows(path: str) -> bool:
    return path.startswith("\\\\") or (len(path) > 2 and path[1] == ":" and path[2] in "\\/")


def resolve(value: Any, folder: str, home: str) -> Any:
    """Makes the paths of a canonical model absolute, in place."""

    def path(item: Any, at: Path) -> Any:
        if isinstance(item, str) and not item.startswith("$") and not _is_windows(item):
            return absolute(item, folder, home)
        return item

    def file(item: Any, at: Path) -> Any:
        return item if isinstance(item, str) and is_artifact(item) else path(item, at)

    def unix(item: Any, at: Path) -> Any:
        return folder if item == "" else path(item, at)

    def context(item: Any, at: Path) -> Any:
        if isinstance(item, str) and is_remote(item):
            return item
        return path(item, at)

    def mount(item: Any, at: Path) -> Any:
        if isinstance(item, dict) and item.get("type") == "bind" and "source" in item:
            item["source"] = unix(item["source"], at)
        return item

    def driver(item: Any, at: Path) -> Any:
        if isinstance(item, dict) and item.get("driver") == "local":
            options = item.get("driver_opts") or {}
            if options.get("o") == "bind" and "device" in options:
                options["device"] = unix(options["device"], at)
        return item

    table: Table[Rewriter] = Table(
        {
            "services.*.build.context": context,
            "services.*.build.additional_contexts.*": context,
            "services.*.build.ssh.*": path,
            "services.*.env_file.*.path": path,
            "services.*.label_file.*": path,
            "services.*.extends.file": file,
            "services.*.develop.watch.*.path": path,
            "services.*.volumes.*": mount,
            "configs.*.file": unix,
            "secrets.*.file": unix,
            "volumes.*": driver,
        }
    )
    return rewrite(value, table)
