"""build: images of services; and one image from a folder, for `image build`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.buildoptions import extras
from gemel.cli.complete import SERVICES
from gemel.cli.unoffered import unoffered
from gemel.client import buildextras
from gemel.client import context as build_context
from gemel.client.engine import Client
from gemel.client.pull import Lines, build_headers, checked, push_image
from gemel.errors import InvalidInput


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
    secrets: Iterable[buildextras.Secret] = (),
    ssh: Mapping[str, str | None] | None = None,
    contexts: Mapping[str, str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> str:
    """Builds an image; its id. tell: gets each line of output.

    folder: also an address, which the engine fetches. query: further parameters of
    POST /build. secrets, ssh, contexts: see buildextras. Raises InvalidInput for a missing
    context, Failed with the last lines of a build that fails.
    """
    remote = folder if buildextras.is_address(folder) else ""
    folder = os.path.abspath(folder)
    name, extra = dockerfile or "Dockerfile", None
    if inline:
        name = ".dockerfile.inline"
        extra = {name: inline.encode()}
        if not os.path.isdir(folder):
            build_context.check(folder)
    elif not remote:
        name, extra = _dockerfile(folder, name)
    places, further = buildextras.placed_contexts(contexts or {})
    if remote and further:
        raise InvalidInput(
            "a context at an address takes no further folders",
            resolution="name further contexts by address too, or clone the repository",
        )
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
        "remote": remote or None,
        "contexts": places,
        "secrets": buildextras.private_token(client, secrets, ssh or {}),
        **(query or {}),
    }
    messages = client.stream(
        "POST",
        "/build",
        query=options,
        body=() if remote else build_context.tar(folder, name, extra, further),
        headers=build_headers(),
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


def is_place(text: str) -> bool:
    """Whether an argument is a folder or an address rather than a service's name."""
    return text in (".", "..") or "/" in text or buildextras.is_address(text)


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]... | FOLDER | URL")
@click.option("--build-arg", "args", multiple=True, metavar="KEY=VALUE", help="An ARG.")
@click.option("--no-cache", is_flag=True, help="Build every step anew.")
@click.option("--pull", is_flag=True, help="Pull base images again.")
@click.option("--push", is_flag=True, help="Push what was built.")
@click.option("-q", "--quiet", is_flag=True, help="No output of the builds.")
@click.option("--with-dependencies", is_flag=True, help="What they depend on too.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME", help="Name(s) of a folder's.")
@extras
@unoffered("--builder", flag=False, why="the engine has one builder")
@unoffered("--check", why="`gemel config --lint` checks the file; a build checks its steps")
@unoffered("--print", why="`gemel config` shows what is built")
@unoffered("--provenance", flag=False, why="no attestations are made")
@unoffered("--sbom", flag=False, why="no attestations are made")
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
    tags: tuple[str, ...],
    **given: Any,
) -> None:
    """Build the images of services that have a `build:` in the Compose file.

    A FOLDER with a Dockerfile, or a URL of one, is built as `gemel image build` does.
    """
    from gemel.cli import buildoptions, values

    extra = dict(entry.partition("=")[::2] for entry in values.environment(args, []))
    secrets, ssh = buildoptions.private(given)
    if len(services) == 1 and is_place(services[0]):
        id = build_one(
            app.client, services[0], tags=list(tags), args=extra, no_cache=no_cache, pull=pull,
            query=buildoptions.parameters(given), secrets=secrets, ssh=ssh,
            contexts=buildoptions.contexts(given), tell=None if quiet else output.note,
        )  # fmt: skip
        for tag in tags if push else ():
            push_image(app.client, tag, quiet=quiet)
        if quiet or not tags:
            output.say(id)
        return
    if tags:
        raise InvalidInput(
            "--tag names the image of a folder or URL",
            resolution="a service's image is named by `image:` and `build.tags` in the file",
        )
    more = {
        "cache_from": given["cache_from"],
        "cache_to": given["cache_to"],
        "limits": buildoptions.limits(given),
        "secrets": tuple(secrets),
        "ssh": ssh,
        "additional_contexts": buildoptions.contexts(given),
    }
    options = {"nocache": no_cache, "pull": pull, "args": extra, "more": more}
    _services(app, services, options, push=push, quiet=quiet, dependencies=with_dependencies)


def _services(
    app: App,
    services: tuple[str, ...],
    options: dict[str, Any],
    *,
    push: bool,
    quiet: bool,
    dependencies: bool,
) -> None:
    from gemel.cli.commands.up import style_of
    from gemel.client.project.up import Up
    from gemel.compose.plan import ALWAYS, UpOptions

    project = app.startable().enabling(services)
    names = tuple(services or project.services)
    if dependencies:
        names = tuple(project.with_dependencies(names))
    chosen = tuple(name for name in names if project.service(name).build is not None)
    if not chosen:
        output.warn("no service with a `build:` to build")
        return
    app.lint(project, chosen, "build")
    style = style_of(app)
    work = Up(
        app.client,
        project,
        UpOptions(services=chosen, no_deps=True, build=ALWAYS, pull="missing"),
        style._replace(mode="quiet") if quiet else style,
        build_options=options,
    )
    work.images()
    if push:
        for name in chosen:
            push_image(app.client, project.image_of(project.service(name)), quiet=quiet)
