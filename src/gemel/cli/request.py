"""From the options of ``gemel run IMAGE`` to the body of POST /containers/create. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from gemel.cli import values
from gemel.errors import InvalidInput

Json = dict[str, Any]


def create_request(options: Mapping[str, Any], image: str, argv: Sequence[str]) -> Json:
    """The whole body. options: as run's click options name them. Raises InvalidInput."""
    exposed, bindings = values.published(options["publish"])
    for port in options["expose"]:
        exposed[port if "/" in port else f"{port}/tcp"] = {}
    attached = not options["detach"]
    body: Json = {
        "Image": image,
        "Cmd": list(argv) or None,
        "Env": values.environment(options["env"], options["env_file"]),
        "Tty": options["tty"],
        "OpenStdin": options["interactive"],
        "StdinOnce": options["interactive"] and attached,
        "AttachStdin": options["interactive"] and attached,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Hostname": options["hostname"],
        "Domainname": options["domainname"],
        "User": options["user"],
        "WorkingDir": options["workdir"],
        "ExposedPorts": exposed or None,
        "Labels": values.labels(options["label"]),
        "StopSignal": options["stop_signal"],
        "StopTimeout": options["stop_timeout"],
        "Healthcheck": health(options),
        "HostConfig": host_config(options, bindings),
        "NetworkingConfig": networking(options),
    }
    anonymous = [inner for _, inner in map(values.bind, options["volume"]) if inner]
    if anonymous:
        body["Volumes"] = {inner: {} for inner in anonymous}
    if options["entrypoint"] is not None:
        # an empty one takes the image's away, as Docker has it
        body["Entrypoint"] = [options["entrypoint"]] if options["entrypoint"] else [""]
    return {key: value for key, value in body.items() if value not in (None, "")}


def host_config(options: Mapping[str, Any], bindings: Json) -> Json:
    """HostConfig without what is left at its default."""
    networks = options["network"]
    config: Json = {
        "Binds": [outer for outer, _ in map(values.bind, options["volume"]) if outer],
        "Mounts": [values.mount(spec) for spec in options["mount"]],
        "PortBindings": bindings,
        "PublishAllPorts": options["publish_all"],
        "NetworkMode": networks[0] if networks else None,
        "RestartPolicy": values.restart(options["restart"]) if options["restart"] else None,
        "AutoRemove": options["rm"],
        "Runtime": options["runtime"],
        "Memory": _size(options["memory"]),
        "MemoryReservation": _size(options["memory_reservation"]),
        "MemorySwap": _swap(options["memory_swap"]),
        "NanoCpus": round(options["cpus"] * 1e9) if options["cpus"] else None,
        "CpuShares": options["cpu_shares"],
        "CpusetCpus": options["cpuset_cpus"],
        "PidsLimit": options["pids_limit"],
        "ShmSize": _size(options["shm_size"]),
        "OomScoreAdj": options["oom_score_adj"],
        "Ulimits": [values.ulimit(spec) for spec in options["ulimit"]],
        "ReadonlyRootfs": options["read_only"],
        "Tmpfs": values.tmpfs(options["tmpfs"]),
        "CapAdd": list(options["cap_add"]),
        "CapDrop": list(options["cap_drop"]),
        "Privileged": options["privileged"],
        "SecurityOpt": security(options["security_opt"]),
        "GroupAdd": list(options["group_add"]),
        "Init": options["init"] or None,
        "ExtraHosts": list(options["add_host"]),
        "Dns": list(options["dns"]),
        "DnsSearch": list(options["dns_search"]),
        "DnsOptions": list(options["dns_option"]),
        "Devices": [values.device(spec) for spec in options["device"]],
        "Sysctls": values.labels(options["sysctl"]),
        "PidMode": options["pid"],
        "IpcMode": options["ipc"],
        "VolumesFrom": list(options["volumes_from"]),
    }
    if options["rm"] and options["restart"] not in ("", "no"):
        raise InvalidInput("--rm and --restart exclude each other")
    return {key: value for key, value in config.items() if value not in (None, "", [], {}, False)}


def _size(text: str) -> int | None:
    return values.size(text) if text else None


def _swap(text: str) -> int | None:
    return -1 if text == "-1" else _size(text)


def security(options: Sequence[str]) -> list[str]:
    """``seccomp=FILE`` becomes the profile itself, as the API wants it. Raises InvalidInput."""
    out: list[str] = []
    for option in options:
        key, separator, value = option.partition("=" if "=" in option else ":")
        if key == "seccomp" and value not in ("unconfined", "builtin", "default") and separator:
            try:
                with open(value, encoding="utf-8") as file:
                    option = f"seccomp={file.read()}"
            except OSError as error:
                raise InvalidInput(
                    f"cannot read the seccomp profile {value}", details=str(error)
                ) from error
        out.append(option)
    return out


def health(options: Mapping[str, Any]) -> Json | None:
    """Healthcheck of the --health options; None to leave the image's."""
    if options["no_healthcheck"]:
        return {"Test": ["NONE"]}
    check: Json = {}
    if options["health_cmd"]:
        check["Test"] = ["CMD-SHELL", options["health_cmd"]]
    names = {
        "Interval": "health_interval",
        "Timeout": "health_timeout",
        "StartPeriod": "health_start_period",
        "StartInterval": "health_start_interval",
    }
    for name, option in names.items():
        if options[option]:
            check[name] = values.span(options[option])
    if options["health_retries"]:
        check["Retries"] = options["health_retries"]
    return check or None


def networking(options: Mapping[str, Any]) -> Json | None:
    """Endpoint settings: aliases and addresses of the first network, the other networks."""
    endpoints: Json = {name: {} for name in options["network"][1:]}
    first: Json = {}
    if options["network_alias"]:
        first["Aliases"] = list(options["network_alias"])
    if options["ip"]:
        first["IPAMConfig"] = {"IPv4Address": options["ip"]}
    if options["mac_address"]:
        first["MacAddress"] = options["mac_address"]
    if first or endpoints:
        name = options["network"][0] if options["network"] else "default"
        endpoints = {name: first, **endpoints}
    return {"EndpointsConfig": endpoints} if endpoints else None


def split_entrypoint(text: str | None) -> list[str] | None:
    """Compose's ``run --entrypoint``: words as a shell splits them."""
    return None if text is None else shlex.split(text)
