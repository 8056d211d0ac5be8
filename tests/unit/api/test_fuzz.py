"""Whatever a client sends, the answer is an answer: never status 500, never a hang."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemel.api import containers, serve
from gemel.api.decode import decode
from gemel.api.server import Application, make_router
from gemel.errors import InvalidInput
from gemel.model.docker import CreateRequest, ExecCreate
from tests.unit.api.memory import MemoryEngine

ROUTES = [(route.method, route.pattern) for route in make_router().routes]
NAMES = st.sampled_from(["box", "e0", "none", "a/b:1", "%", "..", "é", "\x00", "box/x"]) | st.text(
    max_size=8
)
PARAMETERS = st.sampled_from(
    [
        "all",
        "size",
        "limit",
        "filters",
        "t",
        "signal",
        "name",
        "condition",
        "h",
        "w",
        "ps_args",
        "stream",
        "one-shot",
        "stdout",
        "stderr",
        "stdin",
        "logs",
        "follow",
        "since",
        "until",
        "tail",
        "timestamps",
        "path",
        "detachKeys",
        "fromImage",
        "fromSrc",
        "tag",
        "repo",
        "names",
        "platform",
        "force",
        "v",
        "type",
        "ref",
        "packages",
        "term",
        "container",
        "version",
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "Image",
                    "Cmd",
                    "Env",
                    "HostConfig",
                    "Memory",
                    "Tty",
                    "Labels",
                    "PortBindings",
                    "Binds",
                    "Detach",
                    "ConsoleSize",
                    "Container",
                    "EndpointConfig",
                    "IPAMConfig",
                    "Name",
                    "Driver",
                    "a",
                    "hostconfig",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
VALUES = (
    st.sampled_from(["1", "0", "true", "all", "-1", "1e9", "99999999999999999999", "/", "ctrl-a"])
    | st.text(max_size=10)
    | JSON.map(lambda value: msgspec.json.encode(value).decode())
)
BODIES = JSON.map(msgspec.json.encode) | st.binary(max_size=40)


class _Collect(logging.Handler):
    """Keeps what the server logs as an error."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(record.getMessage())


@pytest.fixture(autouse=True, scope="module")
def _short_samples() -> Iterator[None]:
    before, containers.STATS_INTERVAL = containers.STATS_INTERVAL, 0.01
    yield
    containers.STATS_INTERVAL = before


async def _exchange(socket: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(request)
        async with asyncio.timeout(60):
            return await reader.readline()
    finally:
        writer.close()


@settings(max_examples=400)
@given(
    route=st.sampled_from(ROUTES),
    name=NAMES,
    prefix=st.sampled_from(["", "", "/v1.24", "/v1.41", "/v1.47", "/v1.99", "/v"]),
    query=st.lists(st.tuples(PARAMETERS, VALUES), max_size=4),
    body=BODIES,
    kind=st.sampled_from(["application/json", "application/json", "text/plain", ""]),
    upgrade=st.booleans(),
)
def test_no_request_gives_status_500(
    route: tuple[str, str],
    name: str,
    prefix: str,
    query: list[tuple[str, str]],
    body: bytes,
    kind: str,
    upgrade: bool,
) -> None:
    method, pattern = route
    path = prefix + pattern
    for parameter in ("{id}", "{name}", "{name:*}"):
        path = path.replace(parameter, quote(name))
    text = "&".join(f"{quote(key)}={quote(value)}" for key, value in query)
    head = f"{method} {path}?{text} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n"
    if kind:
        head += f"Content-Type: {kind}\r\n"
    if upgrade:
        head += "Connection: Upgrade\r\nUpgrade: tcp\r\n"

    async def main() -> bytes:
        engine = MemoryEngine()
        await engine.containers.create(CreateRequest(image="i"), "box")
        await engine.execs.create("box", ExecCreate(cmd=["x"]))
        with tempfile.TemporaryDirectory(prefix="gemel-fuzz-") as folder:
            server = await serve(engine, Path(folder) / "s")
            try:
                return await _exchange(Path(folder) / "s", head.encode() + b"\r\n" + body)
            finally:
                await server.close(1)

    errors: list[str] = []
    handler = _Collect(errors)
    logging.getLogger("gemel").addHandler(handler)
    try:
        answer = asyncio.run(main())
    finally:
        logging.getLogger("gemel").removeHandler(handler)
    assert answer.startswith(b"HTTP/1.1 "), (head, answer)
    assert b" 500 " not in answer, (head, answer)
    assert not errors


@given(JSON)
def test_decoding_gives_a_request_or_says_no(value: Any) -> None:
    try:
        request = decode(msgspec.json.encode(value), CreateRequest)
    except InvalidInput:
        return
    # whatever was accepted has the types that it declares
    assert msgspec.convert(msgspec.to_builtins(request), CreateRequest) == request


def test_every_route_is_reachable_and_documented() -> None:
    assert callable(Application.handle)
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    for method, pattern in ROUTES:
        assert f"| {method} | `{pattern.replace(':*', '')}` |" in text, f"{method} {pattern}"


@pytest.mark.parametrize("body", [b"null", b"{}", b'{"Container":null}'])
def test_a_field_that_must_be_there_is_asked_for(body: bytes) -> None:
    class Wanted(msgspec.Struct, rename="pascal"):
        container: str

    with pytest.raises(InvalidInput, match="the field Container is missing"):
        decode(body, Wanted)
    assert decode(b'{"container":"a"}', Wanted).container == "a"
