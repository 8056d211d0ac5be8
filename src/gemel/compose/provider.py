"""Services that a program outside of the project runs: ``provider``. Pure.

The protocol is Compose's: the program is called with ``compose --project-name=NAME up
--OPTION=VALUE SERVICE`` (or ``down``, ``stop``, and ``compose metadata``), and says JSON objects
with ``type`` (info, error, debug, setenv, rawsetenv) and ``message``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gemel.compose import units
from gemel.compose.project import Project, Service
from gemel.errors import Failed, InvalidInput

#: Seconds that a call of a program may take, if the file does not say.
LONGEST = 1800.0
#: Lines that one message may be spread over, variables a program may set, bytes of a value.
_LINES = 100
_VARIABLES = 500
_VALUE = 64 * 1024
#: Characters of what it says that are shown.
_SHOWN = 200
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Message(msgspec.Struct, frozen=True):
    """What a program says."""

    type: str = ""
    message: str = ""


class Variables(msgspec.Struct):
    """What services that depend on a provider are told. prefixed: without the prefix."""

    prefixed: dict[str, str] = {}
    raw: dict[str, str] = {}


class Parameter(msgspec.Struct, frozen=True):
    """An option that a program knows."""

    name: str = ""
    required: bool = False


class Command(msgspec.Struct, frozen=True):
    """A call that a program takes."""

    parameters: list[Parameter] | None = None


class Metadata(msgspec.Struct, frozen=True):
    """What a program says of itself; it need not."""

    description: str = ""
    up: Command = Command()
    down: Command = Command()
    stop: Command | None = None

    @property
    def empty(self) -> bool:
        """Whether it says nothing, so that every option is handed on."""
        return not self.description and self.up.parameters is None and self.down.parameters is None

    def of(self, command: str) -> Command | None:
        """What it says of a call."""
        found: Command | None = getattr(self, command)
        return found


def metadata(output: bytes) -> Metadata:
    """From the output of ``compose metadata``; what is not understood says nothing."""
    try:
        return msgspec.json.decode(output, type=Metadata)
    except msgspec.MsgspecError:
        return Metadata()


def options(service: Service) -> dict[str, list[str]]:
    """The options of the file, each of which may be given several times."""
    given = (service.provider or {}).get("options") or {}
    return {
        key: [str(one) for one in (value if isinstance(value, list) else [value])]
        for key, value in sorted(given.items())
    }


def arguments(project: str, service: Service, command: str, known: Metadata) -> list[str]:
    """The program's arguments. Raises InvalidInput if an option is missing that it needs."""
    parameters = (known.of(command) or Command()).parameters or []
    names = {one.name for one in parameters}
    given = options(service)
    missing = [one.name for one in parameters if one.required and one.name not in given]
    if missing and not known.empty:
        raise InvalidInput(
            f'service "{service.name}": provider.options lacks {", ".join(missing)}',
            resolution=f"{kind(service)} knows: {', '.join(sorted(names))}",
        )
    passed = [
        f"--{key}={value}"
        for key, values in given.items()
        if known.empty or key in names
        for value in values
    ]
    return ["compose", f"--project-name={project}", command, *passed, service.name]


def unknown(service: Service, known: Metadata) -> list[str]:
    """Options of the file that the program does not know in any call, and is not given."""
    if known.empty:
        return []
    calls = [known.up, known.down, known.stop or Command()]
    names = {one.name for call in calls for one in call.parameters or []}
    return [key for key in options(service) if key not in names]


def kind(service: Service) -> str:
    """The provider's type."""
    return str((service.provider or {}).get("type") or "")


def timeout(service: Service) -> float:
    """Seconds that a call of its program may take: ``x-gemel.timeout``."""
    text = service.gemel.get("timeout")
    return LONGEST if text is None else units.duration(str(text)) / 1e9


def shown(text: str) -> str:
    """The first line of what a program says, without what would move a terminal's cursor."""
    line = _UNSEEN.sub(" ", (text.strip().splitlines() or [""])[0])
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


