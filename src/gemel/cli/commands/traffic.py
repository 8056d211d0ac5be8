"""traffic, traffic show, traffic stop: the calls between services."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import click

from gemel.cli import output, text
from gemel.cli.app import App, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.output import paint
from gemel.errors import InvalidInput

Json = dict[str, Any]
_WIDTH = 64


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
)
@click.option("-f", "--follow", is_flag=True, help="Go on as more comes.")
@click.option("--from", "source", default="", metavar="SERVICE", type=TARGETS, help="Calls of it.")
@click.option("--to", "target", default="", metavar="SERVICE", type=TARGETS, help="Calls to it.")
@click.option("--status", default="", metavar="STATUS", help="404, 5xx, none, error (any failure).")
@click.option("--slower", default="", metavar="TIME", help="Took at least so long: 100ms.")
@click.option("--protocol", default="", help="http, h2, grpc, postgres, redis, tls, tcp.")
@click.option("--path", default="", metavar="TEXT", help="The path holds this.")
@click.option("-n", "--tail", type=int, default=0, metavar="N", help="Only the last of the past.")
@click.option("--all", "every", is_flag=True, help="Of everything, not of the project alone.")
@click.option("--format", "form", default="table", help="table, or json (with headers, bodies).")
@click.pass_context
def traffic(
    ctx: click.Context,
    follow: bool,
    source: str,
    target: str,
    status: str,
    slower: str,
    protocol: str,
    path: str,
    tail: int,
    every: bool,
    form: str,
) -> None:
    """Show the calls between services, without any change to them.

    Recording begins with the first call of this command.
    """
    if ctx.invoked_subcommand is not None:
        return
    app: App = ctx.find_object(App) or App()
    if form not in ("table", "json"):
        raise InvalidInput(f"`{form}` is no format", resolution="--format table, or json")
    query = {
        "follow": follow or None,
        "full": form == "json" or None,
        "from": source or None,
        "to": target or None,
        "status": status or None,
        "slower": _seconds(slower),
        "protocol": protocol or None,
        "path": path or None,
        "tail": tail or None,
        "project": app.name() if not every and app.has_project() else None,
    }
    found = app.client.stream("GET", "/gemel/traffic", query=query)
    _print(found, as_json=form == "json", follow=follow)


def _seconds(spec: str) -> float | None:
    try:
        return text.parse_span(spec) if spec else None
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _print(found: Any, *, as_json: bool, follow: bool) -> None:
    shown = 0
    begun = False
    for entry in found:
        if "recording" in entry:
            begun = True
            hint = "" if follow else "; ask again after some calls, or follow them with -f"
            output.note(f"recording begins now{hint}")
        elif "dropped" in entry:
            output.warn(f"{entry['dropped']} calls were not shown: they came faster than they go")
        elif as_json:
            output.say(json.dumps(entry, ensure_ascii=False))
        else:
            if not shown:
                output.say(paint(_HEAD, "dim"))
            output.say(line(entry))
            shown += 1
    if not shown and not as_json and not begun:
        output.note("no call is recorded that fits")


_HEAD = f"{'ID':>6}  {'TIME':12}  {'FROM → TO':28}  {'STATUS':6}  {'TOOK':>8}  CALL"


def who(peer: Json) -> str:
    """How an end of a call is called."""
    return str(peer.get("service") or peer.get("name") or peer.get("address") or "?")


def line(entry: Json) -> str:
    """One call in one line."""
    seconds = float(entry["start"])
    clock = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds % 1 * 1000):03d}"
    edge = f"{who(entry['source'])} → {who(entry['target'])}"
    return (
        f"{entry['id']:>6}  {clock}  {edge:28}  {_status(entry)}  "
        f"{took(entry['duration']):>8}  {call(entry)}{_faults(entry)}"
    )


def _faults(entry: Json) -> str:
    """The faults that a call met; ~ where edge and time alone tell it."""
    words = [f["Fault"] + ("" if f["Sure"] else " ~") for f in entry.get("faults") or []]
    return paint("  ⚡ " + ", ".join(words), "yellow") if words else ""


def _status(entry: Json) -> str:
    status = entry.get("status")
    word = str(status) if status is not None else ("error" if entry.get("failed") else "ok")
    if status is None and entry["protocol"] in ("http", "h2", "grpc"):
        word = "none"
    style = "red" if entry.get("failed") else "yellow" if (status or 0) >= 400 else "green"
    return paint(f"{word:6}", style)


def took(seconds: float) -> str:
    """A duration with three digits."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g}ms" if seconds >= 1e-5 else f"{seconds * 1e6:.0f}µs"
    return f"{seconds:.3g}s" if seconds < 100 else f"{seconds:.0f}s"


