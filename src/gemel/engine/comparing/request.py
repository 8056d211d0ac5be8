"""The request of a service as that of an instance of a comparison. Pure.

It runs beside the service itself, which must not notice: no published port, no name that others
share, no volume of its data; folders of the host can be read only.
"""

from __future__ import annotations

import msgspec

from gemel.errors import InvalidInput
from gemel.model.docker import (
    CreateRequest,
    EndpointSettings,
    HostConfig,
    MountSpec,
    NetworkingConfig,
    RestartPolicy,
)
from gemel.model.image import HealthConfig
from gemel.model.instance import RuntimeName

#: Marks instances of a comparison; an engine that finds them at its start removes them.
LABEL = "gemel.comparison"
SNAPSHOT_LABEL = "gemel.snapshot"


def bare(request: CreateRequest, runtime: RuntimeName, *, snapshot: str = "") -> CreateRequest:
    """The request to run it on its own. snapshot: ``off`` boots a micro VM cold."""
    host = request.host_config or HostConfig()
    mode = host.network_mode
    if mode == "host" or mode.startswith("container:"):
        raise InvalidInput(
            f"a service with network_mode: {mode} cannot be compared",
            resolution="only a container has that: there is no choice to make",
        )
    labels = {k: v for k, v in (request.labels or {}).items() if not k.startswith("com.docker.")}
    labels.pop("gemel.hooks", None)
    labels[LABEL] = "true"
    if snapshot:
        labels[SNAPSHOT_LABEL] = snapshot
    networks = request.networking_config.endpoints_config if request.networking_config else None
    return msgspec.structs.replace(
        request,
        labels=labels,
        healthcheck=HealthConfig(test=["NONE"]),
        host_config=msgspec.structs.replace(
            host,
            runtime=runtime.value,
            port_bindings=None,
            publish_all_ports=False,
            auto_remove=False,
            restart_policy=RestartPolicy(),
            binds=[made for one in host.binds or [] if (made := _bind(one))] or None,
            mounts=[_mount(one) for one in host.mounts or []] or None,
            volumes_from=None,
        ),
        networking_config=NetworkingConfig(
            endpoints_config={name: EndpointSettings() for name in networks or {}}
        ),
    )


def _bind(text: str) -> str:
    """A bind of the host that can be read only; a named volume becomes an empty one."""
    source, _, rest = text.partition(":")
    target = rest.split(":")[0]
    return f"{source}:{target}:ro" if source.startswith("/") else ""


def _mount(one: MountSpec) -> MountSpec:
    if one.type == "bind":
        return msgspec.structs.replace(one, read_only=True)
    if one.type == "volume":
        return MountSpec(type="volume", source="", target=one.target)
    return one


def volumes(request: CreateRequest) -> dict[str, dict[str, object]]:
    """Where named volumes of ``Binds`` were: these targets get an empty volume each."""
    found = dict(request.volumes or {})
    for text in (request.host_config or HostConfig()).binds or []:
        source, _, rest = text.partition(":")
        if not source.startswith("/") and rest:
            found[rest.split(":")[0]] = {}
    return found


def notes(request: CreateRequest) -> list[str]:
    """What differs from the service as it runs otherwise, in words."""
    host = request.host_config or HostConfig()
    named = [b for b in host.binds or [] if not b.startswith("/")]
    named += [m.source for m in host.mounts or [] if m.type == "volume" and m.source]
    bound = [b for b in host.binds or [] if b.startswith("/")]
    bound += [m.source for m in host.mounts or [] if m.type == "bind"]
    told = []
    if named:
        told.append("Its volumes were empty: the service's own data was left alone")
    if bound:
        told.append("Folders of the host could be read only")
    return told
