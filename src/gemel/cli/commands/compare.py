"""compare: a service run as a container and as a micro VM under the same load."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import click

from gemel.cli import output, reportpage, reporttext
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.client.pull import Lines, checked
from gemel.errors import Failed, InvalidInput


def _numbers(text: str) -> list[int]:
    """``1,16``. Raises InvalidInput."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InvalidInput(f"`{text}` is no list of numbers", resolution="such as 1,16,64")
    return [int(part) for part in parts]


def _headers(texts: tuple[str, ...]) -> dict[str, str]:
    """``Name: value`` options. Raises InvalidInput."""
    found = {}
    for text in texts:
        key, colon, value = text.partition(":")
        if not colon or not key.strip():
            raise InvalidInput(f"`{text}` is no header", resolution="--header 'Name: value'")
        found[key.strip()] = value.strip()
    return found


def _target(url: str, port: int, path: str) -> tuple[int, str]:
    """Port and path, from --url where that is given. Raises InvalidInput."""
    if not url:
        return port, path
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        number = parts.port or 80
    except ValueError as error:
        raise InvalidInput(f"`{url}` is no URL", details=str(error)) from error
    if parts.scheme != "http":
        raise InvalidInput(f"{parts.scheme} cannot be measured", resolution="http:// only")
    rest = parts.path or "/"
    return number, f"{rest}?{parts.query}" if parts.query else rest


@command(ignore_unknown_options=False)
@click.argument("what", type=SERVICES, metavar="SERVICE|IMAGE", required=False)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option(
    "--url", default="", metavar="URL", help="http://:PORT/PATH inside; the host counts not."
)
@click.option("--port", type=int, default=0, help="Port it answers on; else the first exposed one.")
@click.option("--path", default="/", show_default=True, help="What is asked for.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME:VALUE", help="Sent with each request."
)
@click.option("-n", "--rounds", type=int, default=3, show_default=True, help="How often each way.")
@click.option("-s", "--seconds", type=float, default=3.0, show_default=True, help="Of each load.")
@click.option("-c", "--concurrency", default="1,16", show_default=True, help="Connections at once.")
@click.option(
    "--start-timeout",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For the first healthy answer.",
)
@click.option("--html", default="", metavar="FILE", help="Write a page with plots too.")
@click.option("--last", is_flag=True, help="Show the last report instead of measuring.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--format", "form", default="", help="table or json.")
@pass_app
def compare(app: App, what: str | None, argv: tuple[str, ...], **given: Any) -> None:  # fmt: skip
    """Run a service as a container and as a micro VM in turns, and show what each costs.

    Time to the first healthy answer (cold, cloned), throughput and latency under load, memory
    and CPU as the host pays them, what each isolates, probed from inside; then a
    recommendation. The service itself goes on: what is measured are instances beside it,
    without its ports and its data. `gemel compare IMAGE -- COMMAND` takes any image.
    """
    report = _last(app, what) if given["last"] else _measure(app, what, argv, given)
    if given["html"]:
        _write(given["html"], reportpage.page(report))
    if given["form"] == "json":
        output.dump(report)
    elif given["form"] not in ("", "table"):
        raise InvalidInput(f"unknown format `{given['form']}`", resolution="table or json")
    else:
        for line in reporttext.lines(report):
            output.say(line)
    if given["html"]:
        output.note(f"wrote {given['html']}")


def _measure(
    app: App, what: str | None, argv: tuple[str, ...], given: dict[str, Any]
) -> dict[str, Any]:
    if not what:
        raise InvalidInput("compare what?", resolution="gemel compare SERVICE, or IMAGE -- COMMAND")
    port, path = _target(given["url"], given["port"], given["path"])
    wanted = {
        **_subject(app, what, argv),
        "Path": path,
        "Port": port,
        "Rounds": given["rounds"],
        "Seconds": given["seconds"],
        "Concurrency": _numbers(given["concurrency"]),
        "Headers": _headers(given["headers"]),
        "StartTimeout": given["start_timeout"],
    }
    lines = Lines(output.note)
    for message in checked(app.client.stream("POST", "/gemel/compare", body=wanted)):
        if "report" in message:
            found: dict[str, Any] = message["report"]
            return found
        if not given["quiet"]:
            lines.show(message)
    raise Failed("the engine ended the comparison without a report")


def _subject(app: App, what: str, argv: tuple[str, ...]) -> dict[str, Any]:
    """The request to compare: of a service of the Compose file, else of an image."""
    from gemel.cli.targets import defined_services

    is_path = "/" in what or ":" in what or "@" in what
    if app.files or (not is_path and app.compose_files()):
        services = list(app.project().services) if app.files else defined_services(app)
        if what in services:
            return _service(app, what, argv)
    body: dict[str, Any] = {"Image": what, "HostConfig": {}}
    if argv:
        body["Cmd"] = list(argv)
    return {"Container": body, "Service": "", "Project": ""}


def _service(app: App, name: str, argv: tuple[str, ...]) -> dict[str, Any]:
    """What the service depends on is started; its image, networks and volumes are made."""
    from gemel.cli.oneoff import prepare
    from gemel.client.project import placed
    from gemel.client.project.choosing import request

    project = app.startable().enabling([name])
    app.lint(project, project.with_dependencies([name]))
    _, project = prepare(app, project, name)
    body = request(project, name, secrets_dir=placed.folder(app.place, project.name))
    if argv:
        body["Cmd"] = list(argv)
    return {"Container": body, "Service": name, "Project": project.name}


def _last(app: App, what: str | None) -> dict[str, Any]:
    found: list[dict[str, Any]] = app.client.get("/gemel/comparisons")
    project = app.name() if app.has_project() else ""
    for report in found:
        if not what or (report["Name"] == what and report["Project"] in (project, "")):
            return report
    raise InvalidInput("there is no report yet", resolution="`gemel compare SERVICE` makes one")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidInput(f"cannot write {os.path.basename(path)}", details=str(error)) from error
