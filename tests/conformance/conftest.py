"""One suite for every runtime: the fixtures ``runtime`` and ``harness``.

A runtime takes part by an entry in KINDS: how it is made, and what of its own it needs. The fake
one (tests/fake), which engine tests stand on, takes part in tests with the mark ``fake`` alone,
those of which it can run the programs; they need no root with it.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from gemel.model.instance import Exit, InstanceSpec, Process, RuntimeName
from gemel.model.paths import Paths
from gemel.observe import logs
from gemel.runtime.base import ExecSession, Runtime, Stream
from gemel.runtime.container.runtime import ContainerRuntime
from gemel.runtime.microvm.runtime import MicroVmRuntime
from tests.fake.runtime import FakeRuntime, World
from tests.images import busybox_tar
from tests.kernels import use_kernels

#: Seconds that anything here may take before it is called stuck.
DEADLINE = 120.0


class Kind(NamedTuple):
    """A runtime under test."""

    name: RuntimeName
    make: Callable[[Paths], Runtime]


def _microvm(paths: Paths) -> Runtime:
    use_kernels(paths)
    return MicroVmRuntime(paths)


_WORLDS: dict[Path, World] = {}


def _fake(paths: Paths) -> Runtime:
    return FakeRuntime(_WORLDS.setdefault(paths.run, World()))


FAKE = "fake"
KINDS = {
    "container": Kind(RuntimeName.CONTAINER, ContainerRuntime),
    "microvm": Kind(RuntimeName.MICROVM, _microvm),
    FAKE: Kind(RuntimeName.CONTAINER, _fake),
}


class Image(NamedTuple):
    """The image of all instances here: as a folder, and as the tar that it was made from."""

    folder: Path
    tar: Path


class Output(NamedTuple):
    """What an instance or an exec left."""

    status: int
    stdout: bytes
    stderr: bytes


class Harness:
    """Makes, starts and clears away instances of one runtime."""

    def __init__(self, kind: Kind, paths: Paths, image: Image) -> None:
        self.kind = kind
        self.paths = paths
        self.image = image
        self.runtime = kind.make(paths)
        self.specs: dict[str, InstanceSpec] = {}

    def spec(self, *argv: str, **options: Any) -> InstanceSpec:
        """An instance that runs ``argv``. Options: fields of Process, else of InstanceSpec."""
        id = secrets.token_hex(32)
        mine = {name: options.pop(name) for name in list(options) if name in _PROCESS}
        fields: dict[str, Any] = {
            "id": id,
            "name": f"test-{id[:8]}",
            "runtime": self.kind.name,
            "image_id": "sha256:" + "0" * 64,
            "root_image": self.image.tar.with_suffix(".sqfs"),
            "rootfs": self.image.folder,
            "layer": self.paths.layer(id),
            "process": Process(argv=argv, **mine),
            "hostname": id[:12],
            "log": self.paths.instance(id) / "log",
        }
        return InstanceSpec(**(fields | options))

    def shell(self, script: str, **options: Any) -> InstanceSpec:
        """An instance that runs a shell script."""
        return self.spec("sh", "-c", script, **options)

    async def start(self, spec: InstanceSpec) -> InstanceSpec:
        """Makes and starts it; it is cleared away after the test."""
        self.specs[spec.id] = spec
        async with asyncio.timeout(DEADLINE):
            await self.runtime.create(spec)
            await self.runtime.start(spec)
        return spec

    async def wait(self, spec: InstanceSpec) -> Exit:
        """How it ended."""
        async with asyncio.timeout(DEADLINE):
            return await self.runtime.wait(spec.id)

    async def run(self, spec: InstanceSpec) -> Output:
        """Runs it to its end."""
        await self.start(spec)
        ended = await self.wait(spec)
        out, err = await self.output(spec)
        return Output(ended.status, out, err)

    async def output(self, spec: InstanceSpec) -> tuple[bytes, bytes]:
        """What its log holds, by stream."""
        pieces: dict[int, list[bytes]] = {1: [], 2: []}
        async for line in logs.read(spec.log):
            pieces[line.stream].append(line.data)
        return b"".join(pieces[1]), b"".join(pieces[2])

    async def expect(self, spec: InstanceSpec, text: bytes) -> None:
        """Waits until ``text`` is in its log."""
        seen = b""
        async with asyncio.timeout(DEADLINE):
            async for line in logs.read(spec.log, follow=True):
                seen += line.data
                if text in seen:
                    return

    async def exec(
        self, spec: InstanceSpec, *argv: str, input: bytes = b"", **options: Any
    ) -> Output:
        """Runs a further program to its end."""
        process = Process(argv=argv, stdin=bool(input), **options)
        async with asyncio.timeout(DEADLINE):
            session = await self.runtime.exec(spec.id, process)
            return await talk(session, input)

    async def stop(self, spec: InstanceSpec) -> Exit:
        """Kills it, and clears it away but for its layer."""
        async with asyncio.timeout(DEADLINE):
            await self.runtime.kill(spec.id, 9)
            ended = await self.runtime.wait(spec.id)
            await self.runtime.cleanup(spec.id)
            return ended

    async def successor(self) -> None:
        """The engine dies and another one comes: a new runtime that knows nothing."""
        await self.runtime.close()
        self.runtime = self.kind.make(self.paths)
        await self.runtime.prepare()

    async def close(self) -> None:
        async with asyncio.timeout(DEADLINE):
            for spec in self.specs.values():
                await self.runtime.cleanup(spec.id)
                await self.runtime.remove(spec)
            await self.runtime.close()


_PROCESS = set(msgspec.structs.asdict(Process(argv=()))) - {"argv"}


async def talk(session: ExecSession, input: bytes = b"") -> Output:
    """Sends ``input`` and its end, reads everything, waits."""

    async def send() -> None:
        if input:
            await session.write(input)
        await session.close_stdin()

    sender = asyncio.create_task(send())
    out, err = await read_all(session)
    await sender
    status = await session.wait()
    await session.close()
    return Output(status, out, err)


async def read_all(stream: Stream) -> tuple[bytes, bytes]:
    """Everything until the end, by stream."""
    pieces: dict[int, list[bytes]] = {1: [], 2: []}
    while (piece := await stream.read()) is not None:
        pieces[piece[0]].append(piece[1])
    return b"".join(pieces[1]), b"".join(pieces[2])


async def read_until(stream: Stream, text: bytes) -> bytes:
    """Reads until ``text`` has come."""
    seen = b""
    async with asyncio.timeout(DEADLINE):
        while text not in seen:
            piece = await stream.read()
            assert piece is not None, f"ended after {seen!r}"
            seen += piece[1]
    return seen


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    tar = folder / "busybox.tar"
    tar.write_bytes(busybox_tar())
    root = folder / "root"
    root.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as archive:
        archive.extractall(root, filter="fully_trusted")
    with tar.open("rb") as source:
        command = ["tar2sqfs", "-q", "-c", "lz4", str(tar.with_suffix(".sqfs"))]
        subprocess.run(command, stdin=source, check=True, timeout=60)
    return Image(root, tar)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "harness" in metafunc.fixturenames:
        fits = metafunc.definition.get_closest_marker(FAKE) is not None
        kinds = [kind for kind in sorted(KINDS) if kind != FAKE or fits]
        metafunc.parametrize("harness", kinds, indirect=True)


@pytest.fixture
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    fake = request.param == FAKE
    image = Image(tmp_path, tmp_path) if fake else request.getfixturevalue("image")
    made = Harness(KINDS[request.param], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()
    if fake:
        await _WORLDS.pop(made.paths.run).close()


@pytest.fixture
def runtime(harness: Harness) -> Runtime:
    return harness.runtime
