"""Routes of images and builds."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from gemel.api.call import Call
from gemel.api.decompress import decompressed
from gemel.api.respond import TAR, close_iterator, empty, json_response
from gemel.api.routing import Router
from gemel.errors import InvalidInput, Unsupported
from gemel.image.manifest import own_platform, parse_platform

_AUTH = "X-Registry-Auth"


async def list_(call: Call) -> web.StreamResponse:
    """GET /images/json"""
    filters = call.query.filters()
    if call.query.text("filter"):  # the form before API 1.28
        filters.setdefault("reference", []).append(call.query.text("filter"))
    return json_response(await call.engine.images.list(call.query.flag("all"), filters))


async def inspect(call: Call) -> web.StreamResponse:
    """GET /images/{name}/json"""
    return json_response(await call.engine.images.inspect(call.args["name"]))


async def history(call: Call) -> web.StreamResponse:
    """GET /images/{name}/history"""
    return json_response(await call.engine.images.history(call.args["name"]))


async def tag(call: Call) -> web.StreamResponse:
    """POST /images/{name}/tag"""
    repo = call.query.text("repo")
    if not repo:
        raise InvalidInput("invalid reference format", details="the parameter repo is missing")
    await call.engine.images.tag(call.args["name"], repo, call.query.text("tag") or "latest")
    return empty(201)


async def remove(call: Call) -> web.StreamResponse:
    """DELETE /images/{name}"""
    query = call.query
    done = await call.engine.images.remove(
        call.args["name"], query.flag("force"), query.flag("noprune")
    )
    return json_response(done)


async def prune(call: Call) -> web.StreamResponse:
    """POST /images/prune"""
    return json_response(await call.engine.images.prune(call.query.filters()))


async def search(call: Call) -> web.StreamResponse:
    """GET /images/search"""
    raise Unsupported(
        "searching a registry is not supported",
        resolution="look for the image on its registry's web page, then pull it by its name",
    )


def reference(name: str, tag: str) -> str:
    """``name:tag``, or ``name@digest`` where the tag is a digest; it replaces the name's own."""
    if not tag:
        return name
    head, slash, last = name.partition("@")[0].rpartition("/")
    name = head + slash + last.partition(":")[0]
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


async def create(call: Call) -> web.StreamResponse:
    """POST /images/create: a pull, or an import with fromSrc."""
    query = call.query
    image, source = query.text("fromImage"), query.text("fromSrc")
    if image:
        ref = reference(image, query.text("tag"))
        progress = call.engine.images.pull(ref, call.header_json(_AUTH), query.text("platform"))
        return await call.send_json_lines(progress)
    if not source:
        raise InvalidInput("fromImage is missing")
    if parse_platform(query.text("platform")) != own_platform():
        raise Unsupported("an archive is imported for this machine's own platform only")
    message, tar = query.text("message"), call.chunks()
    if source != "-":
        place, tar = call.engine.images.remote_tar(source)
        message = message or f"Imported from {place}"
    try:
        return await call.send_json_lines(
            call.engine.images.import_tar(
                tar, query.text("repo"), query.text("tag"), message,
                query.texts("changes"),
            )
        )  # fmt: skip
    finally:
        await close_iterator(tar)


async def push(call: Call) -> web.StreamResponse:
    """POST /images/{name}/push"""
    ref = reference(call.args["name"], call.query.text("tag"))
    return await call.send_json_lines(call.engine.images.push(ref, call.header_json(_AUTH)))


async def load(call: Call) -> web.StreamResponse:
    """POST /images/load"""
    tar = call.chunks()
    try:
        # as dockerd: by its message only do clients know that an archive is no good
        return await call.send_json_lines(call.engine.images.load(tar), always=True)
    finally:
        await close_iterator(tar)


async def save(call: Call) -> web.StreamResponse:
    """GET /images/get"""
    names = [name for text in call.query.texts("names") for name in text.split(",") if name]
    if not names:
        raise InvalidInput("the parameter names is missing")
    return await call.send_bytes(call.engine.images.save(names), TAR)


async def save_one(call: Call) -> web.StreamResponse:
    """GET /images/{name}/get"""
    return await call.send_bytes(call.engine.images.save([call.args["name"]]), TAR)


async def build(call: Call) -> web.StreamResponse:
    """POST /build"""
    options = {name: "\n".join(values) for name, values in call.query.items()}
    if options.get("version") == "2":
        raise Unsupported(
            "BuildKit's protocol is not spoken here",
            resolution="set DOCKER_BUILDKIT=0; Dockerfiles are built all the same",
        )
    context: AsyncIterator[bytes] = decompressed(call.chunks())
    try:
        return await call.send_json_lines(
            call.engine.images.build(context, options, call.header_json("X-Registry-Config"))
        )
    finally:
        await close_iterator(context)


async def build_secrets(call: Call) -> web.StreamResponse:
    """POST /gemel/build/secrets"""
    body = await call.decode_object()
    return json_response(await call.engine.images.build_secrets(body), status=201)


async def build_prune(call: Call) -> web.StreamResponse:
    """POST /build/prune"""
    return json_response(await call.engine.images.prune_build_cache(call.query.filters()))


async def build_cancel(call: Call) -> web.StreamResponse:
    """POST /build/cancel: a build ends when its client closes the connection."""
    if not call.query.text("id"):
        raise InvalidInput("build ID not provided")
    return empty()


async def distribution(call: Call) -> web.StreamResponse:
    """GET /distribution/{name}/json"""
    found = await call.engine.images.distribution(call.args["name"], call.header_json(_AUTH))
    return json_response(found)


def add_routes(router: Router) -> None:
    """Adds the routes of this file. Fixed names come before those with a parameter."""
    get, post = "GET", "POST"
    for method, pattern, handler in (
        (get, "/images/json", list_),
        (get, "/images/search", search),
        (get, "/images/get", save),
        (get, "/images/{name:*}/get", save_one),
        (get, "/images/{name:*}/history", history),
        (get, "/images/{name:*}/json", inspect),
        (post, "/images/create", create),
        (post, "/images/load", load),
        (post, "/images/prune", prune),
        (post, "/images/{name:*}/push", push),
        (post, "/images/{name:*}/tag", tag),
        ("DELETE", "/images/{name:*}", remove),
        (post, "/build", build),
        (post, "/build/prune", build_prune),
        (post, "/gemel/build/secrets", build_secrets),
        (post, "/build/cancel", build_cancel),
        (get, "/distribution/{name:*}/json", distribution),
    ):
        router.add(method, pattern, handler)
