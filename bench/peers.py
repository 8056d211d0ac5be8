"""The engines that are measured: each on a socket, in folders and namespaces of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.engine import EngineProcess
from tests.images import busybox_tar

from bench import isolation
from bench.wire import Api, Refused, wait_until
from gemel.errors import GemelError
from gemel.model.paths import Paths

TOP = Path(__file__).parents[1]
DOCKERD = Path("/usr/sbin/dockerd")
DOCKER = Path("/usr/bin/docker")
COMPOSE1 = Path("/usr/bin/docker-compose")
COMPOSE2 = TOP / "build/peers/usr/libexec/docker/cli-plugins/docker-compose"
PODMAN = Path("/usr/bin/podman")
#: The image of every measurement, imported from the same archive everywhere.
IMAGE = "bench/busybox:latest"
_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWN_NAMESPACES = ["/usr/bin/unshare", "--net", "--mount", "/bin/sh", "-c"]
_PODMAN_SETTINGS = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=16000:16000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
"""


def version(*argv: str | Path) -> str:
    """First line that a program tells of its version."""
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, timeout=30)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def command(
    argv: Sequence[str | Path], env: dict[str, str], cwd: Path | None = None, timeout: float = 180
) -> str:
    """Standard output of a command. Raises RuntimeError with what it wrote if it failed."""
    done = subprocess.run(
        [*map(str, argv)],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{list(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Peer:
    """An engine with Docker's API."""

    name = ""

    def __init__(self) -> None:
        self.api: Api
        self.env: dict[str, str] = {}
        self.netns = Path("/proc/self/ns/net")

    def import_busybox(self) -> None:
        """The image that all measurements use."""
        repo, _, tag = IMAGE.partition(":")
        where = f"/images/create?fromSrc=-&repo={repo}&tag={tag}"
        self.api.call("POST", where, busybox_tar())

    def remove_all(self) -> None:
        """Every container and network that is left."""
        for one in self.api.call("GET", "/containers/json?all=1"):
            with contextlib.suppress(Refused):
                self.api.call("DELETE", f"/containers/{one['Id']}?force=1&v=1")
        for network in self.api.call("GET", "/networks"):
            if network["Name"] not in ("bridge", "host", "none"):
                with contextlib.suppress(Refused):
                    self.api.call("DELETE", f"/networks/{network['Id']}")

    def stop(self) -> None:
        """Ends it; nothing of it is left."""


class Gemel(Peer):
    """This checkout's engine."""

    name = "gemel"

    def __init__(self, before: Callable[[EngineProcess], None] = lambda _: None) -> None:
        """before: what is to be done to the engine's folders ahead of its start."""
        super().__init__()
        self.engine = EngineProcess()
        self._stack = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="gb", dir="/tmp"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        run = self._stack.enter_context(isolation.memory_folder(self.folder / "run"))
        self.engine.paths = Paths(self.engine.paths.root, run)
        try:
            before(self.engine)
            self.engine.start()
        except BaseException:
            self._stack.close()
            raise
        self.api = Api(self.engine.paths.socket)
        self.env = self.engine.env
        script = Path(sys.executable).parent / "gemel"
        self.cli = [str(script)] if script.exists() else [sys.executable, "-m", "gemel"]

    @property
    def pid(self) -> int:
        """The engine's process."""
        assert self.engine.process is not None
        return self.engine.process.pid

    def stop(self) -> None:
        self.api.close()
        try:
            self.engine.stop()
        finally:
            with contextlib.suppress(GemelError):  # else it goes with this mount namespace
                self._stack.close()


class Dockerd(Peer):
    """Debian's dockerd with its containerd, in a network namespace of its own: it changes
    forwarding and firewall rules there."""

    name = "dockerd"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._cgroup = f"gemel-bench-{os.getpid()}"
        self._stack = contextlib.ExitStack()
        run = self._stack.enter_context(isolation.memory_folder(folder / "run"))
        self._log = folder / "dockerd.log"
        socket = folder / "docker.sock"
        argv = [
            str(DOCKERD),
            f"--host=unix://{socket}",
            f"--data-root={folder / 'data'}",
            f"--exec-root={run / 'exec'}",
            f"--pidfile={run / 'pid'}",
            f"--cgroup-parent=/{self._cgroup}",
            f"--config-file={folder / 'none.json'}",
        ]
        (folder / "none.json").write_text("{}")
        script = 'ip link set lo up; exec "$0" "$@"'
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_OWN_NAMESPACES, script, *argv],
                env={"PATH": _PATH, "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.netns = Path(f"/proc/{self._process.pid}/ns/net")
        self.api = Api(socket)
        self.env = {
            "PATH": _PATH,
            "HOME": str(folder),
            "DOCKER_HOST": f"unix://{socket}",
            "COMPOSE_ANSI": "never",
        }
        try:
            wait_until(self._ready, 60, "dockerd")
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError("dockerd ended:\n" + self._log.read_text()[-2000:])
        return self.api.alive()

    def stop(self) -> None:
        with contextlib.suppress(OSError, Refused):
            self.remove_all()
        self.api.close()
        _end(self._process)
        with contextlib.suppress(GemelError):  # else it goes with this mount namespace
            self._stack.close()
        isolation.remove_cgroup(self._cgroup)


class Podman:
    """Debian's podman with crun: no daemon, a network namespace of its own."""

    name = "podman"

    def __init__(self, folder: Path) -> None:
        self.env = {
            "PATH": _PATH,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }
        (folder / "containers.conf").write_text(_PODMAN_SETTINGS)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(isolation.memory_folder(folder / "run"))
        # a process that does nothing keeps the namespace open
        self._holder = subprocess.Popen(
            ["/usr/bin/unshare", "--net", "/bin/sh", "-c", "ip link set lo up; exec sleep 86400"],
            start_new_session=True,
        )
        self.argv = [
            "/usr/bin/nsenter",
            f"--net=/proc/{self._holder.pid}/ns/net",
            str(PODMAN),
            f"--root={folder / 'root'}",
            f"--runroot={folder / 'run/root'}",
            f"--tmpdir={folder / 'run/tmp'}",
        ]
        try:
            archive = folder / "busybox.tar"
            archive.write_bytes(busybox_tar())
            own = os.readlink("/proc/self/ns/net")
            wait_until(
                lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != own, 10, "namespace"
            )
            command([*self.argv, "import", archive, IMAGE], self.env)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends and removes everything."""
        with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
            command([*self.argv, "rm", "--all", "--force", "--time=0"], self.env)
        with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
            command([*self.argv, "system", "reset", "--force"], self.env)
        _end(self._holder)
        with contextlib.suppress(GemelError):  # else it goes with this mount namespace
            self._stack.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that this one has started."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


class Field:
    """The engines of one run; each is started when a part first asks for it."""

    def __init__(self, folder: Path, wanted: Sequence[str]) -> None:
        self.folder = folder
        self._wanted = wanted
        self._gemel: Gemel | None = None
        self._dockerd: Dockerd | None = None
        self._podman: Podman | None = None
        #: Why a peer is not measured, by its name.
        self.missing: dict[str, str] = {}

    def gemel(self) -> Gemel:
        """This checkout's engine, with the image."""
        if self._gemel is None:
            self._gemel = Gemel()
            self._gemel.import_busybox()
        return self._gemel

    def dockerd(self) -> Dockerd | None:
        """dockerd with the image, or None: not wanted, not there, does not start."""
        if self._dockerd is None and self._may("dockerd", DOCKERD, "Debian's package docker.io"):
            folder = self.folder / "dockerd"
            folder.mkdir()
            try:
                self._dockerd = Dockerd(folder)
                self._dockerd.import_busybox()
            except (RuntimeError, TimeoutError) as error:
                self.missing["dockerd"] = str(error).strip().splitlines()[-1]
        return self._dockerd

    def podman(self) -> Podman | None:
        """podman with the image, or None."""
        if self._podman is None and self._may("podman", PODMAN, "Debian's package podman"):
            folder = self.folder / "podman"
            folder.mkdir()
            try:
                self._podman = Podman(folder)
            except (RuntimeError, TimeoutError) as error:
                self.missing["podman"] = str(error).strip().splitlines()[-1]
        return self._podman

    def compose(self) -> Iterator[tuple[str, Path]]:
        """Compose's programs that can be measured: name and path. They drive dockerd."""
        if self.dockerd() is None:
            return
        if self._may("compose", COMPOSE2, "bench/fetch-peers fetches Compose v2"):
            yield "compose v2", COMPOSE2
        if self._may("compose", COMPOSE1, "Debian's package docker-compose"):
            yield "compose v1", COMPOSE1

    def _may(self, name: str, program: Path, remedy: str) -> bool:
        if name not in self._wanted or name in self.missing:
            return False
        if not program.exists():
            self.missing[f"{name} ({program.name})"] = f"not there: {remedy}"
            return False
        return True

    def close(self) -> None:
        """Ends all of them, whatever goes wrong with one."""
        with contextlib.ExitStack() as stack:
            for peer in (self._gemel, self._dockerd, self._podman):
                if peer is not None:
                    stack.callback(peer.stop)
        shutil.rmtree(self.folder, ignore_errors=True)
