"""From an answer of the API to the error that a person reads."""

from __future__ import annotations

from typing import Any

from gemel import errors
from gemel.errors import GemelError

_BY_STATUS: dict[int, type[GemelError]] = {
    400: errors.InvalidInput,
    404: errors.NotFound,
    405: errors.Unsupported,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}

_NOT_FOUND_MARKS = ("executable file not found", "no such file or directory")
_NOT_RUNNABLE_MARKS = ("permission denied", "exec format error", "is a directory")


class EngineDown(errors.Unavailable):
    """Nobody answers at the socket."""


class EngineHung(errors.Unavailable):
    """The socket is there, and no answer comes."""


def from_answer(status: int, body: dict[str, Any]) -> GemelError:
    """The error for an HTTP status of 400 or more and its decoded body.

    body: Docker's ``message``, and gemel's own ``details``, ``resolution`` and
    ``kind`` (name of a class of gemel.errors) if the engine sent them.
    """
    brief = str(body.get("brief") or body.get("message") or f"the engine answered {status}")
    details = str(body.get("details") or "")
    resolution = str(body.get("resolution") or "")
    if not body.get("brief") and resolution:
        # ``message`` is what other clients of Docker's API see: all three parts in one text
        for part in (resolution, details):
            if part and brief.endswith(part):
                brief = brief.removesuffix(part).rstrip("\n")
    kind = getattr(errors, str(body.get("kind") or ""), None)
    if not (isinstance(kind, type) and issubclass(kind, GemelError)):
        kind = _guess(status, str(body.get("message") or brief))
    return kind(brief, details, resolution)


def _guess(status: int, message: str) -> type[GemelError]:
    text = message.lower()
    if "exec" in text or "start" in text:
        if any(mark in text for mark in _NOT_FOUND_MARKS) and "exec" in text:
            return errors.CommandNotFound
        if any(mark in text for mark in _NOT_RUNNABLE_MARKS) and "exec" in text:
            return errors.CommandNotRunnable
    return _BY_STATUS.get(status, errors.Failed if status >= 500 else errors.InvalidInput)
