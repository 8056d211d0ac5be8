"""doctor, info, version, env, daemon, system."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, command, pass_app
from gemel.client.engine import Client
from gemel.client.errors import EngineDown
from gemel.errors import GemelError

_format = click.option("--format", "form", default=None, help="table, json, or a template.")
_MARKS = {
    "ok": ("✔", "green"),
    "warning": ("!", "yellow"),
    "warn": ("!", "yellow"),
    "missing": ("✘", "red"),
}


@command()
@_format
@pass_app
def doctor(app: App, form: str | None) -> int:
    """Check this machine: what gemel needs and finds, and how to mend what is missing.

    KVM is checked by booting a tiny guest. The status is 1 if something needed is missing.
    """
    checks: list[dict[str, Any]] = app.client.get("/gemel/doctor", timeout=180)
    if form == "json":
        output.say(json.dumps(checks, indent=2, ensure_ascii=False))
    elif form and form != "table":
        output.emit(checks, [], form)
    else:
        output.say(doctor_table(checks))
    return 1 if any(check.get("status") == "missing" for check in checks) else 0


def doctor_table(checks: list[dict[str, Any]]) -> str:
    """A line for each check; below it what to do."""
    width = max((len(str(check["name"])) for check in checks), default=0)
    lines: list[str] = []
    for check in checks:
        status = str(check.get("status", ""))
        mark, style = _MARKS.get(status, ("?", "dim"))
        details = str(check.get("details") or "").splitlines() or [""]
        name = str(check["name"]).ljust(width)
        lines.append(f"{output.paint(mark, style)} {name}  {status:<8} {details[0]}".rstrip())
        indent = " " * (width + 4)
        lines += [f"{indent}{more}" for more in details[1:]]
        if check.get("resolution") and status != "ok":
            lines += [
                f"{indent}{output.paint('→', 'cyan')} {part}"
                for part in str(check["resolution"]).splitlines()
            ]
    bad = sum(1 for check in checks if check.get("status") == "missing")
    warned = sum(1 for check in checks if check.get("status") in ("warning", "warn"))
    lines.append("")
    lines.append(
        "Everything that is needed is here."
        if not bad and not warned
        else f"{bad} missing, {warned} to look at."
    )
    return "\n".join(lines)


@command()
@_format
@pass_app
def info(app: App, form: str | None) -> None:
    """Show the engine's state and what this machine offers it."""
    found = app.client.get("/info")
    if form:
        from gemel.cli.commands.image import show

        if form == "json":
            output.say(json.dumps(found, ensure_ascii=False))
        else:
            show([found], form)
        return
    names = [
        ("Version", "ServerVersion"), ("Name", "Name"), ("Root", "DockerRootDir"),
        ("Containers", "Containers"), ("  Running", "ContainersRunning"),
        ("  Paused", "ContainersPaused"), ("  Stopped", "ContainersStopped"),
        ("Images", "Images"), ("Kernel", "KernelVersion"), ("System", "OperatingSystem"),
        ("Architecture", "Architecture"), ("Processors", "NCPU"), ("Cgroups", "CgroupVersion"),
        ("Default runtime", "DefaultRuntime"),
    ]  # fmt: skip
    for title, key in names:
        if key in found:
            output.say(f"{title}: {found[key]}")
    output.say(f"Memory: {text.binary_size(found.get('MemTotal') or 0)}")
    output.say(f"Runtimes: {', '.join(found.get('Runtimes') or {})}")
    output.say(f"Socket: {app.place.socket}")
    for warning in found.get("Warnings") or []:
        output.warn(warning)


@command()
@click.option("--short", is_flag=True, help="The number only.")
@click.option("-f", "--format", "form", default=None, help="json, or a template.")
@pass_app
def version(app: App, short: bool, form: str | None) -> None:
    """Show the versions of the command line and of the engine."""
    from gemel.cli.main import VERSION

    if short:
        output.say(VERSION)
        return
    server: dict[str, Any] | None = None
    try:
        server = Client(app.place, start=False).get("/version")
    except EngineDown:
        pass
    if form == "json":
        output.say(json.dumps({"Client": {"Version": VERSION}, "Server": server}))
        return
    if form and form != "table":
        from gemel.cli import template

        data = {"Client": {"Version": VERSION}, "Server": server, "version": VERSION}
        output.say(template.render(template.unescape(form), data))
        return
    output.say(f"gemel version {VERSION}")
    if server is None:
        output.say("engine: not running")
        return
    output.say(f"engine: {server.get('Version')} (API {server.get('ApiVersion')})")
    for part in server.get("Components") or []:
        if part.get("Name") != "Engine":
            output.say(f"  {part['Name']}: {part.get('Version')}")


