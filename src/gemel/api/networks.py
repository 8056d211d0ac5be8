"""Routes of networks and volumes."""

from __future__ import annotations

from aiohttp import web

from gemel.api import decode
from gemel.api.call import Call
from gemel.api.respond import empty, json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput, Unsupported
from gemel.model import fields
from gemel.model.docker import EndpointSettings, NetworkCreate, VolumeCreate


async def list_networks(call: Call) -> web.StreamResponse:
    """GET /networks"""
    return json_response(await call.engine.networks.list(call.query.filters()))


async def inspect_network(call: Call) -> web.StreamResponse:
    """GET /networks/{id}"""
    return json_response(await call.engine.networks.inspect(call.args["id"]))


async def create_network(call: Call) -> web.StreamResponse:
    """POST /networks/create"""
    body = await call.json_body()
    request = decode.decode(body, NetworkCreate)
    warned = fields.warnings(decode.parse_json(body), fields.NETWORK_CREATE)
    if not request.name:
        raise InvalidInput("network name is invalid: name is empty")
    answer = await call.engine.networks.create(request)
    return json_response({**answer, "Warning": "; ".join(warned)}, status=201)


async def remove_network(call: Call) -> web.StreamResponse:
    """DELETE /networks/{id}"""
    await call.engine.networks.remove(call.args["id"])
    return empty()


async def connect(call: Call) -> web.StreamResponse:
    """POST /networks/{id}/connect"""
    body = await call.decode_object()
    container = decode.field(body, "Container", str, "")
    if warned := fields.warnings(body, fields.CONNECT):  # the answer has no place for them
        raise Unsupported(warned[0], resolution="leave it out")
    settings = decode.field(body, "EndpointConfig", EndpointSettings, EndpointSettings())
    if not container:
        raise InvalidInput("the field Container is missing")
    await call.engine.networks.connect(call.args["id"], container, settings)
    return empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    """POST /networks/{id}/disconnect"""
    body = await call.decode_object()
    container = decode.field(body, "Container", str, "")
    if not container:
        raise InvalidInput("the field Container is missing")
    force = decode.field(body, "Force", bool, False)
    await call.engine.networks.disconnect(call.args["id"], container, force)
    return empty(200)


async def prune_networks(call: Call) -> web.StreamResponse:
    """POST /networks/prune"""
    return json_response(await call.engine.networks.prune(call.query.filters()))


async def list_volumes(call: Call) -> web.StreamResponse:
    """GET /volumes"""
    return json_response(await call.engine.volumes.list(call.query.filters()))


async def inspect_volume(call: Call) -> web.StreamResponse:
    """GET /volumes/{name}"""
    return json_response(await call.engine.volumes.inspect(call.args["name"]))


async def create_volume(call: Call) -> web.StreamResponse:
    """POST /volumes/create"""
    body = await call.json_body(required=False)
    request = decode.decode(body, VolumeCreate) if body.strip() else VolumeCreate()
    if body.strip():
        fields.warnings(decode.parse_json(body), fields.VOLUME_CREATE)
    return json_response(await call.engine.volumes.create(request), status=201)


async def remove_volume(call: Call) -> web.StreamResponse:
    """DELETE /volumes/{name}"""
    await call.engine.volumes.remove(call.args["name"], call.query.flag("force"))
    return empty()


async def prune_volumes(call: Call) -> web.StreamResponse:
    """POST /volumes/prune"""
    return json_response(await call.engine.volumes.prune(call.query.filters()))


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    get, post, delete = "GET", "POST", "DELETE"
    for method, pattern, handler in (
        (get, "/networks", list_networks),
        (get, "/networks/", list_networks),
        (get, "/networks/{id}", inspect_network),
        (post, "/networks/create", create_network),
        (post, "/networks/prune", prune_networks),
        (post, "/networks/{id}/connect", connect),
        (post, "/networks/{id}/disconnect", disconnect),
        (delete, "/networks/{id}", remove_network),
        (get, "/volumes", list_volumes),
        (get, "/volumes/{name}", inspect_volume),
        (post, "/volumes/create", create_volume),
        (post, "/volumes/prune", prune_volumes),
        (delete, "/volumes/{name}", remove_volume),
    ):
        router.add(method, pattern, handler)
