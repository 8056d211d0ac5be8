"""build: images of services; and one image from a folder, for `image build`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.client import context as build_context
from gemel.client.engine import Client
from gemel.client.pull import Lines, checked, push_image


def build_one(
    client: Client,
    folder: str,
    *,
    tags: list[str],
    dockerfile: str = "",
    inline: str = "",
    args: dict[str, str] | None = None,
    target: str = "",
    no_cache: bool = False,
    pull: bool = False,
    labels: dict[str, str] | None = None,
    query: dict[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
) -> str:
    """Builds an image; its id. tell: gets each line of output.

    Raises InvalidInput for a missing context, Failed with the last lines of a build that fails.
    """
    folder = os.path.abspath(folder)
    name, extra = dockerfile or "Dockerfile", None
    if inline:
        name = ".dockerfile.inline"
        extra = {name: inline.encode()}
        if not os.path.isdir(folder):
            build_context.check(folder)
    else:
        name, extra = _dockerfile(folder, name)
    options = {
        "t": tags,
        "dockerfile": name,
        "buildargs": json.dumps(args) if args else None,
        "target": target or None,
        "nocache": no_cache or None,
        "pull": pull or None,
        "labels": json.dumps(labels) if labels else None,
        "rm": True,
        "version": "1",
        **(query or {}),
    }
    messages = client.stream(
        "POST",
        "/build",
        query=options,
        body=build_context.tar(folder, name, extra),
        headers={"Content-Type": "application/x-tar"},
    )
    lines = Lines(tell or (lambda _: None))
    id = ""
    for message in checked(messages):
        id = str((message.get("aux") or {}).get("ID") or id)
        lines.show(message)
    return id


def _dockerfile(folder: str, name: str) -> tuple[str, dict[str, bytes] | None]:
    """Name inside the context; one that lies outside of it is added under a name of its own."""
    path = build_context.check(folder, name)
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    if not inside.startswith("..") and not os.path.isabs(name):
        return os.path.normpath(name), None
    if not inside.startswith(".."):
        return inside, None
    with open(path, "rb") as file:
        return ".dockerfile.outside", {".dockerfile.outside": file.read()}


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("--build-arg", "args", multiple=True, metavar="KEY=VALUE", help="An ARG.")
@click.option("--no-cache", is_flag=True, help="Build every step anew.")
@click.option("--pull", is_flag=True, help="Pull base images again.")
@click.option("--push", is_flag=True, help="Push what was built.")
@click.option("-q", "--quiet", is_flag=True, help="No output of the builds.")
@click.option("--with-dependencies", is_flag=True, help="What they depend on too.")
@pass_app
def build(
    app: App,
    services: tuple[str, ...],
    args: tuple[str, ...],
    no_cache: bool,
    pull: bool,
    push: bool,
    quiet: bool,
    with_dependencies: bool,
) -> None:
    """Build the images of services that have a `build:` in the Compose file."""
    from gemel.cli import values
    from gemel.cli.commands.up import style_of
    from gemel.client.project.up import Up
    from gemel.compose.plan import ALWAYS, UpOptions

    project = app.project().enabling(services)
    names = tuple(services or project.services)
    if with_dependencies:
        names = tuple(project.with_dependencies(names))
    chosen = tuple(name for name in names if project.service(name).build is not None)
    if not chosen:
        output.warn("no service with a `build:` to build")
        return
    extra = dict(entry.partition("=")[::2] for entry in values.environment(args, []))
    style = style_of(app)
    work = Up(
        app.client,
        project,
        UpOptions(services=chosen, no_deps=True, build=ALWAYS, pull="missing"),
        style._replace(mode="quiet") if quiet else style,
        build_options={"nocache": no_cache, "pull": pull, "args": extra},
    )
    work.images()
    if push:
        for name in chosen:
            push_image(app.client, project.image_of(project.service(name)), quiet=quiet)
