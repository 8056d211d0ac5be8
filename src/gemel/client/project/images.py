"""The images of a project's services: looked up, built, pulled."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from gemel.client import context as build_context
from gemel.client.engine import Client
from gemel.client.project.pool import each
from gemel.client.pull import checked
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
    if not request.dockerfile_inline:
        build_context.check(request.context, request.dockerfile)
    elif not os.path.isdir(request.context):
        raise InvalidInput(
            f'service "{request.service}": build context {request.context} is not a folder'
        )


def run_build(
    client: Client, request: BuildRequest, tell: Callable[[str], None] | None = None
) -> str:
    """Builds one image; its id. Raises Failed with the last lines of the build's output."""
    name, extra = placed_dockerfile(request)
    messages = client.stream(
        "POST",
        "/build",
        query=build_query(request, name),
        body=build_context.tar(request.context, name, extra),
        headers={"Content-Type": "application/x-tar"},
    )
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
        "cachefrom": json.dumps(list(request.cache_from)) if request.cache_from else None,
        "platform": request.platforms[0] if request.platforms else None,
        "rm": True,
        "version": "1",
    }
    if request.ulimits:
        query["ulimits"] = json.dumps(list(request.ulimits))
    if request.additional_contexts:
        query["contexts"] = json.dumps(request.additional_contexts)
    if request.secrets:
        query["secrets"] = json.dumps([_secret(*secret) for secret in request.secrets])
    return query


def _secret(id: str, path: str | None, variable: str | None) -> dict[str, str]:
    """A build secret with its content: the engine reads no file that the client names."""
    content = b""
    if variable is not None:
        content = os.environ.get(variable, "").encode()
    elif path is not None:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            raise InvalidInput(f"cannot read the secret {id}", details=str(error)) from error
    return {"id": id, "content": base64.b64encode(content).decode()}
