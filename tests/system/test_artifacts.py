"""Artifacts that are no images: sent, fetched, and registries that mean no good."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gemel.errors import GemelError, InvalidInput, NotFound, Unavailable, Unsupported
from gemel.image import artifact
from gemel.image.store import ImageStore
from tests.imagestore import registry
from tests.imagestore import store as store
from tests.system.test_registries import served

pytestmark = pytest.mark.root

KIND = "application/vnd.example.kind"
OCI = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(data: bytes, kind: str = "application/vnd.example.layer") -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def manifest(*layers: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": KIND,
            "config": described(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": list(layers),
            **changes,
        }
    ).encode()


def nothing_is_left(store: ImageStore) -> bool:
    return not store.blobs.digests() and not list(store.blobs.temporary.iterdir())


async def test_one_goes_to_a_registry_and_comes_back(store: ImageStore, tmp_path: Path) -> None:
    first, second = b"first\n", b""
    raw = manifest(described(first), described(second), described(first))
    async with registry(tmp_path / "registry") as host:
        blobs = [b"{}", first, second]
        assert await artifact.push(store, f"{host}/a/b:t", None, raw, blobs) == digest(raw)
        for name in (f"{host}/a/b:t", f"{host}/a/b@{digest(raw)}"):
            found = await artifact.fetch(store, name, None, [KIND])
            assert (found.digest, found.manifest, found.index) == (digest(raw), raw, b"")
            assert found.blobs == {digest(first): first, digest(second): second}
        with pytest.raises(InvalidInput, match="no artifact of the kind wanted") as caught:
            await artifact.fetch(store, f"{host}/a/b:t", None, ["application/other"])
        assert KIND in caught.value.details
        with pytest.raises(NotFound, match="not found"):
            await artifact.fetch(store, f"{host}/a/b:other", None)
        with pytest.raises(InvalidInput, match="which was not sent"):
            await artifact.push(store, f"{host}/a/b:t", None, raw, [b"{}", first + b"x"])
        with pytest.raises(InvalidInput, match="names a digest"):
            await artifact.push(store, f"{host}/a/b@{digest(raw)}", None, raw, blobs)
        with pytest.raises(InvalidInput, match="damaged"):
            await artifact.push(store, f"{host}/a/b:t", None, b"[", blobs)
    with pytest.raises(Unavailable, match="cannot reach the registry"):
        await artifact.fetch(store, f"{host}/a/b:t", None)
    assert nothing_is_left(store)


class Sly:
    """A registry that answers what it is told to."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.kinds: dict[str, str] = {}
        self.asked: list[str] = []
        self.refuse = (0, "")

    def routes(self) -> tuple[web.RouteDef, ...]:
        return (
            web.get("/v2/", self.root),
            web.get("/v2/a/manifests/{ref}", self.manifest),
            web.get("/v2/a/blobs/{digest}", self.blob),
            web.put("/v2/a/manifests/{ref}", self.put),
            web.post("/v2/a/blobs/uploads/", self.upload),
            web.put("/v2/a/uploaded", self.uploaded),
            web.patch("/v2/a/uploaded", self.uploaded),
        )

    async def root(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def manifest(self, request: web.Request) -> web.Response:
        ref = request.match_info["ref"]
        if ref not in self.manifests:
            error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
            return web.json_response({"errors": [error]}, status=404)
        return web.Response(body=self.manifests[ref], content_type=self.kinds.get(ref, OCI))

    async def blob(self, request: web.Request) -> web.Response:
        name = request.match_info["digest"]
        self.asked.append(name)
        if name not in self.blobs:
            return web.Response(status=404)
        return web.Response(body=self.blobs[name])

    async def upload(self, _: web.Request) -> web.Response:
        return web.Response(status=202, headers={"Location": "/v2/a/uploaded"})

    async def uploaded(self, request: web.Request) -> web.Response:
        await request.read()
        status = 201 if request.method == "PUT" else 202
        return web.Response(status=status, headers={"Location": "/v2/a/uploaded"})

    async def put(self, request: web.Request) -> web.Response:
        await request.read()
        status, code = self.refuse
        error = {"code": code, "message": code.lower().replace("_", " ")}
        return web.json_response({"errors": [error]}, status=status)


async def test_what_a_registry_sends_is_bounded_and_checked(store: ImageStore) -> None:
    sly, layer = Sly(), b"some text\n"
    tells = {
        "large": manifest({**described(layer), "size": artifact.LARGEST + 1}),
        "many": manifest(*[described(layer)] * (artifact.MOST + 1)),
        "negative": manifest({**described(layer), "size": -1}),
        "path": manifest({**described(layer), "digest": "sha256:../../etc/passwd"}),
        "old": manifest(schemaVersion=1),
        "image": manifest(
            artifactType="", config=described(b"{}", "application/vnd.oci.image.config.v1+json")
        ),
    }
    other = {
        "forged": (manifest(described(layer)), b"other one\n"),
        "longer": (manifest(described(layer)), layer * 1000),
        "absent": (manifest(described(layer)), None),
    }
    async with served(*sly.routes()) as host:
        for name, raw in tells.items():
            sly.manifests = {name: raw, digest(raw): raw}
            with pytest.raises(GemelError):
                await artifact.fetch(store, f"{host}/a:{name}", None, [KIND])
        assert not sly.asked  # it was not asked for any of their layers
        for name, (raw, data) in other.items():
            sly.manifests = {name: raw, digest(raw): raw}
            sly.blobs = {} if data is None else {digest(layer): data}
            with pytest.raises(GemelError):
                await artifact.fetch(store, f"{host}/a:{name}", None, [KIND])
        wanted = digest(manifest(described(layer)))
        sly.manifests = {wanted: manifest()}
        with pytest.raises(GemelError):
            await artifact.fetch(store, f"{host}/a@{wanted}", None, [KIND])
    assert nothing_is_left(store)


async def test_a_list_stands_for_the_artifact_of_the_kind_in_it(store: ImageStore) -> None:
    sly, layer = Sly(), b"some text\n"
    raw = manifest(described(layer))
    entries = [
        {**described(b"an image", OCI), "artifactType": ""},
        {**described(raw, OCI), "artifactType": KIND},
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    async with served(*sly.routes()) as host:
        sly.manifests, sly.kinds = {"t": index, digest(raw): raw}, {"t": kind}
        sly.blobs = {digest(layer): layer}
        found = await artifact.fetch(store, f"{host}/a:t", None, [KIND])
        assert (found.digest, found.index) == (digest(index), index)
        assert found.manifest == raw and found.blobs == {digest(layer): layer}
        with pytest.raises(InvalidInput, match="a list that names no artifact"):
            await artifact.fetch(store, f"{host}/a:t", None, ["application/other"])


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "MANIFEST_INVALID", Unsupported),
        (415, "UNSUPPORTED", Unsupported),
        (403, "DENIED", GemelError),
        (500, "UNKNOWN", GemelError),
    ],
)
async def test_a_registry_that_does_not_take_it(
    store: ImageStore, status: int, code: str, kind: type[GemelError]
) -> None:
    sly, layer = Sly(), b"some text\n"
    sly.refuse = (status, code)
    async with served(*sly.routes()) as host:
        with pytest.raises(kind) as caught:
            raw = manifest(described(layer))
            await artifact.push(store, f"{host}/a:t", None, raw, [b"{}", layer])
    assert (kind is Unsupported) == isinstance(caught.value, Unsupported)
    if code == "DENIED":
        assert "docker login" in caught.value.resolution
    assert nothing_is_left(store)
