"""Images (facade.Images): the store's answers in Docker's JSON."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import msgspec

from gemel.engine import filters
from gemel.engine.core import Core
from gemel.engine.facade import Filters, Json, Jsons
from gemel.engine.records import parse_stamp
from gemel.errors import GemelError
from gemel.image import artifact, inputs, remote
from gemel.image.reference import familiar
from gemel.model.image import Image


class Images:
    """See facade.Images."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.store = core.images

    async def list(self, all: bool, wanted: Filters) -> Jsons:
        """GET /images/json."""
        filters.known(wanted, {"reference", "label", "dangling", "before", "since", "until"})
        before = [parse_stamp(self.store.find(r).created) for r in wanted.get("before", [])]
        since = [parse_stamp(self.store.find(r).created) for r in wanted.get("since", [])]
        result = []
        images = sorted(self.store.images(), key=lambda i: i.created, reverse=True)
        for image in images:
            born = parse_stamp(image.created)
            if any(born >= b for b in before) or any(born <= s for s in since):
                continue
            if self._passes(image, wanted):
                result.append(self._summary(image))
        return result

    def _passes(self, image: Image, wanted: Filters) -> bool:
        names = [familiar(tag) for tag in image.tags]
        if "dangling" in wanted:
            dangling = wanted["dangling"][0].lower() in ("true", "1")
            if dangling == bool(names):
                return False
        if "reference" in wanted and not any(
            filters.glob(name, wanted["reference"])
            or filters.glob(name.rpartition(":")[0], wanted["reference"])
            for name in names
        ):
            return False
        return filters.labels(image.config.labels or {}, wanted.get("label", []))

    def _summary(self, image: Image) -> Json:
        return {
            "Id": image.id,
            "ParentId": image.parent,
            "RepoTags": [familiar(tag) for tag in image.tags],
            "RepoDigests": [familiar(digest) for digest in image.digests],
            "Created": int(parse_stamp(image.created)),
            "Size": image.size,
            "VirtualSize": image.size,
            "SharedSize": -1,
            "Labels": image.config.labels or {},
            "Containers": len(self.core.users_of_image(image.id)),
        }

    async def inspect(self, ref: str) -> Json:
        """GET /images/NAME/json. Raises NotFound."""
        image = self.store.find(ref)
        config: Json = {
            "User": "",
            "Env": None,
            "Cmd": None,
            "Entrypoint": None,
            "ExposedPorts": None,
            "Volumes": None,
            "WorkingDir": "",
            "Labels": None,
            "OnBuild": None,
        }
        config |= msgspec.to_builtins(image.config)
        return {
            "Id": image.id,
            "RepoTags": [familiar(tag) for tag in image.tags],
            "RepoDigests": [familiar(digest) for digest in image.digests],
            "Parent": image.parent,
            "Comment": image.comment,
            "Created": image.created,
            "Author": image.author,
            "Architecture": image.architecture,
            "Variant": image.variant,
            "Os": image.os,
            "Size": image.size,
            "VirtualSize": image.size,
            "Config": config,
            "ContainerConfig": config,
            "GraphDriver": {"Name": "squashfs+overlay", "Data": None},
            "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
            "DockerVersion": "",
        }

    async def history(self, ref: str) -> Jsons:
        """GET /images/NAME/history, newest first."""
        image = self.store.find(ref)
        rows: Jsons = []
        for step in reversed(image.history):
            rows.append(
                {
                    "Id": "<missing>",
                    "Created": int(parse_stamp(step.created)),
                    "CreatedBy": step.created_by,
                    "Tags": None,
                    "Size": 0,
                    "Comment": step.comment,
                }
            )
        if rows:
            rows[0] |= {"Id": image.id, "Tags": [familiar(t) for t in image.tags] or None}
        return rows

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        """POST /images/NAME/tag."""
        await self.store.tag(ref, repo, tag)
        self.core.events.emit("image", "tag", self.store.find(ref).id, {"name": f"{repo}:{tag}"})

    async def remove(self, ref: str, force: bool, noprune: bool) -> Jsons:
        """DELETE /images/NAME. Raises NotFound, Conflict."""
        id = self.store.find(ref).id
        done: Jsons = [dict(one) for one in await self.store.remove(ref, force)]
        for one in done:
            action = "untag" if "Untagged" in one else "delete"
            self.core.events.emit("image", action, id, {"name": ref})
        return done

    async def prune(self, wanted: Filters) -> Json:
        """POST /images/prune: dangling ones; all unused ones with dangling=false."""
        filters.known(wanted, {"dangling", "label", "label!", "until"})
        dangling = not any(v.lower() in ("false", "0") for v in wanted.get("dangling", []))
        removed = await self.store.prune(dangling)
        return {"ImagesDeleted": list(removed[0]) or None, "SpaceReclaimed": removed[1]}

    def _told(self, action: str, ref: str, source: AsyncIterator[Json]) -> AsyncIterator[Json]:
        return _with_event(self.core, action, ref, source)

    def pull(self, ref: str, auth: Json | None, platform: str) -> AsyncIterator[Json]:
        """POST /images/create."""
        return self._told("pull", ref, self.store.pull(ref, auth, platform))

    def push(self, ref: str, auth: Json | None) -> AsyncIterator[Json]:
        """POST /images/NAME/push."""
        return self._told("push", ref, self.store.push(ref, auth))

    def load(self, tar: AsyncIterator[bytes]) -> AsyncIterator[Json]:
        """POST /images/load."""
        return self._loaded(tar)

    async def _loaded(self, tar: AsyncIterator[bytes]) -> AsyncIterator[Json]:
        async with contextlib.aclosing(_closable(self.store.load(tar))) as messages:
            async for message in messages:
                yield message
                text = str(message.get("stream", ""))
                if text.startswith("Loaded image"):
                    ref = text.partition(": ")[2].strip()
                    self.core.events.emit("image", "load", self.store.find(ref).id, {"name": ref})

    def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]:
        """GET /images/get."""
        for ref in refs:
            with contextlib.suppress(GemelError):
                self.core.events.emit("image", "save", self.store.find(ref).id, {"name": ref})
        return self.store.save(refs)

    def build(
        self, context: AsyncIterator[bytes], options: Mapping[str, str], auth: Json | None
    ) -> AsyncIterator[Json]:
        """POST /build."""
        return self.store.build(context, options, auth)

    async def build_secrets(self, body: Mapping[str, object]) -> Json:
        """POST /gemel/build/secrets."""
        return {"Id": self.store.keep_private(inputs.parse(body))}

    def bootstrap(self, ref: str, suite: str, packages: Sequence[str]) -> AsyncIterator[Json]:
        """See facade.Images."""
        return self.store.bootstrap(ref, suite, packages)

    async def distribution(self, ref: str, auth: Json | None) -> Json:
        """GET /distribution/NAME/json."""
        return await self.store.distribution(ref, auth)

    async def artifact(self, ref: str, auth: Json | None, kinds: Sequence[str]) -> Json:
        """GET /gemel/artifacts/NAME."""
        found = await artifact.fetch(self.store, ref, auth, kinds)
        return {
            "Digest": found.digest,
            "Manifest": base64.b64encode(found.manifest).decode(),
            "Index": base64.b64encode(found.index).decode(),
            "Blobs": {
                digest: base64.b64encode(data).decode() for digest, data in found.blobs.items()
            },
        }

    async def push_artifact(
        self, ref: str, auth: Json | None, manifest: bytes, blobs: Sequence[bytes]
    ) -> Json:
        """POST /gemel/artifacts/NAME."""
        digest = await artifact.push(self.store, ref, auth, manifest, blobs)
        return {"Digest": digest, "Size": len(manifest)}

    async def prune_build_cache(self, wanted: Filters) -> Json:
        """POST /build/prune: the cache goes as a whole."""
        return {"CachesDeleted": None, "SpaceReclaimed": await self.store.prune_builds()}

    def remote_tar(self, url: str) -> tuple[str, AsyncIterator[bytes]]:
        """See facade.Images."""
        return remote.archive(url)

    def import_tar(
        self,
        tar: AsyncIterator[bytes],
        repo: str,
        tag: str,
        message: str,
        changes: Sequence[str],
    ) -> AsyncIterator[Json]:
        """POST /images/create?fromSrc=-."""
        return self._imported(tar, repo, tag, message, changes)

    async def _imported(
        self, tar: AsyncIterator[bytes], repo: str, tag: str, message: str, changes: Sequence[str]
    ) -> AsyncIterator[Json]:
        last = ""
        source = self.store.import_tar(tar, repo, tag, message, changes)
        async with contextlib.aclosing(_closable(source)) as messages:
            async for one in messages:
                last = str(one.get("status", ""))
                yield one
        self.core.events.emit("image", "import", last, {"name": f"{repo}:{tag}" if repo else ""})


def _closable(source: AsyncIterator[Json]) -> AsyncGenerator[Json, None]:
    assert isinstance(source, AsyncGenerator)
    return source


async def _with_event(
    core: Core, action: str, ref: str, source: AsyncIterator[Json]
) -> AsyncIterator[Json]:
    async with contextlib.aclosing(_closable(source)) as messages:
        async for message in messages:
            yield message
    name = familiar(ref) if action == "pull" else ref
    core.events.emit("image", action, name, {"name": name.partition("@")[0].rpartition(":")[0]})
