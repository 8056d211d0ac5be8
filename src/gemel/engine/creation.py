"""Making a container's record, everything checked before anything is kept."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

import msgspec

from gemel.engine import mountspecs, resolve, spec, suits, volumes
from gemel.engine.choosing import facts
from gemel.engine.core import Core
from gemel.engine.endpoints import endpoints
from gemel.engine.facade import Json
from gemel.engine.records import Container, MountPoint, now
from gemel.errors import Conflict, InvalidInput
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.instance import Network, RuntimeName

_ADJECTIVES = (
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "cosy", "crisp",
    "deft", "eager", "fair", "fleet", "fond", "glad", "keen", "kind", "lively", "lucid", "merry",
    "mild", "neat", "noble", "proud", "quick", "quiet", "rapid", "sharp", "sleek", "sound",
    "spry", "stout", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty",
)  # fmt: skip
_NAMES = (
    "badger", "beaver", "bison", "crane", "curlew", "dingo", "eagle", "egret", "falcon", "ferret",
    "finch", "gecko", "heron", "hornet", "ibex", "jackal", "kestrel", "koala", "lemur", "lynx",
    "marten", "marmot", "newt", "ocelot", "osprey", "otter", "panda", "petrel", "plover",
    "puffin", "quail", "raven", "robin", "salmon", "seal", "shrike", "stoat", "swallow", "tapir",
    "tern", "toucan", "viper",
)  # fmt: skip


def random_name() -> str:
    """A name for a container that was given none."""
    return f"{random.choice(_ADJECTIVES)}_{random.choice(_NAMES)}{random.randrange(100)}"


async def create(core: Core, request: CreateRequest, name: str, platform: str = "") -> Container:
    """The record of a new container, its volumes made. Raises NotFound, InvalidInput, Conflict,
    Unsupported; what it had made by then is taken back."""
    if not request.image:
        raise InvalidInput("no image named")
    image = core.images.find(request.image)
    foreign = suits.platform_warnings(image, request.image, platform)
    full = resolve.effective(request, image)
    host = full.host_config or HostConfig()
    runtime, choice = await facts.chosen(core, host.runtime, full, image.id)
    warnings = resolve.refused(full) + foreign
    suits.check_limits(host)
    suits.check_kernel(full, runtime is RuntimeName.CONTAINER)
    resolve.check_restart(host)
    resolve.signal_number(full.stop_signal)
    resolve.resources(host)
    resolve.security(host)
    one = Container(
        id=secrets.token_hex(32),
        name=name,
        created=now(),
        request=full,
        image_id=image.id,
        image_ref=request.image,
        runtime=runtime,
        choice=choice,
        argv=resolve.argv(full),
        warnings=warnings,
    )
    spec.check_capabilities(core, one)
    resolve.wanted_ports(full)
    one.endpoints = await endpoints(core, one)
    try:
        await _storage(core, one)
    except BaseException:
        core.promised -= {(end.network_id, end.address) for end in one.endpoints}
        raise
    if runtime is RuntimeName.MICROVM:
        one.warnings += await emulation_warning(core)
    return one


async def _storage(core: Core, one: Container) -> None:
    """Mounts, volumes and the writable layer; what it had made is taken back if it fails."""
    host = one.request.host_config or HostConfig()
    one.mounts = mountspecs.mounts(one.request, _from_others(core, host))
    made = await _make_sources(core, one)
    try:
        await volumes.fill(core, one)
        rootfs = await core.images.rootfs(core.images.find(one.image_id))
        prepared = spec.build(core, one, rootfs=rootfs, namespace=None, write=False)
        # how many there are tells a micro VM what to make ready
        network = Network(interfaces=spec.interfaces(core, one))
        prepared = msgspec.structs.replace(prepared, network=network)
        core.paths.instance(one.id).mkdir(mode=0o711, parents=True, exist_ok=True)
        await core.runtime(one).create(prepared)
    except BaseException:
        for volume in made:
            await volumes.delete(core, volume)
        raise


async def emulation_warning(core: Core) -> list[str]:
    """Says that micro VMs run without KVM, where that is so. Probes at the first micro VM."""
    examine = getattr(core.runtimes[RuntimeName.MICROVM], "verdict", None)
    if examine is None:
        return []
    found = await examine()
    if found.usable_kvm:
        return []
    return [f"micro VMs run under software emulation, which is slow: {found.reason}"]


def _from_others(core: Core, host: HostConfig) -> list[MountPoint]:
    result = []
    for text in host.volumes_from or []:
        ref, _, mode = text.partition(":")
        for point in core.container(ref).mounts:
            if point.kind != "tmpfs":
                result.append(
                    msgspec.structs.replace(
                        point, readonly=point.readonly or mode == "ro", anonymous=False
                    )
                )
    return result


async def _make_sources(core: Core, one: Container) -> list[volumes.Volume]:
    """Makes missing volumes and bind sources; gives back the volumes it made."""
    made = []
    for point in one.mounts:
        if point.kind == "volume":
            if point.anonymous and not point.name:
                point.name = secrets.token_hex(32)
            volume = core.volumes.get(point.name)
            if volume is None:
                volume = await volumes.make(core, point.name, anonymous=point.anonymous)
                made.append(volume)
            point.source = volume.path
        elif point.kind == "image":
            image = core.images.find(point.name)
            point.name, point.source = image.id, str(await core.images.rootfs(image))
        elif point.kind == "bind":
            source = Path(point.source)
            if not source.exists():
                if not point.create_source:
                    raise InvalidInput(
                        'invalid mount config for type "bind": bind source path does not exist: '
                        f"{point.source}"
                    )
                try:
                    source.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise InvalidInput(
                        f"cannot make the folder {source} to mount", details=str(error)
                    ) from error
    return made


# --- update ----------------------------------------------------------------------------

_UPDATABLE = {
    "CpuShares": "cpu_shares",
    "Memory": "memory",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpusetCpus": "cpuset_cpus",
    "CpusetMems": "cpuset_mems",
    "MemoryReservation": "memory_reservation",
    "MemorySwap": "memory_swap",
    "NanoCpus": "nano_cpus",
    "NanoCPUs": "nano_cpus",
    "PidsLimit": "pids_limit",
}


def updated_host(host: HostConfig, body: Json) -> HostConfig:
    """The host configuration after POST /containers/ID/update. Raises InvalidInput."""
    changes: Json = {field: body[name] for name, field in _UPDATABLE.items() if body.get(name)}
    policy = body.get("RestartPolicy")
    merged: Json = msgspec.to_builtins(host)
    if policy and policy.get("Name"):
        if host.auto_remove and policy["Name"] != "no":
            raise Conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        merged["RestartPolicy"] = policy
    try:
        result = msgspec.convert(merged, HostConfig)
        for field, value in changes.items():
            kind = type(getattr(HostConfig(), field))
            setattr(result, field, str(value) if kind is str else int(value))
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise InvalidInput("the update is not understood", details=str(error)) from error
    resolve.resources(result)
    return result


def limits(host: HostConfig) -> tuple[object, ...]:
    """What of a host configuration is a limit."""
    return tuple(getattr(host, field) for field in sorted(set(_UPDATABLE.values())))
