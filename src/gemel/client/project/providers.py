"""Services that a program outside of the project runs: the program is found and called.

It runs on the client's side, as the user, with the project's environment, as in Compose.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence

from gemel.client import plugins
from gemel.client.project.display import Progress
from gemel.client.project.members import Target
from gemel.compose import provider
from gemel.compose.project import Project, Service
from gemel.compose.provider import Message, Messages, Metadata, Variables
from gemel.errors import Failed, GemelError, NotFound
from gemel.host.talk import Talks

#: Seconds that a program may take to say which options it knows.
_TAKE = 20.0
_DOING = {
    "up": ("Creating", "Created", "create"),
    "down": ("Removing", "Removed", "remove"),
    "stop": ("Stopping", "Stopped", "stop"),
}


class Providers:
    """Calls the programs of a project's services. Any thread may call; blocks."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.talks = Talks()
        self._env = plugins.environment(project.environment)
        self._known: dict[str, Metadata] = {}
        self._lock = threading.Lock()

    def services(self, names: Collection[str] | None = None) -> list[Service]:
        """Those of the project that a provider runs; names: only of these."""
        return [
            service
            for service in self.project
            if service.provider is not None and (names is None or service.name in names)
        ]

    def targets(self, names: Collection[str] | None = None) -> list[Target]:
        """The same as members of the project: without an id, since they have no container."""
        return [
            Target("", one.name, one.name, state="running", depends_on=tuple(one.depends_on))
            for one in self.services(names)
        ]

    def check(self, names: Sequence[str]) -> list[str]:
        """Asks the programs what they need. Gives warnings; raises before anything is called."""
        warnings = []
        for name in names:
            service = self.project.service(name)
            known = self._metadata(service)
            try:
                self._arguments(service, "up", known)
            except GemelError as problem:
                raise self._placed(service, problem) from problem
            warnings += [
                f"{self._where(service)}{provider.kind(service)} knows no option {key}:"
                " it is not handed on"
                for key in provider.unknown(service, known)
            ]
        return warnings

    def up(self, name: str, shown: Progress) -> Variables:
        """Brings a service up; the variables for those that depend on it. Raises GemelError."""
        return self._call(self.project.service(name), "up", shown)

    def down(self, name: str, shown: Progress) -> None:
        """Releases what belongs to a service. Raises GemelError."""
        self._call(self.project.service(name), "down", shown)

    def stop(self, name: str, shown: Progress) -> None:
        """Stops a service without releasing it, if its program can. Raises GemelError."""
        service = self.project.service(name)
        if self._metadata(service).stop is not None:
            self._call(service, "stop", shown)

    def _call(self, service: Service, command: str, shown: Progress) -> Variables:
        doing, done, word = _DOING[command]
        text = f"Service {service.name}"
        shown.working(text, doing)
        hearing = _Hearing(service, shown)
        try:
            argv = self._arguments(service, command, self._metadata(service))
            limit = provider.timeout(service)
            ended = self.talks.run(argv, hearing.line, timeout=limit, env=self._env)
            hearing.messages.end()
            if ended.status:
                raise Failed(
                    f"{provider.kind(service)} failed to {word} service {service.name}:"
                    f" {_status(ended.status)}",
                    ended.errors,
                )
        except GemelError as problem:
            if not self.talks.over:  # else this process is about to end
                shown.failed(text, provider.shown(problem.brief))
            raise self._placed(service, problem) from problem
        shown.done(text, done)
        return hearing.variables

    def _arguments(self, service: Service, command: str, known: Metadata) -> list[str]:
        argv = provider.arguments(self.project.name, service, command, known)
        return [self._program(service), *argv]

    def _program(self, service: Service) -> str:
        path = plugins.provider(provider.kind(service))
        if path is None:
            raise NotFound(f"{self._where(service)}{missing(provider.kind(service))}")
        return path

    def _metadata(self, service: Service) -> Metadata:
        """What a program says of its options; asked once. A program need not answer."""
        kind = provider.kind(service)
        with self._lock:
            if kind not in self._known:
                said: list[bytes] = []
                argv = [self._program(service), "compose", "metadata"]
                try:
                    ended = self.talks.run(argv, said.append, timeout=_TAKE, env=self._env)
                    known = provider.metadata(b"\n".join(said)) if ended.status == 0 else Metadata()
                except Failed:
                    known = Metadata()
                self._known[kind] = known
            return self._known[kind]

    def _where(self, service: Service) -> str:
        mark = self.project.marks.get(f"services.{service.name}")
        return f"{mark}: " if mark else ""

    def _placed(self, service: Service, problem: GemelError) -> GemelError:
        """The problem with the line of the file."""
        where = self._where(service)
        if not problem.brief.startswith(where):
            problem.brief = where + problem.brief
        return problem


def missing(kind: str) -> str:
    """Words for a type of provider without a program."""
    if kind == "compose":
        return '"compose" is not a valid type of provider'
    return (
        f'there is no provider "{kind}": neither a program of that name in PATH'
        f" nor docker-{kind} among Docker's plugins"
    )


def _status(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"ended by signal {-status}"


class _Hearing:
    """Takes in what a program says while it runs."""

    def __init__(self, service: Service, shown: Progress) -> None:
        self._service = service
        self._shown = shown
        self._last = ""
        self.name = provider.kind(service)
        self.messages = Messages(self.name)
        self.variables = Variables()

    def line(self, line: bytes) -> None:
        """One line. Raises Failed for an error that it tells, and for what is no message."""
        for message in self.messages.feed(line):
            self._message(message)

    def _message(self, message: Message) -> None:
        if message.type == "error":
            first, _, rest = message.message.strip().partition("\n")
            raise Failed(f"{self.name}: {provider.shown(first) or 'it failed'}", rest[:4000])
        if message.type in ("setenv", "rawsetenv"):
            provider.keep(self.variables, message, self.name)
        elif message.type == "info":
            text = provider.shown(message.message)
            if text and text != self._last:
                self._last = text
                self._shown.working(f"Service {self._service.name}", text)
        elif os.environ.get("GEMEL_DEBUG"):
            self._shown.note(f"{self._service.name}: {provider.shown(message.message)}")
