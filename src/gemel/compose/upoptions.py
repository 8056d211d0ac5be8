"""What ``up`` and ``create`` are asked for."""

from __future__ import annotations

import msgspec

from gemel.compose.project import Project

MISSING, ALWAYS, NEVER = "missing", "always", "never"


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of ``up`` and ``create``; names are those of the command line."""

    services: tuple[str, ...] = ()
    """Those meant; none: all."""
    no_deps: bool = False
    force_recreate: bool = False
    no_recreate: bool = False
    always_recreate_deps: bool = False
    remove_orphans: bool = False
    renew_anon_volumes: bool = False
    timeout: int | None = None
    build: str = MISSING
    """missing, always (--build), never (--no-build)."""
    pull: str = ""
    """Policy of the command line over the file's: always, missing, never."""
    start: bool = True
    """False: create only."""
    roll: bool = True
    """False: nothing is replaced one by one, whatever ``deploy.update_config`` says."""
    update: bool = False
    """Replace the services named one by one also without ``deploy.update_config``."""
    order: str = ""
    """start-first or stop-first over the file's."""
    provided: tuple[str, ...] = ()
    """Services whose provider has been called already."""


def targets(project: Project, options: UpOptions) -> list[str]:
    """The services an ``up`` is about, dependencies first. Raises NotFound."""
    wanted = list(options.services) or list(project.services)
    for name in wanted:
        project.service(name)
    return wanted if options.no_deps else project.with_dependencies(wanted)
