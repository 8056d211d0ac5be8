"""run: a single container or micro VM of an image, or a one-off command of a service."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from gemel.cli import output
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import SERVICES
from gemel.cli.request import create_request
from gemel.cli.unoffered import no_effect
from gemel.client import session
from gemel.client.pull import pull_image
from gemel.errors import Failed, GemelError, InvalidInput, NotFound

_RUNTIMES = click.Choice(["container", "microvm", "auto"])


class RunFailed(Failed):
    """It could not be started; the status says what kind of reason (125, 126, 127)."""

    def __init__(self, problem: GemelError, exit_code: int) -> None:
        super().__init__(problem.brief, problem.details, problem.resolution)
        self.exit_code = exit_code


def _many(*names: str, metavar: str, help: str) -> Callable[[Any], Any]:
    return click.option(*names, multiple=True, metavar=metavar, help=help)


def _text(*names: str, metavar: str, help: str) -> Callable[[Any], Any]:
    return click.option(*names, default="", metavar=metavar, help=help)


def _flag(*names: str, help: str) -> Callable[[Any], Any]:
    return click.option(*names, is_flag=True, help=help)


_OPTIONS: list[Callable[[Any], Any]] = [
    _flag("--rm", help="Remove it when it has ended."),
    _flag("-i", "--interactive", help="Pass standard input on."),
    _flag("-t", "--tty", help="Give it a terminal."),
    _flag("-T", "--no-tty", help="No terminal (service)."),
    _flag("-d", "--detach", help="Let it run in the background, print its id."),
    _text("--name", metavar="NAME", help="Its name."),
    click.option("--runtime", type=_RUNTIMES, default=None, help="What it runs as."),
    _many("-e", "--env", metavar="KEY=VALUE", help="Set a variable."),
    _many("--env-file", "--env-from-file", metavar="FILE", help="Variables from a file."),
    _many("-v", "--volume", metavar="FROM:TO[:ro]", help="Mount a folder or volume."),
    _many("--mount", metavar="type=…,…", help="The same, spelled out."),
    _many("--tmpfs", metavar="PATH[:OPTIONS]", help="A file system in memory."),
    _many("--volumes-from", metavar="NAME", help="The volumes of another container."),
    _flag("--read-only", help="The root file system cannot be written."),
    _many("-p", "--publish", metavar="[IP:]HOST:PORT", help="Publish a port."),
    _flag("-P", "--publish-all", help="Publish all exposed ports."),
    _many("--expose", metavar="PORT", help="Declare a port."),
    _many("--network", metavar="NAME", help="Network to join; none and host too."),
    _many("--network-alias", metavar="NAME", help="A further name in the network."),
    _text("--ip", metavar="ADDRESS", help="Its address in the network."),
    _text("--mac-address", metavar="MAC", help="Its hardware address."),
    _text("-h", "--hostname", metavar="NAME", help="Its host name."),
    _text("--domainname", metavar="NAME", help="Its domain name."),
    _many("--add-host", metavar="NAME:ADDRESS", help="A line for /etc/hosts."),
    _many("--dns", metavar="ADDRESS", help="Name server for names outside."),
    _many("--dns-search", metavar="DOMAIN", help="Search domain."),
    _many("--dns-option", metavar="OPTION", help="Option of resolv.conf."),
    _text("-u", "--user", metavar="USER[:GROUP]", help="As this user."),
    _many("--group-add", metavar="GROUP", help="A further group."),
    _text("-w", "--workdir", metavar="DIR", help="In this folder."),
    click.option("--entrypoint", default=None, metavar="PROGRAM", help="Instead of the image's."),
    _text("-m", "--memory", metavar="SIZE", help="Most memory (512m)."),
    _text("--memory-reservation", metavar="SIZE", help="Memory it should keep."),
    _text("--memory-swap", metavar="SIZE", help="Memory and swap; -1 for no limit."),
    click.option("--cpus", type=float, default=None, metavar="N", help="Most processors (1.5)."),
    click.option("-c", "--cpu-shares", type=int, default=None, help="Relative weight."),
    _text("--cpuset-cpus", metavar="LIST", help="Only these processors (0-2)."),
    click.option("--pids-limit", type=int, default=None, help="Most processes."),
    _text("--shm-size", metavar="SIZE", help="Size of /dev/shm."),
    click.option("--oom-score-adj", type=int, default=None, help="Killed first when positive."),
    _many("--ulimit", metavar="NAME=SOFT:HARD", help="A resource limit."),
    _many("--cap-add", metavar="CAP", help="Add a capability."),
    _many("--cap-drop", metavar="CAP", help="Take a capability away; ALL."),
    _flag("--privileged", help="All capabilities and devices."),
    _many("--security-opt", metavar="OPTION", help="seccomp=FILE, no-new-privileges, …"),
    _many("--device", metavar="PATH", help="A device of this machine."),
    _many("--sysctl", metavar="KEY=VALUE", help="A kernel setting."),
    _text("--pid", metavar="MODE", help="Process namespace: host, container:NAME."),
    _text("--ipc", metavar="MODE", help="IPC namespace: host, container:NAME, shareable."),
    _flag("--init", help="A small init as first process."),
    _many("-l", "--label", metavar="KEY=VALUE", help="A label."),
    _text("--restart", metavar="POLICY", help="no, always, unless-stopped, on-failure[:N]."),
    _text("--stop-signal", metavar="SIGNAL", help="Signal that stops it."),
    click.option("--stop-timeout", type=int, default=None, help="Seconds before it is killed."),
    _text("--health-cmd", metavar="COMMAND", help="Health check."),
    _text("--health-interval", metavar="TIME", help="Time between checks."),
    _text("--health-timeout", metavar="TIME", help="Time for one check."),
    click.option("--health-retries", type=int, default=0, help="Failures until unhealthy."),
    _text("--health-start-period", metavar="TIME", help="Time before failures count."),
    _text("--health-start-interval", metavar="TIME", help="Time between the first checks."),
    _flag("--no-healthcheck", help="No health check."),
    click.option(
        "--pull", type=click.Choice(["always", "missing", "never"]), default="missing",
        help="When to pull the image.",
    ),
    _flag("-q", "--quiet", help="Do not show the pull."),
    _text("--platform", metavar="OS/ARCH", help="Platform of the image."),
    _text("--cidfile", metavar="FILE", help="Write the id to a file."),
    click.option("--detach-keys", default="ctrl-p,ctrl-q", help="Keys that let go of it."),
    click.option("--sig-proxy/--no-sig-proxy", default=True, help="Hand signals on."),
    _flag("--no-deps", help="Do not start what the service depends on."),
    _flag("--service-ports", help="Publish the service's own ports."),
    _flag("--use-aliases", help="Use the service's names in its networks."),
    _flag("--build", help="Build the service's image first."),
    _flag("--quiet-build", help="Do not show the build."),
    no_effect("--quiet-pull", why="pulls of a service are one line"),
    _flag("-y", "--yes", help="Answer every question with yes."),
    _flag("--remove-orphans", help="Remove containers of services not in the file."),
]  # fmt: skip


def _options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command("run", allow_interspersed_args=False)
@_options
@click.argument("what", type=SERVICES, metavar="SERVICE|IMAGE")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND]...")
@pass_app
def run(app: App, what: str, argv: tuple[str, ...], **options: Any) -> int:
    """Run an image as a container or micro VM, or a one-off command of a service.

    If there is a Compose file (or -f) that has a service SERVICE, this is Compose's run: the
    service's settings, its networks and volumes, what it depends on started. Else it is an image.
    The status is the program's own; 125 if it could not be started, 126 if the program
    cannot be run, 127 if it is not in the image.
    """
    from gemel.cli.targets import defined_services

    if app.files or (not _is_path(what) and app.compose_files()):
        services = list(app.project().services) if app.files else defined_services(app)
        if what in services:
            from gemel.cli.oneoff import run_service

            return run_service(app, what, argv, options)
    try:
        return run_image(app, what, argv, options)
    except RunFailed:
        raise
    except GemelError as problem:
        from gemel.cli.main import exit_code

        code = exit_code(problem)
        raise RunFailed(problem, code if code in (126, 127) else 125) from problem


def _is_path(what: str) -> bool:
    return "/" in what or ":" in what or "@" in what


def run_image(app: App, image: str, argv: tuple[str, ...], options: dict[str, Any]) -> int:
    """The run of an image. Raises what the engine refuses with."""
    if options["detach"] and options["tty"] is False and options["interactive"]:
        options = {**options, "interactive": True}
    attached = not options["detach"]
    if attached:
        session.need_terminal(options["tty"], options["interactive"])
    id = create(app, image, create_request(options, image, argv), options)
    if options["cidfile"]:
        _write_id(options["cidfile"], id)
    try:
        if not attached:
            app.client.call("POST", f"/containers/{id}/start", timeout=180).read()
            output.say(id)
            return 0
        wanted = session.Wanted(
            stdin=options["interactive"],
            tty=options["tty"],
            detach_keys=options["detach_keys"],
            sig_proxy=options["sig_proxy"],
        )
        return session.run_attached(app.client, id, wanted, remove=options["rm"]) or 0
    except GemelError:
        if options["rm"]:
            _remove(app, id)
        raise


def create(app: App, image: str, body: dict[str, Any], options: dict[str, Any]) -> str:
    """Creates it, pulling the image first where that is asked for or needed; its id."""
    query = {"name": options["name"] or None, "platform": options["platform"] or None}
    if options["pull"] == "always":
        pull_image(app.client, image, quiet=options["quiet"], platform=options["platform"])
    try:
        made = app.client.post("/containers/create", body, timeout=120, **query)
    except NotFound as problem:
        if options["pull"] != "missing" or "image" not in problem.brief.lower():
            raise
        output.note(f"Unable to find image '{image}' locally")
        pull_image(app.client, image, quiet=options["quiet"], platform=options["platform"])
        made = app.client.post("/containers/create", body, timeout=120, **query)
    for warning in made.get("Warnings") or []:
        output.warn(warning)
    return str(made["Id"])


def _write_id(path: str, id: str) -> None:
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(id)
    except OSError as error:
        raise InvalidInput(f"cannot write {os.path.basename(path)}", details=str(error)) from error


def _remove(app: App, id: str) -> None:
    try:
        app.client.call("DELETE", f"/containers/{id}", query={"force": True}).read()
    except GemelError:
        pass  # the engine removes it by itself
