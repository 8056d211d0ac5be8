"""The facts that the rules of ``runtime: auto`` look at, gathered."""

from __future__ import annotations

import asyncio
import os

from gemel.engine import resolve
from gemel.engine.choosing import rules
from gemel.engine.comparing import reports
from gemel.engine.core import Core
from gemel.errors import GemelError
from gemel.host import memfile
from gemel.model.choice import AUTO, BLOCK_VOLUMES_LABEL, ISOLATION_LABEL, Choice
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import RuntimeName
from gemel.runtime.microvm import artifacts, tools

#: Bytes of a micro VM without a memory limit, and what its kernel needs beside one.
DEFAULT_VM, KERNEL = 256 << 20, 80 << 20
_SOCKETS = ("docker.sock", "gemel.sock")


async def chosen(
    core: Core, name: str, full: CreateRequest, image_id: str
) -> tuple[RuntimeName, Choice | None]:
    """The runtime that a request names or, with ``auto``, the rules choose. Raises InvalidInput."""
    if name != AUTO:
        return resolve.runtime(name), None
    choice = await choose(core, full, image_id)
    return choice.runtime, choice


async def choose(core: Core, request: CreateRequest, image_id: str) -> Choice:
    """What ``auto`` means for a container that is to be made. Raises InvalidInput."""
    return rules.choose(await gather(core, request, image_id))


async def gather(core: Core, request: CreateRequest, image_id: str) -> rules.Facts:
    """See rules.Facts. request: with the image's defaults merged in."""
    host = request.host_config or HostConfig()
    needs = tuple(_needs(host))
    missing = await asyncio.to_thread(_missing)
    kvm, reason = (False, "") if needs or missing else await _accelerator(core)
    exposed, local = _reach(host)
    return rules.Facts(
        needs=needs,
        missing=missing,
        blocks=_blocks(core, request, host),
        kvm=kvm,
        kvm_reason=reason,
        isolation=(request.labels or {}).get(ISOLATION_LABEL, ""),
        exposed=exposed,
        local=local,
        memory_left=memfile.available(),
        memory_needed=host.memory + KERNEL if host.memory else DEFAULT_VM,
        measured=await asyncio.to_thread(reports.measured, core.paths, request, image_id),
    )


def _needs(host: HostConfig) -> list[str]:
    found = []
    if host.privileged:
        found.append("privileged mode")
    for kind, mode in (
        ("network_mode", host.network_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("uts", host.uts_mode),
    ):
        if mode == "host" or mode.startswith("container:"):
            found.append(f"{kind}: {mode}")
    found += [f"the device {device.path_on_host}" for device in host.devices or []]
    if host.device_requests:
        found.append("a GPU or another device of the host")
    sources = [bind.split(":")[0] for bind in host.binds or []]
    sources += [one.source for one in host.mounts or [] if one.type == "bind"]
    found += [f"the socket {s}" for s in sources if os.path.basename(s) in _SOCKETS]
    return found


def _blocks(core: Core, request: CreateRequest, host: HostConfig) -> tuple[str, ...]:
    """Block volumes that there are, and those that who only asks says there will be."""
    names = [bind.split(":")[0] for bind in host.binds or []]
    names += [one.source for one in host.mounts or [] if one.type == "volume"]
    found = {n for n in names if n in core.volumes and core.volumes[n].block}
    told = (request.labels or {}).get(BLOCK_VOLUMES_LABEL, "")
    return tuple(sorted(found | set(filter(None, told.split(",")))))


def _missing() -> str:
    try:
        tools.qemu_program()
        artifacts.find("agent")
        artifacts.find("relay")
    except GemelError as error:
        return error.brief
    return ""


async def _accelerator(core: Core) -> tuple[bool, str]:
    examine = getattr(core.runtimes[RuntimeName.MICROVM], "verdict", None)
    if examine is None:
        return False, ""
    try:
        verdict = await examine()
    except GemelError as error:
        return False, error.brief
    return bool(verdict.usable_kvm), str(verdict.reason)


def _reach(host: HostConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Published ports that other machines reach, and those of this machine alone."""
    exposed: list[str] = []
    local: list[str] = []
    for port, bindings in sorted((host.port_bindings or {}).items()):
        for binding in bindings or []:
            number = binding.host_port or "any"
            to = (
                local
                if binding.host_ip.startswith("127.") or binding.host_ip == "::1"
                else (exposed)
            )
            to.append(f"{binding.host_ip or '0.0.0.0'}:{number}→{port}")
    return tuple(dict.fromkeys(exposed)), tuple(dict.fromkeys(local))
