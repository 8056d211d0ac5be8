"""start, stop, restart, kill, pause, unpause, wait."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.batch import for_each
from gemel.cli.complete import TARGETS
from gemel.cli.targets import Target, of_project, resolve
from gemel.client.project.display import Progress
from gemel.client.project.members import needs
from gemel.client.session import Waiter
from gemel.errors import NotFound

if TYPE_CHECKING:
    from gemel.client.project.prestart import PreStart
    from gemel.client.project.providers import Providers

_names = click.argument("names", nargs=-1, type=TARGETS, metavar="[SERVICE|CONTAINER]...")
_timeout = click.option(
    "-t", "--timeout", type=int, default=None, metavar="SECONDS", help="Time before it is killed."
)


def stop_all(
    app: App,
    targets: list[Target],
    timeout: int | None,
    signal: str = "",
    providers: Providers | None = None,
) -> None:
    """Stops in parallel; each call lasts as long as the engine gives the program.

    providers: of targets without a container; what they can stop is stopped.
    """

    def work(target: Target) -> None:
        query = {"t": timeout, "signal": signal or None}
        limit = (60 if timeout is None else timeout) + 120
        app.client.call("POST", f"/containers/{target.id}/stop", query=query, timeout=limit).read()

    up = [target for target in targets if target.running]
    calls = providers.stop if providers else None
    for_each(app, up, work, "Stopping", "Stopped", order=needs(up, reverse=True), outside=calls)


def start_all(app: App, targets: list[Target]) -> None:
    """Starts in parallel, where the file says so after the steps of ``pre_start``."""
    steps, ours = _pre_start(app, targets)

    def work(target: Target) -> None:
        if steps is not None and target.id in ours:
            steps.run(target.service, target.id, remade=False)
        app.client.post(f"/containers/{target.id}/start", timeout=180)

    for_each(app, targets, work, "Starting", "Started", order=needs(targets))


def _pre_start(app: App, targets: list[Target]) -> tuple[PreStart | None, set[str]]:
    """The steps of services, and the containers to which they belong, if a file has any.

    Raises InvalidInput if it is wrong.
    """
    services = {one.service for one in targets if one.service and not one.running}
    if not services or not app.compose_files():
        return None, set()
    project = app.project()
    with_steps = [one for one in project if one.name in services and one.config.get("pre_start")]
    if not with_steps:
        return None, set()
    from gemel.client.project.execute import Executor
    from gemel.client.project.images import ids

    found = ids(app.client, [project.image_of(one) for one in with_steps])
    work = Executor(app.client, project, Progress(mode="quiet"), image_ids=found)
    return work.pre_start, {one.id for one in of_project(app) if not one.running}


@command()
@_names
@pass_app
def start(app: App, names: tuple[str, ...]) -> None:
    """Start services (those that exist and are stopped), or containers."""
    targets = resolve(app, names)
    if not targets:
        raise NotFound(
            "there is nothing to start: the application has no containers",
            resolution="gemel up -d creates them",
        )
    start_all(app, targets)


@command()
@_names
@_timeout
@click.option("-s", "--signal", default="", help="Instead of the image's stop signal.")
@pass_app
def stop(app: App, names: tuple[str, ...], timeout: int | None, signal: str) -> None:
    """Stop services or containers, without removing them."""
    providers = app.providers()
    outside = providers.targets(names or None) if providers else []
    left = [name for name in names if name not in {one.service for one in outside}]
    targets = resolve(app, left) if left or not names else []
    with providers.talks.guarded() if providers else contextlib.nullcontext():
        stop_all(app, [*targets, *outside], timeout, signal, providers)


@command()
@_names
@_timeout
@click.option("--no-deps", is_flag=True, help="Not the services that depend on them.")
@pass_app
def restart(app: App, names: tuple[str, ...], timeout: int | None, no_deps: bool) -> None:
    """Restart services or containers."""

    def work(target: Target) -> None:
        limit = (60 if timeout is None else timeout) + 180
        path = f"/containers/{target.id}/restart"
        app.client.call("POST", path, query={"t": timeout}, timeout=limit).read()

    targets = resolve(app, names)
    if names and not no_deps and app.has_project():
        targets += _restarted_with(app, targets)
    for_each(app, targets, work, "Restarting", "Started", order=needs(targets))


def _restarted_with(app: App, chosen: list[Target]) -> list[Target]:
    """What runs and depends on services of these with ``restart: true``, however far."""
    others = [one for one in of_project(app) if one.running and one not in chosen]
    done = {target.service for target in chosen}
    found: list[Target] = []
    while more := [one for one in others if done & set(one.restarts_with) and one not in found]:
        found += more
        done |= {target.service for target in more}
    return found


@command()
@_names
@click.option("-s", "--signal", default="KILL", help="Which signal.", show_default=True)
@click.option("--remove-orphans", is_flag=True, help="Remove services not in the file.")
@pass_app
def kill(app: App, names: tuple[str, ...], signal: str, remove_orphans: bool) -> None:
    """Send a signal to the first process of services or containers."""

    def work(target: Target) -> None:
        path = f"/containers/{target.id}/kill"
        app.client.call("POST", path, query={"signal": signal}).read()

    targets = resolve(app, names)
    if not names:
        targets = [target for target in targets if target.running]
    for_each(app, targets, work, "Killing", "Killed")
    if remove_orphans and app.compose_files():
        project = app.project()
        known = {*project.services, *project.disabled}
        strangers = [one for one in of_project(app, one_offs=False) if one.service not in known]
        query = {"force": True, "v": False}

        def remove(target: Target) -> None:
            app.client.call("DELETE", f"/containers/{target.id}", query=query, timeout=120).read()

        for_each(app, strangers, remove, "Removing", "Removed")


@command()
@_names
@pass_app
def pause(app: App, names: tuple[str, ...]) -> None:
    """Freeze services or containers: their processes get no time."""

    def work(target: Target) -> None:
        app.client.call("POST", f"/containers/{target.id}/pause").read()

    targets = [t for t in resolve(app, names) if names or t.state == "running"]
    for_each(app, targets, work, "Pausing", "Paused")


@command()
@_names
@pass_app
def unpause(app: App, names: tuple[str, ...]) -> None:
    """Go on with frozen services or containers."""

    def work(target: Target) -> None:
        app.client.call("POST", f"/containers/{target.id}/unpause").read()

    targets = [t for t in resolve(app, names) if names or t.state == "paused"]
    for_each(app, targets, work, "Unpausing", "Unpaused")


@command()
@click.argument("names", nargs=-1, required=True, type=TARGETS, metavar="SERVICE|CONTAINER...")
@click.option("--down-project", is_flag=True, help="Bring the application down at the first end.")
@pass_app
def wait(app: App, names: tuple[str, ...], down_project: bool) -> int:
    """Wait until services or containers end; print their exit codes.

    The status is the last one's exit code where a project is meant, else 0.
    """
    status = 0
    for target in resolve(app, names):
        status = Waiter(app.client, target.id, "not-running").result()
        output.say(str(status) if not target.service else f"{target.name}: {status}")
        if down_project:
            from gemel.client.project.down import Down

            Down(app.client, app.name(), app.parallel, app.providers()).run(app.progress)
            return status
    return status if app.has_project() else 0