def call(entry: Json) -> str:
    """What was called: method and path; for others the protocol first."""
    protocol = entry["protocol"]
    parts = [entry["method"], entry["path"]]
    if protocol not in ("http", "h2"):
        parts.insert(0, protocol)
    if protocol in ("tls", "tcp", "websocket"):
        sent, got = entry["request"].get("size", 0), entry["response"].get("size", 0)
        parts += [entry["host"], f"{text.decimal_size(sent)} → {text.decimal_size(got)} back"]
    words = _clean(" ".join(part for part in parts if part))
    if len(words) > _WIDTH:
        words = words[: _WIDTH - 1] + "…"
    problem = entry.get("error") or (entry.get("message") if entry.get("failed") else "")
    return words + (paint(f"  {_clean(problem)}", "red") if problem else "")


def _clean(words: str) -> str:
    """Bytes of others never steer the terminal."""
    return "".join(c if c.isprintable() else "·" for c in words)


@traffic.command()
@click.argument("id", metavar="ID")
@click.option("--format", "form", default="", help="json.")
@pass_app
def show(app: App, id: str, form: str) -> None:
    """Show one call whole: headers and the start of the bodies."""
    entry = app.client.get(f"/gemel/traffic/{id}")
    if form == "json":
        output.dump(entry)
        return
    for text_line in whole(entry):
        output.say(text_line)


def whole(entry: Json) -> list[str]:
    """One call with all that is known of it."""
    ends = [
        f"{who(end)} ({end.get('address', '')}:{end.get('port', 0)})"
        for end in (entry["source"], entry["target"])
    ]
    first = entry.get("first_byte")
    lines = [
        paint(f"{' → '.join(ends)}", "bold"),
        f"{entry['protocol']}, connection {entry['connection']}, took {took(entry['duration'])}"
        + (f" (first byte after {took(first)})" if first is not None else ""),
    ]
    if entry.get("error"):
        lines.append(paint(_clean(entry["error"]), "red"))
    for met in entry.get("faults") or []:
        how = "its answer names it" if met["Sure"] else "held on this edge at the time"
        lines.append(paint(f"⚡ fault {met['Id']}: {met['Fault']} ({how})", "yellow"))
    lines += ["", paint(_clean(f"> {entry['method']} {entry['path']}"), "cyan")]
    lines += _part(entry["request"], "> ")
    status = entry.get("status")
    words = f"< {status if status is not None else 'no status'} {entry.get('message', '')}"
    lines += ["", paint(_clean(words.rstrip()), "cyan")]
    return lines + _part(entry["response"], "< ")


def _part(part: Json, mark: str) -> list[str]:
    lines = [_clean(f"{mark}{name}: {value}") for name, value in part.get("headers") or []]
    body, size = part.get("body", ""), part.get("size", 0)
    if part.get("binary"):
        raw = base64.b64decode(body)
        lines += ["", f"[{len(raw)} bytes of binary content] {raw[:32].hex(' ')}"]
    elif body:
        lines += ["", *[_clean(row) for row in body.splitlines()]]
    if part.get("cut"):
        lines.append(paint(f"[cut off; {size} bytes in all]", "dim"))
    elif size and not body:
        lines.append(paint(f"[{size} bytes]", "dim"))
    return lines


@traffic.command()
@pass_app
def stop(app: App) -> None:
    """End the recording; what was recorded is forgotten."""
    app.client.delete("/gemel/traffic")
