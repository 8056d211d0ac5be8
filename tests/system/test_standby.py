"""VMs that stand by: an instance takes one over; whatever fails, another clone starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gemel.host import memfile
from gemel.host.run import run
from gemel.model.instance import InstanceSpec
from gemel.model.paths import Paths
from gemel.runtime.microvm import relay
from gemel.runtime.microvm.protocol import Record, encode_records
from gemel.runtime.microvm.runtime import MicroVmRuntime
from tests.conformance.conftest import KINDS, Harness, Image
from tests.conformance.conftest import image as image
from tests.engine import IMAGE, EngineProcess
from tests.system.conftest import _engine
from tests.system.relayfake import DEADLINE, Fake, fake
from tests.system.relayfake import sanitized as sanitized
from tests.system.test_clones import CLOCK, FACTS, bridge, clock_error, nic, runtime
from tests.system.test_clones import with_machine_id as with_machine_id

pytestmark = pytest.mark.root

__all__ = ["bridge", "fake"]

STOOD_BY = ("cloned", "it stood by")


class Standing:
    """A relay under sanitizers whose fake guest stands by."""

    def __init__(self, fake: Fake, mode: str) -> None:
        self.fake = fake
        self.mode = mode
        self.home = fake.folder / "home"
        self.home.mkdir()
        self.disk = fake.folder / "disk"
        self.disk.touch()
        self.files = memfile.make("memory", 4096), memfile.make("state")
        self.answers, self._ready = os.pipe()
        self._orders, self.orders = os.pipe()
        self._told = b""

    def records(self, folder: Path, *extra: Record) -> bytes:
        made = self.fake.records(
            ["echo"],
            [
                ("memory", "12", *map(str, self.files)),
                ("qmp", "13"),
                ("clone-ms", "30000"),
                ("config-ms", "3000" if self.mode == "mute" else "30000"),
                ("disk", "4", str(self.disk), "rw"),
                ("clone-run", "/usr/bin/python3", "-I", "-S", "/guest.py", "standby", self.mode),
                *extra,
            ],
        )
        return encode_records([("dir", str(folder)), *made[1:]])

    async def begin(self) -> None:
        options = f"detect_leaks=0:log_path={self.fake.folder}/sanitizer"
        env = {**os.environ, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": options}
        extra = (
            ("standby", str(self._orders)),
            ("rehearsal", encode_records([("rehearse this",)])),
        )
        await run(
            [str(self.fake.program), str(self._ready)],
            input=self.records(self.home, *extra),
            pass_fds=[self._ready, self._orders, *self.files],
            env=env,
        )
        for fd in (self._ready, self._orders, *self.files):
            os.close(fd)

    async def line(self) -> str:
        """The next that the relay tells; what is left at its end."""
        async with asyncio.timeout(DEADLINE):
            while b"\n" not in self._told:
                more = await asyncio.to_thread(os.read, self.answers, 4096)
                if not more:
                    break
                self._told += more  # two lines may come at once
        line, end, self._told = self._told.partition(b"\n")
        return (line + end).decode()

    def order(self, data: bytes) -> None:
        os.write(self.orders, data)
        os.close(self.orders)
        self.orders = -1

    def close(self) -> None:
        for fd in (self.answers, self.orders):
            if fd >= 0:
                os.close(fd)
        self.answers = self.orders = -1


async def _stands(fake: Fake, mode: str) -> Standing:
    made = Standing(fake, mode)
    await made.begin()
    return made


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("good", ""),
        ("refused", "refuses"),
        ("repeats", ""),
        ("mute", "not set up"),
        ("noise", "a frame that is none"),
    ],
)
async def test_an_instance_takes_it_over(fake: Fake, mode: str, why: str) -> None:
    standing = await _stands(fake, mode)
    try:
        assert await standing.line() == "standby\n"
        standing.order(standing.records(fake.folder, ("adopt", "adopt this\n")))
        assert await standing.line() == "taken\n"
        assert (await standing.line())[:8] == "started "
    finally:
        standing.close()
    word, reason = relay.read_boot(fake.folder)
    assert (word, (why or "it stood by") in reason) == ("cloned", True), reason
    assert not (standing.home / "relay.sock").exists()
    await fake.tell(15)
    assert (await fake.end()).status == 128 + 15


@pytest.mark.parametrize("mode", ["forgets", "speaks", "leaves"])
async def test_one_that_fails_before_it_is_taken(fake: Fake, mode: str) -> None:
    standing = await _stands(fake, mode)
    try:
        said = await standing.line()
        if mode != "forgets":
            assert said == "standby\n"
            said = await standing.line()
        assert said.startswith("error failed "), said
        assert mode != "forgets" or "no words" in said
        async with asyncio.timeout(DEADLINE):
            await relay.ended(standing.home)
    finally:
        standing.close()
    fake.check()


@pytest.mark.parametrize("order", ["noise", "nothing", "another", "gone"])
async def test_orders_that_cannot_be_taken(fake: Fake, order: str) -> None:
    standing = await _stands(fake, "good")
    try:
        assert await standing.line() == "standby\n"
        if order == "gone":
            standing.close()
        elif order == "another":
            standing.order(standing.records(fake.folder, ("adopt", "x"), ("tap", "16", "none")))
        else:
            standing.order(os.urandom(100_000)[:60_000] if order == "noise" else b"")
        if order != "gone":
            assert (await standing.line()).startswith("error failed ")
        async with asyncio.timeout(DEADLINE):
            await relay.ended(standing.home)
    finally:
        standing.close()
    assert not (fake.folder / "relay.sock").exists()
    fake.check()


@pytest.fixture
async def vm(
    tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Harness]:
    """Real micro VMs, with one that stands by."""
    monkeypatch.setenv("GEMEL_MICROVM_STANDBY", "1")
    made = Harness(KINDS["microvm"], Paths(tmp_path / "root", tmp_path / "run"), image)
    await made.runtime.prepare()
    yield made
    await made.close()


async def standing(made: MicroVmRuntime) -> None:
    """Waits until one stands by."""
    async with asyncio.timeout(DEADLINE):
        while not made.boots.standbys._ready:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


LEFT = """
    ip -o addr | grep -v ' lo ' | grep -c 'inet '
    ls -A /w /gemel 2>&1 | grep -vc 'No such'
    grep -c eth0 /proc/net/route
    cat /proc/mounts /etc/hosts 2>&1 | grep -c rehearsal
    grep -c : /proc/net/tcp
    echo all
