"""The images of a project's services: looked up, built, pulled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gemel.client import buildextras
from gemel.client import context as build_context
from gemel.client.engine import Client
from gemel.client.project.pool import each
from gemel.client.pull import build_headers, checked
from gemel.compose.builds import BuildRequest
from gemel.errors import Failed, GemelError, InvalidInput

#: Lines of a failed build's output that its error shows.
_TAIL = 30


def ids(client: Client, refs: Iterable[str], parallel: int = 16) -> dict[str, str]:
    """Reference → id of those images that the engine has."""
    found: dict[str, str] = {}

    def look(ref: str) -> None:
        image = client.exists(f"/images/{ref}/json")
        if image is not None:
            found[ref] = str(image["Id"])

    for problem in each(dict.fromkeys(refs), look, parallel).values():
        raise problem
    return found


def check_build(request: BuildRequest) -> None:
    """Raises InvalidInput for a missing context or Dockerfile, before anything has begun."""
    if request.remote:
        if request.dockerfile_inline:
            raise InvalidInput(
                f'service "{request.service}": dockerfile_inline needs a folder as context',
                details=f"its context is {request.context}",
            )
        return
    if not request.dockerfile_inline:
        build_context.check(request.context, request.dockerfile)
    elif not os.path.isdir(request.context):
        raise InvalidInput(
            f'service "{request.service}": build context {request.context} is not a folder'
        )


def run_build(
    client: Client,
    request: BuildRequest,
    tell: Callable[[str], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Builds one image; its id. environment: of which secrets are read.

    Raises Failed with the last lines of the build's output.
    """
    query, body = _prepared(client, request, environment)
    messages = client.stream("POST", "/build", query=query, body=body, headers=build_headers())
    tail: list[str] = []
    id = ""
    try:
        for message in checked(messages):
            id = str((message.get("aux") or {}).get("ID") or id)
            for line in str(message.get("stream") or message.get("status") or "").splitlines():
                if not line.strip():
                    continue
                tail = [*tail, line][-_TAIL:]
                if tell is not None:
                    tell(line)
    except GemelError as problem:
        raise Failed(
            f'building service "{request.service}" failed: {problem.brief.splitlines()[0]}',
            details="\n".join(tail) or problem.details,
            resolution=problem.resolution,
        ) from problem
    return id


def _prepared(
    client: Client, request: BuildRequest, environment: Mapping[str, str] | None
) -> tuple[dict[str, Any], Iterable[bytes]]:
    """The query of POST /build and its body; secrets are sent by now. Raises InvalidInput."""
    name, extra = ("", None) if request.remote else placed_dockerfile(request)
    query = build_query(request, name or request.dockerfile)
    query["contexts"], further = buildextras.placed_contexts(request.additional_contexts)
    if request.remote and further:
        raise InvalidInput(
            f'service "{request.service}": a context at an address takes no further folders',
            details=", ".join(request.additional_contexts),
            resolution="name further contexts by address too, or clone the repository",
        )
    query["secrets"] = buildextras.private_token(client, request.secrets, request.ssh, environment)
    if request.remote:
        return query | {"remote": request.context}, ()
    return query, build_context.tar(request.context, name, extra, further)


def placed_dockerfile(request: BuildRequest) -> tuple[str, dict[str, bytes] | None]:
    """The Dockerfile's name in the context, and the file itself if it comes from outside."""
    if request.dockerfile_inline:
        return ".dockerfile.inline", {".dockerfile.inline": request.dockerfile_inline.encode()}
    path = build_context.check(request.context, request.dockerfile)
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(request.context))
    if not inside.startswith(".."):
        return inside, None
    with open(path, "rb") as file:
        return ".dockerfile.outside", {".dockerfile.outside": file.read()}


def build_query(request: BuildRequest, dockerfile: str) -> dict[str, Any]:
    """The parameters of POST /build (Docker's, and gemel's for what those do not know)."""
    query: dict[str, Any] = {
        "t": list(request.tags),
        "dockerfile": dockerfile,
        "buildargs": json.dumps(request.args) if request.args else None,
        "labels": json.dumps(request.labels) if request.labels else None,
        "target": request.target or None,
        "nocache": request.nocache or None,
        "pull": request.pull or None,
        "networkmode": request.network or None,
        "extrahosts": ",".join(request.extra_hosts) or None,
        "shmsize": request.shm_size or None,
        **(request.limits or {}),
        "platform": request.platforms[0] if request.platforms else None,
        "rm": True,
        "version": "1",
    }
    for name, entries in (("cachefrom", request.cache_from), ("cacheto", request.cache_to)):
        if entries:
            query[name] = json.dumps(entries)
    if request.ulimits:
        query["ulimits"] = json.dumps(list(request.ulimits))
    return query
