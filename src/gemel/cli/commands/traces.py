"""traces, trace, trace export: what was done for one request, across services."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import click

from gemel.cli import output, text, waterfall
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.output import paint
from gemel.errors import InvalidInput, NotFound

Json = dict[str, Any]
#: Seconds between two looks at what is new.
_INTERVAL = 1.0
#: Seconds that a trace has been over before it is exported: late spans come by then.
_SETTLED = 3.0


@command()
@click.option("--service", default="", metavar="SERVICE", type=TARGETS, help="That it is part of.")
@click.option("--slower", default="", metavar="TIME", help="Took at least so long: 100ms.")
@click.option("--errors", is_flag=True, help="Only those in which something failed.")
@click.option("-n", "--tail", type=int, default=20, metavar="N", help="The newest N (20); 0: all.")
@click.option("--all", "every", is_flag=True, help="Of everything, not of the project alone.")
@click.option("--format", "form", default="table", help="table, or json.")
@pass_app
def traces(
    app: App, service: str, slower: str, errors: bool, tail: int, every: bool, form: str
) -> None:
    """List traces: what was done for a request, across services.

    Recording begins with the first call of this command (or of `gemel traffic`).
    """
    if form not in ("table", "json"):
        raise InvalidInput(f"`{form}` is no format", resolution="--format table, or json")
    query = {
        "service": service or None,
        "slower": _seconds(slower),
        "errors": errors or None,
        "tail": max(0, tail) or None,
        "project": _project(app, every),
    }
    shown = 0
    for trace in app.client.stream("GET", "/gemel/traces", query=query):
        if form == "json":
            output.say(json.dumps(trace, ensure_ascii=False))
            continue
        if not shown:
            output.say(paint(_HEAD, "dim"))
        output.say(_line(trace))
        shown += 1
    if not shown and form != "json":
        output.note("no trace is recorded that fits; recording goes on, ask again after some calls")


_HEAD = f"{'ID':12}  {'TIME':12}  {'TOOK':>8}  {'SPANS':>5}  {'FAILED':>6}  ROOT"


def _line(trace: Json) -> str:
    errors = paint(f"{trace['Errors']:>6}", "red") if trace["Errors"] else f"{'':6}"
    others = [one for one in trace["Services"] if one != trace["RootService"]]
    via = paint("  → " + ", ".join(map(waterfall.clean, others)), "dim") if others else ""
    root = waterfall.clean(f"{trace['RootService']} {trace['Root']}")
    mark = " ~" if trace["Inferred"] else ""
    return (
        f"{trace['Id'][:12]}  {waterfall.clock(trace['Start'])}  "
        f"{waterfall.took(trace['Duration']):>8}  {trace['SpanCount']:>5}  {errors}  "
        f"{root[:60]}{paint(mark, 'dim')}{via}"
    )


def _seconds(spec: str) -> float | None:
    try:
        return text.parse_span(spec) if spec else None
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _project(app: App, every: bool) -> str | None:
    return app.name() if not every and app.has_project() else None


class _Default(click.Group):
    """A group whose first argument may be an id, or missing."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = ("--help", *self.commands)
        return super().parse_args(ctx, args if args and args[0] in known else ["show", *args])


@click.group(
    cls=_Default,
    subcommand_metavar="[ID | show | export] [ARGS]...",
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
)
def trace() -> None:
    """Draw a trace as a waterfall: `gemel trace [ID]`, the newest without an id."""


@trace.command(context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.argument("id", required=False, default="newest", metavar="[ID]")
@click.option("--service", default="", metavar="SERVICE", type=TARGETS, help="The newest with it.")
@click.option("--all", "every", is_flag=True, help="Of everything, not of the project alone.")
@click.option("--format", "form", default="", help="json.")
@pass_app
def show(app: App, id: str, service: str, every: bool, form: str) -> None:
    """Draw one trace, the newest without an ID (its first digits will do)."""
    if form not in ("", "json"):
        raise InvalidInput(f"`{form}` is no format", resolution="--format json")
    query = {"service": service or None}
    if id == "newest":
        query["project"] = _project(app, every)
    found = app.client.get(f"/gemel/traces/{id}", query=query)
    if form == "json":
        output.dump(found)
        return
    for line in waterfall.lines(found, shutil.get_terminal_size((100, 24)).columns):
        output.say(line)


@trace.command(context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.argument("id", required=False, default="", metavar="[ID]")
@click.option("--otlp", "url", required=True, metavar="URL", help="http://HOST:4318")
@click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
@click.option("--all", "every", is_flag=True, help="Of everything, not of the project alone.")
@pass_app
def export(app: App, id: str, url: str, follow: bool, every: bool) -> None:
    """Send traces by OTLP to a collector or Jaeger: one, or all that are recorded.

    With -f those that come from now on, each some seconds after its end.
    """
    from gemel.client import otlp

    target = otlp.parse(url)
    if follow and id:
        raise InvalidInput("an ID and --follow do not go together")
    if not follow:
        count = otlp.send(target, _requests(app, id=id, project=_project(app, every)))
        if id and not count:
            raise NotFound(f"no trace {id} is recorded", resolution="`gemel traces` lists them")
        output.note(f"{count} traces sent")
        return
    sent: dict[str, float] = {}
    begun = time.time()
    while True:
        _send_new(app, target, sent, begun, _project(app, every))
        time.sleep(_INTERVAL)


def _requests(app: App, **query: Any) -> Iterator[tuple[Json, Json]]:
    """Each trace's id and end, and a request that brings it (or a part of it)."""
    lines = app.client.stream(
        "GET", "/gemel/otlp", query={name: value or None for name, value in query.items()}
    )
    yield from zip(lines, lines, strict=True)


def _send_new(app: App, target: Any, sent: dict[str, float], begun: float, project: Any) -> None:
    """Sends what has ended and was not sent (or has grown since)."""
    from gemel.client import otlp

    now = time.time()
    new = [
        (head, request)
        for head, request in _requests(app, after=max(begun, now - 60), project=project)
        if head["End"] < now - _SETTLED and sent.get(head["Id"], 0.0) < head["End"]
    ]
    otlp.send(target, new)
    sent.update((head["Id"], head["End"]) for head, _ in new)
    for id in [id for id, end in sent.items() if end < now - 120]:
        del sent[id]
