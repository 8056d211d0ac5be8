"""Building from a Dockerfile, by buildah, as Docker's POST /build.

buildah has a storage of its own under the store's folder, where its layers are
cached. Images of the store that a Dockerfile begins from are copied there once;
what was built comes back as the layers that are new. All of it runs in private
mount namespaces: whatever happens, no mount is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import resource
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from gemel.errors import Failed, GemelError, InvalidInput, NotFound, StepFailed
from gemel.host import files, mounts, run
from gemel.image import cell, dockerfile, reference, remote, skopeo, threads
from gemel.image import context as contexts
from gemel.image import manifest as manifests
from gemel.image.cell import Cell
from gemel.image.core import Core
from gemel.image.incoming import spool
from gemel.image.inputs import Private
from gemel.image.options import BuildOptions
from gemel.image.progress import Emit, Json
from gemel.image.reference import Reference
from gemel.image.transfer import fetch_missing, pull
from gemel.model.image import Image

log = logging.getLogger("gemel.image")

_TIMEOUT = 7200.0
_IMPORT_TIMEOUT = 900.0
_TIDY_TIMEOUT = 60.0
_TAIL = 30
_PRIVATE = ("unshare", "--mount", "--propagation", "private")
_REGISTRIES = Path("/etc/containers/registries.conf")
_POLICY = Path("/etc/containers/policy.json")
_PARALLEL = 4
_STEP = re.compile(r'building at STEP "(.*?)": (.*)')
_STATUS = re.compile(
    r'building at STEP "RUN (?:--\S+ )*(.*)": (?:while running runtime: )?exit status (\d+)'
)
_MISSING = re.compile(
    r'building at STEP "(COPY|ADD) [^"]*".* copier: stat: "([^"]+)": no such file or directory'
)
_TRANSPORT = re.compile(r"(?:pinging container registry|reading manifest|initializing source)")


class Builder:
    """buildah's storage and what uses it. One for each store."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._storage = core.paths.images / "buildah"
        self._driver = ""
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._active = 0

    async def build(
        self,
        tell: Emit,
        context: AsyncIterator[bytes],
        options: BuildOptions,
        auths: Mapping[str, Any],
        private: Private = Private(),  # noqa: B008  (frozen)
    ) -> None:
        """Builds an image and tags it. private: secrets, of which nothing is kept.

        Raises Failed with the last lines of a failing build, InvalidInput for a wrong
        context or Dockerfile, NotFound for a missing base image.
        """

        def emit(message: Json) -> None:
            if not options.quiet:
                tell(message)

        async with self._slots, self._core.working(), self._workspace() as work:
            folder = files.folder(work / "context")
            options = await self._gather(emit, context, work, options)
            bases = self._bases(folder, work, options)
            options = await self._refresh(emit, bases, options, auths)
            await self._bring(emit, work, bases)
            storage, shm = self._storage, options.shm_size
            async with cell.opened(
                self._core.paths.cgroup, work, storage, self._driver, options.limits, shm, private
            ) as place:
                try:
                    id = await self._run(emit, work, options, auths, bases, place)
                except StepFailed as error:
                    if options.quiet:  # as dockerd: what was kept back is told now
                        tell({"stream": error.details + "\n"})
                    raise
            image = await self._take(emit, work, id, options)
        if options.quiet:
            tell({"stream": f"{image.id}\n"})
            return
        emit({"aux": {"ID": image.id}})
        emit({"stream": f"Successfully built {image.id[7:19]}\n"})
        for tag in options.tags:
            emit({"stream": f"Successfully tagged {tag.familiar}\n"})

    async def prune(self) -> int:
        """Removes the cache of layers, unless a build goes on; bytes freed."""
        if self._active or not self._storage.exists():
            return 0
        size = await self.size()
        await threads.call(files.remove, self._storage)
        cell.forget_killed(self._storage)
        return size

    async def size(self) -> int:
        """Bytes that the cache of layers takes on the disk."""
        return await threads.call(files.disk_use, str(self._storage))

    async def tidy(self) -> None:
        """Removes the working containers of builds that were killed. Never raises."""
        cell.tidy(self._core.paths.cgroup)
        if cell.was_killed(self._storage):
            log.warning("a build with secrets was killed: the cache of builds is removed")
            await self.prune()
        listed = (f"{driver}-containers/containers.json" for driver in ("overlay", "vfs"))
        found = [name for name in listed if _holds(self._storage / name)]
        if self._active or not found:
            return
        work = files.folder(self._core.blobs.temporary / f"tidy-{os.urandom(8).hex()}")
        self._driver = found[0].partition("-")[0]
        try:
            command = self._buildah(work, "rm", "--all")
            await run.run(command, env=self._env(work), timeout=_TIDY_TIMEOUT)
        except GemelError as error:
            log.warning("what killed builds left is not removed: %s", error)
        finally:
            await threads.call(files.remove, work)

    @contextlib.asynccontextmanager
    async def _workspace(self) -> AsyncIterator[Path]:
        """A folder for one build, and the storage's driver known."""
        self._active += 1
        work = files.folder(self._core.blobs.temporary / f"build-{os.urandom(8).hex()}")
        try:
            self._driver = self._driver or await threads.call(_driver, work)
            yield work
        finally:
            self._active -= 1
            await threads.call(files.remove, work)

    async def _gather(
        self, emit: Emit, sent: AsyncIterator[bytes], work: Path, options: BuildOptions
    ) -> BuildOptions:
        """Puts the context and further ones into folders; the options with where they are."""
        folder, limits = work / "context", self._core.allowed
        if options.remote:
            alone = await remote.fetch(emit, options.remote, folder, limits)
            if alone:
                options = msgspec.structs.replace(options, dockerfile="Dockerfile")
        else:
            with tempfile.TemporaryFile(dir=work) as file:
                await spool(sent, file, limits.size)
                await threads.call(contexts.unpack, cast(BinaryIO, file), folder, limits)
        places: dict[str, str] = {}
        for number, (name, place) in enumerate(options.contexts.items()):
            kind, _, rest = place.partition("://")
            if kind == "docker-image":
                places[name] = f"docker-image://{reference.parse(rest)}"
                continue
            further = work / f"context-{number}"
            if kind == "tar":
                contexts.split(folder, rest, further)
            else:
                await remote.fetch(emit, place, files.folder(further), limits)
            places[name] = str(further)
        return msgspec.structs.replace(options, contexts=places)

    def _bases(self, folder: Path, work: Path, options: BuildOptions) -> list[Reference]:
        """Puts the Dockerfile where no link of the context leads, and says what it needs."""
        text = contexts.read_text(folder, options.dockerfile)
        if text is None:
            raise InvalidInput(
                f"Cannot locate specified Dockerfile: {options.dockerfile}",
                resolution="name it with -f, or `dockerfile:` in the Compose file",
            )
        files.write(work / "Dockerfile", text)
        for name in (f"{options.dockerfile}.dockerignore", ".dockerignore"):
            ignore = contexts.read_text(folder, name)
            if ignore is not None:
                files.write(work / "ignore", ignore)
                break
        found: list[Reference] = []
        named = [
            place.removeprefix("docker-image://")
            for place in options.contexts.values()
            if place.startswith("docker-image://")
        ]
        for name in [*dockerfile.images(text, options.arguments), *named]:
            with contextlib.suppress(InvalidInput):  # buildah says what is wrong with it
                found.append(reference.parse_tagged(name))
        return found

    def _env(self, work: Path) -> dict[str, str]:
        return {
            **os.environ,
            "TMPDIR": str(work),
            "HOME": str(work),
            "XDG_RUNTIME_DIR": str(work),
            "CONTAINERS_REGISTRIES_CONF": str(work / "registries.conf"),
        }

    def _buildah(self, work: Path, *arguments: str) -> list[str]:
        places = ("--root", str(self._storage), "--runroot", str(work / "run"))
        return [*_PRIVATE, "buildah", *places, "--storage-driver", self._driver, *arguments]

    def _stored(self, work: Path, name: str) -> str:
        """A name in buildah's storage, for skopeo."""
        return f"containers-storage:[{self._driver}@{self._storage}+{work / 'run'}]{name}"

    async def _refresh(
        self, emit: Emit, bases: list[Reference], options: BuildOptions, auths: Mapping[str, Any]
    ) -> BuildOptions:
        """``--pull``: asks registries for newer bases, which the store keeps, as dockerd.

        What cannot be pulled is left to buildah, which says so if the build really needs it.
        """
        if not options.pull:
            return options
        try:
            for name in bases:
                await pull(self._core, emit, str(name), auths.get(name.domain), options.platform)
        except GemelError as error:
            log.info("the build's --pull is left to buildah: %s", error.brief)
            return options
        return msgspec.structs.replace(options, pull=False)

    async def _bring(self, emit: Emit, work: Path, bases: list[Reference]) -> None:
        """Copies images of the store that buildah does not have, or has otherwise."""
        local = [(name, image) for name in bases if (image := self._local(name))]
        if not local:
            return
        async with self._core.lock("buildah's images"):
            have = await self._names(work)
            for name, image in local:
                if have.get(str(name)) == image.id[7:]:
                    continue
                emit({"stream": f"Preparing {name.familiar} for the build\n"})
                if image.id[7:] in have.values():
                    command = self._buildah(work, "tag", image.id[7:], str(name))
                    await run.run(command, env=self._env(work))
                else:
                    await self._copy(work, name, image)

    def _local(self, name: Reference) -> Image | None:
        try:
            return self._core.find(str(name))
        except NotFound:
            return None

    async def _names(self, work: Path) -> dict[str, str]:
        """Names in buildah's storage to ids without sha256; unnamed ones under their id."""
        command = self._buildah(work, "images", "--all", "--json", "--no-trunc")
        result = await run.run(command, env=self._env(work))
        listed = json.loads(result.stdout or b"[]") or []
        names: dict[str, str] = {}
        for image in listed:
            id = str(image["id"]).removeprefix("sha256:")
            for name in image.get("names") or [id]:
                names[name] = id
        return names

    async def _copy(self, work: Path, name: Reference, image: Image) -> None:
        record = self._core.record(image)
        raw = self._core.blobs.read(record.manifest)
        blobs = frozenset((record.id, *record.layers))
        with skopeo.folder_of(self._core.blobs, raw, blobs) as source:
            target = self._stored(work, str(name))
            command = [*_PRIVATE, *skopeo.argv("copy", "-q", source, target, scratch=work)]
            await run.run(command, env=self._env(work), timeout=_IMPORT_TIMEOUT)

    async def _run(
        self,
        emit: Emit,
        work: Path,
        options: BuildOptions,
        auths: Mapping[str, Any],
        bases: list[Reference],
        place: Cell,
    ) -> str:
        """Lets buildah build; the id of what it made."""
        files.write(work / "registries.conf", _registries([*bases, *options.caches]))
        with skopeo.authfile(work, auths) as secret:
            arguments = ["bud", "--isolation", "chroot", "--format", "docker", "--layers"]
            arguments += ["--rm", "--force-rm", *_own_limits(), *place.options]
            arguments += ["--identity-label=false", "--iidfile", str(work / "id"), "--retry", "1"]
            arguments += ["--authfile", secret, "-f", str(work / "Dockerfile")]
            if (work / "ignore").exists():
                arguments += ["--ignorefile", str(work / "ignore")]
            if not _POLICY.exists():
                policy = '{"default":[{"type":"insecureAcceptAnything"}]}'
                files.write(work / "policy.json", policy)
                arguments += ["--signature-policy", str(work / "policy.json")]
            arguments += options.arguments_of_buildah()
            command = [*place.prefix, *self._buildah(work, *arguments)[len(_PRIVATE) :]]
            command.append(str(work / "context"))
            tail: list[str] = []
            lines = run.lines(
                command, timeout=_TIMEOUT, stdin=place.stdin, env=self._env(work), new_session=True
            )
            try:
                async with contextlib.aclosing(lines):
                    async for line in lines:
                        if line.startswith("Resolving "):  # names a file of ours
                            continue
                        tail = (tail + [line])[-_TAIL:]
                        emit({"stream": line + "\n"})
            except Failed as error:
                raise _explain(error, tail, bases, options.cache_to) from error
        return (work / "id").read_text().strip().removeprefix("sha256:")

    async def _take(self, emit: Emit, work: Path, id: str, options: BuildOptions) -> Image:
        """Brings what was built into the store."""
        source = self._stored(work, f"@{id}")
        known = self._core.get(f"sha256:{id}")
        if known is not None:
            raw = self._core.blobs.read(self._core.record(known).manifest)
        else:
            emit({"stream": f"Preparing {id[:12]}\n"})
            raw = await skopeo.raw_manifest(source, prefix=_PRIVATE)
            if options.cache_from:
                # what came out of a registry is listed compressed, and is not kept so
                taken = f"dir:{work / 'taken'}"
                command = [*_PRIVATE, *skopeo.argv("copy", "-q", source, taken, scratch=work)]
                await run.run(command, env=self._env(work), timeout=_IMPORT_TIMEOUT)
                source = taken
                raw = await skopeo.raw_manifest(source)
            await fetch_missing(self._core, source, manifests.read(raw), prefix=_PRIVATE)
        return await self._core.add(raw, tags=options.tags)


