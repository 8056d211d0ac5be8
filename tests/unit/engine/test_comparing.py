"""Comparisons: the request beside the service, the figures read, the advice that follows."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.engine.comparing import advise, isolation, load, request
from gemel.engine.comparing.experiment import first_port
from gemel.engine.comparing.service import check
from gemel.errors import Failed, InvalidInput
from gemel.model.comparison import Isolation, Load, Report, Use, Variant, Wanted
from gemel.model.docker import (
    CreateRequest,
    EndpointSettings,
    HostConfig,
    MountSpec,
    NetworkingConfig,
    PortBinding,
)
from gemel.model.instance import RuntimeName

C, M = RuntimeName.CONTAINER, RuntimeName.MICROVM


def service() -> CreateRequest:
    return CreateRequest(
        image="shop/orders",
        labels={"com.docker.compose.project": "shop", "mine": "yes", "gemel.hooks": "{}"},
        exposed_ports={"9000/udp": {}, "8080/tcp": {}},
        host_config=HostConfig(
            runtime="auto",
            network_mode="shop_default",
            port_bindings={"8080/tcp": [PortBinding(host_port="80")]},
            binds=["data:/data:rw", "/src:/src"],
            mounts=[
                MountSpec(type="volume", source="more", target="/more"),
                MountSpec(type="bind", source="/etc/x", target="/x"),
            ],
            auto_remove=True,
        ),
        networking_config=NetworkingConfig(
            endpoints_config={"shop_default": EndpointSettings(aliases=["orders"])}
        ),
    )


def test_it_runs_beside_the_service_without_touching_it() -> None:
    made = request.bare(service(), M, snapshot="off")
    host = made.host_config
    assert host is not None and made.networking_config is not None
    assert host.port_bindings is None
    assert host.runtime == "microvm"
    assert host.binds == ["/src:/src:ro"]
    assert [(m.source, m.read_only) for m in host.mounts or []] == [("", False), ("/etc/x", True)]
    ends = made.networking_config.endpoints_config
    assert ends == {"shop_default": EndpointSettings()}  # not under the service's name
    assert made.labels == {"mine": "yes", "gemel.comparison": "true", "gemel.snapshot": "off"}
    assert request.volumes(service()) == {"/data": {}}
    assert len(request.notes(service())) == 2
    assert not request.notes(CreateRequest(image="x"))


def test_what_shares_a_network_has_no_choice() -> None:
    shared = CreateRequest(image="x", host_config=HostConfig(network_mode="host"))
    with pytest.raises(InvalidInput, match="network_mode: host"):
        request.bare(shared, M)


def test_the_port_is_the_lowest_tcp_port() -> None:
    assert first_port(service()) == 8080
    with pytest.raises(InvalidInput, match="on which port"):
        first_port(CreateRequest(image="x", exposed_ports={"53/udp": {}}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "items"},
        {"path": "/a b"},
        {"rounds": 0},
        {"rounds": 21},
        {"seconds": 0.1},
        {"concurrency": []},
        {"concurrency": [0]},
        {"concurrency": [1, 2, 3, 4, 5, 6, 7]},
        {"port": 70000},
        {"headers": {"a\r\nb": "c"}},
        {"headers": {"a": "c\nd"}},
    ],
)
def test_bad_requests(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        check(Wanted(container=CreateRequest(image="x"), **wrong))  # type: ignore[arg-type]


def test_figures_of_wrk() -> None:
    told = load.parse(
        "Running 1s test\nGEMEL "
        '{"requests":1000,"duration":2000000,"p50":100,"p95":200,"p99":300,"status":10,"broken":1}'
    )
    assert told.per_second == 495
    with pytest.raises(Failed, match="no figures"):
        load.parse("unable to connect")


SEEN = (
    b'noise\n{"Kernel":"6.1","KernelVersion":"#1","Capabilities":"00000000000000a1",'
    b'"BoundingSet":"0","Seccomp":"2","NoNewPrivs":"0","BootId":"b","MemTotal":"1 kB",'
    b'"Processors":1,"CommandLine":"quiet","Product":"","Partitions":3,"Modules":2,'
    b'"LoadAverage":"0","Allowed":["ptrace","bpf"],"Tried":22}\n'
)
HOST = isolation.Host("6.18", "a", "24 kB", 2, "root=x", "PC", 9)


def test_isolation_of_a_guest_and_of_a_container() -> None:
    seen = isolation.read(SEEN)
    inside = isolation.judge(M, seen, HOST)
    assert (inside.shares_kernel, inside.host_facts) == (False, [])
    assert inside.capabilities == ["chown", "kill", "setuid"]
    assert inside.reaches == ["bpf", "ptrace"]
    same = msgspec.structs.replace(HOST, boot_id="b", mem_total="1 kB", processors=1)
    outside = isolation.judge(C, seen, same)
    assert outside.shares_kernel
    assert "its memory" in outside.host_facts and "its kernel" in outside.host_facts


@given(st.binary(max_size=400))
def test_a_hostile_probe_is_an_error_at_worst(noise: bytes) -> None:
    try:
        isolation.read(noise)
    except Failed:
        return
    raise AssertionError("noise was taken for an answer")


def report(work: float, p99: float, cpu: float) -> Report:
    def of(runtime: RuntimeName, rate: float, slow: float, cost: float) -> Load:
        return Load(
            runtime=runtime,
            connections=16,
            requests_per_second=[rate],
            p99=[slow],
            cpu_per_request=[cost],
        )

    return Report(
        name="x",
        image="x",
        image_id="sha256:1",
        when="2026-01-01T00:00:00Z",
        accelerator="KVM",
        processors=2,
        url="/",
        rounds=1,
        seconds=1,
        variants=[
            Variant(name="container", runtime=C, start=[0.1]),
            Variant(name="microvm cloned", runtime=M, start=[0.2]),
        ],
        load=[of(C, 1000, 0.01, 1e-4), of(M, 1000 * work, 0.01 * p99, 1e-4 * cpu)],
        use=[Use(runtime=C, memory_load=[1e7]), Use(runtime=M, memory_load=[5e7])],
        isolation=[Isolation(runtime=M, kernel="6.1", shares_kernel=False)],
    )


@pytest.mark.parametrize(
    ("work", "p99", "cpu", "runtime"),
    [(0.9, 1.2, 1.3, M), (0.3, 1.2, 1.3, C), (0.9, 4.0, 1.3, C), (0.9, 1.2, 6.0, C)],
)
def test_advice(work: float, p99: float, cpu: float, runtime: RuntimeName) -> None:
    told = advise.advise(report(work, p99, cpu))
    assert told.runtime is runtime
    assert len(told.reasons) >= 5


@given(st.floats(-0.03, 0.03))
def test_runs_that_differ_little_agree(noise: float) -> None:
    for work in (0.05, 0.3, 0.9):
        told = advise.advise(report(work, 1.2, 1.3)).runtime
        assert advise.advise(report(work * (1 + noise), 1.2, 1.3)).runtime is told


def test_what_does_not_come_up_is_not_recommended() -> None:
    broken = report(1, 1, 1)
    broken.variants[1].start = []
    broken.variants[1].failure = "exec format error"
    told = advise.advise(broken)
    assert told.runtime is C
    assert "exec format error" in told.reasons[0]
