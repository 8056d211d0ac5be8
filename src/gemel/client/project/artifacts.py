"""Compose files in registries: fetched through the engine, kept by digest, and sent.

What was fetched is kept whole in the user's cache folder and is checked against its digest
whenever it is used; its files lie beside it, in a folder named after the digest.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gemel.client import credentials
from gemel.client.engine import Client
from gemel.compose import artifact
from gemel.compose.artifact import KINDS, MAIN, SCHEME, Layer
from gemel.compose.requests import COMPOSE_VERSION
from gemel.errors import Failed, GemelError, InvalidInput, NotFound, Unavailable, Unsupported
from gemel.host import files

Json = dict[str, Any]
_TIMEOUT = 300.0
_MOST = 64
"""Artifacts of one project: they may include one another."""
_LARGEST_FILE = 16 << 20


class Sent(msgspec.Struct, frozen=True):
    """What a registry has now. reference: ``NAME:TAG``."""

    reference: str
    digest: str
    size: int
    version: str


class _Fetched(msgspec.Struct, rename="pascal", frozen=True):
    """The engine's answer, which is also what is kept."""

    digest: str
    manifest: str
    index: str
    blobs: dict[str, str]

    def unpacked(self) -> dict[str, bytes]:
        """The files, checked against the digest. Raises InvalidInput."""
        try:
            manifest, index = _bytes(self.manifest), _bytes(self.index)
            blobs = {digest: _bytes(data) for digest, data in self.blobs.items()}
        except (binascii.Error, ValueError) as error:
            raise InvalidInput("what was kept is damaged", details=str(error)) from error
        artifact.verify(self.digest, manifest, index, blobs)
        return artifact.unpack(manifest, blobs)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


class Artifacts:
    """Gives the loader the path of the Compose file of ``oci://…``.

    client: asked for only when something is fetched. A digest that is here already is
    not fetched again. Call it with a reference; see ``gemel.compose.files.Remote``.
    """

    def __init__(
        self, client: Callable[[], Client], environment: Mapping[str, str] = os.environ
    ) -> None:
        self._client = client
        self._environment = environment
        self._known: dict[str, str] = {}

    @property
    def references(self) -> list[str]:
        """All that were asked for so far, in order, with their scheme."""
        return [SCHEME + name for name in self._known]

    def __call__(self, reference: str, /) -> str:
        """Raises NotFound, Unavailable, Failed, InvalidInput, Unsupported."""
        name = artifact.reference_of(reference)
        if name not in self._known:
            self._allowed(name)
            self._known[name] = self._local(name)
        return self._known[name]

    def _allowed(self, name: str) -> None:
        enabled = self._environment.get("COMPOSE_EXPERIMENTAL_OCI_REMOTE", "").lower()
        if enabled in ("0", "f", "false"):
            raise Unsupported(
                f"{SCHEME}{name}: OCI remote resource is disabled",
                resolution="unset COMPOSE_EXPERIMENTAL_OCI_REMOTE",
            )
        if len(self._known) >= _MOST:
            raise InvalidInput(f"{SCHEME}{name} is one of more than {_MOST} artifacts")

    def _local(self, name: str) -> str:
        store = _Store(_cache_folder(self._environment))
        digest = artifact.digest_in(name)
        try:
            contents = store.load(digest) if digest else None
            if contents is None:
                found = self._fetch(name)
                if digest and found.digest != digest:
                    raise InvalidInput(f"the registry sent {found.digest[:80]} for it")
                digest, contents = found.digest, store.keep(name, found)
            return store.place(digest, contents)
        except OSError as error:
            raise Failed(
                f"{SCHEME}{name} cannot be kept in {store.folder}",
                details=str(error),
                resolution="set XDG_CACHE_HOME to a folder that can be written to",
            ) from error
        except GemelError as error:
            raise _told(name, error, store.last(name)) from error

    def _fetch(self, name: str) -> _Fetched:
        answer = self._client().call(
            "GET",
            f"/gemel/artifacts/{name}",
            query={"type": list(KINDS)},
            headers=credentials.headers(name),
            timeout=_TIMEOUT,
        )
        try:
            return msgspec.json.decode(answer.read(), type=_Fetched)
        except msgspec.MsgspecError as error:
            raise Failed("the engine's answer is not understood", details=str(error)) from error