class Messages:
    """The messages in a program's output, which need not be one a line."""

    def __init__(self, name: str) -> None:
        """name: of the program, in errors."""
        self._name = name
        self._text = ""
        self._lines = 0
        self._decoder = json.JSONDecoder()

    def feed(self, line: bytes) -> list[Message]:
        """The messages that a line completes. Raises Failed for what is none."""
        self._text = (self._text + line.decode("utf-8", "replace") + "\n").lstrip()
        self._lines += 1
        found: list[Message] = []
        while self._text:
            try:
                value, used = self._decoder.raw_decode(self._text)
            except RecursionError:
                raise self._wrong(self._text) from None
            except ValueError as error:
                if not self._unfinished(error) or self._lines > _LINES:
                    raise self._wrong(self._text) from None
                return found
            found.append(self._message(value, self._text[:used]))
            self._text = self._text[used:].lstrip()
        self._lines = 0
        return found

    def end(self) -> None:
        """It says nothing more. Raises Failed if a message is not complete."""
        if self._text:
            raise self._wrong(self._text)

    def _unfinished(self, error: ValueError) -> bool:
        at = getattr(error, "pos", 0)
        return bool(at >= len(self._text.rstrip()) - 1)

    def _message(self, value: Any, text: str) -> Message:
        kinds = ("info", "error", "debug", "setenv", "rawsetenv")
        if not isinstance(value, dict) or value.get("type") not in kinds:
            raise self._wrong(text)
        message = value.get("message", "")
        if not isinstance(message, str):
            raise self._wrong(text)
        return Message(value["type"], message)

    def _wrong(self, text: str) -> Failed:
        return Failed(
            f"{self._name} says what no provider says: {shown(text)}",
            resolution='a provider says JSON lines: {"type": "info", "message": "..."}',
        )


def keep(variables: Variables, message: Message, name: str) -> None:
    """Takes a setenv or rawsetenv. Raises Failed for one that cannot be a variable."""
    key, equals, value = message.message.partition("=")
    into = variables.prefixed if message.type == "setenv" else variables.raw
    bad = not equals or not key.strip() or "\0" in message.message or len(value) > _VALUE
    if bad or len(variables.prefixed) + len(variables.raw) >= _VARIABLES:
        why = "too many, or too long" if not bad or len(value) > _VALUE else "KEY=VALUE is expected"
        raise Failed(f"{name} sets a variable that cannot be set ({why}): {shown(key)}")
    into[key] = value


def told(project: Project, found: Mapping[str, Variables]) -> tuple[Project, list[str]]:
    """The project whose services know what the providers that they depend on have said.

    found: by service. With it come warnings of values of the file that are replaced.
    """
    more: dict[str, dict[str, str]] = {}
    warnings: list[str] = []
    for service in project:
        if service.provider is not None:
            continue
        for name in sorted(service.depends_on):
            if name in found:
                more.setdefault(service.name, {}).update(_environment(name, found[name]))
    for receiver, new in more.items():
        old = project.service(receiver).environment
        warnings += [
            f'provider "{name}" overrides environment variable "{key}" in service "{receiver}"'
            for name in sorted(project.service(receiver).depends_on)
            for key in (found[name].raw if name in found else ())
            if key in old and old[key] != new[key]
        ]
    return with_environment(project, more), warnings


def _environment(name: str, variables: Variables) -> dict[str, str]:
    prefix = name.upper() + "_"
    return {**{prefix + k: v for k, v in variables.prefixed.items()}, **variables.raw}


def with_environment(project: Project, more: Mapping[str, Mapping[str, str]]) -> Project:
    """The project with more variables for some of its services."""
    services = dict(project.services)
    for name, variables in more.items():
        if name in services and variables:
            old = services[name]
            environment = {**old.environment, **variables}
            services[name] = Service(name, {**old.config, "environment": environment})
    return msgspec.structs.replace(project, services=services)
