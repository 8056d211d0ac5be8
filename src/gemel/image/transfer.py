"""Pulling from and pushing to registries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from gemel.errors import Failed, GemelError, InvalidInput
from gemel.host import files, run
from gemel.image import manifest as manifests
from gemel.image import reference, skopeo, threads
from gemel.image.blobs import digest_of
from gemel.image.core import Core
from gemel.image.manifest import Descriptor, Manifest
from gemel.image.progress import Emit, layer
from gemel.image.reference import Reference

_PARALLEL = 3
"""Blobs fetched at the same time, as dockerd does."""
_STEP = 1 << 19
"""Bytes between two progress messages of a layer."""
_PUSH_TIMEOUT = 3600.0

Auth = dict[str, Any] | None


async def pull(core: Core, emit: Emit, ref: str, auth: Auth, platform: str) -> None:
    """Fetches an image. Raises NotFound, Unavailable, Failed, InvalidInput."""
    name = reference.parse_tagged(ref)
    wanted = manifests.parse_platform(platform)
    shown = name.path if name.domain == reference.HUB else name.name
    async with core.lock(f"pull {name} {platform}"), core.working():
        with skopeo.authfile(core.blobs.temporary, {name.domain: auth}) as secret:
            options = ("--authfile", secret, *skopeo.tls(name, "--tls-verify"))
            try:
                digest, raw = await _manifest(name, wanted, options)
                # only now, as dockerd: what is not there is a status, not a line of the stream
                emit({"status": f"Pulling from {shown}", "id": name.digest or name.tag})
                before = core.tags.get(str(name))
                await _blobs(core, emit, f"docker://{name.name}@{digest_of(raw)}", raw, options)
            except Failed as error:
                raise skopeo.explain(error, name) from error
        new = await _adopt(core, emit, raw, name, digest, before)
    emit({"status": f"Digest: {digest}"})
    what = "Downloaded newer image for" if new else "Image is up to date for"
    emit({"status": f"Status: {what} {name.familiar}"})


async def _adopt(
    core: Core, emit: Emit, raw: bytes, name: Reference, digest: str, before: str | None
) -> bool:
    """Makes the image of what has come; whether it is another than before."""
    parsed = manifests.read(raw)
    assert parsed.config is not None
    new = before != parsed.config.digest if name.tag else core.get(parsed.config.digest) is None
    if new and core.get(parsed.config.digest) is None:
        emit({"status": "Preparing", "id": parsed.config.digest[7:19]})
    tags = [name] if name.tag and not name.digest else []
    await core.add(raw, tags=tags, digests=[f"{name.name}@{digest}"])
    core.partial.unmark((parsed.config.digest, *(blob.digest for blob in parsed.layers or [])))
    for blob in parsed.layers or []:
        emit(layer(blob.digest, "Pull complete"))
    return new


async def _manifest(
    name: Reference, wanted: manifests.Platform, options: Sequence[str]
) -> tuple[str, bytes]:
    """Digest of what the name stands for, and the manifest for the platform."""
    suffix = f"@{name.digest}" if name.digest else f":{name.tag}"
    raw = await skopeo.raw_manifest(f"docker://{name.name}{suffix}", *options)
    digest = digest_of(raw)
    if name.digest and digest != name.digest:
        raise InvalidInput("the registry sent another manifest than asked for", digest)
    parsed = manifests.read(raw)
    if parsed.manifests is not None:
        chosen = manifests.choose(parsed, wanted)
        raw = await skopeo.raw_manifest(f"docker://{name.name}@{chosen.digest}", *options)
        if digest_of(raw) != chosen.digest:
            raise InvalidInput("the registry sent another manifest than its index says")
    return digest, raw


async def _blobs(core: Core, emit: Emit, source: str, raw: bytes, options: Sequence[str]) -> None:
    parsed = manifests.read(raw)
    for blob in parsed.layers or []:
        known = core.blobs.has(blob.digest)
        emit(layer(blob.digest, "Already exists" if known else "Pulling fs layer"))
    await fetch_missing(core, source, parsed, options, emit, keep=True)


async def fetch_missing(
    core: Core,
    source: str,
    manifest: Manifest,
    options: Sequence[str] = (),
    emit: Emit | None = None,
    prefix: Sequence[str] = (),
    keep: bool = False,
) -> None:
    """Brings in those blobs of an image that are not here. Raises Failed, InvalidInput.

    prefix: what skopeo is started through. keep: if it breaks off, those that are
    whole stay for the next time.
    """
    assert manifest.config is not None
    wanted = {blob.digest: blob for blob in (manifest.config, *(manifest.layers or []))}
    missing = [blob for blob in wanted.values() if not core.blobs.has(blob.digest)]
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(_PARALLEL, len(missing))):
                group.create_task(_fetch_all(core, source, missing, options, emit, prefix, keep))
    except* GemelError as errors:
        raise _first(errors) from None


def _first(group: BaseExceptionGroup[GemelError]) -> GemelError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, GemelError)
    return error


async def _fetch_all(
    core: Core,
    source: str,
    todo: list[Descriptor],
    options: Sequence[str],
    emit: Emit | None,
    prefix: Sequence[str],
    keep: bool,
) -> None:
    """Takes blobs from the list until it is empty, by a proxy of its own."""
    async with skopeo.Proxy.open(core.blobs.temporary, *options, prefix=prefix) as proxy:
        image = await proxy.image(source)
        while todo:
            blob = todo.pop(0)
            is_config = blob.media_type in (manifests.DOCKER_CONFIG, manifests.OCI_CONFIG)
            await _fetch(core, proxy, image, blob, None if is_config else emit, keep)


async def _fetch(
    core: Core,
    proxy: skopeo.Proxy,
    image: int,
    blob: Descriptor,
    emit: Emit | None,
    keep: bool,
) -> None:
    shown = 0

    def tell(size: int) -> None:
        nonlocal shown
        if emit and (size - shown >= _STEP or size == blob.size):
            shown = size
            emit(layer(blob.digest, "Downloading", size, blob.size))

    async with core.lock(f"blob {blob.digest}"):
        if not core.blobs.has(blob.digest):
            with core.blobs.writer(blob.digest) as writer:
                await proxy.fetch(image, blob, writer, tell)
                if keep:
                    core.partial.mark(blob.digest)
                await threads.call(writer.commit)
        if emit:
            emit(layer(blob.digest, "Download complete"))


async def push(core: Core, emit: Emit, ref: str, auth: Auth) -> None:
    """Sends an image to the registry of its name. Raises NotFound, Unavailable, Failed."""
    name = reference.parse_tagged(ref)
    image = core.find(ref)
    record = core.record(image)
    manifest = core.blobs.read(record.manifest)
    emit({"status": f"The push refers to repository [{name.name}]"})
    for diff_id in image.diff_ids:
        emit(layer(diff_id, "Preparing"))
    with contextlib.ExitStack() as stack:
        secret = stack.enter_context(skopeo.authfile(core.blobs.temporary, {name.domain: auth}))
        blobs = frozenset((record.id, *record.layers))
        source = stack.enter_context(skopeo.folder_of(core.blobs, manifest, blobs))
        report = core.blobs.temporary / f"digest-{record.id[7:]}-{id(stack)}"
        stack.callback(files.remove, report)
        options = ["--dest-authfile", secret, "--digestfile", str(report)]
        options += skopeo.tls(name, "--dest-tls-verify")
        command = skopeo.argv("copy", *options, source, f"docker://{name}")
        by_blob = dict(zip(record.layers, image.diff_ids, strict=True))
        async with core.working():
            try:
                async with contextlib.aclosing(run.lines(command, timeout=_PUSH_TIMEOUT)) as lines:
                    async for line in lines:
                        _tell_push(emit, line, by_blob)
            except Failed as error:
                raise skopeo.explain(error, name) from error
        digest = report.read_text().strip()
    for diff_id in image.diff_ids:
        emit(layer(diff_id, "Pushed"))
    await core.note_digest(image, f"{name.name}@{digest}")
    size = len(manifest)
    emit({"status": f"{name.tag}: digest: {digest} size: {size}"})
    emit({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": digest, "Size": size}})


def _tell_push(emit: Emit, line: str, by_blob: dict[str, str]) -> None:
    for blob, diff_id in by_blob.items():
        if blob[7:19] in line:
            known = "already exists" in line
            emit(layer(diff_id, "Layer already exists" if known else "Pushing"))


async def distribution(core: Core, ref: str, auth: Auth) -> dict[str, Any]:
    """GET /distribution/NAME/json: what a registry has. Raises NotFound, Unavailable, Failed."""
    name = reference.parse_tagged(ref)
    with skopeo.authfile(core.blobs.temporary, {name.domain: auth}) as secret:
        options = ("--authfile", secret, *skopeo.tls(name, "--tls-verify"))
        suffix = f"@{name.digest}" if name.digest else f":{name.tag}"
        source = f"docker://{name.name}{suffix}"
        try:
            raw = await skopeo.raw_manifest(source, *options)
            parsed = manifests.read(raw)
            if parsed.manifests is not None:
                found = [entry.platform for entry in parsed.manifests if entry.platform]
            else:
                config = manifests.read_config(
                    await skopeo.raw_manifest(source, "--config", *options)
                )
                found = [manifests.Platform(config.architecture, config.os, config.variant)]
        except Failed as error:
            raise skopeo.explain(error, name) from error
    return {
        "Descriptor": {"mediaType": parsed.type, "digest": digest_of(raw), "size": len(raw)},
        "Platforms": [
            {"architecture": p.architecture, "os": p.os}
            | ({"variant": p.variant} if p.variant else {})
            for p in found
        ],
    }
