"""What a file leaves unsaid: the default network, names of resources, implied dependencies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gemel.compose import units

Json = dict[str, Any]


def project_name(text: str) -> str:
    """A text as a project's name: lower case letters, digits, ``-`` and ``_``."""
    return "".join(re.findall(r"[a-z0-9_-]", text.lower())).lstrip("_-")


def normalize(model: Json, name: str, environment: Mapping[str, str]) -> None:
    """Completes a merged model in place."""
    services: dict[str, Json] = model.setdefault("services", {}) or {}
    model["services"] = services
    for key in services:
        if services[key] is None:
            services[key] = {}
    _networks(model, services)
    for service in services.values():
        _service(service, environment)
    for kind in ("networks", "volumes", "configs", "secrets"):
        resources = model.get(kind) or {}
        for key, resource in resources.items():
            resource = resources[key] = {} if resource is None else resource
            if resource.get("name") is None:
                resource["name"] = key if resource.get("external") else f"{name}_{key}"
        if resources:
            model[kind] = resources
        else:
            model.pop(kind, None)
    model["name"] = name


def _networks(model: Json, services: dict[str, Json]) -> None:
    used = False
    for service in services.values():
        if "provider" in service or service.get("network_mode"):
            continue
        if not service.get("networks"):
            service["networks"] = {"default": None}
        used = used or "default" in service["networks"]
    networks = model.get("networks") or {}
    if used:
        networks.setdefault("default", None)
    model["networks"] = networks


def _service(service: Json, environment: Mapping[str, str]) -> None:
    if service.get("pull_policy") == "if_not_present":
        service["pull_policy"] = "missing"
    build = service.get("build")
    if build is not None:
        build.setdefault("context", ".")
        if build.get("dockerfile") is None and build.get("dockerfile_inline") is None:
            build["dockerfile"] = "Dockerfile"
        if "args" in build:
            args = {k: environment.get(k) if v is None else v for k, v in build["args"].items()}
            build["args"] = {k: v for k, v in args.items() if v is not None}
    for key, value in (service.get("environment") or {}).items():
        if value is None and key in environment:
            service["environment"][key] = environment[key]
    _dependencies(service)
    _entries(service)


def _dependencies(service: Json) -> None:
    """links, ``service:`` namespaces and volumes_from imply depends_on."""
    depends: Json = dict(service.get("depends_on") or {})
    for entry in depends.values():
        if isinstance(entry, dict):
            entry.setdefault("required", True)

    def imply(name: str, restart: bool) -> None:
        if name not in depends:
            depends[name] = {"condition": "service_started", "required": True}
            if restart:
                depends[name]["restart"] = True

    for link in service.get("links") or ():
        imply(link.split(":")[0], True)
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        if str(service.get(key) or "").startswith("service:"):
            imply(service[key].removeprefix("service:"), True)
    for source in service.get("volumes_from") or ():
        if not source.startswith("container:"):
            imply(source.split(":")[0], False)
    if depends:
        service["depends_on"] = depends


def _entries(service: Json) -> None:
    """Defaults inside the lists of a service."""
    for port in service.get("ports") or ():
        if isinstance(port, dict):
            port.setdefault("protocol", "tcp")
            port.setdefault("mode", "ingress")
    for secret in service.get("secrets") or ():
        secret.setdefault("target", f"/run/secrets/{secret.get('source')}")
    for volume in service.get("volumes") or ():
        if isinstance(volume, dict):
            _volume(volume)
    resources = (service.get("deploy") or {}).get("resources") or {}
    reserved = (resources.get("reservations") or {}).get("devices") or ()
    for device in (*(service.get("gpus") or ()), *reserved):
        if "count" not in device and "device_ids" not in device:
            device["count"] = -1
    if service.get("image"):
        for hook in service.get("pre_start") or ():
            hook.setdefault("image", service["image"])


def _volume(volume: Json) -> None:
    if isinstance(volume.get("target"), str) and volume["target"]:
        volume["target"] = units.clean(volume["target"])
    if volume.get("type") == "bind" and isinstance(volume.get("bind"), dict):
        volume["bind"].setdefault("create_host_path", True)
