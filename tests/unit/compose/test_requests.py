"""Services as requests to the engine."""

from __future__ import annotations

import pytest

from gemel.compose.builds import build_request
from gemel.compose.requests import Inherited, Prepared, container, network, volume
from gemel.errors import InvalidInput

from .support import Files, loaded, project


def prepared(text: str, service: str = "a", index: int = 1, **more: object) -> Prepared:
    of = project(text, env={"TOKEN": "t0k"})
    return container(of, of.service(service), index, secrets_dir="/state", **more)  # type: ignore[arg-type]


def test_labels_are_those_of_compose() -> None:
    text = "services: {a: {image: x, labels: {own: 1}, depends_on: [b]}, b: {image: y}}"
    made = prepared(text, image_id="sha256:1")
    labels = dict(made.request.labels or {})
    assert len(labels.pop("com.docker.compose.config-hash")) == 64
    assert labels == {
        "own": "1",
        "com.docker.compose.container-number": "1",
        "com.docker.compose.depends_on": "b:service_started:false",
        "com.docker.compose.image": "sha256:1",
        "com.docker.compose.oneoff": "False",
        "com.docker.compose.project": "project",
        "com.docker.compose.project.config_files": "/project/compose.yaml",
        "com.docker.compose.project.working_dir": "/project",
        "com.docker.compose.service": "a",
        "com.docker.compose.version": "2.40.3",
    }
    assert made.name == "project-a-1"


@pytest.mark.parametrize(
    ("text", "hash"),
    [
        ("image: nginx", "daef7adc9ecc59d4881bd1ebc06f26a836d35656f8b5fb0adfdb95b2d856fbd3"),
        (
            'image: nginx, command: [sh, -c, "a <b> && c"], environment: {A: "<&>", B: },'
            ' ports: ["80:80"], volumes: ["/x:/y:ro", "v:/v"], deploy: {replicas: 2, resources:'
            ' {limits: {memory: 64m, cpus: "0.5"}}}, healthcheck: {test: x, interval: 90s},'
            ' networks: {default: {aliases: [q]}}, labels: {z: 1, a: "ü"}',
            "5cee6d58bc4bb5b4cbf4722a89e4c954841df508c146c6c0728dfd051f6e0b50",
        ),
    ],
)
def test_hash_is_that_of_compose(text: str, hash: str) -> None:
    """The values are those that docker-compose 2.40.3 config --hash prints."""
    made = prepared(f"services: {{a: {{{text}}}}}\nvolumes: {{v: }}")
    assert (made.request.labels or {})["com.docker.compose.config-hash"] == hash


def test_hash_ignores_what_makes_no_difference() -> None:
    def of(more: str) -> str:
        made = prepared(f"services: {{a: {{image: x, {more}}}, b: {{image: y}}}}")
        return (made.request.labels or {})["com.docker.compose.config-hash"]

    same = of("command: y")
    for more in ("build: .", "depends_on: [b]", "scale: 3", "pull_policy: always"):
        assert of(f"command: y, {more}") == same
    assert of("command: z") != same
    assert of("command: y, environment: {A: '<&>'}") != same


def test_networks_and_names() -> None:
    text = """
    services:
      a:
        image: x
        networks: {back: {aliases: [db], ipv4_address: 10.0.0.5}, front: {priority: 10}}
        mac_address: 02:00:00:00:00:01
    networks: {back: , front: }
    """
    made = prepared(text, index=2).request
    assert made.host_config is not None and made.networking_config is not None
    assert made.host_config.network_mode == "project_front", "the first by priority"
    endpoints = made.networking_config.endpoints_config or {}
    back, front = endpoints["project_back"], endpoints["project_front"]
    assert back is not None and front is not None and back.ipam_config is not None
    assert back.aliases == ["project-a-2", "a", "db"]
    assert back.ipam_config.ipv4_address == "10.0.0.5"
    assert (front.mac_address, back.mac_address) == ("02:00:00:00:00:01", "")


def test_network_modes_name_containers() -> None:
    text = """
    services:
      a: {image: x, network_mode: "service:b", pid: "service:b", volumes_from: ["b:ro"]}
      b: {image: y, container_name: bee}
    """
    made = prepared(text).request
    assert made.networking_config is None and made.host_config is not None
    assert made.host_config.network_mode == "container:bee"
    assert made.host_config.pid_mode == "container:bee"
    assert made.host_config.volumes_from == ["bee:ro"]


