"""Compose files: load, check, show, compare with what runs, plan.

Pure: files are read through a small reader, and nothing else is touched.
Submodules are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gemel.compose.loader import Loaded, load
    from gemel.compose.project import Project, Service

__all__ = ["Loaded", "Project", "Service", "load"]

_HOMES = {"Loaded": "loader", "load": "loader", "Project": "project", "Service": "project"}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(importlib.import_module(f"gemel.compose.{_HOMES[name]}"), name)
