"""Routes of containers: their life, and what is asked of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from gemel.api import decode
from gemel.api.call import Call
from gemel.api.respond import JSON, empty, json_line, json_response
from gemel.api.routing import Router
from gemel.engine.facade import CommitRequest, Json
from gemel.errors import GemelError, InvalidInput, NotFound
from gemel.model import fields
from gemel.model.docker import CreateRequest

#: Seconds between the samples of a stream of stats.
STATS_INTERVAL = 1.0
_NO_SAMPLE_BEFORE: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


async def list_(call: Call) -> web.StreamResponse:
    """GET /containers/json"""
    query = call.query
    filters = query.filters()
    for legacy in ("before", "since"):
        if query.text(legacy):
            filters.setdefault(legacy, []).append(query.text(legacy))
    limit = query.number("limit", 0) or 0
    size = query.flag("size")
    # neither sizes nor the names of images are part of a container's generation
    key = None if size or "ancestor" in filters else call.request.rel_url.raw_query_string
    known = call.lists.get(key, call.engine.containers.generation)
    if known is None:
        # asked for before the list is made: a change in its midst makes it stale
        generation = call.engine.containers.generation
        found = await call.engine.containers.list(
            query.flag("all") or limit > 0, max(limit, 0), size, filters
        )
        known = json_line(found)
        call.lists.put(key, generation, known)
    return web.Response(body=known, content_type=JSON)


async def create(call: Call) -> web.StreamResponse:
    """POST /containers/create"""
    body = await call.json_body()
    request = decode.decode(body, CreateRequest)
    if call.version < (1, 40) and request.host_config and not request.host_config.ipc_mode:
        request.host_config.ipc_mode = "shareable"  # the default of those days
    warned = fields.warnings(decode.parse_json(body), fields.CREATE)
    name = call.query.text("name").removeprefix("/") or None
    made = await call.engine.containers.create(request, name, call.query.text("platform"))
    made["Warnings"] = [*(made.get("Warnings") or []), *warned]
    return json_response(made, status=201)


async def inspect(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/json"""
    return json_response(
        await call.engine.containers.inspect(call.args["id"], call.query.flag("size"))
    )