def test_volumes() -> None:
    text = """
    services:
      a:
        image: x
        volumes:
          - data:/data
          - ./conf:/conf:ro,z
          - /anonymous
          - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}
          - {type: volume, source: data, target: /sub, volume: {subpath: s, nocopy: true}}
          - {type: bind, source: /h, target: /h, bind: {create_host_path: false}}
        tmpfs: ["/run:size=5m", /tmp]
    volumes: {data: {name: shared}}
    """
    kept = [Inherited("/anonymous", "f" * 64), Inherited("/of-the-image", "e" * 64)]
    made = prepared(text, inherit=kept).request
    host = made.host_config
    assert host is not None and host.mounts is not None
    assert host.binds == [
        "shared:/data:rw",
        "/project/conf:/conf:ro,z",
        f"{'f' * 64}:/anonymous:rw",
        f"{'e' * 64}:/of-the-image:rw",
    ]
    assert [(m.type, m.source, m.target) for m in host.mounts] == [
        ("tmpfs", "", "/t"),
        ("volume", "shared", "/sub"),
        ("bind", "/h", "/h"),
    ]
    assert host.mounts[0].tmpfs_options == {"SizeBytes": 1 << 20, "Mode": 0o700}
    assert host.mounts[1].volume_options == {"NoCopy": True, "Subpath": "s"}
    assert host.tmpfs == {"/run": "size=5m", "/tmp": ""}
    assert prepared(text).request.volumes == {"/anonymous": {}}


def test_secrets_and_configs_are_placed_or_bound() -> None:
    text = """
    services:
      a:
        image: x
        secrets: [file, {source: env, target: token, uid: "5", mode: 0400}]
        configs: [{source: text, target: /etc/text}]
    secrets: {file: {file: ./s}, env: {environment: TOKEN}}
    configs: {text: {content: "hello"}}
    """
    made = prepared(text)
    mounts = made.request.host_config.mounts if made.request.host_config else None
    assert mounts is not None and all(m.read_only and m.type == "bind" for m in mounts)
    by_target = {m.target: m.source for m in mounts}
    assert by_target["/run/secrets/file"] == "/project/s"
    config, secret = made.files
    assert (config.content, config.mode, by_target["/etc/text"]) == (b"hello", 0o444, config.path)
    assert (secret.content, secret.mode, secret.uid) == (b"t0k", 0o400, 5)
    assert by_target["/run/secrets/token"] == secret.path
    assert secret.path.startswith("/state/project/secrets/env-")


def test_process_and_limits() -> None:
    text = """
    services:
      a:
        image: x
        command: run "two words"
        entrypoint: []
        environment: {B: 2, A: 1, BARE: }
        ports: ["127.0.0.1:8080-8081:80-81", "53:53/udp", "9"]
        expose: ["7000-7001"]
        restart: on-failure:3
        stop_grace_period: 1m30s
        healthcheck: {test: [CMD, ok], interval: 1s500ms, retries: 3}
        deploy: {resources: {limits: {cpus: "0.5", memory: 64m, pids: 9}}}
        ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}
        extra_hosts: ["h:1.2.3.4"]
        init: true
    """
    made = prepared(text).request
    host = made.host_config
    assert host is not None and made.healthcheck is not None
    assert (made.cmd, made.entrypoint) == (["run", "two words"], [])
    assert made.env == ["A=1", "B=2", "BARE"]
    assert made.stop_timeout == 90
    assert sorted(made.exposed_ports or {}) == [
        "53/udp",
        "7000/tcp",
        "7001/tcp",
        "80/tcp",
        "81/tcp",
        "9/tcp",
    ]
    bindings = {
        k: [(b.host_ip, b.host_port) for b in v or ()] for k, v in host.port_bindings.items()
    }  # type: ignore[union-attr]
    assert bindings == {
        "80/tcp": [("127.0.0.1", "8080")],
        "81/tcp": [("127.0.0.1", "8081")],
        "53/udp": [("", "53")],
        "9/tcp": [("", "")],
    }
    assert host.restart_policy is not None and host.restart_policy.maximum_retry_count == 3
    assert (made.healthcheck.interval, made.healthcheck.retries) == (1_500_000_000, 3)
    assert (host.nano_cpus, host.memory, host.pids_limit) == (500_000_000, 64 << 20, 9)
    assert [(u.name, u.soft, u.hard) for u in host.ulimits or ()] == [
        ("nofile", 5, 5),
        ("nproc", 1, 2),
    ]
    assert host.extra_hosts == ["h:1.2.3.4"] and host.init is True


def test_oneoff() -> None:
    made = prepared("services: {a: {image: x}}", oneoff="abc123", auto_remove=True)
    labels = made.request.labels or {}
    assert made.name == "project-a-run-abc123"
    assert labels["com.docker.compose.oneoff"] == "True"
    assert "com.docker.compose.container-number" not in labels
    assert made.request.host_config is not None and made.request.host_config.auto_remove
    endpoints = made.request.networking_config.endpoints_config  # type: ignore[union-attr]
    assert endpoints["project_default"].aliases == ["project-a-run-abc123"]  # type: ignore[index,union-attr]


