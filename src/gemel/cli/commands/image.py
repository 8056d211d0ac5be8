"""image ls, pull, push, rm, tag, inspect, history, load, save, import, prune, build, bootstrap."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import IO, Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, pass_app
from gemel.cli.batch import raise_first
from gemel.cli.buildoptions import extras
from gemel.cli.commands.build import build_one
from gemel.client.pull import Lines, checked, pull_image, push_image, split_reference
from gemel.errors import GemelError, InvalidInput

COLUMNS = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
]
_format = click.option("--format", "form", default=None, help="table, json, or a template.")


@click.group()
def image() -> None:
    """Manage images: pull, build, import, or make one without a registry."""


def rows_of(images: list[dict[str, Any]], now: float) -> list[output.Row]:
    """A row for each name of each image, as docker has them."""
    rows: list[output.Row] = []
    for entry in images:
        for ref in entry.get("RepoTags") or ["<none>:<none>"]:
            name, _, tag = ref.rpartition(":")
            rows.append(
                {
                    "Repository": short_name(name),
                    "Tag": tag,
                    "ID": text.short_id(entry["Id"]),
                    "CreatedSince": text.ago(now - entry.get("Created", 0)) + " ago",
                    "Size": text.decimal_size(entry.get("Size", 0)),
                }
            )
    return rows


def short_name(name: str) -> str:
    """``docker.io/library/nginx`` as people write it."""
    return name.removeprefix("docker.io/library/").removeprefix("docker.io/")


@image.command("ls")
@click.argument("name", required=False)
@click.option("-a", "--all", "every", is_flag=True, help="Intermediate ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only those.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@_format
@pass_app
def ls(
    app: App,
    name: str | None,
    every: bool,
    quiet: bool,
    filters: tuple[str, ...],
    no_trunc: bool,
    form: str | None,
) -> None:
    """List images."""
    wanted = parse_filters(filters)
    if name:
        wanted["reference"] = [name]
    found = app.client.get("/images/json", all=every, filters=wanted or None)
    if quiet:
        for id in dict.fromkeys(entry["Id"] for entry in found):
            output.say(id if no_trunc else text.short_id(id))
        return
    rows = rows_of(found, time.time())
    if name:
        rows = [row for row in rows if _is_named(row, name)]
    output.emit(rows, COLUMNS, form)


def _is_named(row: output.Row, pattern: str) -> bool:
    """Whether a row is what NAME or NAME:TAG (with wildcards) means: an image has many names."""
    from fnmatch import fnmatchcase

    wanted = short_name(pattern)
    repository = str(row["Repository"])
    return fnmatchcase(repository, wanted) or fnmatchcase(f"{repository}:{row['Tag']}", wanted)


def parse_filters(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    """``--filter key=value`` options in the API's form. Raises InvalidInput."""
    out: dict[str, list[str]] = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found:
            raise InvalidInput(f"`{pair}` is no filter", resolution="example: --filter label=a=b")
        out.setdefault(key, []).append(value)
    return out


@image.command()
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-q", "--quiet", is_flag=True, help="Only the name at the end.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Platform of the image.")
@pass_app
def pull(app: App, refs: tuple[str, ...], quiet: bool, platform: str) -> None:
    """Pull images from their registries."""
    for ref in refs:
        pull_image(app.client, ref, quiet=quiet, platform=platform)
        output.say(":".join(split_reference(ref)) if "@" not in ref else ref)


@image.command()
@click.argument("ref", metavar="IMAGE")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_app
def push(app: App, ref: str, quiet: bool) -> None:
    """Push an image to its registry."""
    push_image(app.client, ref, quiet=quiet)


@image.command()
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--force", is_flag=True, help="Even if it is used or has other names.")
@click.option("--no-prune", is_flag=True, help="Keep untagged parents.")
@pass_app
def rm(app: App, refs: tuple[str, ...], force: bool, no_prune: bool) -> None:
    """Remove images, or names of them."""
    problems: list[BaseException] = []
    for ref in refs:
        try:
            for step in app.client.delete(f"/images/{ref}", force=force, noprune=no_prune):
                for what, name in step.items():
                    output.say(f"{what}: {name}")
        except GemelError as problem:
            problems.append(problem)
    raise_first(problems)


