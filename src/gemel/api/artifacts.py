"""Routes of artifacts in registries that are no images (``gemel publish``, ``oci://``)."""

from __future__ import annotations

import base64
import binascii

import msgspec
from aiohttp import web

from gemel.api.call import Call
from gemel.api.respond import json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput

_AUTH = "X-Registry-Auth"


class ArtifactPush(msgspec.Struct, rename="pascal"):
    """An artifact to send: its manifest and what that names, in base64."""

    manifest: str
    blobs: list[str]


def _bytes(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"{what} is not base64", details=str(error)) from error


async def fetch(call: Call) -> web.StreamResponse:
    """GET /gemel/artifacts/{name}"""
    name, auth = call.args["name"], call.header_json(_AUTH)
    return json_response(await call.engine.images.artifact(name, auth, call.query.texts("type")))


async def push(call: Call) -> web.StreamResponse:
    """POST /gemel/artifacts/{name}"""
    body = await call.decode(ArtifactPush)
    manifest = _bytes(body.manifest, "Manifest")
    blobs = [_bytes(blob, "an entry of Blobs") for blob in body.blobs]
    name, auth = call.args["name"], call.header_json(_AUTH)
    done = await call.engine.images.push_artifact(name, auth, manifest, blobs)
    return json_response(done, status=201)


def add_routes(router: Router) -> None:
    """Adds the routes of this file."""
    router.add("GET", "/gemel/artifacts/{name:*}", fetch)
    router.add("POST", "/gemel/artifacts/{name:*}", push)