"""


async def test_each_is_its_own_machine(vm: Harness, bridge: str, with_machine_id: Path) -> None:
    specs: list[InstanceSpec] = []
    for number in range(3):
        network = await nic(bridge, 10 + number)
        script = f"{FACTS}\n{LEFT}\nexec sleep 1000"
        spec = await vm.start(vm.shell(script, network=network, root_image=with_machine_id))
        if number:
            assert runtime(vm).boot(spec.id) == STOOD_BY
        specs.append(spec)
        if number < 2:
            await standing(runtime(vm))
    facts = []
    for number, spec in enumerate(specs):
        await vm.expect(spec, b"reached " + spec.hostname.encode())
        await vm.expect(spec, b"all\n")
        out, err = await vm.output(spec)
        assert err == b""
        row = out.decode().splitlines()
        facts.append(row)
        # of the rehearsal there is nothing: one address, no files, two routes, no connection
        assert row[7:] == ["1", "0", "2", "0", "0", "all"], row
        assert row[3] == f"02:00:0a:4e:00:{10 + number:02x}"
        assert row[4] == spec.hostname
        assert row[5] == spec.id[:32]
    for column in range(6):
        assert len({row[column] for row in facts}) == len(specs), f"two share {facts}"
    errors = sorted([await clock_error(vm, spec) for spec in specs])
    assert errors[1] < CLOCK and errors[-1] < 20 * CLOCK, errors
    users = {_user(vm, spec) for spec in specs}
    assert len(users) == len(specs) and 0 not in users
    usage = await vm.runtime.usage(specs[-1].id)
    assert 0 < usage.pids < 5
    spent = relay.read_spent(vm.paths.instance_run(specs[-1].id))
    assert spent > 0 and usage.true_cpu_ns > 0


def _user(vm: Harness, spec: InstanceSpec) -> int:
    """Of its VMM."""
    pids = relay.read_pids(vm.paths.instance_run(spec.id))
    assert pids is not None
    return os.stat(f"/proc/{pids[1]}").st_uid


async def test_one_that_was_killed_is_not_missed(vm: Harness) -> None:
    await vm.run(vm.spec("true"))
    await standing(runtime(vm))
    (folder,) = (vm.paths.run / "standby").iterdir()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cgroup").read_text()
            if f"standby-{folder.name}" in line and "qemu" in Path(f"/proc/{pid}/comm").read_text():
                os.kill(int(pid), signal.SIGSTOP)
                os.kill(int(pid), signal.SIGKILL)
    got = await vm.run(spec := vm.spec("echo", "fine"))
    assert got.stdout == b"fine\n"
    assert runtime(vm).boot(spec.id)[0] == "cloned"
    assert runtime(vm).boot(spec.id) != STOOD_BY


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    """An engine that keeps a VM ready."""
    monkeypatch.setenv("GEMEL_MICROVM_STANDBY", "1")
    yield from _engine()


def _told(engine: EngineProcess) -> str:
    rows = engine.gemel("doctor", check=False).stdout.splitlines()
    return next(row for row in rows if "stand" in row and "by" in row)


def test_an_engine_that_is_killed_takes_them_along(engine: EngineProcess) -> None:
    request = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "HostConfig": {"Runtime": "microvm"}}
    engine.ok("POST", "/containers/create?name=one", request)
    folder = engine.paths.run / "standby"
    engine.settle(lambda: "1 stands by" in _told(engine), "none stands by")
    done = engine.gemel("run", "--rm", "--runtime", "microvm", IMAGE, "echo", "fine")
    assert done.stdout == "fine\n"
    engine.settle(lambda: "1 stands by" in _told(engine), "none stands by")
    engine.ok("POST", "/containers/one/start")
    told = engine.ok("GET", "/containers/one/json")
    assert (told["Boot"], told["BootReason"]) == STOOD_BY
    engine.settle(lambda: "1 stands by" in _told(engine), "none stands by")
    engine.kill_hard()
    groups = Path("/sys/fs/cgroup").glob(f"*/{engine.paths.cgroup}/standby-*/cgroup.procs")
    for procs in list(groups):
        engine.settle(lambda procs=procs: not procs.read_text(), "it goes on")
    engine.start()
    assert list(folder.iterdir()) == []
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{engine.paths.cgroup}/standby-*"))
    assert engine.ok("GET", "/containers/one/json")["BootReason"] == STOOD_BY[1]
