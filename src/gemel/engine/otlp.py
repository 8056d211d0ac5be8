"""What services of a Compose file are told of the OTLP endpoint."""

from __future__ import annotations

from gemel.engine.core import Core
from gemel.engine.peers import PROJECT, SERVICE
from gemel.engine.records import Container
from gemel.errors import GemelError
from gemel.model.docker import HostConfig

#: OTLP's ports, at the gateway of each network; both take gRPC and HTTP.
GRPC, HTTP = 4317, 4318
#: ``x-gemel: {otel: false}``.
LABEL = "gemel.otel"
#: A service that sets one of these has its own mind.
_OWN = ("OTEL_EXPORTER_OTLP_ENDPOINT=", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=")


def environment(core: Core, one: Container) -> tuple[str, ...]:
    """What a service of a Compose file is told, unless it says otherwise: where OTLP is taken.

    Added when it is started; it is no part of its configuration.
    """
    labels = one.request.labels or {}
    env = one.request.env or []
    if not core.otlp or not labels.get(PROJECT) or labels.get(LABEL) == "false":
        return ()
    if any(item.startswith(_OWN) for item in env):
        return ()
    gateway = _gateway(core, one)
    if not gateway:
        return ()
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{gateway}:{HTTP}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": labels.get(SERVICE, one.name),
    }
    set_already = {item.partition("=")[0] for item in env}
    return tuple(f"{key}={value}" for key, value in told.items() if key not in set_already)


def _gateway(core: Core, one: Container) -> str:
    """The host's address on its first network; empty without one."""
    mode = (one.request.host_config or HostConfig()).network_mode
    if mode.startswith("container:"):
        try:
            other = core.container(mode.removeprefix("container:"))
        except GemelError:
            return ""
        return _gateway(core, other) if other is not one else ""
    for end in sorted(one.endpoints, key=lambda end: end.index):
        network = core.networks.get(end.network_id)
        if network is not None and network.gateway:
            return network.gateway
    return ""
