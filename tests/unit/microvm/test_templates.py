"""Which templates are kept, with guests that hold nothing."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from gemel.errors import Failed
from gemel.host import memfile
from gemel.model.paths import Paths
from gemel.runtime.microvm import templates
from gemel.runtime.microvm.kernels import Kernel
from gemel.runtime.microvm.machine import Guest, Limits, Machine
from gemel.runtime.microvm.templates import Kind, Template, Templates, kind_of
from gemel.runtime.microvm.tools import Tools

TOOLS = Tools(
    qemu="/q",
    qemu_version="7",
    relay=Path("/relay"),
    discard=Path("/discard.so"),
    kernel=Kernel("k", "1", Path("/k"), Path("/m")),
    initrd=Path("/i"),
    tsc_khz=None,
    file_server=None,
)
MACHINE = Machine(
    qemu="/q",
    kvm=False,
    memory=1 << 20,
    cpus=1,
    kernel=Path("/k"),
    initrd=Path("/i"),
    command_line="x",
)


def kind(nics: int) -> Kind:
    return Kind("7", False, 1 << 20, 1, "x", nics, ())


class Quick(Templates):
    """Makes empty ones, or fails."""

    made = 0
    fails = False
    delay = 0.0

    async def _make(self, tools: Tools, machine: Machine, kind: Kind) -> Template:
        self.made += 1
        await asyncio.sleep(self.delay)
        if self.fails:
            raise Failed("it burns")
        return Template(Guest(memory=memfile.make("m", 8192), state=memfile.make("s")))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    monkeypatch.setattr(memfile, "available", lambda: 1 << 40)
    return Quick(Paths(tmp_path / "root", tmp_path / "run"), Limits())


async def borrow(kept: Templates, nics: int) -> tuple[bool, str]:
    async with kept.borrow(TOOLS, MACHINE, kind(nics)) as (guest, reason):
        if guest is not None:
            os.fstat(guest.memory)
            os.fstat(guest.state)
        return guest is not None, reason


async def test_one_is_made_for_all_who_wait(kept: Quick) -> None:
    kept.delay = 0.01
    kept.prepare(TOOLS, MACHINE, kind(0))
    got = await asyncio.gather(*(borrow(kept, 0) for _ in range(5)))
    assert set(got) == {(True, "")}
    assert kept.made == 1
    await kept.close()
    assert kept.kinds == []


async def test_the_oldest_are_forgotten(kept: Quick) -> None:
    for nics in range(templates.MOST):
        assert (await borrow(kept, nics))[0]
    assert (await borrow(kept, 0))[0]  # used again
    assert (await borrow(kept, 99))[0]
    assert kind(1) not in kept.kinds
    assert {kind(0), kind(99)} <= set(kept.kinds)
    assert len(kept.kinds) == templates.MOST
    await kept.close()


async def test_their_size_is_bounded(kept: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfile, "used", lambda fd: templates.MOST_BYTES // 4)
    for nics in range(4):
        assert (await borrow(kept, nics))[0]
    assert kept.kinds == [kind(2), kind(3)]
    await kept.close()


async def test_one_that_is_borrowed_may_be_forgotten(kept: Quick) -> None:
    async with kept.borrow(TOOLS, MACHINE, kind(0)) as (guest, _):
        assert guest is not None
        kept.drop(kind(0), "it is broken")
        assert os.fstat(guest.memory).st_size == 8192
    assert await borrow(kept, 0) == (False, "no template could be made: it is broken")


async def test_failures_are_not_repeated_at_once(
    kept: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.fails = True
    for _ in range(3):
        got, reason = await borrow(kept, 0)
        assert (got, "it burns" in reason) == (False, True)
    assert kept.made == 1
    kept.fails = False
    monkeypatch.setattr(templates, "RETRY", 0.0)
    assert (await borrow(kept, 0))[0]
    await kept.close()


async def test_who_waits_too_long_boots_cold(kept: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "PATIENCE", 0.01)
    kept.delay = 60
    assert await borrow(kept, 0) == (False, "its template is not ready yet")
    await kept.close()


async def test_little_memory(kept: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfile, "available", lambda: 1 << 20)
    got, reason = await borrow(kept, 0)
    assert (got, "memory" in reason) == (False, True)
    assert kept.made == 0


def test_what_it_was_made_from_is_part_of_its_kind(tmp_path: Path) -> None:
    names = {name: tmp_path / name for name in ("qemu", "kernel", "initrd", "relay")}
    for path in names.values():
        path.write_text("x")
    tools = msgspec.structs.replace(TOOLS, relay=names["relay"])
    machine = msgspec.structs.replace(
        MACHINE, qemu=str(names["qemu"]), kernel=names["kernel"], initrd=names["initrd"]
    )
    first = kind_of(tools, machine)
    assert kind_of(tools, machine) == first
    for path in names.values():
        path.write_text("changed")
        second = kind_of(tools, machine)
        assert second != first
        first = second
