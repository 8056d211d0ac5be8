"""config: the Compose file checked and resolved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.errors import Failed

if TYPE_CHECKING:
    from gemel.client.project.source import Loaded, Project


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="As.")
@click.option("-q", "--quiet", is_flag=True, help="Check only.")
@click.option("--services", "names", is_flag=True, help="Names of services, one a line.")
@click.option("--volumes", is_flag=True, help="Names of volumes.")
@click.option("--networks", is_flag=True, help="Names of networks.")
@click.option("--images", is_flag=True, help="Names of images.")
@click.option("--profiles", is_flag=True, help="Names of profiles.")
@click.option("--environment", is_flag=True, help="Variables used to fill in the file.")
@click.option("--lint", "linting", is_flag=True, help="Tell what is ignored or refused.")
@click.option("--hash", "hashes", default="", metavar="SERVICE|*", help="Hash of a service.")
@click.option("--no-interpolate", is_flag=True, help="Leave variables as they are.")
@click.option("--no-env-resolution", is_flag=True, help="Leave env files out.")
@click.option("--no-consistency", is_flag=True, help="Do not check references.")
@click.option("-o", "--output", "path", default="", metavar="FILE", help="Write to a file.")
@pass_app
def config(
    app: App,
    services: tuple[str, ...],
    form: str,
    quiet: bool,
    names: bool,
    volumes: bool,
    networks: bool,
    images: bool,
    profiles: bool,
    environment: bool,
    linting: bool,
    hashes: str,
    no_interpolate: bool,
    no_env_resolution: bool,
    no_consistency: bool,
    path: str,
) -> None:
    """Check the Compose file and show it resolved, in Compose's canonical form."""
    from gemel.client.project.source import load_all
    from gemel.compose import render

    loaded = load_all(
        app,
        interpolate=not no_interpolate,
        check=not no_consistency,
        resolve_env=not no_env_resolution,
    )
    project = loaded.project.enabling(services)
    if linting:
        return _lint(project, loaded, services)
    if quiet:
        return
    if hashes:
        from gemel.compose.confighash import config_hash

        chosen = list(project.services) if hashes == "*" else hashes.split(",")
        lines = [f"{name} {config_hash(project.service(name))}" for name in chosen]
    elif names:
        lines = list(project.services)
    elif volumes:
        lines = list(project.volumes)
    elif networks:
        lines = list(project.networks)
    elif images:
        lines = render.images(project, services)
    elif profiles:
        lines = render.all_profiles(project)
    elif environment:
        lines = [f"{key}={value}" for key, value in sorted(project.environment.items())]
    else:
        lines = [
            _rendered(project, services, form == "json", escape=not no_interpolate).rstrip("\n")
        ]
    _print("".join(f"{line}\n" for line in lines), path)


def _lint(project: Project, loaded: Loaded, services: tuple[str, ...]) -> None:
    """Prints what is ignored or refused. Raises Failed if anything is refused."""
    from gemel.compose import lint
    from gemel.compose.support import Level

    findings = lint.lint(project, loaded.origins, services)
    for finding in findings:
        output.say(finding.render())
    refused = sum(finding.level is Level.REFUSED for finding in findings)
    if refused:
        raise Failed(
            f"`gemel up` would refuse this file: {refused} of its attributes cannot be carried out",
            resolution="remove them, or choose the other runtime for the service",
        )


def _rendered(project: object, services: tuple[str, ...], as_json: bool, *, escape: bool) -> str:
    from gemel.client.project.source import Project
    from gemel.compose import render

    assert isinstance(project, Project)
    value = render.canonical(project, services, as_json=as_json, escape=escape)
    return render.to_json(value) if as_json else render.to_yaml(value)


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