def test_resources() -> None:
    text = """
    services: {a: {image: x}}
    networks: {default: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}, labels: {x: 1}}}
    volumes: {v: {driver_opts: {type: none}}}
    """
    of = project(text)
    made = network(of, "default")
    assert made.ipam is not None and made.ipam.config is not None
    assert (made.name, made.internal) == ("project_default", True)
    assert made.ipam.config[0].subnet == "10.9.0.0/24"
    assert (made.labels or {})["com.docker.compose.network"] == "default"
    disk = volume(of, "v")
    assert (disk.name, disk.driver, disk.driver_opts) == ("project_v", "local", {"type": "none"})
    assert (disk.labels or {})["com.docker.compose.volume"] == "v"


def test_hashes_of_resources_are_those_of_compose() -> None:
    """The values are those of the labels that docker-compose 2.40.3 up writes."""
    text = """
    name: app
    services: {a: {image: x}}
    networks:
      back: {internal: true, ipam: {config: [{subnet: 10.77.0.0/24}]}}
      front: {labels: {z: 1}, driver_opts: {com.docker.network.bridge.name: gfr0}}
    volumes: {data: {labels: {y: 2}}}
    """
    of = project(text)
    made = [network(of, n) for n in ("default", "back", "front")] + [volume(of, "data")]
    assert [(r.labels or {})["com.docker.compose.config-hash"] for r in made] == [
        "5bc26a000c5eed3f0790e0f619d5d5b11b65014ddb02de86ecfa82c71c5bd5e6",
        "cdffa6ef4e138a72a8afebf1f77e26131a1317ed10124e51b1c0fdced8e6f0d4",
        "462b28beb4cd7b764d4e790d5cc07f81827e812b161f6d6495f92a981b031a39",
        "b2b5660c1a966fab9832270b950c98394dd7bb31a2cf377e3caac58417e57281",
    ]


def test_builds() -> None:
    text = """
    services:
      a:
        build:
          context: ./app
          args: {A: 1, FROM_ENV: , NOWHERE: }
          target: t
          additional_contexts: {base: "service:b"}
          secrets: [s]
          tags: ["x:1"]
      b: {build: {context: ., dockerfile_inline: "FROM scratch"}, image: bee}
      far: {build: "https://example.com/r.git"}
    secrets: {s: {file: s}}
    """
    of = loaded(text, env={"FROM_ENV": "e"}).project
    made = build_request(of, of.service("a"), args={"A": "2", "EXTRA": "3"}, nocache=True)
    assert made.context == "/project/app" and made.dockerfile == "Dockerfile"
    assert made.args == {"A": "2", "FROM_ENV": "e", "EXTRA": "3"}
    assert made.tags == ("project-a", "x:1") and made.nocache and made.target == "t"
    assert made.additional_contexts == {"base": "docker-image://bee"}
    assert made.secrets == (("s", "/project/s", None),)
    inline = build_request(of, of.service("b"))
    assert (inline.dockerfile, inline.dockerfile_inline) == ("", "FROM scratch")
    far = build_request(of, of.service("far"))
    assert far.remote and "example.com" in far.context and not made.remote
    given = {"ssh": {"k": "/key"}, "secrets": (("t", "/t", None),), "limits": {"memory": 1}}
    more = build_request(of, of.service("a"), more=given)
    assert more.secrets == (("s", "/project/s", None), ("t", "/t", None))
    assert (more.ssh, more.limits) == ({"k": "/key"}, {"memory": 1})


def test_seccomp_profile_is_read() -> None:
    of = project('services: {a: {image: x, security_opt: ["seccomp:p.json", "no-new-privileges"]}}')
    reader = Files({"p.json": '{"defaultAction": "SCMP_ACT_ALLOW"}', "bad.json": "no"})
    made = container(of, of.service("a"), 1, secrets_dir="/s", reader=reader).request.host_config
    assert made is not None and made.security_opt == [
        'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',
        "no-new-privileges",
    ]
    of = project("services: {a: {image: x, security_opt: ['seccomp=bad.json']}}")
    with pytest.raises(InvalidInput, match="no seccomp profile"):
        container(of, of.service("a"), 1, secrets_dir="/s", reader=reader)


def test_env_files_of_a_service_enabled_by_name() -> None:
    text = """
    services:
      a: {image: x}
      good: {image: x, profiles: [p], env_file: there.env}
      bad: {image: x, profiles: [p], env_file: missing.env}
    """
    of = loaded(text, files={"there.env": "A=1"}).project.enabling(["good", "bad"])
    assert container(of, of.service("good"), 1, secrets_dir="/s").request.env == ["A=1"]
    with pytest.raises(InvalidInput, match=r"missing\.env"):
        container(of, of.service("bad"), 1, secrets_dir="/s")
