"""What the engine offers to the API. Answers are plain values in Docker's JSON shape.

Every method raises GemelError kinds (gemel.errors); the API maps them to
Docker's status codes. ``ref`` is whatever a client sends: a name, an id, a
prefix of an id. ``filters`` is Docker's form: ``{"label": ["a=b", …], …}``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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
from gemel.runtime.base import PathStat, Stream

Json = dict[str, Any]
Jsons = list[Json]
Filters = Mapping[str, Sequence[str]]


class LogQuery(NamedTuple):
    """Which part of a log. Times in nanoseconds since the epoch; tail None means all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int = 0
    until: int = 0
    tail: int | None = None
    timestamps: bool = False
    """Each line begins with its time, RFC 3339 with nanoseconds, and a blank."""


class Attached(NamedTuple):
    """A connection to an instance's streams. history: log from before, to send first."""

    tty: bool
    stream: Stream
    history: AsyncIterator[tuple[int, bytes]] | None


class CommitRequest(NamedTuple):
    """What POST /commit is asked for. config: fields of ContainerConfig that replace it."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: Sequence[str] = ()
    config: Json = {}

    @property
    def ref(self) -> str:
        """The name as a person writes it."""
        return f"{self.repo}:{self.tag or 'latest'}" if self.repo else ""


class Containers(Protocol):
    """Instances of either runtime; Docker calls them containers."""

    @property
    def generation(self) -> int:
        """While it stays the same, so do the answers of ``list`` but for times in words."""
        ...

    async def create(
        self, request: CreateRequest, name: str | None, platform: str = ""
    ) -> Json: ...
    async def list(self, all: bool, limit: int, size: bool, filters: Filters) -> Jsons: ...
    async def inspect(self, ref: str, size: bool = False) -> Json: ...
    async def start(self, ref: str) -> None: ...
    async def stop(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...

    async def start_held(self, ref: str) -> None:
        """Starts it beside the one it will replace: without shared names and published ports."""
        ...

    async def admit(self, ref: str, replaces: str, seconds: float) -> None:
        """Waits until it is ready; names and ports of ``replaces`` then lead to it."""
        ...

    async def drain(self, ref: str, seconds: float) -> None:
        """Takes it out of names and ports; returns when its connections have ended."""
        ...

    async def restart(self, ref: str, timeout: int | None = None, signal: str = "") -> None: ...
    async def kill(self, ref: str, signal: str = "KILL") -> None: ...
    async def pause(self, ref: str) -> None: ...
    async def unpause(self, ref: str) -> None: ...
    async def rename(self, ref: str, name: str) -> None: ...
    async def remove(self, ref: str, force: bool = False, volumes: bool = False) -> None: ...

    async def waiter(self, ref: str, condition: str = "not-running") -> Awaitable[Json]:
        """Registers now, and gives back what to await: ``{"StatusCode": 0, "Error": None}``.

        condition: not-running, next-exit, removed.
        """
        ...

    async def logs(
        self, ref: str, query: LogQuery
    ) -> tuple[bool, AsyncIterator[tuple[int, bytes]]]:
        """Whether it has a terminal, and the log's pieces with their stream (1 or 2)."""
        ...

    async def attach(self, ref: str, *, history: bool, stdin: bool) -> Attached: ...
    async def resize(self, ref: str, rows: int, columns: int) -> None: ...
    async def top(self, ref: str, ps_args: str) -> Json: ...

    async def stats(self, ref: str) -> Json:
        """One sample in Docker's shape, precpu_stats taken from the sample before."""
        ...

    async def update(self, ref: str, body: Json) -> Json: ...
    async def prune(self, filters: Filters) -> Json: ...
    async def read_archive(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]: ...

    async def write_archive(
        self,
        ref: str,
        path: str,
        tar: AsyncIterator[bytes],
        *,
        keep: bool = True,
        as_user: bool = False,
    ) -> None:
        """keep: a folder is never replaced by a file, nor the other way round. as_user: all
        of it is owned by the container's user."""
        ...

    async def stat_path(self, ref: str, path: str) -> PathStat: ...
    async def export(self, ref: str) -> AsyncIterator[bytes]: ...

    async def changes(self, ref: str) -> Jsons | None:
        """``{"Path": "/etc", "Kind": 0}``: 0 changed, 1 added, 2 deleted; None without any."""
        ...

    async def commit(self, ref: str, wanted: CommitRequest) -> Json: ...


