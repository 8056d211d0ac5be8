"""Compose projects from texts: files of a test live in a dictionary."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from gemel.compose.loader import Loaded, load
from gemel.compose.project import Project
from gemel.errors import NotFound

ROOT = "/project"


class Files:
    """A reader of files that exist only here; paths are below /project."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = {
            name if name.startswith("/") else f"{ROOT}/{name}": textwrap.dedent(text)
            for name, text in files.items()
        }

    def read(self, path: str) -> str:
        if path not in self._files:
            raise NotFound(f"{path} does not exist")
        return self._files[path]

    def is_file(self, path: str) -> bool:
        return path in self._files

    def is_dir(self, path: str) -> bool:
        return any(name.startswith(path.rstrip("/") + "/") for name in self._files)


def loaded(
    text: str = "",
    *,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    use: tuple[str, ...] = (),
    **options: Any,
) -> Loaded:
    """Loads ``text`` as compose.yaml, with further ``files``."""
    every = {**({"compose.yaml": text} if text else {}), **(files or {})}
    return load(use, cwd=ROOT, env=env or {}, reader=Files(every), **options)


def project(text: str, **options: Any) -> Project:
    return loaded(text, **options).project
