"""Pulls, pushes and builds: streams of progress messages, shown as they come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from gemel.client import credentials
from gemel.client.engine import Client
from gemel.client.errors import from_answer

Json = dict[str, Any]


def checked(messages: Iterator[Json]) -> Iterator[Json]:
    """The messages; an ``error`` among them is raised with its parts."""
    for message in messages:
        if "error" in message or "errorDetail" in message:
            detail = message.get("errorDetail") or {}
            brief = str(detail.get("message") or message.get("error") or "failed")
            raise from_answer(500, {**message, **detail, "message": brief})
        yield message


def split_reference(ref: str) -> tuple[str, str]:
    """Repository, and tag or digest; ``latest`` where none is given."""
    if "@" in ref:
        name, _, digest = ref.partition("@")
        return name, digest
    head, colon, tag = ref.rpartition(":")
    if colon and "/" not in tag:
        return head, tag
    return ref, "latest"


def build_headers() -> dict[str, str]:
    """Headers of POST /build: of what kind the body is, and the credentials of all registries."""
    headers = {"Content-Type": "application/x-tar"}
    auths = credentials.of_all()
    return headers | ({"X-Registry-Config": auths} if auths else {})


class Lines:
    """Docker's progress messages as lines; layers are redrawn on a terminal."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell or (lambda text: print(text, file=sys.stderr))
        self._states: dict[str, str] = {}

    def show(self, message: Json) -> None:
        """One message: a status with or without a layer's id, or a piece of a build's output."""
        if "stream" in message:
            text = str(message["stream"]).rstrip("\n")
            if text:
                self._tell(text)
            return
        status = message.get("status")
        if not status:
            return
        layer = str(message.get("id") or "")
        if layer and self._states.get(layer) == status:
            return  # only the count has changed
        self._states[layer] = str(status)
        self._tell(f"{layer}: {status}" if layer else str(status))


def pull_image(
    client: Client,
    ref: str,
    *,
    quiet: bool = False,
    platform: str = "",
    tell: Callable[[str], None] | None = None,
) -> None:
    """Pulls an image. Raises NotFound, Failed with the registry's reason."""
    name, tag = split_reference(ref)
    headers = credentials.headers(ref)
    lines = Lines(tell)
    query: dict[str, Any] = {"fromImage": name, "tag": tag, "platform": platform or None}
    for message in checked(client.stream("POST", "/images/create", query=query, headers=headers)):
        if not quiet:
            lines.show(message)


def push_image(client: Client, ref: str, *, quiet: bool = False) -> None:
    """Pushes an image to its registry."""
    name, tag = split_reference(ref)
    headers = credentials.headers(ref, always=True)
    lines = Lines()
    for message in checked(
        client.stream("POST", f"/images/{name}/push", query={"tag": tag}, headers=headers)
    ):
        if not quiet:
            lines.show(message)