class Execs(Protocol):
    """Further programs in a running instance."""

    async def create(self, ref: str, request: ExecCreate) -> str: ...
    async def create_debug(self, ref: str, request: DebugCreate) -> str: ...

    async def start(
        self, id: str, tty: bool | None = None, size: tuple[int, int] | None = None
    ) -> tuple[bool, Stream]:
        """Whether it has a terminal, and its streams; the caller reads and closes them.

        Once their end has been read, the exit code can be asked for.
        """
        ...

    async def start_detached(self, id: str) -> None: ...
    async def resize(self, id: str, rows: int, columns: int) -> None: ...
    async def inspect(self, id: str) -> Json: ...


class Images(Protocol):
    """Iterators of Json are Docker's progress messages (status, id, progressDetail, stream, aux,
    error); a failure after the first message is raised by the iterator as a GemelError."""

    async def list(self, all: bool, filters: Filters) -> Jsons: ...
    async def inspect(self, ref: str) -> Json: ...
    async def history(self, ref: str) -> Jsons: ...
    async def tag(self, ref: str, repo: str, tag: str) -> None: ...
    async def remove(self, ref: str, force: bool, noprune: bool) -> Jsons: ...
    async def prune(self, filters: Filters) -> Json: ...
    def pull(self, ref: str, auth: Json | None, platform: str) -> AsyncIterator[Json]: ...
    def push(self, ref: str, auth: Json | None) -> AsyncIterator[Json]: ...
    def load(self, tar: AsyncIterator[bytes]) -> AsyncIterator[Json]: ...
    def save(self, refs: Sequence[str]) -> AsyncIterator[bytes]: ...
    def build(
        self,
        context: AsyncIterator[bytes],
        options: Mapping[str, str],
        auth: Json | None,
    ) -> AsyncIterator[Json]:
        """options: the query parameters of Docker's POST /build, plus gemel's own."""
        ...

    async def build_secrets(self, body: Mapping[str, object]) -> Json:
        """Keeps secrets for one build: ``{"Id": TOKEN}``, its parameter ``secrets``."""
        ...

    def bootstrap(self, ref: str, suite: str, packages: Sequence[str]) -> AsyncIterator[Json]:
        """A base image from Debian's packages, no registry needed."""
        ...

    async def distribution(self, ref: str, auth: Json | None) -> Json:
        """What a registry has under a name: Descriptor and Platforms."""
        ...

    async def artifact(self, ref: str, auth: Json | None, kinds: Sequence[str]) -> Json:
        """An artifact that is no image, of one of these types: Digest, and in base64 Manifest,
        Index ("" or the list that the name stands for), Blobs by digest."""
        ...

    async def push_artifact(
        self, ref: str, auth: Json | None, manifest: bytes, blobs: Sequence[bytes]
    ) -> Json:
        """Sends one to its registry: Digest and Size of its manifest."""
        ...

    async def prune_build_cache(self, filters: Filters) -> Json: ...

    def remote_tar(self, url: str) -> tuple[str, AsyncIterator[bytes]]:
        """An archive that this machine fetches, and words for where from. Raises InvalidInput."""
        ...

    def import_tar(
        self, tar: AsyncIterator[bytes], repo: str, tag: str, message: str, changes: Sequence[str]
    ) -> AsyncIterator[Json]: ...


class Networks(Protocol):
    async def list(self, filters: Filters) -> Jsons: ...
    async def inspect(self, ref: str) -> Json: ...
    async def create(self, request: NetworkCreate) -> Json: ...
    async def remove(self, ref: str) -> None: ...
    async def connect(self, ref: str, container: str, settings: EndpointSettings) -> None: ...
    async def disconnect(self, ref: str, container: str, force: bool) -> None: ...
    async def prune(self, filters: Filters) -> Json: ...


class Volumes(Protocol):
    async def list(self, filters: Filters) -> Json: ...
    async def inspect(self, ref: str) -> Json: ...
    async def create(self, request: VolumeCreate) -> Json: ...
    async def remove(self, ref: str, force: bool) -> None: ...
    async def prune(self, filters: Filters) -> Json: ...


