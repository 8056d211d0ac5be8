"""The relay, built with sanitizers, with a stand-in for QEMU that may do anything (fakeguest)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gemel.host.run import run
from gemel.model.instance import Exit
from gemel.runtime.microvm import channel, relay
from gemel.runtime.microvm.protocol import (
    SERVICE,
    Record,
    ToGuest,
    encode,
    encode_records,
    encode_u32,
    message,
)
from tests.conformance.conftest import image as image

ROOT = Path(__file__).parents[2]
USER = 0x70000000
DEADLINE = 120.0


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """The relay, built with sanitizers; by one worker at a time, as all build the same file."""
    with (ROOT / "build/guest/.relay-asan.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = ["make", "-s", "-C", str(ROOT / "guest"), "relay-asan"]
        subprocess.run(command, check=True, timeout=240)
    return ROOT / "build/guest/relay-asan"


class Fake:
    """A relay with a fake guest in its own folder."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.log = folder / "log"
        self.user = USER + secrets.randbelow(1 << 24)
        self.script = folder / "guest.py"
        self.script.write_bytes(Path(__file__).with_name("fakeguest.py").read_bytes())

    def records(self, mode: list[str], extra: list[Record]) -> list[Record]:
        return [
            ("dir", str(self.folder)),
            ("log", str(self.log)),
            ("uid", str(self.user)),
            ("gid", str(self.user)),
            ("boot-ms", "30000"),
            ("config-ms", "30000"),
            ("stop-ms", "1000"),
            ("agent", "3"),
            ("bind", str(self.script), "guest.py"),
            ("config", b"".join(message(0, ToGuest.CONFIG, [("loopback",)]))),
            ("start", b"".join(message(SERVICE, ToGuest.START, [("arg", "x")]))),
            *extra,
            ("run", "/usr/bin/python3", "-I", "-S", "/guest.py", *mode),
        ]

    async def start(
        self, *mode: str, extra: tuple[Record, ...] = (), passed: tuple[int, ...] = ()
    ) -> str:
        """What the relay answers to the start."""
        reader, writer = os.pipe()
        input = encode_records(self.records(list(mode), list(extra)))
        options = f"detect_leaks=0:log_path={self.folder}/sanitizer"
        env = {**os.environ, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": options}
        try:
            await run(
                [str(self.program), str(writer)], input=input, pass_fds=[writer, *passed], env=env
            )
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            async with asyncio.timeout(DEADLINE):
                return (await asyncio.to_thread(answer.read)).decode()

    async def end(self) -> Exit:
        """How it ended."""
        async with asyncio.timeout(DEADLINE):
            await relay.ended(self.folder)
        assert (self.folder / "exit").exists()
        return relay.read_exit(self.folder)

    async def tell(self, signal_number: int) -> None:
        await channel.tell(self.folder, encode(SERVICE, ToGuest.SIGNAL, encode_u32(signal_number)))

    def check(self) -> None:
        """No sanitizer has complained, and soon nothing runs any more."""
        assert not [path.read_text() for path in self.folder.glob("sanitizer*")]
        end = time.monotonic() + DEADLINE
        while (left := self._processes()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left

    def _processes(self) -> list[str]:
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if f"Uid:\t{self.user}\t" in status:
                    found.append(status)
        return found


@pytest.fixture
async def fake(sanitized: Path, tmp_path: Path) -> AsyncIterator[Fake]:
    made = Fake(sanitized, tmp_path)
    yield made
    await channel_end(made)
    made.check()


async def channel_end(fake: Fake) -> None:
    """Ends the VM if it still runs."""
    with contextlib.suppress(Exception):
        await channel.tell(fake.folder, encode(0, channel.KILL))
    async with asyncio.timeout(DEADLINE):
        await relay.ended(fake.folder)
