"""What the engine and the DNS server say to each other over the control socket.

A unix stream, one JSON object a line. The server greets with ``Hello``; an
``Order`` with a snapshot is answered with ``Done`` once it holds; one with
``stop`` ends the server. (The engine imports this, not the server: no dnspython.)
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from gemel.model.network import Balanced, Endpoint, NetworkInfo

#: Bytes that a message may have.
CONTROL_LIMIT = 64 << 20


class Snapshot(msgspec.Struct, frozen=True):
    """All that the server knows; replaced whole."""

    generation: int = 0
    networks: tuple[NetworkInfo, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    balanced: tuple[Balanced, ...] = ()


class Hello(msgspec.Struct):
    """The server's greeting."""

    version: str
    pid: int


class Order(msgspec.Struct, omit_defaults=True):
    """What the engine tells the server."""

    snapshot: Snapshot | None = None
    stop: bool = False


class Done(msgspec.Struct):
    """The server's answer: what it holds now.

    ports: of gateways whose port 53 another program has, the port used instead
    (the engine leads 53 there). failures: gateway to reason.
    """

    generation: int
    ports: dict[str, int] = {}
    failures: dict[str, str] = {}


def _version() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


#: Names the server's code: an engine of a later version starts a new server. Read at once: the
#: server becomes a user who may not read the sources when they lie in root's home folder.
VERSION = _version()
