"""Networks (facade.Networks)."""

from __future__ import annotations

import re

from gemel.engine import filters, spec
from gemel.engine.core import Core
from gemel.engine.endpoints import DEFAULT, check_fixed, default_network, make, place
from gemel.engine.facade import Filters, Json, Jsons
from gemel.engine.records import Container
from gemel.errors import Conflict, InvalidInput, NotFound, Unsupported
from gemel.model.docker import EndpointSettings, NetworkCreate
from gemel.model.network import NetworkInfo

PREDEFINED = ("host", "none")
#: Docker takes nearly everything for a network's name; what is no word or path is refused.
_NAME = re.compile(r"[^\s/]([^/]{0,253}[^\s/])?\Z")


Names = list[str]


class Networks:
    """See facade.Networks."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def _members(self, network: NetworkInfo) -> list[tuple[Container, Json]]:
        result = []
        prefix = network.subnet.partition("/")[2]
        for one in self.core.containers.values():
            for end in one.endpoints:
                if end.network_id == network.id and one.state.running:
                    shown = {
                        "Name": one.name,
                        "EndpointID": end.endpoint_id,
                        "MacAddress": end.mac,
                        "IPv4Address": f"{end.address}/{prefix}",
                        "IPv6Address": "",
                    }
                    result.append((one, shown))
        return result

    def _shown(self, network: NetworkInfo, members: bool) -> Json:
        config: Json = {"Subnet": network.subnet, "Gateway": network.gateway}
        if network.ip_range:
            config["IPRange"] = network.ip_range
        if network.aux:
            config["AuxiliaryAddresses"] = network.aux
        listed = {one.id: shown for one, shown in self._members(network)} if members else {}
        return {
            "Name": network.name,
            "Id": network.id,
            "Created": network.created,
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Options": network.ipam_options or None,
                "Config": [config],
            },
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": listed,
            "Options": network.options,
            "Labels": network.labels,
        }

    def _predefined(self, name: str) -> Json:
        return {
            "Name": name,
            "Id": name.ljust(64, "0"),
            "Created": "0001-01-01T00:00:00Z",
            "Scope": "local",
            "Driver": "host" if name == "host" else "null",
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": {},
            "Labels": {},
        }

    async def list(self, wanted: Filters) -> Jsons:
        """GET /networks."""
        filters.known(wanted, {"name", "id", "label", "driver", "type", "scope", "dangling"})
        await default_network(self.core)
        shown = [self._shown(n, members=False) for n in self.core.networks.values()]
        shown += [self._predefined(name) for name in PREDEFINED]
        return [one for one in shown if self._passes(one, wanted)]

    def _passes(self, one: Json, wanted: Filters) -> bool:
        checks = {
            "name": lambda v: filters.name([one["Name"]], v),
            "id": lambda v: any(one["Id"].startswith(x) for x in v),
            "label": lambda v: filters.labels(one["Labels"], v),
            "driver": lambda v: one["Driver"] in v,
            "scope": lambda v: one["Scope"] in v,
            "type": lambda v: ("builtin" in v) == (one["Name"] in (*PREDEFINED, DEFAULT)),
            "dangling": lambda v: (v[0].lower() in ("true", "1")) != bool(self._used(one["Id"])),
        }
        return all(checks[key](values) for key, values in wanted.items())

    def _used(self, id: str) -> Names:
        return [
            c.name
            for c in self.core.containers.values()
            if any(end.network_id == id for end in c.endpoints)
        ]

    async def _find(self, ref: str) -> NetworkInfo:
        return await default_network(self.core) if ref == DEFAULT else self.core.network(ref)

    async def inspect(self, ref: str) -> Json:
        """GET /networks/ID."""
        if ref in PREDEFINED:
            return self._predefined(ref)
        return self._shown(await self._find(ref), members=True)

    async def create(self, request: NetworkCreate) -> Json:
        """POST /networks/create. Raises Conflict for a name that is taken."""
        if not _NAME.match(request.name) or not request.name.isprintable():
            raise InvalidInput(f"invalid network name: {request.name!r}")
        if request.driver not in ("", "bridge"):
            raise NotFound(
                f"could not find plugin {request.driver} in v1 plugin registry: plugin not found",
                resolution="gemel has the driver bridge",
            )
        if request.enable_ipv6:
            raise Unsupported("IPv6 networks are not supported", resolution="leave enable_ipv6 out")
        taken = {n.name for n in self.core.networks.values()} | {DEFAULT, *PREDEFINED}
        if request.name in taken:
            raise Conflict(f"network with name {request.name} already exists")
        info = await make(self.core, request)
        return {"Id": info.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        """DELETE /networks/ID. Raises Conflict while running containers are on it."""
        if ref in (*PREDEFINED, DEFAULT):
            raise Conflict(f"{ref} is a pre-defined network and cannot be removed")
        network = self.core.network(ref)
        active = [one.name for one, _ in self._members(network)]
        if active:
            raise Conflict(
                f"error while removing network: network {network.name} has active endpoints "
                f"(names: {', '.join(active)})"
            )
        await self.core.net.remove_network(network)
        del self.core.networks[network.id]
        await self.core.store.delete("network", [network.id])
        for one in self.core.containers.values():
            kept = [end for end in one.endpoints if end.network_id != network.id]
            if len(kept) != len(one.endpoints):
                one.endpoints = kept
                await self.core.save(one)
        self.core.events.emit(
            "network", "destroy", network.id, {"name": network.name, "type": "bridge"}
        )
        self.core.network_changed()

    async def connect(self, ref: str, container: str, settings: EndpointSettings) -> None:
        """Puts a container on one more network, also while it runs."""
        core = self.core
        network = await self._find(ref)
        one = core.container(container)
        async with core.locked(one):
            if any(end.network_id == network.id for end in one.endpoints):
                raise Conflict(
                    f"endpoint with name {one.name} already exists in network {network.name}"
                )
            mode = one.request.host_config.network_mode if one.request.host_config else ""
            if mode in ("host", "none") or mode.startswith("container:"):
                raise Conflict(f"container {one.name} has network mode {mode}: it has no networks")
            running = one.state.running
            if running and not core.runtime(one).capabilities.shares_kernel:
                raise Unsupported(
                    "a running micro VM cannot be put on another network",
                    resolution=f"stop {one.name}, connect it, and start it again",
                )
            index = max((end.index for end in one.endpoints), default=-1) + 1
            end = place(core, one, network, settings, index)
            one.endpoints = [*one.endpoints, end]
            core.promised.discard((network.id, end.address))
            if running:
                try:
                    check_fixed(core, one)
                    interface = spec.interfaces(core, one)[-1]
                    await core.net.connect(one.id, core.paths.netns(one.id), interface)
                except BaseException:
                    one.endpoints = [e for e in one.endpoints if e is not end]
                    raise
            await core.save(one)
        await core.sync_names()
        core.events.emit(
            "network", "connect", network.id, {"name": network.name, "container": one.id}
        )

    async def disconnect(self, ref: str, container: str, force: bool) -> None:
        """Takes a container off a network, also while it runs."""
        core = self.core
        network = await self._find(ref)
        try:
            one = core.container(container)
        except NotFound:
            if force:
                return
            raise
        async with core.locked(one):
            end = next((e for e in one.endpoints if e.network_id == network.id), None)
            if end is None:
                raise Conflict(f"container {one.name} is not connected to network {network.name}")
            if one.state.running:
                if not core.runtime(one).capabilities.shares_kernel:
                    raise Unsupported("a running micro VM cannot be taken off a network")
                pairs = zip(
                    sorted(one.endpoints, key=lambda e: e.index),
                    spec.interfaces(core, one),
                    strict=True,
                )
                interface = next(i for e, i in pairs if e is end)
                await core.net.disconnect(one.id, core.paths.netns(one.id), interface)
            one.endpoints = [e for e in one.endpoints if e is not end]
            if one.state.running:
                await core.net.reroute(core.paths.netns(one.id), spec.interfaces(core, one))
            await core.save(one)
        await core.sync_names()
        if one.bindings:
            await core.sync_ports()
        core.events.emit(
            "network", "disconnect", network.id, {"name": network.name, "container": one.id}
        )

    async def prune(self, wanted: Filters) -> Json:
        """Removes networks that no container has."""
        filters.known(wanted, {"label", "label!", "until"})
        removed: Names = []
        for network in list(self.core.networks.values()):
            if network.name == DEFAULT or self._used(network.id):
                continue
            if not filters.labels(network.labels, wanted.get("label", [])):
                continue
            if any(filters.labels(network.labels, [w]) for w in wanted.get("label!", [])):
                continue
            await self.remove(network.id)
            removed.append(network.name)
        return {"NetworksDeleted": removed or None}