@command()
@click.option("--unset", is_flag=True, help="Take them back.")
@click.option("--shell", type=click.Choice(["sh", "fish"]), default="sh", help="Which shell.")
@pass_app
def env(app: App, unset: bool, shell: str) -> None:
    """Print settings that point Docker's tools to gemel: eval "$(gemel env)".

    DOCKER_BUILDKIT=0 has docker and Compose send builds to the engine: with buildx they
    would start a BuildKit of their own in a container, whose images stay there.
    """
    # one line, so that eval without quotes does the same
    settings = {"DOCKER_HOST": shlex.quote(f"unix://{app.place.socket}"), "DOCKER_BUILDKIT": "0"}
    if shell == "fish":
        words = [f"set -e {k};" if unset else f"set -gx {k} {v};" for k, v in settings.items()]
        output.say(" ".join(words))
    elif unset:
        output.say(f"unset {' '.join(settings)}")
    else:
        output.say("export " + " ".join(f"{name}={value}" for name, value in settings.items()))


@command()
@click.option("--debug", is_flag=True, help="Log every command that is run.")
@click.option("--listen", metavar="URL", help="Answer on tcp://ADDRESS:PORT too.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="The listener's certificate.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key.")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="Who signs clients' certificates.")
@click.option("--token-file", type=click.Path(path_type=Path), help="What clients must send.")
@click.option("--listen-host", multiple=True, help="A name that clients call this machine by.")
@pass_app
def daemon(
    app: App,
    debug: bool,
    listen: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    token_file: Path | None,
    listen_host: tuple[str, ...],
) -> int:
    """Run the engine in the foreground, until SIGTERM; services go on without it."""
    from gemel.daemon import listener, run_daemon
    from gemel.model.paths import Paths

    if os.geteuid() != 0:
        raise GemelError("the engine needs root", resolution="sudo gemel daemon")
    paths = Paths(root=Path(app.place.root), run=Path(app.place.run))
    where = None
    if listen:
        where = listener(
            listen, cert=tls_cert, key=tls_key, ca=tls_ca, token_file=token_file, hosts=listen_host
        )
    return run_daemon(paths, debug=debug, listen=where)


@click.group()
def system() -> None:
    """Disk usage, clean up, stop the engine."""


@system.command()
@pass_app
def stop(app: App) -> None:
    """Stop the engine. Services go on running; the next command starts it again."""
    client = Client(app.place, start=False)
    try:
        running = len(client.get("/containers/json"))
        client.call("POST", "/gemel/shutdown", timeout=60).read()
    except EngineDown:
        output.say("the engine is not running")
        return
    _wait_gone(app, client)
    what = (
        "1 container or micro VM goes" if running == 1 else f"{running} containers and micro VMs go"
    )
    output.say("the engine has stopped" + (f"; {what} on running" if running else ""))


def _wait_gone(app: App, client: Client, patience: float = 60.0) -> None:
    """Until it does not answer, and its process has ended (then its lock is free)."""
    import time

    from gemel.host import lock

    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            client.http.call("GET", "/_ping", timeout=5).read()
        except GemelError:
            break
        time.sleep(0.05)
    place = Path(app.place.run) / "gemel.lock"
    if app.place.own_socket and not lock.wait_free(place, deadline - time.monotonic()):
        raise GemelError(
            "the engine was asked to stop and has not ended",
            resolution=f"its log is {Path(app.place.root) / 'engine.log'}",
        )


@system.command()
@_format
@pass_app
def df(app: App, form: str | None) -> None:
    """Show how much disk images, containers and volumes take."""
    found = app.client.get("/system/df", timeout=300)
    output.emit(df_rows(found), [("TYPE", "Type"), ("TOTAL", "TotalCount"), ("SIZE", "Size")], form)


def df_rows(found: dict[str, Any]) -> list[output.Row]:
    """A row for each kind of thing."""
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes = found.get("Volumes") or []
    sizes = {
        "Images": (len(images), found.get("LayersSize") or sum(i.get("Size", 0) for i in images)),
        "Containers": (len(containers), sum(c.get("SizeRw") or 0 for c in containers)),
        "Local Volumes": (
            len(volumes),
            sum(max(0, (v.get("UsageData") or {}).get("Size", 0)) for v in volumes),
        ),
    }
    return [
        {"Type": kind, "TotalCount": str(count), "Size": text.decimal_size(size)}
        for kind, (count, size) in sizes.items()
    ]


@system.command()
@click.option("-a", "--all", "every", is_flag=True, help="Images that nothing uses too.")
@click.option("--volumes", is_flag=True, help="Anonymous volumes too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_app
def prune(app: App, every: bool, volumes: bool, force: bool) -> None:
    """Remove stopped containers, and networks and images that nothing uses."""
    if not force and not click.confirm("Remove everything that is not used?"):
        return
    client = app.client
    freed = 0
    steps: list[tuple[str, dict[str, list[str]] | None]] = [
        ("/containers/prune", None),
        ("/networks/prune", None),
        ("/images/prune", {"dangling": ["false" if every else "true"]}),
    ]
    if volumes:
        steps.append(("/volumes/prune", None))
    for path, filters in steps:
        freed += int(client.post(path, filters=filters, timeout=600).get("SpaceReclaimed") or 0)
    output.say(f"Total reclaimed space: {text.decimal_size(freed)}")