def _registries(bases: list[Reference]) -> str:
    """The machine's registries.conf with Docker's rules added: short names are Docker
    Hub's, and registries of this machine may use plain HTTP.
    """
    try:
        text = _REGISTRIES.read_text()
    except OSError:
        text = ""
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if "[registries." in plain:  # version 1 of the format cannot be mixed with 2
        plain = ""
    if "unqualified-search-registries" not in plain:
        plain = f'unqualified-search-registries = ["{reference.HUB}"]\n{plain}'
    if "short-name-mode" not in plain:
        plain = f'short-name-mode = "disabled"\n{plain}'
    for domain in sorted({name.domain for name in bases if name.is_loopback}):
        plain += f'\n[[registry]]\nlocation = "{domain}"\ninsecure = true\n'
    return plain + "\n"


_BUILDAH_PROCESSES = 32768


def _own_limits() -> list[str]:
    """The engine's own limits for a build's programs, and not more processes than older
    buildahs allow themselves.

    buildah would raise them to containers.conf's, which an engine without
    CAP_SYS_RESOURCE may not.
    """
    files_, processes = (
        resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    result = []
    for name, hard in (("nofile", files_), ("nproc", processes)):
        value = -1 if hard == resource.RLIM_INFINITY else hard
        value = min(value, _BUILDAH_PROCESSES) if name == "nproc" else value
        if value >= 0:
            result += ["--ulimit", f"{name}={value}:{value}"]
    return result


def _explain(
    error: Failed, tail: list[str], bases: list[Reference], cache: Reference | None
) -> GemelError:
    """What a failed build means: a base that is not to be had, or a step that failed."""
    text = "\n".join(tail)
    if cache is not None and "failed pushing cache to" in text:
        why = skopeo.explain(Failed(error.brief, text), cache)
        brief = f"the build's cache cannot be sent to {cache.name}"
        return Failed(brief, tail[-1], why.resolution or "leave cache_to out, or name another one")
    if _TRANSPORT.search(text) and bases:
        name = next((base for base in bases if base.path in text), bases[0])
        explained = skopeo.explain(Failed(error.brief, text), name)
        if not isinstance(explained, Failed) or explained.brief != error.brief:
            return explained
    details = "\n".join(line for line in tail if line.strip())
    last = "the lines above are the build's last"
    if match := _STATUS.search(text):  # in dockerd's words, which scripts look for
        command, code = match[1], int(match[2])
        if not command.startswith("["):
            command = f"/bin/sh -c {command}"
        brief = f"The command '{command}' returned a non-zero code: {code}"
        return StepFailed(brief, details, last, code)
    brief = "the build failed"
    if match := _MISSING.search(text):
        brief = f"{match[1]} failed: file not found in build context or excluded by .dockerignore"
        missing = match[2].lstrip("/")
        return Failed(f"{brief}: stat {missing}: file does not exist", details, last)
    if match := _STEP.search(text):
        brief += f" at {match[1]}: {match[2]}"
    return Failed(brief, details, last)


def _driver(work: Path) -> str:
    """overlay where this file system can be under one, else vfs (slower, always works)."""
    lower, upper, inner, top = (files.folder(work / name) for name in ("l", "u", "w", "m"))
    try:
        mounts.mount(
            "overlay", top, "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={inner}"
        )
    except Failed:
        return "vfs"
    mounts.unmount(top)
    return "overlay"


def _holds(path: Path) -> bool:
    """Whether a JSON file has a list that is not empty."""
    try:
        return bool(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return False
