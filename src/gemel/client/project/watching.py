"""``gemel watch``: carries saved files into running services, restarts and rebuilds them."""

from __future__ import annotations

import io
import os
import posixpath
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from gemel.client.dockerignore import parse
from gemel.client.engine import Client
from gemel.client.project.hooks import run_hook
from gemel.client.project.members import Target, of_project
from gemel.client.project.pool import each
from gemel.client.project.up import Style, Up
from gemel.client.project.watchrules import Rule, Work, decide, first, rules
from gemel.compose.plan import ALWAYS, UpOptions
from gemel.compose.project import Project
from gemel.errors import GemelError, InvalidInput, NotModified
from gemel.host.treewatch import TreeWatch

Tell = Callable[[str], None]
#: Seconds between looks whether it is to end.
_TURN = 0.5


class Watching:
    """Watches the files of some services. tell: takes a line for the person."""

    def __init__(
        self, client: Client, project: Project, services: list[str], style: Style, tell: Tell
    ) -> None:
        self.client = client
        self.project = project
        self.style = style
        self.tell = tell
        self.rules = rules(project, services, dockerignore=_dockerignore)
        if not self.rules:
            raise InvalidInput(
                "none of the services has a develop.watch section",
                resolution="say in the Compose file what is to be watched: "
                "develop: {watch: [{path: ./src, action: sync, target: /app}]}",
            )

    def run(self, over: threading.Event | None = None) -> None:
        """Until ``over`` is set. A failure of one change is told, and watching goes on."""
        roots = {rule.path if rule.folder else posixpath.dirname(rule.path) for rule in self.rules}
        tree = TreeWatch(sorted(roots), self._skip)
        try:
            self._carry_out(dict(first(self.rules, _walk)))
            self.tell(f"watching {', '.join(sorted({rule.path for rule in self.rules}))}")
            while over is None or not over.is_set():
                changed = tree.changes(_TURN)
                if changed:
                    self._carry_out(decide(self.rules, changed))
        finally:
            tree.close()

    def _skip(self, folder: str) -> bool:
        return all(rule.prunes(folder) for rule in self.rules)

    def _carry_out(self, work: dict[str, Work]) -> None:
        for service, one in work.items():
            try:
                self._service(service, one)
            except GemelError as problem:
                more = f": {problem.details}" if problem.details else ""
                self.tell(f"{service}: {problem.brief}{more}")

    def _service(self, service: str, work: Work) -> None:
        if work.rebuild:
            self.tell(f"{service}: building anew")
            options = UpOptions(services=(service,), no_deps=True, build=ALWAYS)
            up = Up(self.client, self.project, options, self.style, keep=True)
            up.detached(up.prepare())
            self.tell(f"{service}: replaced")
            return
        members = [
            target
            for target in of_project(self.client, self.project.name, one_offs=False)
            if target.service == service and target.state == "running"
        ]
        for problem in each(members, lambda target: self._member(target, work)).values():
            raise problem
        if work.files and members:
            names = sorted(work.files.values())
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            self.tell(f"{service}: synced {shown}")
        if work.restart:
            self.tell(f"{service}: restarted")

    def _member(self, target: Target, work: Work) -> None:
        if work.files:
            put(self.client, target.id, work.files)
        if work.restart:
            try:
                self.client.post(f"/containers/{target.id}/restart", timeout=240)
            except NotModified:
                pass
        for hook in work.execs:
            run_hook(self.client, target.id, hook, f"exec of {target.name}", self.tell)


def put(client: Client, id: str, files: dict[str, str]) -> None:
    """Brings paths of this machine into an instance; those that are gone are removed there."""
    gone = [inner for outer, inner in files.items() if not os.path.lexists(outer)]
    if len(gone) < len(files):
        headers = {"Content-Type": "application/x-tar"}
        client.call(
            "PUT",
            f"/containers/{id}/archive",
            query={"path": "/"},
            body=iter([_packed(files)]),
            headers=headers,
            timeout=120,
        ).read()
    if gone:
        config: dict[str, Any] = {"command": ["rm", "-rf", "--", *gone], "user": "0"}
        run_hook(client, id, config, "removing files", lambda _: None)


def _packed(files: dict[str, str]) -> bytes:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for outer, inner in sorted(files.items()):
            if not os.path.lexists(outer) or os.path.isdir(outer):
                continue
            try:
                entry = tar.gettarinfo(outer, inner.lstrip("/"))
                if not (entry.isreg() or entry.issym()):
                    continue
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                if entry.isreg():
                    with open(outer, "rb") as file:
                        data = file.read()
                    entry.size = len(data)  # it may have grown since
                    tar.addfile(entry, io.BytesIO(data))
                else:
                    tar.addfile(entry)
            except OSError:
                continue  # gone, or not readable: the next change tells of it again
    return spool.getvalue()


def _walk(rule: Rule) -> Iterator[str]:
    if not rule.folder:
        yield rule.path
    for folder, folders, names in os.walk(rule.path):
        folders[:] = [name for name in folders if not rule.prunes(os.path.join(folder, name))]
        for name in names:
            yield os.path.join(folder, name)


def _dockerignore(context: str) -> list[str]:
    try:
        with open(os.path.join(context, ".dockerignore"), encoding="utf-8") as file:
            return parse(file.read())
    except (OSError, UnicodeDecodeError):
        return []
