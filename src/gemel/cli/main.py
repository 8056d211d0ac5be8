"""Entry point of the command line: the global options, and what becomes of errors."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn

import click

from gemel.cli import output
from gemel.cli.app import App, Lazy
from gemel.cli.unoffered import unoffered
from gemel.errors import CommandNotFound, CommandNotRunnable, GemelError

VERSION = "0.1.0"


class Exit(click.exceptions.Exit):
    """Ends the command with a status."""


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Compose file(s).")
@click.option("-p", "--project-name", default="", metavar="NAME", help="Name of the project.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Switch a profile on.")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Instead of .env.")
@click.option("--project-directory", default="", metavar="DIR", help="Base of relative paths.")
@click.option("-H", "--host", default="", metavar="URL", help="Engine's socket (GEMEL_HOST).")
@click.option("--root", default="", metavar="DIR", help="Engine's lasting data (GEMEL_ROOT).")
@click.option("--run-dir", default="", metavar="DIR", help="Engine's run folder (GEMEL_RUN_DIR).")
@click.option(
    "--ansi", type=click.Choice(["auto", "never", "always"]), default="auto", help="Colour."
)
@click.option(
    "--progress",
    type=click.Choice(["auto", "tty", "plain", "quiet"]),
    default="auto",
    help="How progress is shown.",
)
@click.option("--parallel", type=int, default=0, metavar="N", help="Most calls at once.")
@click.option("--dry-run", is_flag=True, help="Of up, down, create, update, publish: only say.")
@click.option("--all-resources", is_flag=True, help="Of config: also what no service uses.")
@unoffered("--compatibility", why="containers are named as Compose 2 names them, with hyphens")
@click.version_option(VERSION, "-v", "--version", message="gemel version %(version)s")
@click.pass_context
def cli(
    ctx: click.Context,
    files: tuple[str, ...],
    project_name: str,
    profiles: tuple[str, ...],
    env_files: tuple[str, ...],
    project_directory: str,
    host: str,
    root: str,
    run_dir: str,
    ansi: str,
    progress: str,
    parallel: int,
    dry_run: bool,
    all_resources: bool,
) -> None:
    """Runs the services of one Compose file as containers and micro VMs."""
    # dry_run is handed on to the command, see Lazy
    output.set_ansi(os.environ.get("COMPOSE_ANSI", ansi) if ansi == "auto" else ansi)
    ctx.obj = App(
        files=files,
        project_name=project_name,
        profiles=profiles,
        env_files=env_files,
        project_directory=project_directory,
        host=host,
        root=root,
        run_dir=run_dir,
        progress=progress,
        parallel=parallel,
        all_resources=all_resources,
    )
    if ctx.invoked_subcommand is None:
        output.say(ctx.get_help())


def main() -> None:
    """Entry point of ``gemel``."""
    _end(call(sys.argv[1:]))


def _end(status: int) -> NoReturn:
    """Ends the process. Taking every module apart first would cost a short command 25 ms."""
    if threading.active_count() > 1:
        sys.exit(status)  # which waits for the threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 120  # as the interpreter does when the last output is lost
    os._exit(status)


def call(arguments: list[str]) -> int:
    """Runs one command line; its exit status. Never raises, never shows a traceback."""
    debug = bool(os.environ.get("GEMEL_DEBUG"))
    try:
        status = cli.main(arguments, prog_name="gemel", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as end:
        return _flushed(end.exit_code)
    except click.UsageError as problem:
        _usage(problem)
        return 2
    except click.Abort:
        output.note("")
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _silent_pipe()
    except GemelError as problem:
        if debug:
            raise
        _flushed(0)
        output.error(problem)
        return exit_code(problem)
    except Exception as problem:
        if debug:
            raise
        output.error(_unexpected(problem))
        return 1


def exit_code(problem: GemelError) -> int:
    """1, or what a command that could not be run gives as Docker has it."""
    status = getattr(problem, "exit_code", None)
    if isinstance(status, int):
        return status
    if isinstance(problem, CommandNotFound):
        return 127
    if isinstance(problem, CommandNotRunnable):
        return 126
    return 1


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _silent_pipe()
    return status


def _silent_pipe() -> int:
    # the reader has gone (`gemel ps | head -1`): nothing to say, and nothing more to flush
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return 141


def _usage(problem: click.UsageError) -> None:
    where = f" ({problem.ctx.command_path} --help shows how)" if problem.ctx else ""
    output.note(output.paint("error:", "bold red", 2) + " " + problem.format_message() + where)


def _unexpected(problem: Exception) -> GemelError:
    return GemelError(
        f"unexpected: {type(problem).__name__}: {problem}",
        resolution="this is a fault in gemel; GEMEL_DEBUG=1 shows where",
    )


if __name__ == "__main__":
    main()
