"""``up --replay-dependencies``: recorded answers in the place of what a service depends on."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gemel.cli import har, output
from gemel.cli.app import App
from gemel.client.project.source import Project
from gemel.client.project.up import Style, Up
from gemel.compose.plan import UpOptions
from gemel.compose.project import Service
from gemel.errors import InvalidInput

Json = dict[str, Any]
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|\[.*\]|localhost")


def recorded(entries: list[Json], services: tuple[str, ...]) -> dict[str, Json]:
    """What these services asked others, by whom they asked. Pure."""
    found: dict[str, Json] = {}
    for one in entries:
        known = one.get("_gemel") or {}
        name = har.target(one)
        # a file of other tools does not say who asked
        if known.get("source", services[0]) not in services or name in services:
            continue
        if known.get("protocol", "http") == "grpc" or not one["response"]["status"]:
            continue
        service = found.setdefault(name, {"Name": name, "Aliases": [], "Calls": [], "Cut": 0})
        alias = _alias(one)
        if alias and alias != name and alias not in service["Aliases"]:
            service["Aliases"].append(alias)
        service["Calls"].append(_call(one))
        service["Cut"] += bool(known.get("responseCut"))
    return found


def _alias(one: Json) -> str:
    """The name under which it was asked, if that is a name."""
    for header, value in har.headers(one["request"]):
        if header.lower() == "host":
            host = urlsplit(f"//{value}").hostname or ""
            return "" if _ADDRESS.fullmatch(host) else host
    return ""


def _call(one: Json) -> Json:
    request, response = one["request"], one["response"]
    return {
        "Method": request["method"],
        "Path": har.path(one),
        "Port": har.port(one),
        "Body": base64.b64encode(har.body(request.get("postData") or {})).decode(),
        "Status": response["status"],
        "Headers": har.headers(response),
        "Answer": base64.b64encode(har.body(response.get("content") or {})).decode(),
    }


def without(project: Project, names: tuple[str, ...], replaced: set[str]) -> Project:
    """The project in which nobody of ``names`` waits for what is replaced."""
    services = dict(project.services)
    for name in project.with_dependencies(names):
        service = project.service(name)
        depends = service.config.get("depends_on") or {}
        if replaced & set(depends):
            kept = {key: value for key, value in depends.items() if key not in replaced}
            services[name] = Service(name, {**service.config, "depends_on": kept})
    return msgspec.structs.replace(project, services=services)


def begin(
    app: App, project: Project, services: tuple[str, ...], path: str, style: Style
) -> Project:
    """Has the engine answer from the file; gives back the project without those services.

    Raises InvalidInput for a file in which these services asked nobody.
    """
    if not services:
        raise InvalidInput(
            "--replay-dependencies needs the services to run",
            resolution="gemel up SERVICE --replay-dependencies FILE",
        )
    found = recorded(har.read(path), services)
    if not found:
        raise InvalidInput(f"{path} holds no call that {' or '.join(services)} made by HTTP")
    changed = without(project, services, set(found))
    networks = sorted(
        {
            project.network_name(key)
            for name in services
            for key in project.service(name).networks
            if key in project.networks
        }
    )
    if not networks:
        raise InvalidInput(f"{services[0]} is on no network of the project")
    # networks and volumes first: the answers must be there before the service asks
    own = Up(app.client, changed, UpOptions(services=services, start=False), style)
    own.resources(own.prepare())
    for service in found.values():
        if cut := service.pop("Cut"):
            output.warn(f"{cut} answers of {service['Name']} were not recorded whole")
    body = {"Project": project.name, "Networks": networks, "Services": list(found.values())}
    app.client.post("/gemel/replays", body)
    told = ", ".join(f"{s['Name']} ({len(s['Calls'])} calls)" for s in found.values())
    output.note(f"answered from {path}: {told}")
    return changed
