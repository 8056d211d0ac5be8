"""No field of Docker's API is dropped without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gemel.errors import Unsupported
from gemel.model import docker, fields
from gemel.model.fields import Fate

# All fields of requests in Docker's API, versions 1.24 to 1.51, as its definitions name them.
API: dict[str, str] = {
    "CREATE:": "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty"
    " OpenStdin StdinOnce Env Cmd Healthcheck ArgsEscaped Image Volumes WorkingDir Entrypoint"
    " NetworkDisabled MacAddress OnBuild Labels StopSignal StopTimeout Shell HostConfig"
    " NetworkingConfig",
    "CREATE:HostConfig": "CpuShares Memory CgroupParent BlkioWeight BlkioWeightDevice"
    " BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod"
    " CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices"
    " DeviceCgroupRules DeviceRequests DiskQuota KernelMemory KernelMemoryTCP MemoryReservation"
    " MemorySwap MemorySwappiness NanoCpus OomKillDisable Init InitPath PidsLimit Ulimits CpuCount"
    " CpuPercent IOMaximumIOps IOMaximumBandwidth Binds ContainerIDFile LogConfig NetworkMode"
    " PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom Mounts ConsoleSize Annotations"
    " CapAdd CapDrop Capabilities CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd"
    " IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs"
    " SecurityOpt StorageOpt Tmpfs UTSMode UsernsMode ShmSize Sysctls Runtime Isolation"
    " MaskedPaths ReadonlyPaths",
    "CREATE:HostConfig.LogConfig": "Type Config",
    "CREATE:HostConfig.Mounts.*": "Target Source Type ReadOnly Consistency BindOptions"
    " VolumeOptions TmpfsOptions ImageOptions ClusterOptions",
    "CREATE:HostConfig.Mounts.*.BindOptions": "Propagation NonRecursive CreateMountpoint"
    " ReadOnlyNonRecursive ReadOnlyForceRecursive",
    "CREATE:HostConfig.Mounts.*.VolumeOptions": "NoCopy Labels DriverConfig Subpath",
    "CREATE:HostConfig.Mounts.*.TmpfsOptions": "SizeBytes Mode Options",
    "CREATE:NetworkingConfig.EndpointsConfig.*": "IPAMConfig Links MacAddress Aliases DriverOpts"
    " GwPriority NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address"
    " GlobalIPv6PrefixLen DNSNames",
    "CREATE:NetworkingConfig.EndpointsConfig.*.IPAMConfig": "IPv4Address IPv6Address LinkLocalIPs",
    "NETWORK_CREATE:": "Name CheckDuplicate Driver Scope Internal Attachable Ingress ConfigOnly"
    " ConfigFrom IPAM EnableIPv4 EnableIPv6 Options Labels",
    "NETWORK_CREATE:IPAM": "Driver Config Options",
    "NETWORK_CREATE:IPAM.Config.*": "Subnet IPRange Gateway AuxiliaryAddresses",
    "VOLUME_CREATE:": "Name Driver DriverOpts Labels ClusterVolumeSpec",
    "EXEC_CREATE:": "AttachStdin AttachStdout AttachStderr ConsoleSize DetachKeys Tty Env Cmd"
    " Privileged User WorkingDir",
    "CONTAINER_UPDATE:": "CpuShares Memory CgroupParent BlkioWeight BlkioWeightDevice"
    " BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod"
    " CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices"
    " DeviceCgroupRules DeviceRequests KernelMemory KernelMemoryTCP MemoryReservation MemorySwap"
    " MemorySwappiness NanoCpus OomKillDisable Init PidsLimit Ulimits CpuCount CpuPercent"
    " IOMaximumIOps IOMaximumBandwidth RestartPolicy",
}
STRUCTS: dict[str, type[msgspec.Struct]] = {
    "CREATE:": docker.CreateRequest,
    "CREATE:HostConfig": docker.HostConfig,
    "CREATE:HostConfig.LogConfig": docker.LogConfig,
    "CREATE:HostConfig.Mounts.*": docker.MountSpec,
    "CREATE:NetworkingConfig.EndpointsConfig.*": docker.EndpointSettings,
    "CREATE:NetworkingConfig.EndpointsConfig.*.IPAMConfig": docker.EndpointIPAM,
    "NETWORK_CREATE:": docker.NetworkCreate,
    "NETWORK_CREATE:IPAM": docker.IPAM,
    "NETWORK_CREATE:IPAM.Config.*": docker.IPAMPool,
    "VOLUME_CREATE:": docker.VolumeCreate,
    "EXEC_CREATE:": docker.ExecCreate,
}


def table(section: str) -> fields.Table:
    name, _, place = section.partition(":")
    found: fields.Table = getattr(fields, name)[place]
    return found


@pytest.mark.parametrize("section", list(API))
def test_every_field_has_a_fate(section: str) -> None:
    assert set(table(section)) == set(API[section].split())


@pytest.mark.parametrize("section", list(STRUCTS))
def test_what_is_carried_out_is_decoded(section: str) -> None:
    known = {info.encode_name for info in msgspec.structs.fields(STRUCTS[section])}
    done = {name for name, field in table(section).items() if field.fate is Fate.DONE}
    assert {name.lower() for name in done} <= {name.lower() for name in known}


def _within(section: str, value: dict[str, Any]) -> Any:
    body: Any = value
    for part in reversed(section.partition(":")[2].split(".")):
        body = [body] if part == "*" else {part: body} if part else body
    return body


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section in API
        for name, field in table(section).items()
        if field.fate is Fate.WARNED or (field.fate is Fate.REFUSED and field.when)
    ],
)
def test_what_has_no_effect_is_told(section: str, name: str) -> None:
    sections = getattr(fields, section.partition(":")[0])
    field = table(section)[name]
    value: Any = "some" if field.when is None or name != "EnableIPv4" else False
    value = [{}, {}] if name == "Config" else value
    value = {"tag": "x"} if section.endswith("LogConfig") else value
    body = _within(section, {name.upper(): value})
    if field.fate is Fate.REFUSED:
        with pytest.raises(Unsupported, match=name):
            fields.warnings(body, sections)
    else:
        assert fields.warnings(body, sections) == [f"{name} has no effect: {field.why}"]
    for empty in (None, [], "", {}):
        assert fields.warnings(_within(section, {name: empty}), sections) == []


def test_a_body_of_another_shape_is_left_to_the_decoder() -> None:
    for body in (None, [], 3, {"HostConfig": []}, {"HostConfig": {"Mounts": {"a": 1}}}):
        assert fields.warnings(body, fields.CREATE) == []
    assert fields.warnings({"HostConfig": {"MemorySwappiness": -1}}, fields.CREATE) == []


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs/api-fields.md"
    assert page.read_text() == fields.document()
