"""How a service's instances are replaced one after the other: ``deploy.update_config``. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from gemel.compose import extension, units
from gemel.compose.project import Project, Service

Json = dict[str, Any]
START_FIRST, STOP_FIRST = "start-first", "stop-first"
ORDERS = (START_FIRST, STOP_FIRST)
PAUSE, CONTINUE, ROLLBACK = "pause", "continue", "rollback"
#: Seconds for which open connections of an old instance may go on, unless x-gemel.drain says.
DRAIN = 5.0


class Back(msgspec.Struct, frozen=True, kw_only=True):
    """How a rollback is done (``deploy.rollback_config``); parallelism 0: all at once."""

    order: str = START_FIRST
    parallelism: int = 0
    delay: float = 0.0


class Rolling(msgspec.Struct, frozen=True, kw_only=True):
    """How an update is done. Times in seconds; parallelism 0: all at once."""

    order: str = STOP_FIRST
    parallelism: int = 1
    delay: float = 0.0
    monitor: float = 0.0
    failure_action: str = PAUSE
    max_failure_ratio: float = 0.0
    drain: float = DRAIN
    back: Back = Back()


def rolling(service: Service, *, asked: bool = False, order: str = "") -> Rolling | None:
    """How the service is updated; None if it is to be made anew at once, as Compose does.

    asked: an update is asked for, whatever the file says; start-first then, unless the file
    or ``order`` says otherwise.
    """
    config: Json | None = (service.config.get("deploy") or {}).get("update_config")
    if config is None and not asked:
        return None
    config = config or {"order": START_FIRST}
    drain = extension.drain(service)

    def seconds(key: str) -> float:
        return units.duration(config[key]) / 1e9 if config.get(key) else 0.0

    parallelism = config.get("parallelism")
    back: Json = (service.config.get("deploy") or {}).get("rollback_config") or {}
    return Rolling(
        order=order or config.get("order") or STOP_FIRST,
        parallelism=1 if parallelism is None else int(parallelism),
        delay=seconds("delay"),
        monitor=seconds("monitor"),
        failure_action=config.get("failure_action") or PAUSE,
        max_failure_ratio=float(config.get("max_failure_ratio") or 0),
        drain=DRAIN if drain is None else drain,
        back=Back(
            order=back.get("order") or START_FIRST,
            parallelism=int(back.get("parallelism") or 0),
            delay=units.duration(back["delay"]) / 1e9 if back.get("delay") else 0.0,
        ),
    )


def no_roll(project: Project, service: Service) -> str:
    """Why its instances cannot be replaced one by one, or nothing."""
    for key in ("network_mode", "ipc", "pid", "uts"):
        if str(service.config.get(key) or "").startswith(("service:", "container:")):
            return f"it shares its {key} with another one"
    for other in project:
        for key in ("network_mode", "ipc", "pid", "uts"):
            if other.config.get(key) == f"service:{service.name}":
                return f"{other.name} shares its {key}"
        sources = other.config.get("volumes_from") or ()
        if any(source.partition(":")[0] == service.name for source in sources):
            return f"{other.name} has its volumes"
    return ""


def no_start_first(service: Service) -> str:
    """Why two instances of it cannot run side by side for a while, or nothing."""
    if service.network_mode == "host":
        return "it uses the host's network"
    if service.config.get("mac_address"):
        return "it has a fixed MAC address"
    for name, joined in service.networks.items():
        for key, words in (("ipv4_address", "address"), ("mac_address", "MAC address")):
            if joined.get(key):
                return f"it has a fixed {words} on the network {name}"
    return ""
