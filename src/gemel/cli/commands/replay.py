"""record and replay: what a service was asked, kept as HAR, and asked again."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from gemel.cli import differing, har, output, text
from gemel.cli.app import App, command, pass_app
from gemel.cli.complete import TARGETS
from gemel.cli.output import paint
from gemel.cli.recording import Recording
from gemel.cli.targets import resolve
from gemel.errors import Conflict, InvalidInput

Json = dict[str, Any]
#: Bytes of a body that are kept, calls of a file, seconds for an answer.
BODY, MOST, TIMEOUT = 1 << 20, 10_000, 30.0
#: Headers of the connection, or of the client that asks again.
_OWN = frozenset(
    ("host", "connection", "content-length", "transfer-encoding", "keep-alive", "te", "upgrade")
)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Ends what is inside as Ctrl-C does, after a while."""

    def over(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@command()
@click.argument("name", type=TARGETS, metavar="SERVICE")
@click.option(
    "-o",
    "--output",
    "path",
    default="calls.har",
    show_default=True,
    metavar="FILE",
    help="Where to.",
)
@click.option("--for", "span", default="", metavar="TIME", help="End after: 60s. Else at Ctrl-C.")
@click.option("--most", type=int, default=MOST, show_default=True, help="Calls at most.")
@pass_app
def record(app: App, name: str, path: str, span: str, most: int) -> None:
    """Keep what a service is asked, and what those that it asks answer, as a HAR file.

    Until Ctrl-C, or for --for. Nothing of the service is changed. Secrets are masked, as
    `gemel traffic` does; bodies are kept up to 1 MiB.
    """
    from gemel import __version__

    if not 0 < most <= 100_000:
        raise InvalidInput("--most is from 1 to 100000")
    resolve(app, [name])
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise InvalidInput(f"cannot write {path}", details="its folder does not exist")
    project = app.name() if app.has_project() else None
    recording = Recording(app.client, name, project, BODY, most)
    try:
        with _alarm(text.parse_span(span) if span else 0):
            output.note(f"recording the calls of {name}; Ctrl-C ends it")
            recording.follow()
    except KeyboardInterrupt:
        recording.finish()
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    kept, others = recording.kept, recording.others
    har.write(path, har.document(kept, __version__))
    asked = sum(one["_gemel"]["target"] == name for one in kept)
    output.say(f"{path}: {asked} calls to {name}, {len(kept) - asked} that it made")
    if others:
        rest = ", ".join(f"{count} of {protocol}" for protocol, count in others.items())
        output.note(f"not kept, since HAR has no form for it: {rest}")


@command()
@click.argument("path", metavar="FILE", type=click.Path())
@click.argument("name", type=TARGETS, metavar="SERVICE")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME:VALUE", help="In place of its own."
)
@click.option("--ignore", multiple=True, metavar="NAME", help="A header or field that may differ.")
@click.option("--only", default="", metavar="TEXT", help="Only calls whose path holds this.")
@click.option("--method", "methods", multiple=True, help="Only these methods.")
@click.option("--index", type=int, default=1, show_default=True, help="Which replica.")
@click.option("--timeout", type=float, default=TIMEOUT, show_default=True, help="Seconds of one.")
@click.option("--format", "form", default="", help="json: an object a call.")
@pass_app
def replay(app: App, path: str, name: str, **given: Any) -> int:  # fmt: skip
    """Ask a service again what is in a HAR file, and show what it answers differently.

    Status, headers and body (JSON by field) are compared; what differs by nature (date, ids of
    requests) and what was masked is not. The status is 1 if an answer differs.
    """
    own = _own_headers(given["headers"])
    entries = _chosen(har.read(path), name, given)
    address = _address(app, name, given["index"])
    differ = 0
    for number, one in enumerate(entries, 1):
        problems = _again(one, address, own, given)
        differ += bool(problems)
        _show(number, one, problems, given["form"])
    if given["form"] != "json":
        output.say(f"{len(entries)} calls, {differ} answered differently")
    return 1 if differ else 0


