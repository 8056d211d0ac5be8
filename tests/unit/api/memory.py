"""An engine in memory: the facade's protocols with real behaviour and no processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gemel.engine.facade import Attached, CommitRequest, Filters, Json, Jsons, LogQuery
from gemel.errors import (
    CommandNotFound,
    Conflict,
    Failed,
    InvalidInput,
    NotFound,
    NotModified,
    Unauthorized,
    Unsupported,
)
from gemel.model.comparison import Wanted
from gemel.model.docker import (
    CreateRequest,
    DebugCreate,
    EndpointSettings,
    ExecCreate,
    NetworkCreate,
    VolumeCreate,
)
from gemel.model.faults import FaultRequest
from gemel.model.replay import ReplayRequest
from gemel.observe.capture.records import Query
from gemel.observe.tracing.records import Ask


class MemoryStream:
    """Echoes what it is given; at the end of its input it says how much there was.

    ``flood`` makes it write without an end instead, and counts what was taken.
    """

    def __init__(self, tty: bool = False, flood: bool = False, silent: bool = False) -> None:
        self.tty = tty
        self.flood = flood
        self.silent = silent
        self.taken = 0
        self.input = bytearray()
        self.stdin_closed = asyncio.Event()
        self.closed = asyncio.Event()
        self.pid = 1
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()

    async def read(self) -> tuple[int, bytes] | None:
        if self.flood:
            self.taken += 1 << 16
            return 1, b"x" * (1 << 16)
        return await self._queue.get()

    async def write(self, data: bytes) -> None:
        if self.stdin_closed.is_set():
            raise Failed("standard input is closed")
        self.input += data
        if not self.silent:
            await self._queue.put((1, data))

    async def close_stdin(self) -> None:
        self.stdin_closed.set()
        if not self.silent:
            await self._queue.put((1 if self.tty else 2, b"%d bytes" % len(self.input)))
            await self._queue.put(None)

    async def resize(self, rows: int, columns: int) -> None:
        pass

    async def close(self) -> None:
        self.closed.set()

    async def wait(self) -> int:
        return 0

    async def kill(self, signal: int) -> None:
        pass


class Stat(NamedTuple):
    name: str = "passwd"
    size: int = 3
    mode: int = 0o100644
    mtime: float = 1.5
    link_target: str = ""


@dataclass
class Box:
    id: str
    name: str
    request: CreateRequest
    running: bool = False
    streams: list[MemoryStream] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    files: bytes = b""
    log: list[tuple[int, bytes]] = field(default_factory=list)
    samples: int = 0


class MemoryContainers:
    def __init__(self) -> None:
        self.all: dict[str, Box] = {}
        self.flood = self.silent = False
        self.followers = self.lists = 0
        self.last_list: tuple[bool, int, bool, Filters] | None = None
        self.last_log: LogQuery | None = None

    def find(self, ref: str) -> Box:
        for box in self.all.values():
            if ref in (box.name, box.id) or (ref and box.id.startswith(ref)):
                return box
        raise NotFound(f"No such container: {ref}")

    async def create(self, request: CreateRequest, name: str | None, platform: str = "") -> Json:
        if not request.image:
            raise InvalidInput("no image given", resolution="give one")
        if any(box.name == name for box in self.all.values()):
            raise Conflict(f'The container name "/{name}" is already in use')
        id = f"{len(self.all) + 1:064x}"
        self.all[id] = Box(id, name or f"box{len(self.all)}", request)
        return {"Id": id, "Warnings": []}

    @property
    def generation(self) -> int:
        self.lists += 1  # never the same: nothing is kept
        return self.lists

    async def list(self, all: bool, limit: int, size: bool, filters: Filters) -> Jsons:
        self.last_list = all, limit, size, filters
        return [{"Id": box.id, "Names": ["/" + box.name]} for box in self.all.values()]

    async def inspect(self, ref: str, size: bool = False) -> Json:
        box = self.find(ref)
        return {"Id": box.id, "Name": "/" + box.name, "State": {"Running": box.running}}

    async def start(self, ref: str) -> None:
        box = self.find(ref)
        if box.request.cmd == ["missing"]:
            raise CommandNotFound("cannot start box", details='exec: "missing"')
        if box.running:
            raise NotModified("it runs already")
        box.running = True

    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        box = self.find(ref)
        box.running = False
        box.ended.set()

    async def start_held(self, ref: str) -> None:
        await self.start(ref)

    async def admit(self, ref: str, replaces: str, seconds: float) -> None:
        self.find(ref)

    async def drain(self, ref: str, seconds: float) -> None:
        self.find(ref)

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        self.find(ref)

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        await self.stop(ref)

    async def pause(self, ref: str) -> None:
        raise Unsupported("a micro VM cannot be paused", resolution="stop it")

    async def unpause(self, ref: str) -> None:
        raise Conflict("not paused")

    async def rename(self, ref: str, name: str) -> None:
        self.find(ref).name = name

    async def remove(self, ref: str, force: bool = False, volumes: bool = False) -> None:
        box = self.find(ref)
        if box.running and not force:
            raise Conflict("it runs")
        del self.all[box.id]

    async def waiter(self, ref: str, condition: str = "not-running") -> Awaitable[Json]:
        box = self.find(ref)

        async def ended() -> Json:
            await box.ended.wait()
            return {"StatusCode": 3, "Error": None}

        return ended()

    async def logs(
        self, ref: str, query: LogQuery
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        box = self.find(ref)
        self.last_log = query

        async def pieces() -> AsyncIterator[tuple[int, bytes]]:
            self.followers += 1
            try:
                for piece in box.log:
                    yield piece
                while query.follow and not box.ended.is_set():
                    await asyncio.sleep(0.01)
                    if self.flood:
                        yield 1, b"y" * (1 << 16)
            finally:
                self.followers -= 1

        return box.request.tty, pieces()

    async def attach(self, ref: str, *, history: bool, stdin: bool) -> Attached:
        box = self.find(ref)
        stream = MemoryStream(box.request.tty, self.flood, self.silent)
        box.streams.append(stream)
        before = (await self.logs(ref, LogQuery()))[1] if history else None
        return Attached(box.request.tty, stream, before)

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        self.find(ref)

    async def top(self, ref: str, ps_args: str) -> Json:
        self.find(ref)
        return {"Titles": ["PID"], "Processes": [["1"]]}

    async def stats(self, ref: str) -> Json:
        box = self.find(ref)
        box.samples += 1
        return {"read": f"t{box.samples}", "cpu_stats": {"n": box.samples}}

    async def update(self, ref: str, body: Json) -> Json:
        self.find(ref)
        return {"Warnings": []}

    async def prune(self, filters: Filters) -> Json:
        return {"ContainersDeleted": [], "SpaceReclaimed": 0}

    async def read_archive(self, ref: str, path: str) -> tuple[Stat, AsyncIterator[bytes]]:
        box = self.find(ref)

        async def pieces() -> AsyncIterator[bytes]:
            yield box.files

        return Stat(), pieces()

    async def write_archive(
        self,
        ref: str,
        path: str,
        tar: AsyncIterator[bytes],
        *,
        keep: bool = True,
        as_user: bool = False,
    ) -> None:
        box = self.find(ref)
        box.files = b"".join([piece async for piece in tar])

    async def stat_path(self, ref: str, path: str) -> Stat:
        self.find(ref)
        return Stat()

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        box = self.find(ref)

        async def pieces() -> AsyncIterator[bytes]:
            yield box.files

        return pieces()

    async def changes(self, ref: str) -> Jsons | None:
        self.find(ref)
        return [{"Path": "/a", "Kind": 1}]

    async def commit(self, ref: str, wanted: CommitRequest) -> Json:
        self.find(ref)
        return {"Id": f"sha256:{wanted.ref}"}


class MemoryExecs:
    def __init__(self, containers: MemoryContainers) -> None:
        self._containers = containers
        self.all: dict[str, ExecCreate] = {}
        self.streams: dict[str, MemoryStream] = {}

    async def create(self, ref: str, request: ExecCreate) -> str:
        self._containers.find(ref)
        id = f"e{len(self.all)}"
        self.all[id] = request
        return id

    async def create_debug(self, ref: str, request: DebugCreate) -> str:
        return await self.create(ref, request)

    def _find(self, id: str) -> ExecCreate:
        if id not in self.all:
            raise NotFound(f"No such exec instance: {id}")
        return self.all[id]

    async def start(
        self, id: str, tty: bool | None = None, size: tuple[int, int] | None = None
    ) -> tuple[bool, MemoryStream]:
        request = self._find(id)
        if request.cmd == ["missing"]:
            raise CommandNotFound("exec failed", details='exec: "missing"')
        self.streams[id] = MemoryStream(request.tty)
        return request.tty, self.streams[id]

    async def start_detached(self, id: str) -> None:
        self._find(id)

    async def resize(self, id: str, rows: int, columns: int) -> None:
        self._find(id)

    async def inspect(self, id: str) -> Json:
        request = self._find(id)
        return {
            "ID": id,
            "OpenStdin": request.attach_stdin,
            "OpenStdout": request.attach_stdout,
            "OpenStderr": request.attach_stderr,
            "DetachKeys": request.detach_keys,
        }


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
