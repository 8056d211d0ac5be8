"""publish: the Compose file into a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.unoffered import unoffered

if TYPE_CHECKING:
    from gemel.client.project.source import Project
    from gemel.compose.files import Reader
    from gemel.compose.publish import Contents

_MOST_SHOWN = 100


@command()
@click.argument("repository", metavar="REPOSITORY[:TAG]")
@click.option("--resolve-image-digests", "digests", is_flag=True, help="Pin tags to digests.")
@click.option(
    "--oci-version",
    default="",
    metavar="1.0|1.1",
    help="Version of OCI's specification; else what the registry takes.",
)
@click.option("--with-env", is_flag=True, help="Include variables and env files.")
@click.option("-y", "--yes", is_flag=True, help="Answer every question with yes.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@unoffered("--app", why="gemel push brings the images to their own repositories")
@pass_app
def publish(
    app: App,
    repository: str,
    digests: bool,
    oci_version: str,
    with_env: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Put the Compose file into a registry, for `-f oci://REPOSITORY[:TAG]`.

    What it extends from goes with it, and its env files with --with-env; images that it builds
    are pushed. Mounted folders, variables and what looks secret are asked about first.
    """
    from gemel.client.project.artifacts import send
    from gemel.compose import artifact
    from gemel.compose import publish as publishing
    from gemel.compose.files import DiskReader
    from gemel.errors import InvalidInput

    name = artifact.reference_of(repository)
    if "@" in name:
        raise InvalidInput(
            f"{name} names a digest: what is published has one of its own",
            resolution="write REPOSITORY[:TAG]",
        )
    if oci_version not in ("", *artifact.VERSIONS):
        raise InvalidInput(
            f"unsupported OCI version: {oci_version}",
            resolution=f"known are {' and '.join(artifact.VERSIONS)}",
        )
    project, reader = app.project(), DiskReader()
    if "-" in project.files:
        raise InvalidInput(
            "what is read from standard input is not published", resolution="name a file with -f"
        )
    publishing.refuse(project, reader)
    if not yes and not _agreed(project, reader, with_env):
        output.note("not published")
        return
    _push_images(app, project, dry_run)
    pins = _pins(app, project) if digests else ""
    contents = publishing.collect(project, reader, with_env=with_env, digests=pins)
    _left_out(contents, with_env)
    output.note(f"{name} publishing")
    if dry_run:
        _would(contents)
        output.note(f"{name} published (dry run)")
        return
    sent = send(app.client, name, contents.layers, oci_version)
    output.note(f"{name} published")
    output.say(f"oci://{name}@{sent.digest}")


def _agreed(project: Project, reader: Reader, with_env: bool) -> bool:
    """Asks about what should not leave this machine unseen.

    Raises InvalidInput for variables and env files without --with-env, or if nobody answers.
    """
    from gemel.cli.asking import agreed
    from gemel.compose import publish as publishing
    from gemel.compose import sensitive

    mounts = publishing.bind_mounts(project)
    if mounts and not _asked(
        "you are about to publish bind mounts declaration within your OCI artifact.\n"
        "only the bind mount declarations will be added to the OCI artifact (not content)\n"
        "please double check that you are not mounting potential user's sensitive directories "
        "or data",
        mounts,
        "Are you ok to publish these bind mount declarations?",
    ):
        return False
    found = [f for path, text in publishing.scanned(project, reader)
             for f in sensitive.scan(path, text)]  # fmt: skip
    lines = list(dict.fromkeys(f'{f.kind}\n"{f.key}": {f.value}' for f in found))
    if lines and not _asked(
        "you are about to publish sensitive data within your OCI artifact.\n"
        "please double check that you are not leaking sensitive data",
        lines,
        "Are you ok to publish these sensitive data?",
    ):
        return False
    variables = _variables(project, reader, with_env)
    if not variables:
        return True
    output.note(
        "you are about to publish environment variables within your OCI artifact.\n"
        "please double check that you are not leaking sensitive data"
    )
    for line in variables:
        output.note(line)
    return agreed("Are you ok to publish these environment variables?")


def _asked(head: str, lines: list[str], question: str) -> bool:
    from gemel.cli.asking import agreed

    output.note(head)
    for line in lines[:_MOST_SHOWN]:
        output.note(line)
    if len(lines) > _MOST_SHOWN:
        output.note(f"and {len(lines) - _MOST_SHOWN} more")
    return agreed(question)


def _variables(project: Project, reader: Reader, with_env: bool) -> list[str]:
    """Lines about the variables that are published. Raises InvalidInput without --with-env."""
    from gemel.compose import publish as publishing
    from gemel.compose import sensitive
    from gemel.errors import InvalidInput

    values = publishing.environment(project)
    filed = publishing.with_env_files(project, reader)
    if not with_env and (values or filed):
        reasons = [f'service "{name}" has env_file declared.' for name in filed]
        for name in values:
            if name in project.configs and name not in {*project.services, *project.disabled}:
                reasons.append(f'config "{name}" is declare as an environment variable.')
            else:
                reasons.append(f'service "{name}" has environment variable(s) declared.')
        raise InvalidInput(
            "\n".join(reasons),
            details="To avoid leaking sensitive data, you must either explicitly allow the sending "
            "of environment variables by using the --with-env flag,\n"
            "or remove sensitive data from your Compose configuration",
        )
    lines = []
    for name, own in values.items():
        lines.append(f"Service/Config  {name}")
        for key, value in own.items():
            secret = sensitive.kind_of(key, value)
            lines.append(f"{key}={sensitive.shown(value) if secret else value}")
    return lines


def _push_images(app: App, project: Project, dry_run: bool) -> None:
    """Pushes what the file builds; what cannot be pushed is told, and is no reason to stop."""
    from gemel.client.pull import push_image
    from gemel.errors import GemelError

    for service in {**project.services, **project.disabled}.values():
        if service.build is None or not service.image:
            continue
        if dry_run:
            output.note(f"would push {service.image}")
            continue
        try:
            push_image(app.client, service.image)
        except GemelError as problem:
            output.warn(f"{service.image} was not pushed: {problem.brief}")


def _pins(app: App, project: Project) -> str:
    """A Compose file with the digests that registries have for the images now."""
    from gemel.client import credentials
    from gemel.compose import publish as publishing

    found = {}
    for name, service in {**project.services, **project.disabled}.items():
        image = service.image or ""
        if not image:
            continue
        if "@" not in image:
            headers = credentials.headers(image)
            path = f"/distribution/{image}/json"
            answer = app.client.call("GET", path, headers=headers, timeout=120).json()
            image = f"{image}@{answer['Descriptor']['digest']}"
        found[name] = image
    return publishing.pinned(found)


def _left_out(contents: Contents, with_env: bool) -> None:
    for path in contents.left_out:
        output.warn(f"{path} is not part of what is published")
    if contents.left_out and not with_env:
        output.note("--with-env includes env files")


def _would(contents: Contents) -> None:
    for layer in contents.layers:
        what = "env file" if layer.kind.endswith("envfile") else "Compose file"
        what = "file that is extended" if layer.extends else what
        output.note(f"  {what} {layer.name}, {len(layer.data)} bytes")
