"""What the engine tells the server of recorded answers, and what that answers."""

from __future__ import annotations

import msgspec

from gemel.model.replay import RecordedService


class Order(msgspec.Struct, frozen=True):
    """What is answered, at which addresses."""

    addresses: tuple[str, ...] = ()
    services: tuple[RecordedService, ...] = ()


class Told(msgspec.Struct):
    """Answer to an order. problems: where it cannot listen, and why."""

    problems: list[str] = []
