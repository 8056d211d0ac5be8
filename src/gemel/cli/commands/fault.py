"""fault add, list, clear: faults between two services, on demand."""

from __future__ import annotations

import re
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, pass_app
from gemel.cli.complete import TARGETS
from gemel.errors import InvalidInput

COLUMNS = [("ID", "ID"), ("BETWEEN", "Between"), ("FAULT", "Fault"), ("ENDS IN", "Ends")]
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit", re.IGNORECASE)


@click.group()
def fault() -> None:
    """Disturb the way between two services, for a while: to see what they make of it."""


@fault.command()
@click.argument("source", metavar="SERVICE", type=TARGETS)
@click.argument("target", metavar="SERVICE", type=TARGETS)
@click.option("--down", is_flag=True, help="Nothing passes.")
@click.option("--loss", default="", metavar="SHARE", help="Lose packets: 5%.")
@click.option("--rate", default="", metavar="RATE", help="So much passes each way: 1mbit.")
@click.option("--latency", default="", metavar="TIME", help="Answers come so much later: 300ms.")
@click.option("--jitter", default="", metavar="TIME", help="And differ by so much: 50ms.")
@click.option("--http-status", type=int, default=0, metavar="CODE", help="Answer with this: 503.")
@click.option("--http-delay", default="", metavar="TIME", help="Hold bodies of answers back: 2s.")
@click.option("--share", "part", default="100%", metavar="SHARE", help="Of the requests: 20%.")
@click.option("--port", type=int, default=0, help="Only this port (delays, HTTP).")
@click.option("--for", "span", default="", metavar="TIME", help="End after: 60s.")
@pass_app
def add(app: App, source: str, target: str, down: bool, span: str, **given: Any) -> None:
    """Begin a fault on the way from one service to another.

    --down, --loss and --rate hold in both directions. Delays and HTTP's faults concern what
    the first asks the second (TCP, HTTP/1.1), by a proxy that is in between only for as long.
    It ends after --for, by `gemel fault clear`, and with the engine.
    """
    body = {
        "From": source,
        "To": target,
        "Project": app.name() if app.has_project() else "",
        "Down": down,
        "Loss": share(given["loss"]),
        "Rate": bits(given["rate"]),
        "Latency": _span(given["latency"]),
        "Jitter": _span(given["jitter"]),
        "Status": given["http_status"],
        "BodyDelay": _span(given["http_delay"]),
        "Share": share(given["part"]),
        "Port": given["port"],
        "For": _span(span),
    }
    made = app.client.post("/gemel/faults", body)
    output.say(f"fault {made['Id']}: {made['Fault']} between {source} and {target}")


def share(spec: str) -> float:
    """``5%`` or ``0.05``. Raises InvalidInput."""
    try:
        value = float(spec.removesuffix("%") or 0) / (100 if spec.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InvalidInput(f"`{spec}` is no share", resolution="--loss 5%")
    return value


def bits(spec: str) -> int:
    """``1mbit`` and the like, in bits a second. Raises InvalidInput."""
    if not spec:
        return 0
    found = _RATE.fullmatch(spec.strip())
    if not found:
        raise InvalidInput(f"`{spec}` is no rate", resolution="--rate 1mbit, or 500kbit")
    return int(float(found[1]) * 1000 ** " kmg".index(found[2].lower() or " "))


def _span(spec: str) -> float:
    try:
        return text.parse_span(spec) if spec else 0.0
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _arrow(entry: dict[str, Any]) -> str:
    return "↔" if entry["Down"] or entry["Loss"] or entry["Rate"] else "→"


@fault.command("list")
@click.option("--format", "form", default=None, help="table, json, or a template.")
@pass_app
def list_(app: App, form: str | None) -> None:
    """List the faults that hold."""
    found: list[dict[str, Any]] = app.client.get("/gemel/faults")
    rows: list[output.Row] = [
        {
            "ID": entry["Id"],
            "Between": f"{entry['From']} {_arrow(entry)} {entry['To']}",
            "Fault": entry["Fault"],
            "Ends": f"{entry['Left']:.0f}s" if entry["Left"] else "never",
        }
        for entry in found
    ]
    output.emit(rows, COLUMNS, form)


@fault.command()
@click.argument("id", type=int, required=False, metavar="[ID]")
@pass_app
def clear(app: App, id: int | None) -> None:
    """End one fault, or all."""
    done = app.client.delete("/gemel/faults", **({"id": id} if id is not None else {}))
    count = len(done["Cleared"])
    output.say(f"{count} fault{'' if count == 1 else 's'} ended")