class System(Protocol):
    async def info(self) -> Json: ...
    async def version(self) -> Json: ...
    async def df(self) -> Json: ...
    async def events(self, since: int, until: int, filters: Filters) -> AsyncIterator[Json]:
        """Registers now; times in nanoseconds, 0 for none. Ends at ``until``, else never."""
        ...

    async def auth(self, credentials: Json) -> Json:
        """Tries credentials at a registry (docker login). Raises Unauthorized, Unavailable."""
        ...

    async def doctor(self) -> Jsons:
        """Checks of the host: name, status (ok, warning, missing), details, resolution."""
        ...

    def fetch_kernel(self) -> AsyncIterator[Json]:
        """Makes the guest kernel ready and tries KVM: messages with ``status``."""
        ...

    async def kernels(self) -> Jsons:
        """The guest kernels that are here: name, version, kind, whether it is used."""
        ...

    def build_kernel(self, jobs: int | None, use: bool) -> AsyncIterator[Json]:
        """Builds the own small kernel, and chooses it with ``use``: messages with ``status``."""
        ...

    async def use_kernel(self, name: str) -> Json:
        """Chooses the guest kernel of what starts from now on. Raises NotFound, Conflict."""
        ...

    async def shutdown(self) -> None: ...


class Observing(Protocol):
    """What services say to each other."""

    async def start(self) -> bool:
        """Makes sure that traffic is recorded; True if that begins now."""
        ...

    async def stop(self) -> None: ...
    def lines(self, query: Query) -> AsyncIterator[bytes]:
        """Exchanges as JSON lines, oldest first."""
        ...

    async def show(self, id: str) -> Json: ...
    async def metrics(self) -> str:
        """Prometheus' text format."""
        ...


class Tracing(Protocol):
    """Calls and OpenTelemetry's data, joined to traces."""

    def lines(self, ask: Ask) -> AsyncIterator[bytes]:
        """JSON lines: traces, oldest first, or what else is asked for."""
        ...

    async def show(self, ask: Ask) -> Json:
        """One trace whole."""
        ...


class Faults(Protocol):
    """Faults between two services, on demand."""

    async def add(self, wanted: FaultRequest) -> Json: ...
    async def list(self) -> Jsons: ...
    async def clear(self, number: int | None) -> Json: ...


class Replays(Protocol):
    """Recorded answers in the place of services."""

    async def begin(self, wanted: ReplayRequest) -> Json: ...
    def shown(self) -> Json: ...
    async def end(self) -> None: ...


class Comparing(Protocol):
    """Container or micro VM: measured, chosen, explained."""

    def compare(self, wanted: Wanted) -> AsyncIterator[Json]:
        """Messages with ``status``; the last has the ``report``."""
        ...

    async def reports(self) -> Jsons: ...
    async def preview(self, wanted: CreateRequest) -> Json:
        """What ``runtime: auto`` would be."""
        ...

    async def explain(self, ref: str) -> Json: ...


class Debugging(Protocol):
    """The toolbox of debug sessions, and starts for debuggers."""

    async def start(self, ref: str, halted: bool, env: Sequence[str]) -> None:
        """Starts it stopped before its first instruction, or with further variables, once."""
        ...

    def prepare(self, ref: str) -> AsyncIterator[Json]:
        """Makes it if it is missing, with progress; the last message is ``{"aux": {"ID": …}}``."""
        ...


class Dashboard(Protocol):
    """The page that shows all this, served by a process of its own."""

    def state(self) -> Json: ...
    async def start(self, port: int = 0) -> Json:
        """Makes sure that it runs: ``Url`` lets one browser in, once."""
        ...

    async def stop(self) -> bool: ...


class Reports(Protocol):
    """What is kept of instances that failed."""

    async def list(self) -> Jsons: ...
    async def show(self, id: str) -> Json: ...

    async def archive(self, id: str) -> AsyncIterator[bytes]:
        """One as a zip; what is wrong is raised before the iterator is there."""
        ...

    async def why(self, ref: str) -> Json:
        """What explains the state of an instance, with its report and what has changed."""
        ...


class Engine(Protocol):
    """The whole."""

    containers: Containers
    execs: Execs
    images: Images
    networks: Networks
    volumes: Volumes
    system: System
    observing: Observing
    tracing: Tracing
    faults: Faults
    comparing: Comparing
    replays: Replays
    debugging: Debugging
    reports: Reports
    dashboard: Dashboard