async def start(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/start"""
    # an empty object is what some clients send; a HostConfig here ended with API 1.24
    if len(await call.body()) > 7:
        raise InvalidInput(
            "starting container with non-empty request body was deprecated since API v1.22 "
            "and removed in v1.24"
        )
    await call.engine.containers.start(call.args["id"])
    return empty()


#: The longest wait for a container to be ready or drained, in seconds.
LONGEST_WAIT = 3600


def _seconds(call: Call, default: int) -> float:
    wanted = call.query.number("t")
    return float(min(LONGEST_WAIT, max(0, default if wanted is None else wanted)))


async def start_held(call: Call) -> web.StreamResponse:
    """POST /gemel/containers/{id}/start-held"""
    await call.engine.containers.start_held(call.args["id"])
    return empty()


async def admit(call: Call) -> web.StreamResponse:
    """POST /gemel/containers/{id}/admit?replaces=ID&t=SECONDS"""
    replaces = call.query.text("replaces")
    await call.engine.containers.admit(call.args["id"], replaces, _seconds(call, 60))
    return empty()


async def drain(call: Call) -> web.StreamResponse:
    """POST /gemel/containers/{id}/drain?t=SECONDS"""
    await call.engine.containers.drain(call.args["id"], _seconds(call, 10))
    return empty()


async def stop(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/stop"""
    query = call.query
    await call.engine.containers.stop(call.args["id"], query.number("t"), query.text("signal"))
    return empty()


async def restart(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/restart"""
    query = call.query
    await call.engine.containers.restart(call.args["id"], query.number("t"), query.text("signal"))
    return empty()


async def kill(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/kill"""
    await call.engine.containers.kill(call.args["id"], call.query.text("signal") or "KILL")
    return empty()


async def pause(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/pause"""
    await call.engine.containers.pause(call.args["id"])
    return empty()


async def unpause(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/unpause"""
    await call.engine.containers.unpause(call.args["id"])
    return empty()


async def rename(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/rename"""
    name = call.query.text("name").removeprefix("/")
    if not name:
        raise InvalidInput("Neither old nor new names may be empty")
    await call.engine.containers.rename(call.args["id"], name)
    return empty()


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /containers/{id}"""
    query = call.query
    if query.flag("link"):
        raise InvalidInput("removing links between containers is not supported")
    await call.engine.containers.remove(call.args["id"], query.flag("force"), query.flag("v"))
    return empty()


async def wait(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/wait: the headers go out first, so that a client may start it."""
    condition = call.query.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidInput(f"invalid condition: {condition[:60]!r}")
    waiter = await call.engine.containers.waiter(call.args["id"], condition)
    pending = asyncio.ensure_future(waiter)
    try:
        response = await call.begin(JSON)
        try:
            result = await pending
        except GemelError as error:
            result = {"StatusCode": 125, "Error": {"Message": str(error)}}
        result = {key: value for key, value in result.items() if value is not None}
        await response.write(json_line(result))
        return response
    finally:
        pending.cancel()


async def resize(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/resize"""
    rows, columns = size_of(call)
    await call.engine.containers.resize(call.args["id"], rows, columns)
    return empty(200)


def size_of(call: Call) -> tuple[int, int]:
    """Rows and columns of a terminal from the query. Raises InvalidInput."""
    rows, columns = call.query.number("h", 0) or 0, call.query.number("w", 0) or 0
    if not (0 <= rows < 65536 and 0 <= columns < 65536):
        raise InvalidInput("a terminal has 0 to 65535 rows and columns")
    return rows, columns


async def top(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/top"""
    return json_response(
        await call.engine.containers.top(call.args["id"], call.query.text("ps_args") or "-ef")
    )


def with_sample_before(sample: Json, before: Json | None) -> Json:
    """A sample with the one before it, from which clients compute rates."""
    if before is None:
        return {
            **sample,
            "preread": "0001-01-01T00:00:00Z",
            "precpu_stats": _NO_SAMPLE_BEFORE,
        }
    return {
        **sample,
        "preread": before.get("read", "0001-01-01T00:00:00Z"),
        "precpu_stats": before.get("cpu_stats", _NO_SAMPLE_BEFORE),
    }


async def stats(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/stats: a stream, two samples apart, or one."""
    ref, containers = call.args["id"], call.engine.containers
    stream, one_shot = call.query.flag("stream", True), call.query.flag("one-shot")
    if stream and one_shot:
        raise InvalidInput('cannot have stream=true and one-shot=true"')
    before = await containers.stats(ref)
    if not stream:
        if one_shot:
            return json_response(with_sample_before(before, None))
        call.streams()
        await asyncio.sleep(STATS_INTERVAL)
        return json_response(with_sample_before(await containers.stats(ref), before))
    response = await call.begin(JSON)
    await response.write(json_line(with_sample_before(before, None)))
    due = time.monotonic()
    while True:
        due = max(due + STATS_INTERVAL, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        try:
            sample = await containers.stats(ref)
        except NotFound:
            return response
        await response.write(json_line(with_sample_before(sample, before)))
        before = sample


async def update(call: Call) -> web.StreamResponse:
    """POST /containers/{id}/update"""
    body = await call.decode_object()
    warned = fields.warnings(body, fields.CONTAINER_UPDATE)
    answer = await call.engine.containers.update(call.args["id"], body)
    return json_response({**answer, "Warnings": [*(answer.get("Warnings") or []), *warned]})


async def prune(call: Call) -> web.StreamResponse:
    """POST /containers/prune"""
    return json_response(await call.engine.containers.prune(call.query.filters()))


async def changes(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/changes"""
    return json_response(await call.engine.containers.changes(call.args["id"]))


async def export(call: Call) -> web.StreamResponse:
    """GET /containers/{id}/export"""
    tar = await call.engine.containers.export(call.args["id"])
    return await call.send_bytes(tar, "application/octet-stream")


async def commit(call: Call) -> web.StreamResponse:
    """POST /commit"""
    config: dict[str, Any] = await call.decode_object()
    query = call.query
    ref = query.text("container")
    if not ref:
        raise InvalidInput("the parameter container is missing")
    wanted = CommitRequest(
        repo=query.text("repo"),
        tag=query.text("tag"),
        comment=query.text("comment"),
        author=query.text("author"),
        pause=query.flag("pause", True),
        changes=query.texts("changes"),
        config=config,
    )
    made = await call.engine.containers.commit(ref, wanted)
    return json_response(made, status=201)


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    get, post = "GET", "POST"
    for method, pattern, handler in (
        (get, "/containers/json", list_),
        (post, "/containers/create", create),
        (post, "/containers/prune", prune),
        (get, "/containers/{id}/json", inspect),
        (get, "/containers/{id}/top", top),
        (get, "/containers/{id}/stats", stats),
        (get, "/containers/{id}/changes", changes),
        (get, "/containers/{id}/export", export),
        (post, "/containers/{id}/start", start),
        (post, "/containers/{id}/stop", stop),
        (post, "/gemel/containers/{id}/start-held", start_held),
        (post, "/gemel/containers/{id}/admit", admit),
        (post, "/gemel/containers/{id}/drain", drain),
        (post, "/containers/{id}/restart", restart),
        (post, "/containers/{id}/kill", kill),
        (post, "/containers/{id}/pause", pause),
        (post, "/containers/{id}/unpause", unpause),
        (post, "/containers/{id}/rename", rename),
        (post, "/containers/{id}/wait", wait),
        (post, "/containers/{id}/resize", resize),
        (post, "/containers/{id}/update", update),
        ("DELETE", "/containers/{id}", remove),
        (post, "/commit", commit),
    ):
        router.add(method, pattern, handler)
