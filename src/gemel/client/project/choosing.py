"""What ``runtime: auto`` will be, asked of the engine before anything is made."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from gemel.client.engine import Client
from gemel.client.project import placed
from gemel.compose import requests
from gemel.compose.project import Project
from gemel.model.choice import AUTO, BLOCK_VOLUMES_LABEL

_NOWHERE = "/nonexistent"
"""Folder of secrets that are only asked about."""


def request(project: Project, name: str, secrets_dir: str = _NOWHERE) -> dict[str, Any]:
    """The body that would create the first instance of a service; image included.

    secrets_dir: where its secrets and configs are written to, if it is to run.
    """
    service = project.service(name)
    prepared = requests.container(project, service, 1, secrets_dir=secrets_dir)
    if secrets_dir != _NOWHERE:
        placed.write(prepared.files)
    body: dict[str, Any] = msgspec.to_builtins(prepared.request)
    body["Image"] = body.get("Image") or project.image_of(service)
    return body


def choice(client: Client, project: Project, name: str) -> dict[str, Any]:
    """What the engine would choose for a service, its volumes made or not."""
    body = request(project, name)
    if blocks := _blocks(project, name):
        body["Labels"] = {**(body.get("Labels") or {}), BLOCK_VOLUMES_LABEL: ",".join(blocks)}
    found: dict[str, Any] = client.post("/gemel/choose", body)
    return found


def _blocks(project: Project, name: str) -> list[str]:
    """The service's volumes that the file makes block volumes, as the engine names them."""
    keys = [one.get("source") for one in project.service(name).config.get("volumes") or ()]
    return [
        project.volume_name(key)
        for key in keys
        if key in project.volumes
        and (project.volumes[key].get("driver_opts") or {}).get("type") == "block"
    ]


def resolved(client: Client, project: Project, services: Collection[str]) -> Project:
    """The project with the runtimes that the engine would choose now for these services.

    To tell what will not be carried out; what is sent to create them still says ``auto``.
    """
    chosen = {}
    for name in services:
        if project.service(name).config.get("runtime") == AUTO:
            chosen[name] = choice(client, project, name)["Runtime"]
    return project.with_runtimes(chosen) if chosen else project
