"""up, create, scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.asking import remote_project
from gemel.cli.complete import SERVICES
from gemel.cli.unoffered import no_effect
from gemel.client.project.source import Project
from gemel.client.project.up import Style, Up
from gemel.compose.plan import ALWAYS, MISSING, NEVER, UpOptions, targets
from gemel.compose.rolling import ORDERS
from gemel.compose.steps import Kind
from gemel.errors import InvalidInput

_SHARED: list[Callable[[Any], Any]] = [
    click.option("--build", is_flag=True, help="Build images first."),
    click.option("--no-build", is_flag=True, help="Build nothing."),
    click.option(
        "--pull", type=click.Choice(["always", "missing", "never"]), default=None,
        help="When to pull images.",
    ),
    click.option("--quiet-pull", is_flag=True, help="For Docker's sake; pulls are one line."),
    click.option("--scale", "scales", multiple=True, metavar="SERVICE=N", help="How many of it."),
    click.option(
        "--runtime", "runtimes", multiple=True, metavar="SERVICE=RUNTIME",
        help="Run it as container, microvm or auto, whatever the file says; several with commas.",
    ),
    click.option("--force-recreate", is_flag=True, help="Make all anew."),
    click.option("--no-recreate", is_flag=True, help="Leave what is there as it is."),
    click.option("--always-recreate-deps", is_flag=True, help="Make what they need anew."),
    click.option("--remove-orphans", is_flag=True, help="Remove services not in the file."),
    click.option("-V", "--renew-anon-volumes", is_flag=True, help="New anonymous volumes."),
    click.option("-t", "--timeout", type=int, default=None, help="Seconds before a kill."),
    click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing."),
    click.option("--quiet-build", is_flag=True, help="Do not show the output of builds."),
    click.option("-y", "--yes", is_flag=True, help="Answer every question with yes."),
    no_effect("--menu", why="there is no menu; --watch, and Ctrl-C to stop"),
    click.option("--keep", is_flag=True, help="If it fails, leave what was made."),
]  # fmt: skip


def _shared(function: Any) -> Any:
    for option in reversed(_SHARED):
        function = option(function)
    return function


def style_of(app: App, given: dict[str, Any] | None = None) -> Style:
    """How progress is shown."""
    quiet = bool(given and given.get("quiet_build"))
    return Style(app.progress, output.colourful(2), app.parallel, quiet)


def pairs(texts: tuple[str, ...], what: str) -> dict[str, str]:
    """``a=b,c=d`` options as a dict. Raises InvalidInput."""
    out: dict[str, str] = {}
    for text in texts:
        for part in filter(None, text.split(",")):
            key, found, value = part.partition("=")
            if not found or not key or not value:
                raise InvalidInput(
                    f"`{part}` is not understood", resolution=f"--{what} SERVICE=VALUE"
                )
            out[key] = value
    return out


def changed(project: Project, services: tuple[str, ...], given: dict[str, Any]) -> Project:
    """The project with the command line's runtimes and scales, and named services enabled."""
    project = project.enabling(services)
    runtimes = pairs(given["runtimes"], "runtime")
    if runtimes:
        project = project.with_runtimes(runtimes)
    counts: dict[str, int] = {}
    for name, count in pairs(given["scales"], "scale").items():
        if not count.isdigit():
            raise InvalidInput(f"`{name}={count}`: {count} is no number of instances")
        counts[name] = int(count)
    return project.with_scale(counts) if counts else project


def options_of(
    services: tuple[str, ...], given: dict[str, Any], *, start: bool, roll: bool = True
) -> UpOptions:
    """What plans take, from the command's options. Raises InvalidInput for contradictions."""
    if given["build"] and given["no_build"]:
        raise InvalidInput("--build and --no-build exclude each other")
    return UpOptions(
        services=services,
        no_deps=given.get("no_deps", False),
        force_recreate=given["force_recreate"],
        no_recreate=given["no_recreate"],
        always_recreate_deps=given["always_recreate_deps"],
        remove_orphans=given["remove_orphans"],
        renew_anon_volumes=given["renew_anon_volumes"],
        timeout=given["timeout"],
        build=ALWAYS if given["build"] else NEVER if given["no_build"] else MISSING,
        pull=given["pull"] or "",
        start=start,
        roll=roll,
    )


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@click.option("-d", "--detach", is_flag=True, help="Leave it running in the background.")
@click.option("--wait", "wait", is_flag=True, help="Until all run and are healthy; implies -d.")
@click.option("--wait-timeout", type=float, default=None, metavar="SECONDS", help="At most.")
@click.option("--no-deps", is_flag=True, help="Not what they depend on.")
@click.option("-w", "--watch", "watching", is_flag=True, help="Carry saved files in: gemel watch.")
@click.option("--no-start", is_flag=True, help="Create only.")
@click.option("--abort-on-container-exit", is_flag=True, help="Stop all when one ends.")
@click.option("--abort-on-container-failure", is_flag=True, help="Stop all when one fails.")
@click.option("--exit-code-from", default="", metavar="SERVICE", help="Its status is ours.")
@click.option("--attach", "attached", multiple=True, metavar="SERVICE", help="Show only these.")
@click.option("--no-attach", "unattached", multiple=True, metavar="SERVICE", help="Not these.")
@click.option("--attach-dependencies", is_flag=True, help="Show what they depend on too.")
@click.option("--no-log-prefix", is_flag=True, help="No names before the lines.")
@click.option("--no-color", is_flag=True, help="No colour in the output.")
@click.option(
    "--replay-dependencies",
    "recording",
    default="",
    metavar="FILE",
    help="Answer for what they depend on from a HAR file (gemel record).",
)
@click.option("--timestamps", is_flag=True, help="For Docker's sake; see `gemel logs -t`.")
@_shared
@pass_app
def up(app: App, services: tuple[str, ...], **given: Any) -> int:
    """Create and start the application of the Compose file, or some of its services.

    Without -d their output is shown, and Ctrl-C stops them. What is there already is
    kept unless it has changed. A start that fails takes back what it had made.
    """
    abort = given["abort_on_container_exit"] or given["abort_on_container_failure"]
    detach = given["detach"] or given["wait"] or given["no_start"]
    if given["watching"] and (detach or abort or given["exit_code_from"]):
        raise InvalidInput("--watch excludes -d (--wait, --no-start) and waiting for an end")
    if detach and (abort or given["exit_code_from"] or given["attached"]):
        raise InvalidInput(
            "-d (--wait, --no-start) excludes --attach and the options that wait for an end"
        )
    project = changed(app.startable(), services, given)
    if given["exit_code_from"]:
        project.service(given["exit_code_from"])
    options = options_of(services, given, start=not given["no_start"])
    app.lint(project, targets(project, options))
    remote_project(app, project, yes=given["yes"] or given["dry_run"])
    if given["recording"] and not given["dry_run"]:
        from gemel.cli.standins import begin

        project = begin(app, project, services, given["recording"], style_of(app, given))
    work = Up(app.client, project, options, style_of(app, given), keep=given["keep"])
    if given["dry_run"]:
        for line in work.dry_run():
            output.say(line)
        return 0
    if given["watching"]:
        from gemel.cli.watched import run_watched

        return run_watched(app, work, services, given)
    if not detach:
        from gemel.cli.attached import run_attached

        work = _rolled(app, work, given)

        return run_attached(app, work, services, given)
    work.detached(work.prepare())
    if given["wait"]:
        work.wait_ready(given["wait_timeout"])
    return 0


