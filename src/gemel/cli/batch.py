"""The same call to many containers at once, with progress and Compose's way of failing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from gemel.cli import output
from gemel.cli.app import App
from gemel.cli.targets import Target
from gemel.client.project.display import Progress
from gemel.client.project.pool import each, run_graph
from gemel.errors import Failed, GemelError, NotModified


@contextmanager
def progress(app: App, title: str = "Running") -> Iterator[Progress]:
    """The progress display in the mode of --progress."""
    with Progress(title, app.progress, colour=output.colourful(2)) as shown:
        yield shown


def for_each(
    app: App,
    targets: Sequence[Target],
    work: Callable[[Target], None],
    doing: str,
    done: str,
    order: Mapping[Target, Sequence[Target]] | None = None,
    outside: Callable[[str, Progress], None] | None = None,
) -> None:
    """Calls ``work`` for all at once. Raises the first problem, the others in its details.

    order: which targets come before each; what needs one that failed is not begun.
    outside: called instead with the names of services that providers run.
    """
    with progress(app) as shown:

        def one(target: Target) -> None:
            if not target.id:
                assert outside is not None
                outside(target.service, shown)
                return
            name = target.title
            shown.working(name, doing)
            try:
                work(target)
            except NotModified:
                pass
            except BaseException:
                shown.failed(name)
                raise
            shown.done(name, done)

        if order is not None:
            problems = run_graph(order, one, app.parallel)
        else:
            problems = each(targets, one, app.parallel)
    raise_first(list(problems.values()))


def raise_first(problems: Sequence[BaseException]) -> None:
    """Raises the only problem as it is, or one that tells of all."""
    if not problems:
        return
    if len(problems) == 1 or not all(isinstance(p, GemelError) for p in problems):
        raise problems[0]
    briefs = list(dict.fromkeys(str(p.args[0]) for p in problems))
    if len(briefs) == 1:
        raise problems[0]
    raise Failed(f"{len(problems)} of the calls failed", details="\n".join(briefs)) from problems[0]


def print_each(names: Sequence[str], work: Callable[[str], None]) -> None:
    """Calls ``work`` for each name in turn and prints the name, as docker's commands do."""
    problems: list[BaseException] = []
    for name in names:
        try:
            work(name)
            output.say(name)
        except GemelError as problem:
            problems.append(problem)
    raise_first(problems)
