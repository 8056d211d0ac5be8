"""``up --watch``: the services' output, and saved files carried in, until Ctrl-C stops all."""

from __future__ import annotations

import signal
import threading
from collections.abc import Collection
from typing import Any

from gemel.cli import output
from gemel.cli.app import App
from gemel.cli.attached import INTERRUPTED, Interrupted, interrupt
from gemel.client import terminal
from gemel.client.project.logs import LogOptions, Printer, label_of, read_log
from gemel.client.project.members import Target, of_project
from gemel.client.project.up import Up, kill_all, stop_all
from gemel.client.project.watching import Watching
from gemel.compose.plan import targets
from gemel.errors import GemelError

#: Seconds between looks for containers that are new (after a rebuild).
_LOOK = 0.5


def run_watched(app: App, work: Up, services: tuple[str, ...], given: dict[str, Any]) -> int:
    """Starts all, then watches in this thread, so that signals are seen. Always 130."""
    names = targets(work.project, work.options)
    chosen = list(services) or list(work.project.services)
    watching = Watching(app.client, work.project, chosen, work.style, output.note)
    with terminal.handled([signal.SIGINT, signal.SIGTERM], interrupt):
        try:
            _until_interrupted(app, work, names, given, watching)
        except Interrupted:  # the second one, at whatever moment it comes
            with terminal.handled([signal.SIGINT, signal.SIGTERM], lambda number: None):
                output.note("Killing...")
                kill_all(app.client, work.project.name)
    return INTERRUPTED


def _until_interrupted(
    app: App, work: Up, names: Collection[str], given: dict[str, Any], watching: Watching
) -> None:
    """Watches until the first Ctrl-C, and stops everything then."""
    over = threading.Event()
    try:
        work.detached(work.prepare())
        shown = {name for name in names if work.project.service(name).attach}
        printer = Printer(
            [label_of(t) for t in _members(app, work, shown)],
            prefix=not given["no_log_prefix"],
            colour=output.colourful(1) and not given["no_color"],
        )
        follower = threading.Thread(
            target=_follow, args=(app, work, shown, printer, over), daemon=True
        )
        follower.start()
        watching.run()
    except Interrupted:
        over.set()
        output.note("Gracefully stopping... (press Ctrl+C again to force)")
        stop_all(
            app.client, work.project.name, work.style, timeout=given["timeout"],
            providers=app.providers(),
        )  # fmt: skip


def _members(app: App, work: Up, shown: set[str]) -> list[Target]:
    found = of_project(app.client, work.project.name, one_offs=False)
    return [target for target in found if target.service in shown]


def _follow(app: App, work: Up, shown: set[str], printer: Printer, over: threading.Event) -> None:
    """Follows the output of every container of the services, also of those made later."""
    followed: set[str] = set()
    while not over.is_set():
        try:
            for target in _members(app, work, shown):
                if target.running and target.id not in followed:
                    followed.add(target.id)
                    threading.Thread(target=_show, args=(app, target, printer), daemon=True).start()
        except GemelError:
            pass  # the engine is looked for again
        over.wait(_LOOK)


def _show(app: App, target: Target, printer: Printer) -> None:
    label = label_of(target)
    try:
        read_log(
            app.client,
            target,
            LogOptions(follow=True),
            lambda text, bad: printer.line(label, text, error=bad),
        )
    except GemelError:
        return  # it is removed