def _rolled(app: App, work: Up, given: dict[str, Any]) -> Up:
    """Rolls over what is to be replaced one by one, before output is followed: of the new ones.

    Gives back what is left to do then.
    """
    options = msgspec.structs.replace(work.options, roll=False)
    if any("update_config" in (one.config.get("deploy") or {}) for one in work.project):
        plan = work.prepare()
        options = msgspec.structs.replace(options, build=NEVER, pull="")  # has just been seen to
        if plan.of(Kind.UPDATE):
            work.detached(plan)
            options = msgspec.structs.replace(options, force_recreate=False)
    return Up(app.client, work.project, options, style_of(app, given), keep=given["keep"])


@command()
@click.argument("services", nargs=-1, type=SERVICES, metavar="[SERVICE]...")
@_shared
@pass_app
def create(app: App, services: tuple[str, ...], **given: Any) -> int:
    """Create the application's networks, volumes and containers, without starting them."""
    project = changed(app.startable(), services, given)
    options = options_of(services, given, start=False)
    app.lint(project, targets(project, options))
    work = Up(app.client, project, options, style_of(app, given), keep=given["keep"])
    if given["dry_run"]:
        for line in work.dry_run():
            output.say(line)
        return 0
    work.detached(work.prepare())
    return 0


@command()
@click.argument("services", nargs=-1, required=True, type=SERVICES, metavar="SERVICE...")
@click.option("--no-build", is_flag=True, help="Use the image that is there.")
@click.option(
    "--pull",
    type=click.Choice(["always", "missing", "never"]),
    default=None,
    help="When to pull images.",
)
@click.option("--force", is_flag=True, help="Replace also what has not changed.")
@click.option("--order", type=click.Choice(ORDERS), default=None, help="Over the file's.")
@click.option("-t", "--timeout", type=int, default=None, help="Seconds before a kill.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@pass_app
def update(app: App, services: tuple[str, ...], **given: Any) -> int:  # fmt: skip
    """Replace running instances of services by what the file says now, without losing a request.

    Images that the file builds are built first. A new instance gets names and published ports
    once it is ready; the old one ends when its connections have ended. deploy.update_config
    and x-gemel.drain say more; other services are left as they are.
    """
    project = app.startable().enabling(services)
    options = UpOptions(
        services=services,
        no_deps=True,
        force_recreate=given["force"],
        timeout=given["timeout"],
        build=NEVER if given["no_build"] else ALWAYS,
        pull=given["pull"] or "",
        update=True,
        order=given["order"] or "",
    )
    app.lint(project, services)
    work = Up(app.client, project, options, style_of(app))
    if given["dry_run"]:
        for line in work.dry_run():
            output.say(line)
        return 0
    work.detached(work.prepare())
    return 0


@command()
@click.argument("counts", nargs=-1, required=True, metavar="SERVICE=N...")
@click.option("--no-deps", is_flag=True, help="Not what they depend on.")
@pass_app
def scale(app: App, counts: tuple[str, ...], no_deps: bool) -> None:
    """Change the number of replicas of services."""
    wanted: dict[str, int] = {}
    for name, count in pairs(counts, "scale").items():
        if not count.isdigit():
            raise InvalidInput(f"`{name}={count}`: {count} is no number of instances")
        wanted[name] = int(count)
    project = app.startable().enabling(tuple(wanted)).with_scale(wanted)
    options = UpOptions(services=tuple(wanted), no_deps=no_deps)
    app.lint(project, targets(project, options))
    work = Up(app.client, project, options, style_of(app))
    work.detached(work.prepare())
