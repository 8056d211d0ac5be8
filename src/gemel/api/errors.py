"""From an error to Docker's status and body."""

from __future__ import annotations

from aiohttp import web

from gemel import errors
from gemel.api.respond import json_response

#: The first kind that an error is an instance of decides (so derived kinds come first).
_STATUS: tuple[tuple[type[errors.GemelError], int], ...] = (
    (errors.CommandNotFound, 400),
    (errors.CommandNotRunnable, 400),
    (errors.Unauthorized, 401),
    (errors.InvalidInput, 400),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.NotModified, 304),
    (errors.Unsupported, 501),
    (errors.Unavailable, 503),
)

#: docker's command line takes its exit codes 127 and 126 from these words of dockerd's.
_NOT_FOUND = "executable file not found in $PATH"
_NOT_RUNNABLE = "permission denied"


def status_of(error: errors.GemelError) -> int:
    """The HTTP status that stands for the kind of ``error``."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def message_of(error: errors.GemelError) -> str:
    """Brief and details in one text, with the words that Docker's clients look for."""
    message = f"{error.brief}: {error.details}" if error.details else error.brief
    words = ""
    if isinstance(error, errors.CommandNotFound):
        known = (_NOT_FOUND, "no such file or directory")
        words = "" if any(phrase in message for phrase in known) else _NOT_FOUND
    elif isinstance(error, errors.CommandNotRunnable) and _NOT_RUNNABLE not in message:
        words = _NOT_RUNNABLE
    return f"{message}: {words}" if words else message


def error_response(error: errors.GemelError) -> web.Response:
    """Docker's error body; ``resolution`` and ``details`` are for gemel's own client."""
    status = status_of(error)
    if status == 304:
        return web.Response(status=304)
    body = {"message": message_of(error)}
    if error.details:
        body["brief"] = error.brief
        body["details"] = error.details
    if error.resolution:
        body["resolution"] = error.resolution
    return json_response(body, status=status)


def error_line(error: errors.GemelError) -> dict[str, object]:
    """The last message of a progress stream that failed, in Docker's shape."""
    message = message_of(error)
    detail: dict[str, object] = {"message": message}
    if isinstance(error, errors.StepFailed):  # its output went before it
        message = error.brief
        detail = {"code": error.code, "message": message}
    line: dict[str, object] = {"errorDetail": detail, "error": message}
    if error.details and not isinstance(error, errors.StepFailed):
        line |= {"brief": error.brief, "details": error.details}
    if error.resolution:
        line["resolution"] = error.resolution
    return line
