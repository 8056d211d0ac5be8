"""Recorded dependencies: answers that stand in for services that do not run."""

from __future__ import annotations

import msgspec


class RecordedCall(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A request and what was answered. Bodies are base64 in JSON. path: with its query."""

    method: str
    path: str
    port: int
    body: bytes = b""
    status: int = 200
    headers: list[tuple[str, str]] = []
    answer: bytes = b""


class RecordedService(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A service by the names under which others call it, and its calls in their order."""

    name: str
    aliases: list[str] = []
    calls: list[RecordedCall] = []


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What is to be answered on which networks (names or ids), until a network is removed."""

    project: str = ""
    networks: list[str] = []
    services: list[RecordedService] = []
