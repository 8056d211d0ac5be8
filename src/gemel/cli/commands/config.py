"""config: the Compose file checked and resolved."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, outside_findings, pass_app
from gemel.cli.complete import SERVICES
from gemel.cli.unoffered import unoffered
from gemel.errors import Failed, InvalidInput

if TYPE_CHECKING:
    from gemel.client.project.source import Loaded, Project
    from gemel.compose.mentioned import Mention


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="As.")
@click.option("-q", "--quiet", is_flag=True, help="Check only.")
@click.option("--services", "names", is_flag=True, help="Names of services, one a line.")
@click.option("--volumes", is_flag=True, help="Names of volumes.")
@click.option("--networks", is_flag=True, help="Names of networks.")
@click.option("--images", is_flag=True, help="Names of images.")
@click.option("--models", is_flag=True, help="Names of models.")
@click.option("--profiles", is_flag=True, help="Names of profiles.")
@click.option("--variables", is_flag=True, help="Variables of the files, and their defaults.")
@click.option("--environment", is_flag=True, help="Variables used to fill in the file.")
@click.option("--lint", "linting", is_flag=True, help="Tell what is ignored or refused.")
@click.option("--hash", "hashes", default="", metavar="SERVICE|*", help="Hash of a service.")
@click.option("--no-interpolate", is_flag=True, help="Leave variables as they are.")
@click.option("--no-env-resolution", is_flag=True, help="Leave env files out.")
@click.option("--no-consistency", is_flag=True, help="Do not check references.")
@click.option("--resolve-image-digests", "digests", is_flag=True, help="Pin tags to digests.")
@click.option("--lock-image-digests", "lock", is_flag=True, help="An override of digests only.")
@unoffered("--no-normalize", why="what is shown is the canonical form, with defaults filled in")
@unoffered(
    "--no-path-resolution", why="paths are shown absolute; --project-directory sets the base"
)
@click.option("-o", "--output", "path", default="", metavar="FILE", help="Write to a file.")
@pass_app
def config(app: App, services: tuple[str, ...], path: str, **given: Any) -> None:
    """Check the Compose file and show it resolved, in Compose's canonical form."""
    from gemel.client.project.source import load_all

    try:
        loaded = load_all(
            app,
            interpolate=not (given["no_interpolate"] or given["variables"]),
            check=not given["no_consistency"],
            resolve_env=not given["no_env_resolution"],
        )
    except InvalidInput as error:
        raise _wrong(error, given["linting"]) from None
    project = loaded.project.enabling(services)
    if given["linting"]:
        return _lint(project, loaded, services)
    if given["quiet"]:
        return
    lines = _lines(project, services, given)
    if lines is None:
        lines = _whole(app, project, services, given)
    _print("".join(f"{line}\n" for line in lines), path)


def _lines(project: Project, services: tuple[str, ...], given: dict[str, Any]) -> list[str] | None:
    """The list that an option asks for; None if none does."""
    from gemel.compose import render

    if given["hashes"]:
        from gemel.compose.confighash import config_hash

        chosen = list(project.services) if given["hashes"] == "*" else given["hashes"].split(",")
        return [f"{name} {config_hash(project.service(name))}" for name in chosen]
    if given["variables"]:
        return _variables(project, given["form"])
    makers: dict[str, Callable[[], list[str]]] = {
        "names": lambda: list(project.services),
        "volumes": lambda: list(project.volumes),
        "networks": lambda: list(project.networks),
        "models": lambda: list(project.models),
        "images": lambda: render.images(project, services),
        "profiles": lambda: render.all_profiles(project),
        "environment": lambda: [f"{k}={v}" for k, v in sorted(project.environment.items())],
    }
    return next((make() for option, make in makers.items() if given[option]), None)


def _variables(project: Project, form: str) -> list[str]:
    """The variables that the files mention, as a table or as JSON."""
    from gemel.client.project.source import reader
    from gemel.compose.mentioned import mentions

    found = mentions(project.files, reader(project.files))
    if form == "json":
        return [json.dumps({one.name: _mention(one) for one in found}, indent=2)]
    rows = [("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE")]
    rows += [(m.name, str(m.required).lower(), m.default, m.alternate) for m in found]
    widths = [max(len(row[n]) for row in rows) + 3 for n in range(4)]
    return ["".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _mention(one: Mention) -> dict[str, Any]:
    return {
        "Name": one.name,
        "DefaultValue": one.default,
        "PresenceValue": one.alternate,
        "Required": one.required,
    }


def _whole(
    app: App, project: Project, services: tuple[str, ...], given: dict[str, Any]
) -> list[str]:
    """The canonical form."""
    from gemel.compose import render

    as_json = given["form"] == "json"
    value = render.canonical(
        project,
        services,
        as_json=as_json,
        escape=not given["no_interpolate"],
        unused=app.all_resources,
    )
    if given["digests"] or given["lock"]:
        _pin(app, value["services"])
    if given["lock"]:
        kept = {n: {"image": s["image"]} for n, s in value["services"].items() if "image" in s}
        value = {"services": kept}
    return [(render.to_json(value) if as_json else render.to_yaml(value)).rstrip("\n")]


def _pin(app: App, services: dict[str, Any]) -> None:
    """Adds to every image the digest that its registry has for it now."""
    for service in services.values():
        image = service.get("image", "")
        if image and "@" not in image:
            found = app.client.get(f"/distribution/{image}/json", timeout=60)
            service["image"] = f"{image}@{found['Descriptor']['digest']}"


def _wrong(error: InvalidInput, linting: bool) -> InvalidInput:
    """The error; with --lint, with what would be refused of the rest of the file."""
    from gemel.compose import lint
    from gemel.compose.problems import WrongFiles

    return lint.complete(error) if linting and isinstance(error, WrongFiles) else error


def _lint(project: Project, loaded: Loaded, services: tuple[str, ...]) -> None:
    """Prints what is ignored or refused. Raises Failed if anything is refused."""
    from gemel.compose import lint
    from gemel.compose.support import Level

    findings = lint.lint(project, loaded.origins, services)
    findings += outside_findings(project, loaded.origins, services or list(project.services))
    for finding in findings:
        output.say(finding.render())
    refused = sum(finding.level is Level.REFUSED for finding in findings)
    if refused:
        raise Failed(
            f"`gemel up` would refuse this file: {refused} of its attributes cannot be carried out",
            resolution="remove them, or choose the other runtime for the service",
        )


def _print(text: str, path: str) -> None:
    if not path:
        output.say(text.removesuffix("\n"))
        return
    from pathlib import Path

    from gemel.host import files

    try:
        files.write(Path(path), text, mode=0o644)
    except OSError as error:
        raise Failed(f"cannot write {path}", details=str(error)) from error