@image.command()
@click.argument("ref", metavar="IMAGE")
@click.argument("target", metavar="NEW")
@pass_app
def tag(app: App, ref: str, target: str) -> None:
    """Give an image a further name."""
    name, label = split_reference(target)
    app.client.post(f"/images/{ref}/tag", repo=name, tag=label)


@image.command()
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE...")
@_format
@pass_app
def inspect(app: App, refs: tuple[str, ...], form: str | None) -> None:
    """Show everything about images as JSON."""
    show([app.client.get(f"/images/{ref}/json") for ref in refs], form)


def show(found: list[Any], form: str | None) -> None:
    """Objects as ``inspect`` prints them: a JSON array, or each through a template."""
    if form and form != "json":
        from gemel.cli import template

        for entry in found:
            output.say(template.render(template.unescape(form), entry))
    else:
        output.dump(found)


@image.command()
@click.argument("ref", metavar="IMAGE")
@click.option("--no-trunc", is_flag=True, help="Whole lines.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@_format
@pass_app
def history(app: App, ref: str, no_trunc: bool, quiet: bool, form: str | None) -> None:
    """Show how an image was made, newest first."""
    rows: list[output.Row] = []
    for entry in app.client.get(f"/images/{ref}/history"):
        by = str(entry.get("CreatedBy") or "").replace("\t", " ").replace("\n", " ")
        id = str(entry.get("Id") or "<missing>")
        rows.append(
            {
                "ID": id if no_trunc else text.short_id(id),
                "CreatedSince": text.ago(time.time() - (entry.get("Created") or 0)) + " ago",
                "CreatedBy": by if no_trunc or len(by) <= 45 else by[:44] + "…",
                "Size": text.decimal_size(entry.get("Size") or 0),
                "Comment": entry.get("Comment") or "",
            }
        )
    if quiet:
        for row in rows:
            output.say(row["ID"])
        return
    titles = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
    names = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    output.emit(rows, list(zip(names, titles, strict=True)), form)


def file_chunks(file: IO[Any], size: int = 1 << 18) -> Iterator[bytes]:
    """An open file in pieces."""
    while data := file.read(size):
        yield data


@image.command()
@click.option("-i", "--input", "path", default="-", metavar="FILE", help="Instead of stdin.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@pass_app
def load(app: App, path: str, quiet: bool) -> None:
    """Load images from a tar (of `image save`, docker save, or an OCI layout)."""
    with click.open_file(path, "rb") as file:
        if path == "-" and sys.stdin.isatty():
            raise InvalidInput("no archive given", resolution="gemel image load -i FILE")
        lines = Lines(output.say)
        messages = app.client.stream(
            "POST",
            "/images/load",
            query={"quiet": quiet},
            body=file_chunks(file),
            headers={"Content-Type": "application/x-tar"},
        )
        for message in checked(messages):
            lines.show(message)


@image.command()
@click.argument("refs", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", "path", default="-", metavar="FILE", help="Instead of stdout.")
@pass_app
def save(app: App, refs: tuple[str, ...], path: str) -> None:
    """Write images to a tar."""
    if path == "-" and sys.stdout.isatty():
        raise InvalidInput("refusing to write to a terminal", resolution="-o FILE, or a pipe")
    response = app.client.call("GET", "/images/get", query={"names": list(refs)}, timeout=None)
    with click.open_file(path, "wb", atomic=path != "-") as file:
        for chunk in response.chunks():
            file.write(chunk)


@image.command("import")
@click.argument("source", metavar="FILE|URL|-")
@click.argument("ref", required=False, default="", metavar="[NAME[:TAG]]")
@click.option("-c", "--change", multiple=True, help="A Dockerfile instruction, e.g. CMD.")
@click.option("-m", "--message", default="", help="A comment.")
@pass_app
def import_(app: App, source: str, ref: str, change: tuple[str, ...], message: str) -> None:
    """Make an image of one layer from a tar of a file system.

    A URL is fetched by the engine's machine.
    """
    remote = source.startswith(("http://", "https://"))
    name, tag_name = split_reference(ref) if ref else ("", "")
    query = {
        "fromSrc": source if remote else "-",
        "repo": name or None,
        "tag": tag_name or None,
        "message": message or None,
        "changes": list(change),
    }
    with click.open_file("/dev/null" if remote else source, "rb") as file:
        messages = app.client.stream(
            "POST",
            "/images/create",
            query=query,
            body=file_chunks(file),
            headers={"Content-Type": "application/x-tar"},
        )
        lines = Lines(output.say)
        for entry in checked(messages):
            lines.show(entry)


@image.command()
@click.option("-a", "--all", "every", is_flag=True, help="All that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@pass_app
def prune(app: App, every: bool, force: bool) -> None:
    """Remove images that have no name (--all: that nothing uses)."""
    what = "all images that no container uses" if every else "all images without a name"
    if not force and not click.confirm(f"Remove {what}?"):
        return
    filters = {"dangling": ["false" if every else "true"]}
    done = app.client.post("/images/prune", filters=filters, timeout=600)
    for step in done.get("ImagesDeleted") or []:
        for verb, name in step.items():
            output.say(f"{verb}: {name}")
    output.say(f"Total reclaimed space: {text.decimal_size(done.get('SpaceReclaimed') or 0)}")


@image.command("build")
@click.argument("context", default=".", metavar="FOLDER|URL")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME", help="Its name(s).")
@click.option("-f", "--file", "dockerfile", default="", metavar="FILE", help="The Dockerfile.")
@click.option("--build-arg", "args", multiple=True, metavar="KEY=VALUE", help="An ARG.")
@click.option("--target", default="", help="The stage to stop at.")
@click.option("--no-cache", is_flag=True, help="Build every step anew.")
@click.option("--pull", "pull_base", is_flag=True, help="Pull the base again.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label.")
@click.option("--network", default="", metavar="MODE", help="Of RUN: host, none or default.")
@click.option("--add-host", "hosts", multiple=True, metavar="NAME:ADDRESS", help="A host's name.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Platform of the image.")
@click.option("-q", "--quiet", is_flag=True, help="Only the id.")
@extras
@pass_app
def build(
    app: App,
    context: str,
    tags: tuple[str, ...],
    dockerfile: str,
    args: tuple[str, ...],
    target: str,
    no_cache: bool,
    pull_base: bool,
    labels: tuple[str, ...],
    network: str,
    hosts: tuple[str, ...],
    platform: str,
    quiet: bool,
    **given: Any,
) -> None:
    """Build an image from a folder with a Dockerfile.

    A URL is of a Dockerfile, of a tar, or of a git repository (URL.git#BRANCH:FOLDER);
    the engine's machine fetches it.
    """
    from gemel.cli import buildoptions, values

    query = {
        "networkmode": network or None,
        "extrahosts": ",".join(hosts) or None,
        "platform": platform or None,
        **buildoptions.parameters(given),
    }
    secrets, ssh = buildoptions.private(given)
    build_args = dict(entry.partition("=")[::2] for entry in values.environment(args, []))
    id = build_one(
        app.client,
        context,
        tags=list(tags),
        dockerfile=dockerfile,
        args=build_args,
        target=target,
        no_cache=no_cache,
        pull=pull_base,
        labels=values.labels(labels),
        query=query,
        secrets=secrets,
        ssh=ssh,
        contexts=buildoptions.contexts(given),
        tell=None if quiet else output.note,
    )
    if quiet or not tags:
        output.say(id)


@image.command()
@click.argument("ref", metavar="NAME[:TAG]", default="debian:bookworm-slim")
@click.option("--suite", default="", help="Debian's suite; this machine's by default.")
@click.option("--package", "packages", multiple=True, metavar="NAME", help="A further package.")
@pass_app
def bootstrap(app: App, ref: str, suite: str, packages: tuple[str, ...]) -> None:
    """Make a base image from Debian's packages; needs no registry.

    Packages come from this machine's own apt sources.
    """
    query = {"ref": ref, "suite": suite or None, "packages": ",".join(packages) or None}
    lines = Lines()
    for message in checked(app.client.stream("POST", "/gemel/images/bootstrap", query=query)):
        lines.show(message)
    output.say(ref)