def _told(name: str, error: GemelError, last: str) -> GemelError:
    """The error with the reference, and with what else can be done."""
    kinds = (NotFound, Unavailable, InvalidInput, Unsupported)
    kind = next((one for one in kinds if isinstance(error, one)), Failed)
    remedy = error.resolution
    if kind is Unavailable and "registry" in error.brief:
        remedy = "check the network and the name"
        if last:
            bare = name.partition("@")[0]
            remedy += f"; what was fetched last time is {SCHEME}{bare}@{last}, which needs none"
    elif kind is InvalidInput and "of the kind wanted" in error.brief:
        remedy = remedy or "name what `gemel publish` or `docker compose publish` has made"
    return kind(f"cannot read {SCHEME}{name}: {error.brief}", error.details, remedy)


def _cache_folder(environment: Mapping[str, str]) -> Path:
    """Where artifacts are kept. Raises Failed without any place."""
    base = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        raise Failed(
            "there is no folder for what is fetched", resolution="set XDG_CACHE_HOME or HOME"
        )
    return Path(base) / "gemel" / "compose"


class _Store:
    """Artifacts in a folder: ``HEX.json`` each, its files in ``HEX``, last digests in ``last``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest.removeprefix('sha256:')}.json"

    def load(self, digest: str) -> dict[str, bytes] | None:
        """The files of an artifact, if it is here and whole."""
        try:
            if os.path.getsize(self._path(digest)) > _LARGEST_FILE:
                return None
            found = msgspec.json.decode(self._path(digest).read_bytes(), type=_Fetched)
            return found.unpacked() if found.digest == digest else None
        except (OSError, msgspec.MsgspecError, InvalidInput):
            return None  # damaged: it is fetched anew

    def keep(self, name: str, found: _Fetched) -> dict[str, bytes]:
        """Keeps an artifact, and that the name stood for it; its files.

        Raises InvalidInput, OSError.
        """
        contents = found.unpacked()
        files.folder(self.folder)
        files.write(self._path(found.digest), msgspec.json.encode(found))
        files.folder(self.folder / "last")
        files.write(self._last(name), found.digest)
        return contents

    def _last(self, name: str) -> Path:
        return self.folder / "last" / hashlib.sha256(name.encode()).hexdigest()

    def last(self, name: str) -> str:
        """The digest that a name stood for last time, if it is here; else ""."""
        try:
            digest = self._last(name).read_text()[:100].strip()
        except (OSError, ValueError):
            return ""
        return digest if artifact.digest_in(f"@{digest}") and self.load(digest) else ""

    def place(self, digest: str, contents: Mapping[str, bytes]) -> str:
        """Path of the Compose file, all files being there. Raises OSError.

        What else is in the folder (of mounts with relative paths) stays.
        """
        folder = files.folder(self.folder / digest.removeprefix("sha256:"))
        for name, data in contents.items():
            if not _holds(folder / name, data):
                files.write(folder / name, data)
        return str(folder / MAIN)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def send(client: Client, name: str, layers: Sequence[Layer], version: str = "") -> Sent:
    """Puts Compose files into a registry. version: of artifact.VERSIONS; "": the first it takes.

    Raises Unsupported if the registry takes no such artifacts, InvalidInput, NotFound,
    Unavailable, Failed.
    """
    created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    versions = (version,) if version else artifact.VERSIONS
    for one in versions:
        packed = artifact.pack(layers, version=one, created=created, by=COMPOSE_VERSION)
        body: Json = {
            "Manifest": base64.b64encode(packed.manifest).decode(),
            "Blobs": [base64.b64encode(blob).decode() for blob in packed.blobs],
        }
        try:
            done = _post(client, name, body)
        except Unsupported:
            if one == versions[-1]:
                raise
            continue
        return Sent(name, str(done["Digest"]), len(packed.manifest), one)
    raise AssertionError(versions)


def _post(client: Client, name: str, body: Json) -> Json:
    answer = client.call(
        "POST",
        f"/gemel/artifacts/{name}",
        body=body,
        headers=credentials.headers(name, always=True),
        timeout=_TIMEOUT,
    )
    made: Json = json.loads(answer.read())
    return made
