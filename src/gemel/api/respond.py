"""Answers: one JSON value, streams of JSON lines, streams of bytes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiohttp import web

JSON = "application/json"
TAR = "application/x-tar"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

_encode = msgspec.json.Encoder().encode


def json_line(value: Any) -> bytes:
    """JSON with the line end that Go's encoder writes."""
    return _encode(value) + b"\n"


def json_response(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """One JSON value."""
    return web.Response(
        body=json_line(value), status=status, content_type=JSON, headers=dict(headers or {})
    )


def empty(status: int = 204) -> web.Response:
    """No body."""
    return web.Response(status=status)


async def close_iterator(iterator: AsyncIterator[Any] | None) -> None:
    """Ends a generator whose reader has gone, so that its own cleanup runs now."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        with contextlib.suppress(Exception):
            await close()
