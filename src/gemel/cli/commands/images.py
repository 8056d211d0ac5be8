"""images, pull, push of the application's services."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.cli.targets import SERVICE, summaries

COLUMNS = [
    ("CONTAINER", "ContainerName"),
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("SIZE", "Size"),
]


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("-a", "--all", "every", is_flag=True, help="Without a project: intermediate too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def images(app: App, services: tuple[str, ...], every: bool, quiet: bool, form: str | None) -> None:
    """List the images of the application's containers; without a project, all images."""
    from gemel.cli.commands import image

    if not app.has_project():
        found = app.client.get("/images/json", all=every)
        rows = image.rows_of(found, time.time())
        if quiet:
            for id in dict.fromkeys(row["ID"] for row in rows):
                output.say(id)
            return
        output.emit(rows, image.COLUMNS, form)
        return
    rows = _rows(app, services)
    if quiet:
        for id in dict.fromkeys(row["ID"] for row in rows):
            output.say(text.short_id(id))
    elif form == "json":
        output.say(json.dumps(rows))
    else:
        shown = [
            {**row, "ID": text.short_id(row["ID"]), "Size": text.decimal_size(row["Size"])}
            for row in rows
        ]
        output.emit(shown, COLUMNS, form)


def _rows(app: App, services: tuple[str, ...]) -> list[output.Row]:
    from gemel.cli.commands.image import short_name

    cache: dict[str, dict[str, Any]] = {}
    rows: list[output.Row] = []
    for entry in summaries(app, project=app.name()):
        if services and (entry.get("Labels") or {}).get(SERVICE) not in services:
            continue
        id = str(entry["ImageID"])
        if id not in cache:
            cache[id] = app.client.exists(f"/images/{id}/json") or {}
        tags = cache[id].get("RepoTags") or ["<none>:<none>"]
        name, _, tag = str(tags[0]).rpartition(":")
        rows.append(
            {
                "ID": id,
                "ContainerName": entry["Names"][0].lstrip("/"),
                "Repository": short_name(name),
                "Tag": tag,
                "Size": int(cache[id].get("Size") or 0),
            }
        )
    return sorted(rows, key=lambda row: str(row["ContainerName"]))


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--ignore-pull-failures", is_flag=True, help="Go on with the others.")
@click.option("--ignore-buildable", is_flag=True, help="Not those that can be built.")
@click.option("--include-deps", is_flag=True, help="What they depend on too.")
@click.option("--policy", type=click.Choice(["missing", "always"]), default="always", help="When.")
@pass_app
def pull(
    app: App,
    services: tuple[str, ...],
    quiet: bool,
    ignore_pull_failures: bool,
    ignore_buildable: bool,
    include_deps: bool,
    policy: str,
) -> None:
    """Pull the images of services."""
    from gemel.client.project.display import Progress
    from gemel.client.project.images import ids
    from gemel.client.project.pool import each
    from gemel.client.pull import pull_image
    from gemel.errors import GemelError

    project = app.project().enabling(services)
    names = list(services or project.services)
    if include_deps:
        names = project.with_dependencies(names)
    chosen = [project.service(name) for name in names]
    refs = [s.image for s in chosen if s.image and not (ignore_buildable and s.build is not None)]
    if policy == "missing":
        there = ids(app.client, refs, app.parallel)
        refs = [ref for ref in refs if ref not in there]
    mode = "quiet" if quiet else app.progress
    with Progress("Pulling", mode, colour=output.colourful(2)) as shown:

        def work(ref: str) -> None:
            shown.working(f"Image {ref}", "Pulling")
            try:
                pull_image(app.client, ref, quiet=True)
            except GemelError as problem:
                shown.failed(f"Image {ref}", f"Error: {problem.brief}")
                if not ignore_pull_failures:
                    raise
                return
            shown.done(f"Image {ref}", "Pulled")

        problems = each(dict.fromkeys(refs), work, app.parallel)
    for problem in problems.values():
        raise problem


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--ignore-push-failures", is_flag=True, help="Go on with the others.")
@click.option("--include-deps", is_flag=True, help="Also of services that they need.")
@pass_app
def push(
    app: App,
    services: tuple[str, ...],
    quiet: bool,
    ignore_push_failures: bool,
    include_deps: bool,
) -> None:
    """Push the images of services that can be built."""
    from gemel.client.pull import push_image
    from gemel.errors import GemelError

    project = app.project().enabling(services)
    names = project.with_dependencies(services) if include_deps and services else services
    for name in names or project.services:
        service = project.service(name)
        if service.build is None or not service.image:
            continue
        try:
            push_image(app.client, service.image, quiet=quiet)
        except GemelError as problem:
            if not ignore_push_failures:
                raise
            output.warn(problem.brief)
