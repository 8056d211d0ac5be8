"""Registries that want a token or a client's certificate, and those that mean no good."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gemel.errors import Failed, GemelError, InvalidInput, NotFound, Unavailable
from gemel.host import run
from gemel.image.store import ImageStore
from tests.images import make_tar
from tests.imagestore import busybox, free_port, make_store, statuses, wait_port
from tests.imagestore import store as store

pytestmark = pytest.mark.root

#: An address of documentation, on the loopback interface of the tests' own network namespace:
#: other than for 127.0.0.0/8, nothing is trusted there without a certificate.
FOREIGN = "198.51.100.7"


def openssl(folder: Path, *words: str, input: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["openssl", *words], cwd=folder, input=input, capture_output=True, check=True
    )
    return done.stdout


def certificate(folder: Path, name: str, signer: str = "", address: str = "") -> None:
    """``NAME.crt`` and ``NAME.key``: by itself, or signed by another."""
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
    extension = f"subjectAltName=IP:{address}" if address else "basicConstraints=CA:true"
    (folder / f"{name}.ext").write_text(extension)
    by = ["-CA", f"{signer}.crt", "-CAkey", f"{signer}.key", "-CAcreateserial"]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-days", "2", "-out", f"{name}.crt",
            "-extfile", f"{name}.ext",
            *(by if signer else ["-signkey", f"{name}.key"]))  # fmt: skip


@contextlib.asynccontextmanager
async def registry(folder: Path, address: str, **more: Any) -> AsyncIterator[str]:
    """Debian's docker-registry with further settings. ``http`` is added to."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        **more,
        "http": {"addr": f"{address}:{port}", **more.get("http", {})},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    process = await run.spawn(["docker-registry", "serve", str(folder / "config.yml")])
    try:
        await wait_port(port, address)
        yield f"{address}:{port}"
    finally:
        process.terminate()
        await process.wait()


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens:
    """A server of bearer tokens, as a registry's documentation describes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.asked: list[tuple[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        scope, told = request.query.get("scope", ""), request.headers.get("Authorization", "")
        user = base64.b64decode(told.removeprefix("Basic ")).decode() if told else ""
        self.asked.append((user, scope))
        if user and user != "user:secret":
            return web.json_response({"details": "incorrect username or password"}, status=401)
        access = []
        if scope:
            kind, name, actions = scope.split(":")
            allowed = [a for a in actions.split(",") if user or (a == "pull" and "open" in name)]
            access = [{"type": kind, "name": name, "actions": allowed}]
        now = int(time.time())
        token = self._signed(
            {
                "iss": "tests", "sub": user, "aud": "registry", "exp": now + 300, "nbf": now - 60,
                "iat": now, "jti": os.urandom(4).hex(), "access": access,
            }
        )  # fmt: skip
        return web.json_response({"token": token, "expires_in": 300})

    def _signed(self, claims: dict[str, Any]) -> str:
        der = openssl(self._folder, "x509", "-in", "issuer.crt", "-outform", "DER")
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        text = ".".join(b64url(json.dumps(part).encode()) for part in (head, claims))
        words = ("dgst", "-sha256", "-sign", "issuer.key")
        return f"{text}.{b64url(openssl(self._folder, *words, input=text.encode()))}"


@contextlib.asynccontextmanager
async def served(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_registry_with_bearer_tokens(store: ImageStore, tmp_path: Path) -> None:
    certificate(tmp_path, "issuer")
    tokens = Tokens(tmp_path)
    async with served(web.get("/token", tokens.answer)) as place:
        token = {
            "realm": f"http://{place}/token", "service": "registry", "issuer": "tests",
            "rootcertbundle": str(tmp_path / "issuer.crt"),
        }  # fmt: skip
        async with registry(tmp_path / "r", "127.0.0.1", auth={"token": token}) as host:
            auth = {"username": "user", "password": "secret"}
            await busybox(store, f"{host}/open/box")
            with pytest.raises(GemelError, match=r"denied|authentication required"):
                await statuses(store.push(f"{host}/open/box"))
            await statuses(store.push(f"{host}/open/box", auth))
            assert any(user == "user:secret" and "push" in scope for user, scope in tokens.asked)
            await store.tag(f"{host}/open/box", f"{host}/shut/box", "latest")
            await statuses(store.push(f"{host}/shut/box", auth))
            other = make_store(tmp_path / "other")
            await other.prepare()
            await statuses(other.pull(f"{host}/open/box"))  # anybody, with a token of nobody
            assert tokens.asked[-1][0] == ""
            # newer skopeos pass on the registry's refusal, of which dockerd says the latter
            refused = "unauthorized: authentication required|pull access denied"
            with pytest.raises((Failed, NotFound), match=refused):
                await statuses(other.pull(f"{host}/shut/box"))
            with pytest.raises((Failed, NotFound), match=refused):
                await statuses(other.pull(f"{host}/shut/box", {**auth, "password": "no"}))
            assert "Digest" in (await statuses(other.pull(f"{host}/shut/box", auth)))[-2]


async def test_a_registry_that_wants_a_clients_certificate(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run.run(["ip", "address", "add", f"{FOREIGN}/32", "dev", "lo"])
    try:
        certificate(tmp_path, "ca")
        for name in ("server", "client"):
            certificate(tmp_path, name, "ca", FOREIGN)
        monkeypatch.setenv("HOME", str(tmp_path))
        tls = {
            "certificate": str(tmp_path / "server.crt"), "key": str(tmp_path / "server.key"),
            "clientcas": [str(tmp_path / "ca.crt")],
        }  # fmt: skip
        async with registry(tmp_path / "r", FOREIGN, http={"tls": tls}) as host:
            await busybox(store, f"{host}/box")
            with pytest.raises(Unavailable, match="cannot reach the registry") as caught:
                await statuses(store.push(f"{host}/box"))
            assert "x509" in caught.value.details or "certificate" in caught.value.details
            known = tmp_path / ".config/containers/certs.d" / host
            known.mkdir(parents=True)
            (known / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
            with pytest.raises(GemelError, match=r"cannot reach|certificate|bad"):
                await statuses(store.push(f"{host}/box"))  # the CA alone is not enough
            for end in ("cert", "key"):
                source = tmp_path / f"client.{end.replace('cert', 'crt')}"
                (known / f"client.{end}").write_bytes(source.read_bytes())
            await statuses(store.push(f"{host}/box"))
            assert "up to date" in (await statuses(store.pull(f"{host}/box")))[-1]
    finally:
        await run.run(["ip", "address", "del", f"{FOREIGN}/32", "dev", "lo"])


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Sly:
    """A registry of one image, that can break off and lie. The last layer is the one it does
    that with.
    """

    def __init__(self, *sizes: int) -> None:
        layers = [make_tar({f"noise{n}": os.urandom(size)}) for n, size in enumerate(sizes)]
        config = json.dumps(
            {
                "architecture": "amd64", "os": "linux", "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            }
        ).encode()  # fmt: skip
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        self.blobs = {digest(data): data for data in (config, *layers)}
        self.layer = digest(layers[-1])
        self.others = [digest(layer) for layer in layers[:-1]]
        self.manifest = json.dumps(
            {
                "schemaVersion": 2, "mediaType": kind,
                "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                           "size": len(config), "digest": digest(config)},
                "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                            "size": len(layer), "digest": digest(layer)} for layer in layers],
            }
        ).encode()  # fmt: skip
        self.mode = ""
        self.fetched = 0
        self.fetched_others = 0
        self.cut_after: Callable[[], Awaitable[None]] | None = None

    def routes(self) -> list[web.RouteDef]:
        async def root(request: web.Request) -> web.Response:
            return web.json_response({})

        return [
            web.get("/v2/", root),
            web.get("/v2/box/manifests/{ref}", self._manifest),
            web.get("/v2/box/blobs/{digest}", self._blob),
        ]

    async def _manifest(self, request: web.Request) -> web.Response:
        data = self.manifest + (b" " if self.mode == "manifest" else b"")
        kind = json.loads(self.manifest)["mediaType"]
        return web.Response(body=data, content_type=kind)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["digest"]
        data = self.blobs[name]
        self.fetched_others += name in self.others
        if name == self.layer:
            self.fetched += 1
            if self.mode == "blob":
                data = data[:-1] + b"!"
            if self.mode == "cut":
                answer = web.StreamResponse(headers={"Content-Length": str(len(data))})
                await answer.prepare(request)
                await answer.write(data[: len(data) // 2])
                if self.cut_after is not None:
                    await self.cut_after()
                assert request.transport is not None
                request.transport.abort()
                return answer
        return web.Response(body=data, content_type="application/octet-stream")


async def test_a_registry_that_breaks_off_or_lies(store: ImageStore, tmp_path: Path) -> None:
    sly = Sly(4 << 20)
    root = tmp_path / "root/images"
    async with served(*sly.routes()) as host:
        right = digest(sly.manifest)
        for mode in ("cut", "blob"):
            sly.mode = mode
            with pytest.raises(GemelError):
                await statuses(store.pull(f"{host}/box"))
            assert not store.images() and not list((root / "tmp").iterdir())
            assert not (root / "blobs/sha256" / sly.layer[7:]).exists()
        sly.mode = "manifest"
        with pytest.raises((InvalidInput, Failed, NotFound)):
            await statuses(store.pull(f"{host}/box@{right}"))
        assert not store.images()
        sly.mode, sly.fetched = "", 0
        told = await statuses(store.pull(f"{host}/box@{right}"))
        assert f"Digest: {right}" in told and sly.fetched == 1
        [image] = store.images()
        # one layer under two names, at the same time: fetched no more
        await statuses(store.pull(f"{host}/box"))
        assert sly.fetched == 1 and store.find(f"{host}/box").id == image.id


async def have(store: ImageStore, digests: list[str]) -> None:
    async with asyncio.timeout(90):
        while not all(store.blobs.has(one) for one in digests):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_next_pull_keeps_the_layers_that_were_whole(
    store: ImageStore, tmp_path: Path
) -> None:
    sly = Sly(1 << 20, 2 << 20, 4 << 20)
    async with served(*sly.routes()) as host:
        sly.mode = "cut"
        sly.cut_after = partial(have, store, sly.others)
        with pytest.raises(GemelError):
            await statuses(store.pull(f"{host}/box"))
        assert sly.fetched_others == 2 and not store.images()
        tries = sly.fetched  # newer skopeos ask once more for what was cut off
        after = make_store(tmp_path)  # an engine that comes after one that was killed
        await after.prepare()
        sly.mode = ""
        told = await statuses(after.pull(f"{host}/box"))
        assert sly.fetched_others == 2 and sly.fetched == tries + 1
        assert told.count("Already exists") == 2 and told.count("Pull complete") == 3
        await after.remove(f"{host}/box")  # an image's layers go with it, as ever
        assert not after.blobs.digests()
        sly.mode = "cut"
        with pytest.raises(GemelError):
            await statuses(after.pull(f"{host}/box"))
        assert set(sly.others) <= after.blobs.digests()
        assert (await after.prune()).size >= 3 << 20 and not after.blobs.digests()


async def test_two_pulls_at_once_share_the_work(store: ImageStore, tmp_path: Path) -> None:
    sly = Sly(8 << 20)
    async with served(*sly.routes()) as host:
        names = (f"{host}/box", f"{host}/box:other", f"{host}/box@{digest(sly.manifest)}")
        await asyncio.gather(*(statuses(store.pull(name)) for name in names))
        assert sly.fetched == 1 and len(store.images()) == 1


async def test_a_layout_of_several_platforms_chooses_its_own(
    store: ImageStore, tmp_path: Path
) -> None:
    """The machine's platform out of an index, without being asked to."""
    sly = Sly(1 << 10)
    kind = "application/vnd.oci.image.index.v1+json"
    mine = {"digest": digest(sly.manifest), "size": len(sly.manifest),
            "mediaType": json.loads(sly.manifest)["mediaType"]}  # fmt: skip
    index = json.dumps(
        {
            "schemaVersion": 2, "mediaType": kind,
            "manifests": [
                {**mine, "digest": digest(b"x"),
                 "platform": {"architecture": "s390x", "os": "linux"}},
                {**mine, "platform": {"architecture": "amd64", "os": "linux"}},
            ],
        }
    ).encode()  # fmt: skip

    async def answer(request: web.Request) -> web.Response:
        if request.match_info["ref"] == mine["digest"]:
            return web.Response(body=sly.manifest, content_type=mine["mediaType"])
        return web.Response(body=index, content_type=kind)

    root, _, blobs = sly.routes()
    async with served(root, web.get("/v2/box/manifests/{ref}", answer), blobs) as host:
        told = await statuses(store.pull(f"{host}/box", platform="linux/amd64"))
        assert f"Digest: {digest(index)}" in told
        with pytest.raises(NotFound, match="no matching manifest"):
            await statuses(store.pull(f"{host}/box", platform="linux/arm64"))
