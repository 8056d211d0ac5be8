"""OCI configurations. Whole ones are compared with tests/golden/container/NAME.json;

GOLDEN=write rewrites those, to be looked at before they are committed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gemel.errors import InvalidInput
from gemel.model.instance import (
    Device,
    GuestFile,
    InstanceSpec,
    Interface,
    Mount,
    MountKind,
    Network,
    Process,
    Resources,
    RuntimeName,
    Security,
    Ulimit,
)
from gemel.runtime.container import bundle, defaults
from gemel.runtime.container.bundle import DeviceNode, Host
from gemel.runtime.container.users import Identity

GOLDEN = Path(__file__).parents[2] / "golden/container"
V1, V2 = Host(cgroup_v2=False, init="/usr/bin/tini-static"), Host(cgroup_v2=True)
PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
}


def spec(**options: Any) -> InstanceSpec:
    id = "ab" * 32
    fields: dict[str, Any] = {
        "id": id,
        "name": "shop-web-1",
        "runtime": RuntimeName.CONTAINER,
        "image_id": "sha256:" + "1" * 64,
        "root_image": Path("/images/root.sqfs"),
        "rootfs": Path("/images/root"),
        "layer": Path("/layer"),
        "process": Process(argv=("serve",)),
        "hostname": "web",
    }
    return InstanceSpec(**(fields | options))


def made(wanted: InstanceSpec, host: Host = V1, **options: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "rootfs": Path("/run/x/rootfs"),
        "cgroup": "/gemel-1/x",
        "identity": Identity(0, 0, (0,), "/root"),
        "profile": PROFILE,
    }
    return bundle.config(wanted, host=host, **(fields | options))


ETH0 = Interface(
    name="eth0",
    host="g1",
    bridge="br",
    mac="02:00:00:00:00:01",
    address="10.89.0.5/24",
    gateway="10.89.0.1",
)
CASES = {
    "plain": (spec(network=Network(namespace=Path("/run/netns/x"), interfaces=(ETH0,))), V2),
    "host-everything": (
        spec(
            pid_mode="host", ipc_mode="host", security=Security(privileged=True, seccomp="default")
        ),
        V1,
    ),
    "full": (
        spec(
            process=Process(
                argv=("sh", "-c", "x"),
                env=("PATH=/bin", "A=1"),
                cwd="/app",
                tty=True,
                size=(24, 80),
            ),
            domainname="example",
            init=True,
            mounts=(
                Mount(kind=MountKind.BIND, target="/data/deep/er", source=Path("/v/2")),
                Mount(kind=MountKind.BIND, target="/data", source=Path("/v/1"), readonly=True),
                Mount(kind=MountKind.TMPFS, target="/t", size=1024, mode=0o700, options=("exec",)),
                Mount(kind=MountKind.TMPFS, target="/dev/shm", size=4096),
            ),
            files=(
                GuestFile(target="/etc/hosts", source=Path("/i/hosts")),
                GuestFile(target="/run/secrets/k", source=Path("/i/k"), readonly=True),
            ),
            resources=Resources(
                memory=64 << 20,
                memory_reservation=32 << 20,
                cpus=1.5,
                cpu_shares=512,
                cpuset="0-1",
                pids=100,
                oom_score_adj=300,
                ulimits=(
                    Ulimit(name="core", soft=0, hard=-1),
                    Ulimit(name="nofile", soft=1, hard=2),
                ),
            ),
            security=Security(
                cap_add=("net_admin", "CAP_SYS_TIME"),
                cap_drop=("MKNOD",),
                no_new_privileges=True,
                readonly_rootfs=True,
            ),
            sysctls=(("net.core.somaxconn", "99"),),
            devices=(Device(source="/dev/fuse", target="/dev/fuse"),),
            network=Network(namespace=Path("/run/netns/x"), interfaces=(ETH0,)),
        ),
        V1,
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_whole_configurations(name: str) -> None:
    wanted, host = CASES[name]
    nodes = [DeviceNode(path="/dev/fuse", kind="c", major=10, minor=229, permissions="rw")]
    shm = Path("/dev/shm" if wanted.ipc_mode == "host" else "/run/x/shm")
    got = made(wanted, host, shm=shm, devices=nodes if wanted.devices else ())
    text = json.dumps(got, indent=1, sort_keys=True) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def test_the_default_set_is_dockers() -> None:
    """The number that /proc/PID/status shows in a Docker container."""
    bits = sum(1 << defaults.ALL_CAPABILITIES.index(name) for name in defaults.CAPABILITIES)
    assert bits == 0xA80425FB


@pytest.mark.parametrize(
    ("security", "wanted"),
    [
        (Security(cap_drop=("ALL",)), []),
        (Security(cap_drop=("all",), cap_add=("chown",)), ["CAP_CHOWN"]),
        (Security(cap_add=("ALL",)), list(defaults.ALL_CAPABILITIES)),
        (Security(privileged=True, cap_drop=("ALL",)), list(defaults.ALL_CAPABILITIES)),
    ],
)
def test_capabilities(security: Security, wanted: list[str]) -> None:
    assert bundle.capabilities(spec(security=security), V1) == wanted
    lesser = Host(cgroup_v2=False, capabilities=("CAP_CHOWN",))
    assert bundle.capabilities(spec(security=security), lesser) in ([], ["CAP_CHOWN"])


def test_unknown_capability() -> None:
    with pytest.raises(InvalidInput, match="invalid capability: CAP_FLY"):
        bundle.capabilities(spec(security=Security(cap_add=("fly",))), V1)


def test_swap_is_left_out_where_it_is_not_counted() -> None:
    counted = bundle.limits(Resources(memory=100), V1)
    assert counted["memory"] == {"limit": 100, "swap": 200}
    blind = Host(cgroup_v2=False, swap_accounting=False)
    assert bundle.limits(Resources(memory=100), blind)["memory"] == {"limit": 100}
    assert bundle.limits(Resources(memory=100, memory_swap=-1), V1)["memory"]["swap"] == -1
    assert bundle.limits(Resources(pids=-1), V1) == {}


def test_a_capability_that_the_engine_lacks() -> None:
    lesser = Host(cgroup_v2=False, capabilities=("CAP_CHOWN",))
    with pytest.raises(InvalidInput, match="cannot add capability CAP_SYS_TIME"):
        bundle.capabilities(spec(security=Security(cap_add=("SYS_TIME",))), lesser)


def test_joined_namespaces_and_their_shm() -> None:
    wanted = spec(pid_mode="/proc/77/ns/pid", ipc_mode="/proc/77/ns/ipc")
    got = made(wanted, shm=Path("/run/other/shm"))
    kinds = {entry["type"]: entry.get("path") for entry in got["linux"]["namespaces"]}
    assert kinds["pid"] == "/proc/77/ns/pid" and kinds["ipc"] == "/proc/77/ns/ipc"
    shm = [mount for mount in got["mounts"] if mount["destination"] == "/dev/shm"]
    assert [mount["source"] for mount in shm] == ["/run/other/shm"]


def test_a_bind_without_source_is_refused() -> None:
    with pytest.raises(InvalidInput):
        made(spec(mounts=(Mount(kind=MountKind.BIND, target="/x"),)))
