"""From a request and an image to what runs."""

from __future__ import annotations

import pytest

from gemel.engine import mountspecs, resolve
from gemel.errors import InvalidInput, Unsupported
from gemel.model.docker import (
    CreateRequest,
    HostConfig,
    MountSpec,
    PortBinding,
    RestartPolicy,
    UlimitSpec,
)
from gemel.model.image import HealthConfig, Image, ImageConfig
from gemel.model.instance import RuntimeName

IMAGE = Image(
    id="sha256:" + "0" * 64,
    config=ImageConfig(
        env=["PATH=/bin", "A=image"],
        entrypoint=["/entry"],
        cmd=["default"],
        working_dir="/srv",
        user="app",
        labels={"from": "image", "both": "image"},
        volumes={"/data": {}},
        exposed_ports={"80/tcp": {}},
        healthcheck=HealthConfig(test=["CMD", "true"], retries=2),
    ),
)


def test_the_images_defaults_are_taken() -> None:
    full = resolve.effective(CreateRequest(image="x"), IMAGE)
    assert resolve.argv(full) == ["/entry", "default"]
    assert (full.working_dir, full.user) == ("/srv", "app")
    assert full.healthcheck == IMAGE.config.healthcheck


def test_an_own_entrypoint_drops_the_images_command() -> None:
    full = resolve.effective(CreateRequest(image="x", entrypoint=["/own"]), IMAGE)
    assert resolve.argv(full) == ["/own"]


def test_an_empty_entrypoint_leaves_the_command_alone() -> None:
    full = resolve.effective(CreateRequest(image="x", entrypoint=[""], cmd=["sh"]), IMAGE)
    assert resolve.argv(full) == ["sh"]


def test_an_own_command_keeps_the_images_entrypoint() -> None:
    full = resolve.effective(CreateRequest(image="x", cmd=["own"]), IMAGE)
    assert resolve.argv(full) == ["/entry", "own"]


def test_without_any_command_it_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no command specified"):
        resolve.effective(CreateRequest(image="x"), Image(id="sha256:1"))


def test_environment_and_labels_are_merged_by_key() -> None:
    request = CreateRequest(image="x", env=["A=own", "B=1", "PATH"], labels={"both": "own"})
    full = resolve.effective(request, IMAGE)
    assert full.labels == {"from": "image", "both": "own"}
    # PATH was taken out by name (which is shown so), so Docker's default takes its place
    assert full.env is not None
    assert full.env[0].startswith("PATH=/usr/local/sbin")
    assert full.env[1:] == ["PATH", "A=own", "B=1"]


def test_a_health_check_can_be_turned_off() -> None:
    request = CreateRequest(image="x", healthcheck=HealthConfig(test=["NONE"]))
    full = resolve.effective(request, IMAGE)
    assert full.healthcheck is not None
    assert full.healthcheck.test == ["NONE"]


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("", RuntimeName.CONTAINER),
        ("runc", RuntimeName.CONTAINER),
        ("io.containerd.runc.v2", RuntimeName.CONTAINER),
        ("microvm", RuntimeName.MICROVM),
        ("io.containerd.kata.v2", RuntimeName.MICROVM),
    ],
)
def test_names_of_runtimes(name: str, runtime: RuntimeName) -> None:
    assert resolve.runtime(name) is runtime


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown or invalid runtime name: gvisor"):
        resolve.runtime("gvisor")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 15),
        ("SIGKILL", 9),
        ("kill", 9),
        ("9", 9),
        ("USR1", 10),
        ("RTMIN+3", 37),
        ("RTMAX-1", 63),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert resolve.signal_number(text) == number


@pytest.mark.parametrize("text", ["NOPE", "0", "65", "RTMIN+99", "-1", "SIG"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid signal"):
        resolve.signal_number(text)


def test_binds() -> None:
    point = mountspecs.bind("/src:/dst/../data:ro")
    assert (point.kind, point.source, point.target, point.readonly) == (
        "bind",
        "/src",
        "/data",
        True,
    )
    point = mountspecs.bind("cache:/var/cache:nocopy")
    assert (point.kind, point.name, point.nocopy) == ("volume", "cache", True)


@pytest.mark.parametrize("text", ["/a:b", "/a:/", "a/b:/x", "/a:/b:nonsense", ":/x", "/a:/b:ro:z"])
def test_binds_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        mountspecs.bind(text)


def test_explicit_mounts_win_over_the_images_volumes() -> None:
    request = CreateRequest(
        image="x",
        host_config=HostConfig(
            binds=["/mine:/data"],
            mounts=[MountSpec(type="tmpfs", target="/scratch", tmpfs_options={"SizeBytes": 4096})],
            tmpfs={"/run": "size=1m,mode=755"},
        ),
    )
    points = {p.target: p for p in mountspecs.mounts(resolve.effective(request, IMAGE), [])}
    assert points["/data"].source == "/mine"
    assert points["/scratch"].size == 4096
    assert (points["/run"].size, points["/run"].mode) == (1 << 20, 0o755)


def test_one_target_twice_is_refused() -> None:
    request = CreateRequest(image="x", host_config=HostConfig(binds=["/a:/x", "b:/x"]))
    with pytest.raises(InvalidInput, match="Duplicate mount point: /x"):
        mountspecs.mounts(resolve.effective(request, IMAGE), [])


def test_ports() -> None:
    host = HostConfig(
        port_bindings={
            "80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")],
            "53/udp": None,
        },
        publish_all_ports=True,
    )
    request = CreateRequest(host_config=host, exposed_ports={"80/tcp": {}, "9000": {}})
    assert resolve.wanted_ports(request) == [
        ("127.0.0.1", "8080", 80, "tcp"),
        ("", "", 53, "udp"),
        ("", "", 9000, "tcp"),
    ]


def test_limits() -> None:
    limits = resolve.resources(HostConfig(memory=64 << 20, nano_cpus=500_000_000, pids_limit=-1))
    assert (limits.memory, limits.cpus, limits.pids) == (64 << 20, 0.5, None)
    with pytest.raises(InvalidInput, match="6MB"):
        resolve.resources(HostConfig(memory=1000))
    with pytest.raises(InvalidInput, match="ulimit nofile"):
        resolve.resources(HostConfig(ulimits=[UlimitSpec(name="nofile", soft=20, hard=10)]))


def test_security_options() -> None:
    security = resolve.security(
        HostConfig(
            security_opt=["no-new-privileges:true", "seccomp=unconfined"], cap_add=["net_admin"]
        )
    )
    assert security.no_new_privileges
    assert security.seccomp == "unconfined"
    assert security.cap_add == ("CAP_NET_ADMIN",)
    with pytest.raises(Unsupported):
        resolve.security(HostConfig(security_opt=["credentialspec=file://x"]))


def test_restart_policies_that_docker_refuses() -> None:
    with pytest.raises(InvalidInput):
        resolve.check_restart(HostConfig(restart_policy=RestartPolicy(name="sometimes")))
    with pytest.raises(InvalidInput, match="on-failure"):
        resolve.check_restart(
            HostConfig(restart_policy=RestartPolicy(name="always", maximum_retry_count=3))
        )
    with pytest.raises(InvalidInput, match="AutoRemove"):
        resolve.check_restart(
            HostConfig(auto_remove=True, restart_policy=RestartPolicy(name="always"))
        )
