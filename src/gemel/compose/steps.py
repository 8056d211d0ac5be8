"""Steps of a plan: what is done, why, and what must be done before."""

from __future__ import annotations

import enum

import msgspec

from gemel.compose.observed import Container
from gemel.compose.requests import Inherited
from gemel.compose.rolling import Rolling


class Kind(enum.StrEnum):
    """What a step does. RECREATE stops and removes the old container and makes the new one."""

    CREATE_NETWORK = "create network"
    CREATE_VOLUME = "create volume"
    PULL = "pull"
    BUILD = "build"
    PROVIDE = "run provider"
    CREATE = "create"
    RECREATE = "recreate"
    START = "start"
    WAIT = "wait"
    RESTART = "restart"
    UPDATE = "update"
    STOP = "stop"
    REMOVE = "remove"
    REMOVE_NETWORK = "remove network"
    REMOVE_VOLUME = "remove volume"
    REMOVE_IMAGE = "remove image"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A container of an UPDATE that is to be replaced."""

    container: Container
    name: str
    """Of the new one in the end."""
    reason: str
    inherit: tuple[Inherited, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step. after: ids of the steps that must be done first.

    name: of the container, network, volume or image. key: of the network or
    volume in the file. condition: of a WAIT, as in depends_on. optional: of a
    WAIT whose failure does not keep its dependents from starting.
    """

    id: int
    kind: Kind
    name: str
    reason: str
    after: tuple[int, ...] = ()
    service: str = ""
    index: int = 0
    key: str = ""
    container: Container | None = None
    condition: str = ""
    optional: bool = False
    inherit: tuple[Inherited, ...] = ()
    timeout: int | None = None
    """Seconds to wait for a container to stop; None: its own."""
    volumes: bool = False
    """REMOVE: its anonymous volumes too."""
    changes: tuple[Change, ...] = ()
    """UPDATE: what is replaced, in this order."""
    rolling: Rolling | None = None
    """UPDATE: how."""
    drain: float | None = None
    """STOP: its connections may go on so long (seconds) while others take its place."""


class Plan(msgspec.Struct, frozen=True):
    """Steps in an order that is right one after the other; ``after`` allows for more."""

    steps: tuple[Step, ...] = ()
    unchanged: tuple[Container, ...] = ()
    """Containers that run already as they should."""
    warnings: tuple[str, ...] = ()

    def of(self, *kinds: Kind) -> list[Step]:
        return [step for step in self.steps if step.kind in kinds]


class Draft:
    """A plan in the making."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.unchanged: list[Container] = []
        self.warnings: list[str] = []

    def add(self, kind: Kind, name: str, reason: str, after: set[int], **more: object) -> int:
        """Adds a step and gives its id."""
        id = len(self.steps)
        step = Step(id=id, kind=kind, name=name, reason=reason, after=tuple(sorted(after)))
        self.steps.append(msgspec.structs.replace(step, **more))
        return id

    def plan(self) -> Plan:
        return Plan(tuple(self.steps), tuple(self.unchanged), tuple(self.warnings))
