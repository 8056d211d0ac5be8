"""An engine in memory: the facade's protocols with real behaviour and no processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from gemel.engine.facade import Filters, Json, Jsons
from gemel.errors import (
    Failed,
    InvalidInput,
    NotFound,
    Unauthorized,
)
from gemel.model.comparison import Wanted
from gemel.model.docker import (
    CreateRequest,
    EndpointSettings,
    NetworkCreate,
    VolumeCreate,
)
from gemel.model.faults import FaultRequest
from gemel.model.replay import ReplayRequest
from gemel.observe.capture.records import Query
from gemel.observe.tracing.records import Ask
from tests.unit.api.memory_containers import MemoryContainers, MemoryExecs


class MemoryImages:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.received = b""
        self.stopped = asyncio.Event()

    async def list(self, all: bool, filters: Filters) -> Jsons:
        self.calls.append(("list", all, dict(filters)))
        return []

    async def inspect(self, ref: str) -> Json:
        if "missing" in ref:
            raise NotFound(f"No such image: {ref}")
        return {"Id": ref}

    async def history(self, ref: str) -> Jsons:
        return [{"Id": ref}]

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        self.calls.append(("tag", ref, repo, tag))

    async def remove(self, ref: str, force: bool, noprune: bool) -> Jsons:
        return [{"Untagged": ref}]

    async def prune(self, filters: Filters) -> Json:
        return {"ImagesDeleted": None, "SpaceReclaimed": 0}

    async def pull(self, ref: str, auth: Json | None, platform: str) -> AsyncIterator[Json]:
        self.calls.append(("pull", ref, auth, platform))
        if ref.startswith("missing"):
            raise NotFound(f"no such image: {ref}")
        yield {"status": "Pulling", "id": "a"}
        if ref.startswith("broken"):
            raise Failed("the registry broke off", details="eof", resolution="try again")
        if ref.startswith("endless"):
            try:
                while True:
                    await asyncio.sleep(0.01)
                    yield {"status": "Downloading"}
            finally:
                self.stopped.set()

    async def push(self, ref: str, auth: Json | None) -> AsyncIterator[Json]:
        self.calls.append(("push", ref, auth))
        yield {"status": "Pushing"}

    async def load(self, tar: AsyncIterator[bytes]) -> AsyncIterator[Json]:
        self.received = b"".join([piece async for piece in tar])
        yield {"stream": "Loaded image: a:b\n"}

    async def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]:
        self.calls.append(("save", list(refs)))
        for _ in range(3):
            yield b"z" * 100_000

    async def build(
        self, context: AsyncIterator[bytes], options: Mapping[str, str], auth: Json | None
    ) -> AsyncIterator[Json]:
        self.calls.append(("build", dict(options), auth))
        self.received = b"".join([piece async for piece in context])
        yield {"stream": "Step 1/1 : FROM scratch\n"}

    async def build_secrets(self, body: Mapping[str, object]) -> Json:
        self.calls.append(("build_secrets", dict(body)))
        return {"Id": "token"}

    async def bootstrap(self, ref: str, suite: str, packages: Sequence[str]) -> AsyncIterator[Json]:
        self.calls.append(("bootstrap", ref, suite, list(packages)))
        yield {"status": "done"}

    async def artifact(self, ref: str, auth: Json | None, kinds: Sequence[str]) -> Json:
        return {"Digest": "sha256:0", "Manifest": "", "Index": "", "Blobs": {}}

    async def push_artifact(
        self, ref: str, auth: Json | None, manifest: bytes, blobs: Sequence[bytes]
    ) -> Json:
        return {"Digest": "sha256:0", "Size": len(manifest)}

    async def distribution(self, ref: str, auth: Json | None) -> Json:
        return {"Descriptor": {}, "Platforms": [], "Auth": auth}

    async def prune_build_cache(self, filters: Filters) -> Json:
        return {"CachesDeleted": None, "SpaceReclaimed": 0}

    def remote_tar(self, url: str) -> tuple[str, AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"from " + url.encode()

        return url, pieces()

    async def import_tar(
        self, tar: AsyncIterator[bytes], repo: str, tag: str, message: str, changes: Sequence[str]
    ) -> AsyncIterator[Json]:
        self.received = b"".join([piece async for piece in tar])
        self.calls.append(("import", repo, tag, message, list(changes)))
        yield {"status": "sha256:0"}


class MemoryNetworks:
    def __init__(self) -> None:
        self.requests: list[NetworkCreate] = []
        self.connected: list[tuple[str, str, EndpointSettings]] = []

    async def list(self, filters: Filters) -> Jsons:
        return [{"Name": request.name} for request in self.requests]

    async def inspect(self, ref: str) -> Json:
        raise NotFound(f"network {ref} not found")

    async def create(self, request: NetworkCreate) -> Json:
        self.requests.append(request)
        return {"Id": "n", "Warning": ""}

    async def remove(self, ref: str) -> None:
        raise NotFound(f"network {ref} not found")

    async def connect(self, ref: str, container: str, settings: EndpointSettings) -> None:
        self.connected.append((ref, container, settings))

    async def disconnect(self, ref: str, container: str, force: bool) -> None:
        pass

    async def prune(self, filters: Filters) -> Json:
        return {"NetworksDeleted": None}


class MemoryVolumes:
    async def list(self, filters: Filters) -> Json:
        return {"Volumes": [], "Warnings": None}

    async def inspect(self, ref: str) -> Json:
        raise NotFound(f"get {ref}: no such volume")

    async def create(self, request: VolumeCreate) -> Json:
        return {"Name": request.name}

    async def remove(self, ref: str, force: bool) -> None:
        pass

    async def prune(self, filters: Filters) -> Json:
        return {"VolumesDeleted": [], "SpaceReclaimed": 0}


class MemorySystem:
    def __init__(self) -> None:
        self.listeners = 0
        self.queue: asyncio.Queue[Json] = asyncio.Queue()

    async def info(self) -> Json:
        return {"ID": "memory", "Containers": 0}

    async def version(self) -> Json:
        return {"Version": "0.1.0"}

    async def auth(self, credentials: Json) -> Json:
        if credentials.get("password") != "secret":
            raise Unauthorized("login attempt failed with status: 401 Unauthorized")
        return {"Status": "Login Succeeded", "IdentityToken": ""}

    async def df(self) -> Json:
        return {"Containers": [], "Images": [], "LayersSize": 0, "Volumes": [], "BuildCache": []}

    async def events(self, since: int, until: int, filters: Filters) -> AsyncIterator[Json]:
        async def stream() -> AsyncIterator[Json]:
            self.listeners += 1
            try:
                while not until:
                    yield await self.queue.get()
            finally:
                self.listeners -= 1

        return stream()

    async def fetch_kernel(self) -> AsyncIterator[Json]:
        yield {"status": "guest kernel 6.1 is ready"}

    async def kernels(self) -> list[Json]:
        return [{"Name": "linux", "Version": "6.1", "Used": True}]

    async def build_kernel(self, jobs: int | None, use: bool) -> AsyncIterator[Json]:
        yield {"status": f"jobs {jobs}, use {use}"}

    async def use_kernel(self, name: str) -> Json:
        if name != "linux":
            raise NotFound(f"there is no guest kernel {name}")
        return {"Name": name, "Version": "6.1", "Used": True}

    async def doctor(self) -> Jsons:
        return [{"name": "kvm", "status": "missing", "details": "", "resolution": ""}]

    async def shutdown(self) -> None:
        pass


class MemoryObserving:
    """Recording can be begun and ended; two calls are always there."""

    def __init__(self, containers: MemoryContainers) -> None:
        self.containers = containers
        self.on = False

    async def start(self) -> bool:
        before, self.on = self.on, True
        return not before

    async def stop(self) -> None:
        self.on = False

    async def lines(self, query: Query) -> AsyncIterator[bytes]:
        for id in ("1", "2"):
            yield b'{"id":"%s"}\n' % id.encode()

    async def show(self, id: str) -> Json:
        if id not in ("1", "2"):
            raise NotFound(f"no exchange {id} is recorded")
        return {"id": id}

    async def metrics(self) -> str:
        return "gemel_up 1\n"


class MemoryTracing:
    """Two traces are always there."""

    async def lines(self, ask: Ask) -> AsyncIterator[bytes]:
        for id in ("aa", "bb"):
            yield b'{"Id":"%s"}\n' % id.encode()

    async def show(self, ask: Ask) -> Json:
        if ask.id not in ("aa", "bb", "newest"):
            raise NotFound(f"no trace {ask.id} is recorded")
        return {"Id": ask.id, "Spans": []}


class MemoryFaults:
    """Faults by number."""

    def __init__(self) -> None:
        self.faults: dict[int, Json] = {}

    async def add(self, wanted: FaultRequest) -> Json:
        number = len(self.faults) + 1
        self.faults[number] = {"Id": number, "From": wanted.source, "To": wanted.target}
        return self.faults[number]

    async def list(self) -> Jsons:
        return list(self.faults.values())

    async def clear(self, number: int | None) -> Json:
        if number is not None and number not in self.faults:
            raise NotFound(f"there is no fault {number}")
        gone = [number] if number is not None else list(self.faults)
        self.faults = {n: f for n, f in self.faults.items() if n not in gone}
        return {"Cleared": gone}


class MemoryComparing:
    async def compare(self, wanted: Wanted) -> AsyncIterator[Json]:
        yield {"status": "round 1 of 1"}
        yield {"report": {"Name": wanted.service}}

    async def reports(self) -> Jsons:
        return [{"Name": "web"}]

    async def preview(self, wanted: CreateRequest) -> Json:
        return {"Runtime": "container", "Reason": wanted.image}

    async def explain(self, ref: str) -> Json:
        return {"Id": ref, "Runtime": "container"}


class MemoryDebugging:
    """The toolbox is there, and nothing is started."""

    def __init__(self, containers: MemoryContainers) -> None:
        self.containers = containers

    async def prepare(self, ref: str) -> AsyncIterator[Json]:
        if ref == "gone":
            raise NotFound("No such image: gone")
        yield {"aux": {"ID": "sha256:1"}}

    async def start(self, ref: str, halted: bool, env: Sequence[str]) -> None:
        await self.containers.start(ref)


class MemoryDashboard:
    def __init__(self) -> None:
        self.running = False

    def state(self) -> Json:
        return {"Running": self.running, "Port": 7433 if self.running else 0}

    async def start(self, port: int = 0) -> Json:
        if not 0 <= port < 65536:
            raise InvalidInput(f"{port} is no port")
        begun, self.running = not self.running, True
        return {"Url": "http://127.0.0.1:7433/login/x", "Port": 7433, "Started": begun}

    async def stop(self) -> bool:
        was, self.running = self.running, False
        return was


class MemoryReports:
    """One report."""

    def __init__(self, containers: MemoryContainers) -> None:
        self.containers = containers

    async def list(self) -> Jsons:
        return [{"Id": "1"}]

    async def show(self, id: str) -> Json:
        if id != "1":
            raise NotFound(f"there is no report {id}")
        return {"Id": id}

    async def archive(self, id: str) -> AsyncIterator[bytes]:
        await self.show(id)

        async def pieces() -> AsyncIterator[bytes]:
            yield b"PK"

        return pieces()

    async def why(self, ref: str) -> Json:
        return {"Name": (await self.containers.inspect(ref))["Name"]}


class MemoryReplays:
    def __init__(self) -> None:
        self.wanted = ReplayRequest()

    async def begin(self, wanted: ReplayRequest) -> Json:
        self.wanted = wanted
        return self.shown()

    def shown(self) -> Json:
        return {"Services": [{"Name": service.name} for service in self.wanted.services]}

    async def end(self) -> None:
        self.wanted = ReplayRequest()


class MemoryEngine:
    def __init__(self) -> None:
        self.containers = MemoryContainers()
        self.execs = MemoryExecs(self.containers)
        self.images = MemoryImages()
        self.networks = MemoryNetworks()
        self.volumes = MemoryVolumes()
        self.system = MemorySystem()
        self.observing = MemoryObserving(self.containers)
        self.tracing = MemoryTracing()
        self.faults = MemoryFaults()
        self.comparing = MemoryComparing()
        self.debugging = MemoryDebugging(self.containers)
        self.reports = MemoryReports(self.containers)
        self.dashboard = MemoryDashboard()
        self.replays = MemoryReplays()
