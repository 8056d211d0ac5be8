"""``gemel run SERVICE``: a one-off container of a service, with the command line's changes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from gemel.cli import output, values
from gemel.cli.app import App
from gemel.cli.asking import remote_project
from gemel.cli.request import split_entrypoint
from gemel.client import session, terminal
from gemel.client.project import placed
from gemel.client.project.source import Project
from gemel.client.project.up import Style, Up
from gemel.compose import requests
from gemel.compose.plan import ALWAYS, MISSING, UpOptions
from gemel.errors import GemelError, InvalidInput

#: Options that only a single image takes; a service has them in its file.
_IMAGE_ONLY = (
    "mount", "tmpfs", "network", "network_alias", "memory", "cpus", "restart", "privileged",
    "security_opt", "ulimit", "device", "publish_all", "volumes_from", "platform",
)  # fmt: skip


def run_service(app: App, name: str, argv: tuple[str, ...], given: dict[str, Any]) -> int:
    """Starts what the service needs, then the one-off container; its exit status."""
    wrong = [option for option in _IMAGE_ONLY if given[option]]
    if wrong:
        raise InvalidInput(
            f"--{wrong[0].replace('_', '-')} is not for a service's run",
            resolution=f"set it in the Compose file, or run the image of {name} by its name",
        )
    project = app.startable().enabling([name])
    if project.service(name).provider is not None:
        raise InvalidInput(f'service "{name}" has no container to run: a provider runs it')
    if given["runtime"]:
        project = project.with_runtimes({name: given["runtime"]})
    app.lint(project, [name] if given["no_deps"] else project.with_dependencies([name]))
    remote_project(app, project, yes=given["yes"], piped=False)
    image_id, project = prepare(app, project, name, given)
    tty = not given["no_tty"] and not given["detach"] and _has_terminal()
    body, container_name = _request(app, project, name, argv, given, tty, image_id)
    made = app.client.post("/containers/create", body, name=container_name, timeout=120)
    for warning in made.get("Warnings") or []:
        output.warn(warning)
    id = str(made["Id"])
    try:
        if given["detach"]:
            app.client.call("POST", f"/containers/{id}/start", timeout=180).read()
            output.say(container_name)
            return 0
        wanted = session.Wanted(stdin=True, tty=tty, detach_keys=given["detach_keys"])
        status = session.run_attached(app.client, id, wanted, remove=given["rm"])
        return status or 0
    except GemelError:
        app.client.call("DELETE", f"/containers/{id}", query={"force": True}, ok=(404, 409)).read()
        raise


def _has_terminal() -> bool:
    return terminal.is_terminal(0) and terminal.is_terminal(1)


_PLAIN = {"no_deps": False, "remove_orphans": False, "build": False, "quiet_build": False}


def prepare(
    app: App, project: Project, name: str, given: Mapping[str, Any] = _PLAIN
) -> tuple[str, Project]:
    """Dependencies started, image there, networks and volumes made.

    The image's id, and the project with what providers and models have said.
    """
    style = Style(app.progress, output.colourful(2), app.parallel, given["quiet_build"])
    needed = tuple(n for n in project.with_dependencies([name]) if n != name)
    if needed and not given["no_deps"]:
        options = UpOptions(services=needed, remove_orphans=given["remove_orphans"])
        work = Up(app.client, project, options, style)
        work.detached(work.prepare())
    # the service's own image, networks and volumes: a plan of no replicas of it
    options = UpOptions(
        services=(name,), no_deps=True, start=False, no_recreate=True,
        build=ALWAYS if given["build"] else MISSING,
    )  # fmt: skip
    own = Up(app.client, project, options, style)
    plan = own.prepare()
    own.resources(plan)
    return own.image_ids.get(project.image_of(project.service(name)), ""), own.project


def _request(
    app: App,
    project: Project,
    name: str,
    argv: tuple[str, ...],
    given: dict[str, Any],
    tty: bool,
    image_id: str,
) -> tuple[dict[str, Any], str]:
    """Body of the create call, and the container's name."""
    prepared = requests.container(
        project,
        project.service(name),
        1,
        secrets_dir=placed.folder(app.place, project.name),
        image_id=image_id,
        oneoff=secrets.token_hex(6),
        auto_remove=given["rm"],
    )
    placed.write(prepared.files)
    body: dict[str, Any] = msgspec.to_builtins(prepared.request)
    attached = not given["detach"]
    body.update(
        Tty=tty,
        OpenStdin=attached,
        StdinOnce=attached,
        AttachStdin=attached,
        AttachStdout=attached,
        AttachStderr=attached,
    )
    if argv:
        body["Cmd"] = list(argv)
    if given["entrypoint"] is not None:
        body["Entrypoint"] = split_entrypoint(given["entrypoint"])
        body["Cmd"] = list(argv) or None
    merged = dict(entry.partition("=")[::2] for entry in body.get("Env") or [])
    own = values.environment(given["env"], given["env_file"])
    merged.update(entry.partition("=")[::2] for entry in own)
    body["Env"] = [f"{key}={value}" for key, value in merged.items()]
    body["Labels"] = {**(body.get("Labels") or {}), **values.labels(given["label"])}
    for option, field in (("user", "User"), ("workdir", "WorkingDir")):
        if given[option]:
            body[field] = given[option]
    _host(body["HostConfig"], body, given)
    return body, given["name"] or prepared.name


def _host(host: dict[str, Any], body: dict[str, Any], given: dict[str, Any]) -> None:
    """Ports, volumes and capabilities of the command line."""
    exposed, bindings = values.published(given["publish"])
    own = host.get("PortBindings") if given["service_ports"] else None
    host["PortBindings"] = {**(own or {}), **bindings}
    body["ExposedPorts"] = {**(body.get("ExposedPorts") or {}), **exposed}
    host["Binds"] = [
        *(host.get("Binds") or []),
        *(outer for outer, _ in map(values.bind, given["volume"]) if outer),
    ]
    host["CapAdd"] = [*(host.get("CapAdd") or []), *given["cap_add"]]
    host["CapDrop"] = [*(host.get("CapDrop") or []), *given["cap_drop"]]
    host["RestartPolicy"] = {"Name": "no"}