def _own_headers(texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in texts:
        key, colon, value = one.partition(":")
        if not colon:
            raise InvalidInput(f"`{one}` is no header", resolution="--header 'Name: value'")
        found[key.strip()] = value.strip()
    return found


def _chosen(entries: list[Json], name: str, given: dict[str, Any]) -> list[Json]:
    methods = {method.upper() for method in given["methods"]}
    named = [one for one in entries if har.target(one) == name]
    if not named:
        known = ", ".join(sorted({har.target(one) for one in entries})) or "nothing"
        raise InvalidInput(
            f"no call to {name} is in the file", details=f"it holds calls to {known}"
        )
    spoken = [one for one in named if (one.get("_gemel") or {}).get("protocol", "http") != "grpc"]
    if len(spoken) < len(named):
        output.warn(f"{len(named) - len(spoken)} calls of gRPC are left out")
    return [
        one
        for one in spoken
        if given["only"] in har.path(one)
        and (not methods or one["request"]["method"].upper() in methods)
    ]


def _address(app: App, name: str, index: int) -> str:
    targets = [target for target in resolve(app, [name]) if target.running]
    if not targets:
        raise Conflict(f"{name} does not run", resolution=f"gemel up -d {name}")
    if not 1 <= index <= len(targets):
        raise InvalidInput(f"there is no replica {index} of {name}")
    found = app.client.get(f"/containers/{targets[index - 1].id}/json")
    networks = (found["NetworkSettings"].get("Networks") or {}).values()
    for network in networks:
        if network.get("IPAddress"):
            return str(network["IPAddress"])
    if found["HostConfig"].get("NetworkMode") == "host":
        return "127.0.0.1"
    raise Conflict(f"{name} has no address on a network")


def _again(one: Json, address: str, own: dict[str, str], given: dict[str, Any]) -> list[str]:
    """Asks once; what differs, in words."""
    content = one["response"].get("content") or {}
    cut = bool((one.get("_gemel") or {}).get("responseCut"))
    before = differing.Answer(
        one["response"]["status"], har.headers(one["response"]), har.body(content), cut
    )
    if (one.get("_gemel") or {}).get("requestCut"):
        return ["not asked: the recording does not hold all of its body"]
    try:
        now = _ask(one, address, own, given["timeout"])
    except (OSError, http.client.HTTPException) as error:
        return [f"no answer: {error or type(error).__name__}"]
    return differing.differences(before, now, given["ignore"], given["ignore"])


def _ask(one: Json, address: str, own: dict[str, str], timeout: float) -> differing.Answer:
    request = one["request"]
    replaced = {key.lower() for key in own}
    connection = http.client.HTTPConnection(address, har.port(one), timeout=timeout)
    try:
        data = har.body(request.get("postData") or {})
        connection.putrequest(
            request["method"], har.path(one), skip_host=True, skip_accept_encoding=True
        )
        host = next((v for n, v in har.headers(request) if n.lower() == "host"), har.target(one))
        connection.putheader("Host", host)
        for key, value in [*har.headers(request), *own.items()]:
            plain = key.lower()
            if plain in _OWN or key.startswith(":") or (plain in replaced and key not in own):
                continue
            connection.putheader(key, value)
        if data or request["method"] in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(data)))
        connection.putheader("Connection", "close")
        connection.endheaders(data or None)
        answer = connection.getresponse()
        return differing.Answer(answer.status, answer.getheaders(), answer.read(BODY * 16))
    finally:
        connection.close()


def _show(number: int, one: Json, problems: list[str], form: str) -> None:
    method, path = one["request"]["method"], har.path(one)
    if form == "json":
        shown = {"Number": number, "Method": method, "Path": path, "Differences": problems}
        output.say(json.dumps(shown, ensure_ascii=False))
        return
    word = paint("differs", "red") if problems else paint("same", "green")
    output.say(f"{number:>4}  {method} {path}  {one['response']['status']}  {word}")
    for problem in problems:
        output.say(f"        {problem}")
