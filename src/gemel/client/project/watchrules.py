"""``develop.watch``: which change of a file leads to what. Pure."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from gemel.client.dockerignore import Ignore
from gemel.compose.project import Project, Service

Json = dict[str, Any]
#: What editors and version control leave behind, never anybody's source.
ALWAYS = (
    "**/.git", "**/*~", "**/.*.sw?", "**/.*.swx", "**/.#*", "**/4913", "**/.DS_Store",
    "**/___jb_*___", "**/.idea", "**/__pycache__",
)  # fmt: skip


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of ``develop.watch``. path: absolute; folder: whether it is one."""

    service: str
    path: str
    folder: bool
    action: str
    target: str = ""
    ignore: Ignore
    include: Ignore | None = None
    exec: Json | None = None
    initial_sync: bool = False

    @property
    def syncs(self) -> bool:
        return self.action.startswith("sync")

    def fits(self, path: str) -> bool:
        """Whether the rule is about a file."""
        if path == self.path:
            return True
        if not self.folder or not path.startswith(self.path.rstrip("/") + "/"):
            return False
        relative = os.path.relpath(path, self.path)
        if self.ignore.excluded(relative):
            return False
        return self.include is None or self.include.excluded(relative)

    def prunes(self, folder: str) -> bool:
        """Whether nothing below a folder is of interest."""
        if not self.folder or not folder.startswith(self.path.rstrip("/") + "/"):
            return folder != self.path and not self.path.startswith(folder.rstrip("/") + "/")
        return self.ignore.prunes(os.path.relpath(folder, self.path))

    def place(self, path: str) -> str:
        """Where a file lies in the instance."""
        if path == self.path:
            return self.target
        return os.path.join(self.target, os.path.relpath(path, self.path))


class Work(msgspec.Struct, kw_only=True):
    """What is to be done with one service, in this order; a rebuild makes all else needless."""

    rebuild: bool = False
    files: dict[str, str] = {}
    """Path on this machine → path in the instance."""
    restart: bool = False
    execs: list[Json] = []


def rules(
    project: Project,
    services: Iterable[str],
    is_folder: Callable[[str], bool] = os.path.isdir,
    dockerignore: Callable[[str], list[str]] = lambda _: [],
) -> list[Rule]:
    """The rules of the services. dockerignore: patterns of a build context."""
    made = []
    for name in services:
        service = project.service(name)
        for entry in (service.config.get("develop") or {}).get("watch") or ():
            made.append(_rule(service, entry, is_folder, dockerignore))
    return made


def _rule(
    service: Service,
    entry: Json,
    is_folder: Callable[[str], bool],
    dockerignore: Callable[[str], list[str]],
) -> Rule:
    path = os.path.normpath(entry["path"])
    context = (service.build or {}).get("context")
    patterns = [*ALWAYS, *(entry.get("ignore") or ())]
    if isinstance(context, str) and os.path.normpath(context) == path:
        patterns = [*dockerignore(context), *patterns]
    include = entry.get("include")
    return Rule(
        service=service.name,
        path=path,
        folder=is_folder(path),
        action=entry["action"],
        target=entry.get("target") or "",
        ignore=Ignore(_clean(patterns)),
        include=Ignore(_clean(include)) if include else None,
        exec=entry.get("exec"),
        initial_sync=bool(entry.get("initial_sync")),
    )


def _clean(patterns: Iterable[str]) -> list[str]:
    found = []
    for pattern in patterns:
        keep = "!" if pattern.startswith("!") else ""
        found.append(keep + os.path.normpath(pattern.removeprefix("!")).lstrip("/"))
    return found


def decide(watched: Iterable[Rule], changed: Iterable[str]) -> dict[str, Work]:
    """What the changed paths lead to, by service."""
    paths = sorted(changed)
    work: dict[str, Work] = {}
    for rule in watched:
        hit = [path for path in paths if rule.fits(path)]
        if not hit:
            continue
        one = work.setdefault(rule.service, Work())
        if rule.action == "rebuild":
            one.rebuild = True
        if rule.syncs:
            one.files.update({path: rule.place(path) for path in hit})
        if rule.action in ("restart", "sync+restart"):
            one.restart = True
        if rule.action == "sync+exec" and rule.exec and rule.exec not in one.execs:
            one.execs.append(rule.exec)
    return work


def first(watched: Iterable[Rule], walk: Callable[[Rule], Iterable[str]]) -> Mapping[str, Work]:
    """``initial_sync``: all files of the rules that ask for it."""
    work: dict[str, Work] = {}
    for rule in watched:
        if rule.initial_sync and rule.syncs:
            found = {path: rule.place(path) for path in walk(rule) if rule.fits(path)}
            work.setdefault(rule.service, Work()).files.update(found)
    return work
