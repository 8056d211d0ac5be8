"""From a create request and an image to what is to run. Pure.

Rules of merging: Docker Engine API v1.47 (ContainerCreate) and dockerd's
behaviour: an own entrypoint drops the image's command; environment and labels
are merged by key; volumes and ports are united.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any

import msgspec

from gemel.engine import mountspecs, probes
from gemel.errors import InvalidInput, Unsupported
from gemel.model.docker import CreateRequest, HostConfig
from gemel.model.image import HealthConfig, Image
from gemel.model.instance import DeviceRule, Resources, RuntimeName, Security, Ulimit

CONTAINER_NAMES = {
    "",
    "container",
    "runc",
    "crun",
    "io.containerd.runc.v2",
    "io.containerd.runtime.v1.linux",
}
MICROVM_NAMES = {"microvm", "kata", "kata-runtime", "kata-qemu", "io.containerd.kata.v2"}

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

SIGNALS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
    "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16,
    "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24,
    "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31,
    "RTMIN": 34, "RTMAX": 64,
}  # fmt: skip


def signal_number(text: str, default: int = 15) -> int:
    """``SIGTERM``, ``TERM``, ``15``, ``RTMIN+3`` as a number. Raises InvalidInput."""
    if not text:
        return default
    match = re.match(r"(\d+|[A-Z]+\d?)([+-]\d+)?\Z", text.upper().removeprefix("SIG"))
    number = 0
    if match:
        number = int(match[1]) if match[1].isdigit() else SIGNALS.get(match[1], -100)
        number += int(match[2] or 0)
    if not 1 <= number <= 64:
        raise InvalidInput(f"Invalid signal: {text}")
    return number


def container_name(name: str) -> str:
    """The name without its leading slash. Raises InvalidInput in Docker's words."""
    plain = name.removeprefix("/")
    if not _NAME.match(plain):
        raise InvalidInput(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return plain


def runtime(name: str) -> RuntimeName:
    """Which of gemel's runtimes a runtime's name means. Raises InvalidInput."""
    if name in CONTAINER_NAMES:
        return RuntimeName.CONTAINER
    if name in MICROVM_NAMES:
        return RuntimeName.MICROVM
    raise InvalidInput(
        f"unknown or invalid runtime name: {name}",
        resolution="gemel knows container (runc, crun) and microvm (kata)",
    )


def _words(value: list[str] | str | None) -> list[str] | None:
    if isinstance(value, str):
        return shlex.split(value)
    return value


def merge_env(base: Iterable[str], own: Iterable[str], keep: bool = False) -> list[str]:
    """Own values win; ``KEY`` without a value removes it (as dockerd does).

    keep: ``KEY`` itself stays in the list, which is shown so; no program gets it.
    """
    values: dict[str, str | None] = {}
    for item in [*base, *own]:
        key, separator, _ = item.partition("=")
        if not key:
            raise InvalidInput(f"invalid environment variable: {item}")
        values[key] = item if separator or keep else None
    return [item for item in values.values() if item is not None]


def effective(request: CreateRequest, image: Image) -> CreateRequest:
    """The request with the image's defaults merged in. Raises InvalidInput without a command."""
    config = image.config
    entrypoint, cmd = _words(request.entrypoint), _words(request.cmd)
    if not entrypoint and request.entrypoint is None:
        entrypoint = config.entrypoint
        cmd = cmd or config.cmd
    if entrypoint == [""]:
        entrypoint = None  # Docker's word for: without the image's
    if not (entrypoint or cmd):
        raise InvalidInput(
            "no command specified",
            details=f"the image {request.image} names no command either",
            resolution="give one: `command:` in a Compose file, or behind the image's name",
        )
    env = merge_env(config.env or [], request.env or [], keep=True)
    if not any(item.startswith("PATH=") for item in env):
        env.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return msgspec.structs.replace(
        request,
        entrypoint=entrypoint,
        cmd=cmd,
        env=env,
        labels={**(config.labels or {}), **(request.labels or {})},
        exposed_ports={**(config.exposed_ports or {}), **(request.exposed_ports or {})},
        volumes={**(config.volumes or {}), **(request.volumes or {})},
        user=request.user or config.user,
        working_dir=request.working_dir or config.working_dir,
        stop_signal=request.stop_signal or config.stop_signal,
        healthcheck=health(request.healthcheck, config.healthcheck),
        host_config=request.host_config or HostConfig(),
    )


def health(own: HealthConfig | None, base: HealthConfig | None) -> HealthConfig | None:
    """Own values over the image's; a test of NONE turns the check off."""
    if own is None:
        merged = base
    elif base is None:
        merged = own
    else:
        merged = HealthConfig(
            test=own.test or base.test,
            interval=own.interval or base.interval,
            timeout=own.timeout or base.timeout,
            retries=own.retries or base.retries,
            start_period=own.start_period or base.start_period,
            start_interval=own.start_interval or base.start_interval,
        )
    if merged is None or not merged.test or merged.test[0] in ("", "NONE"):
        return None if merged is None or not merged.test else HealthConfig(test=["NONE"])
    for value in (merged.interval, merged.timeout, merged.start_period, merged.start_interval):
        if 0 < value < 1_000_000 or value < 0:
            raise InvalidInput("a health check's times cannot be less than 1ms")
    if merged.test[0] in probes.KINDS:
        probes.check(merged.test)
    elif merged.test[0] not in ("CMD", "CMD-SHELL"):
        raise InvalidInput(f"unknown type of health check: {merged.test[0]}")
    return merged


def argv(request: CreateRequest) -> list[str]:
    """The program and its arguments of an effective request."""
    return [*(_words(request.entrypoint) or []), *(_words(request.cmd) or [])]


def resources(host: HostConfig) -> Resources:
    """Limits (Docker: HostConfig, Resources). Raises InvalidInput."""
    cpus: float | None = None
    if host.nano_cpus:
        cpus = host.nano_cpus / 1e9
    elif host.cpu_quota > 0:
        cpus = host.cpu_quota / (host.cpu_period or 100_000)
    if host.memory and host.memory < 6 << 20:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if host.memory and host.memory_swap > 0 and host.memory_swap < host.memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    limits = tuple(Ulimit(name=u.name, soft=u.soft, hard=u.hard) for u in host.ulimits or [])
    for limit in limits:
        if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
            raise InvalidInput(f"ulimit {limit.name}: soft limit must not exceed hard limit")
    pids = host.pids_limit if host.pids_limit and host.pids_limit > 0 else None
    return Resources(
        memory=host.memory or None,
        memory_reservation=host.memory_reservation or None,
        memory_swap=host.memory_swap or None,
        cpus=cpus,
        cpu_shares=host.cpu_shares or None,
        cpuset=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        pids=pids,
        shm_size=host.shm_size or (64 << 20),
        oom_score_adj=host.oom_score_adj,
        oom_kill_disable=bool(host.oom_kill_disable),
        ulimits=limits,
    )


_HARMLESS_OPTIONS = {
    ("apparmor", ""),
    ("apparmor", "unconfined"),
    ("apparmor", "docker-default"),
    ("label", ""),
    ("label", "disable"),
}


def security(host: HostConfig) -> Security:
    """Capabilities, seccomp, no-new-privileges. Raises Unsupported for what is not carried out."""
    seccomp, no_new_privileges = "default", False
    masked = host.masked_paths != []  # an empty list, not none: as docker sends systempaths
    for option in host.security_opt or []:
        key, _, value = (
            option.replace(":", "=", 1).partition("=")
            if "=" not in option
            else (option.partition("="))
        )
        if key == "seccomp":
            seccomp = "default" if value in ("", "builtin") else value
        elif key == "no-new-privileges":
            no_new_privileges = value in ("", "true")
        elif key == "systempaths" and value == "unconfined":
            masked = False
        elif (key, value) in _HARMLESS_OPTIONS:
            continue
        else:
            raise Unsupported(
                f"security option {option} is not supported",
                resolution="known are seccomp, no-new-privileges, systempaths=unconfined",
            )
    return Security(
        privileged=host.privileged,
        cap_add=tuple(_capability(c) for c in host.cap_add or []),
        cap_drop=tuple(_capability(c) for c in host.cap_drop or []),
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        masked_paths=masked and not host.privileged,
        readonly_rootfs=host.readonly_rootfs,
    )


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else "CAP_" + upper


def port(text: str) -> tuple[int, str]:
    """``80/tcp`` as (80, "tcp"). Raises InvalidInput."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise InvalidInput(f"invalid port specification: {text!r}")
    if protocol not in ("tcp", "udp"):
        raise Unsupported(f"publishing {protocol} ports is not supported", f"port {text!r}")
    return int(number), protocol


def wanted_ports(request: CreateRequest) -> list[tuple[str, str, int, str]]:
    """Published ports: (host ip, host port or "" or range, container port, protocol)."""
    host = request.host_config or HostConfig()
    result: list[tuple[str, str, int, str]] = []
    for text, bindings in (host.port_bindings or {}).items():
        number, protocol = port(text)
        result += [(b.host_ip, b.host_port, number, protocol) for b in bindings or []] or [
            ("", "", number, protocol)
        ]
    if host.publish_all_ports:
        named = {(number, protocol) for _, _, number, protocol in result}
        for text in request.exposed_ports or {}:
            number, protocol = port(text)
            if (number, protocol) not in named:
                result.append(("", "", number, protocol))
    return result


def check_restart(host: HostConfig) -> None:
    """Raises InvalidInput for a restart policy that Docker would refuse."""
    policy = host.restart_policy
    if policy is None:
        return
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidInput(f"invalid restart policy: unknown policy '{policy.name}'")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidInput(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidInput("can't create 'AutoRemove' container with restart policy")


_SHARED = {"shared", "rshared", "slave", "rslave"}
_DEVICE_RULE = re.compile(r"([acb]) ([0-9]{1,9}|\*):([0-9]{1,9}|\*) ([rwm]{1,3})\Z")


def device_rule(text: str) -> DeviceRule:
    """One of HostConfig.DeviceCgroupRules: ``c 42:* rwm``. Raises InvalidInput."""
    found = _DEVICE_RULE.match(text)
    if found is None:
        raise InvalidInput(f"invalid device cgroup rule format: '{text}'")
    major, minor = (None if number == "*" else int(number) for number in found.group(2, 3))
    return DeviceRule(kind=found[1], major=major, minor=minor, access=found[4])


#: Names of Docker's own logging drivers.
LOG_DRIVERS = frozenset(
    ["", "json-file", "local", "none", "journald", "k8s-file", "syslog", "gelf", "fluentd"]
    + ["awslogs", "gcplogs", "splunk", "etwlogs", "logentries"]
)


def _ports_of_ipv6(host: HostConfig) -> list[str]:
    """A warning for ports at [::]. Raises Unsupported for ports at one IPv6 address."""
    addresses = {
        binding.host_ip.strip("[]")
        for bindings in (host.port_bindings or {}).values()
        for binding in bindings or []
        if ":" in binding.host_ip
    }
    if single := addresses - {"::"}:
        raise Unsupported(
            f"cannot publish on {min(single)}: gemel publishes on IPv4 addresses",
            resolution="leave the address out, or name one of IPv4",
        )
    return ["ports of [::] are published on all IPv4 addresses alone"] if addresses else []


def refused(request: CreateRequest) -> list[str]:
    """Raises Unsupported for what would change behaviour; gives warnings for what is harmless.

    Whole fields that have no effect are told of by the API (gemel.model.fields).
    """
    host = request.host_config or HostConfig()
    warnings = []
    if host.device_requests:
        raise Unsupported("device requests (GPUs) are not supported")
    for rule in host.device_cgroup_rules or []:
        device_rule(rule)
    if host.isolation not in ("", "default"):
        raise InvalidInput(f"invalid isolation {host.isolation!r} on linux")
    made = any(point.kind == "volume" for point in mountspecs.mounts(request, ()))
    if made and host.volume_driver not in ("", "local"):
        raise Unsupported(f"volume driver {host.volume_driver!r} is not supported")
    if any(_SHARED & set(text.split(":")[-1].split(",")) for text in host.binds or []):
        warnings.append("binds are private: mounts of a container do not reach the host")
    warnings += _ports_of_ipv6(host)
    log: Any = host.log_config
    if log and log.type not in LOG_DRIVERS:
        raise InvalidInput(f"logger: no log driver named '{log.type}' is registered")
    if log and log.type not in ("", "json-file", "local", "none", "journald", "k8s-file"):
        raise Unsupported(
            f"logging driver {log.type!r} is not supported",
            resolution="use json-file; `gemel logs` reads it",
        )
    return warnings
