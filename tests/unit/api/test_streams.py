"""Attach, exec and logs: every byte, both ways, and who may go away when."""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gemel.api import serve
from gemel.api.streams import DetachScanner, parse_detach_keys
from gemel.errors import InvalidInput
from gemel.model.docker import CreateRequest
from tests.unit.api.conftest import Api, until
from tests.unit.api.memory import MemoryEngine

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def post(path: str, headers: str = "", body: str = "") -> str:
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"POST {path} HTTP/1.1\r\nHost: d\r\n{headers}{kind}\r\n{body}"


async def head(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(60):
        return await reader.readuntil(b"\r\n\r\n")


async def rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(60):
        return await reader.read()


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        number, length = struct.unpack(">BxxxI", data[:8])
        found.append((number, data[8 : 8 + length]))
        assert len(data) >= 8 + length
        data = data[8 + length :]
    return found


def joined(found: list[tuple[int, bytes]], number: int) -> bytes:
    return b"".join(data for stream, data in found if stream == number)


ATTACH = "/v1.47/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1"


async def test_attach_upgrades_multiplexes_and_half_closes(api: Api) -> None:
    await api.make()
    reader, writer = await api.raw(post(ATTACH, UPGRADE))
    answer = await head(reader)
    assert answer.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"application/vnd.docker.multiplexed-stream" in answer
    assert b"Upgrade: tcp" in answer
    writer.write(b"GET / HTTP/1.1\r\n\r\n not http any more")
    writer.write_eof()
    found = frames(await rest(reader))
    assert joined(found, 1) == b"GET / HTTP/1.1\r\n\r\n not http any more"
    assert joined(found, 2) == b"36 bytes"  # came after the half-close
    writer.close()
    stream = api.engine.containers.all[next(iter(api.engine.containers.all))].streams[0]
    await until(stream.closed.is_set)


@pytest.mark.parametrize("version", ["v1.24", "v1.41", "v1.47"])
async def test_a_terminal_and_old_versions_get_the_raw_type(api: Api, version: str) -> None:
    await api.make(Tty=True)
    reader, writer = await api.raw(post(ATTACH.replace("v1.47", version), UPGRADE))
    assert b"application/vnd.docker.raw-stream" in await head(reader)
    writer.write(b"hello")
    writer.write_eof()
    assert await rest(reader) == b"hello5 bytes"
    writer.close()


async def test_bytes_right_behind_the_request_are_input(api: Api) -> None:
    await api.make(Tty=True)
    for headers in (UPGRADE, ""):
        reader, writer = await api.raw(post(ATTACH, headers) + "early ")
        writer.write_eof()
        status = b"101 UPGRADED" if headers else b"200 OK"
        assert status in await head(reader)
        assert await rest(reader) == b"early 6 bytes"
        writer.close()


async def test_a_request_that_comes_byte_by_byte(api: Api) -> None:
    await api.make(Tty=True)
    _, made, _ = await api.call(
        "POST",
        "/containers/box/exec",
        {"Cmd": ["x"], "AttachStdin": True, "AttachStdout": True, "Tty": True},
    )
    request = post(f"/exec/{made['Id']}/start", UPGRADE, '{"Tty": true}') + "tail"
    line, _, others = request.partition("\r\n")
    reader, writer = await api.raw(line + "\r\n")
    for character in others:
        await writer.drain()
        writer.write(character.encode())
        await asyncio.sleep(0)
    writer.write_eof()
    assert b"101 UPGRADED" in await head(reader)
    assert await rest(reader) == b"tail4 bytes"
    writer.close()


async def test_exec_tells_a_missing_command_in_its_stream(api: Api) -> None:
    await api.make()
    _, made, _ = await api.call(
        "POST", "/containers/box/exec", {"Cmd": ["missing"], "AttachStdout": True}
    )
    reader, writer = await api.raw(post(f"/exec/{made['Id']}/start", UPGRADE, "{}"))
    await head(reader)
    [(number, text)] = frames(await rest(reader))
    assert number == 1
    assert text.endswith(b"executable file not found in $PATH\r\n")
    writer.close()


async def test_exec_without_stdin_and_only_stderr(api: Api) -> None:
    await api.make()
    _, made, _ = await api.call(
        "POST", "/containers/box/exec", {"Cmd": ["x"], "AttachStderr": True}
    )
    reader, writer = await api.raw(post(f"/exec/{made['Id']}/start", UPGRADE, "{}"))
    await head(reader)
    await until(lambda: made["Id"] in api.engine.execs.streams)
    writer.write(b"dropped")
    stream = api.engine.execs.streams[made["Id"]]
    await stream.write(b"to stdout")
    await stream.close_stdin()
    assert frames(await rest(reader)) == [(2, b"9 bytes")]
    writer.close()
    assert (await api.call("POST", f"/exec/{made['Id']}/start", {"Detach": True}))[0] == 200


async def test_a_refused_attach_leaves_the_connection_usable(api: Api) -> None:
    reader, writer = await api.raw(post("/containers/none/attach?stream=1", UPGRADE))
    answer = await head(reader)
    assert answer.startswith(b"HTTP/1.1 404")
    length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert b"No such container" in await reader.readexactly(length)
    writer.write(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
    assert (await head(reader)).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_the_detach_keys_end_the_session_only(api: Api) -> None:
    await api.make(Tty=True)
    reader, writer = await api.raw(post(ATTACH + "&detachKeys=ctrl-a,x", UPGRADE))
    await head(reader)
    writer.write(b"ab\x01")
    assert await reader.readexactly(2) == b"ab"
    writer.write(b"xlost")
    assert await rest(reader) == b""
    writer.close()
    stream = next(iter(api.engine.containers.all.values())).streams[0]
    await until(stream.closed.is_set)
    assert bytes(stream.input) == b"ab"
    assert not stream.stdin_closed.is_set()
    status, body, _ = await api.call("POST", ATTACH + "&detachKeys=ctrl-1")
    assert (status, "detach keys" in body["message"]) == (400, True)


async def test_a_client_that_vanishes_closes_its_session(api: Api) -> None:
    """Also one whose program is silent, and that had closed its input before."""
    api.engine.containers.silent = True
    id = await api.make()
    for half_close in (False, True):
        reader, writer = await api.raw(post(ATTACH, UPGRADE))
        await head(reader)
        writer.write(b"last words")
        if half_close:
            stream = api.engine.containers.all[id].streams[-1]
            writer.write_eof()
            await until(stream.stdin_closed.is_set)
        writer.close()
        stream = api.engine.containers.all[id].streams[-1]
        await until(stream.closed.is_set)
        assert bytes(stream.input) == b"last words"


async def test_a_slow_reader_holds_up_nobody_and_costs_no_memory(api: Api) -> None:
    api.engine.containers.flood = True
    id = await api.make()
    reader, writer = await api.raw(post(ATTACH, UPGRADE))
    await head(reader)
    stream = api.engine.containers.all[id].streams[0]
    taken = -1
    while taken != stream.taken:  # until the sender has stopped
        taken = stream.taken
        for _ in range(20):
            assert (await api.call("GET", "/_ping"))[0] == 200
    assert taken < 8 << 20
    writer.close()
    await until(stream.closed.is_set)


async def test_input_that_nobody_reads_is_bounded(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await api.make()
    reader, writer = await api.raw(post(ATTACH, UPGRADE))
    await head(reader)
    stream = api.engine.containers.all[id].streams[0]
    blocked = asyncio.Event()

    async def stuck(data: bytes) -> None:
        blocked.set()
        await asyncio.Event().wait()

    stream.write = stuck  # type: ignore[method-assign]
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 64 << 20:
            writer.write(b"i" * (1 << 16))
            sent += 1 << 16
            async with asyncio.timeout(1):
                await writer.drain()
    await until(blocked.is_set)
    assert sent < 16 << 20
    writer.transport.abort()
    async with asyncio.timeout(60):
        await stream.closed.wait()


async def test_history_comes_first_and_logs_alone_end(api: Api) -> None:
    id = await api.make()
    api.engine.containers.all[id].log = [(1, b"old\n"), (2, b"err\n")]
    reader, writer = await api.raw(post("/containers/box/attach?logs=1&stdout=1&stderr=1", UPGRADE))
    await head(reader)
    assert frames(await rest(reader)) == [(1, b"old\n"), (2, b"err\n")]
    writer.close()


async def test_logs(api: Api) -> None:
    id = await api.make()
    box = api.engine.containers.all[id]
    box.log = [(1, b"a\n"), (2, b"b\n")]
    status, body, headers = await api.call(
        "GET",
        "/containers/box/logs?stdout=1&stderr=1&tail=10&timestamps=1"
        "&since=1700000000.000000005&until=2023-11-15T00:00:00.5Z",
    )
    assert status == 200
    assert headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert frames(body) == box.log
    query = api.engine.containers.last_log
    assert query is not None
    assert (query.tail, query.timestamps, query.follow) == (10, True, False)
    assert (query.since, query.until) == (1700000000000000005, 1700006400500000000)
    _, _, headers = await api.call("GET", "/v1.41/containers/box/logs?stdout=1")
    assert headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert (await api.call("GET", "/containers/box/logs?stdout=1&since=yesterday"))[0] == 400


async def test_following_a_log_ends_with_its_reader(api: Api) -> None:
    for flood in (False, True):
        api.engine.containers.flood = flood
        name = f"box{flood}"
        await api.make(name)
        async with api.session.get(f"http://d/containers/{name}/logs?stdout=1&follow=1") as answer:
            assert answer.status == 200
            await until(lambda: api.engine.containers.followers == 1)
            answer.close()
        await until(lambda: api.engine.containers.followers == 0)


async def test_attach_over_a_websocket(api: Api) -> None:
    await api.make()
    url = "http://d/containers/box/attach/ws?stream=1&stdin=1&stdout=1"
    async with api.session.ws_connect(url) as socket:
        await socket.send_bytes(b"over the web")
        message = await socket.receive(60)
        assert (message.type, message.data) == (aiohttp.WSMsgType.BINARY, b"over the web")
    stream = next(iter(api.engine.containers.all.values())).streams[0]
    await until(stream.closed.is_set)
    assert (await api.call("GET", "/containers/box/attach/ws?stream=1"))[0] == 400


@pytest.fixture
async def many(api: Api) -> AsyncIterator[list[asyncio.StreamWriter]]:
    writers: list[asyncio.StreamWriter] = []
    yield writers
    for writer in writers:
        writer.close()


async def test_many_sessions_at_once(api: Api, many: list[asyncio.StreamWriter]) -> None:
    await api.make(Tty=True)

    async def one(number: int) -> bytes:
        reader, writer = await api.raw(post(ATTACH, UPGRADE))
        many.append(writer)
        await head(reader)
        writer.write(b"%d" % number * 5000)
        writer.write_eof()
        return await rest(reader)

    answers = await asyncio.gather(*(one(number) for number in range(50)))
    for number, answer in enumerate(answers):
        sent = b"%d" % number * 5000
        assert answer == sent + b"%d bytes" % len(sent)


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", b"\x10\x11"), ("ctrl-a,a", b"\x01a"), ("ctrl-@,ctrl-_,DEL", b"\x00\x1f\x7f")],
)
def test_detach_keys_are_parsed(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-A1", "é", "a,,b", "ab"])
def test_wrong_detach_keys(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_detach_keys(text)


def test_the_scanner_gives_back_what_only_looked_like_the_keys() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"a\x10") == (b"a", False)
    assert scanner.feed(b"b\x10\x10") == (b"\x10b\x10", False)
    assert scanner.feed(b"\x11c") == (b"", True)


async def test_closing_the_server_ends_every_stream() -> None:
    engine = MemoryEngine()
    with tempfile.TemporaryDirectory(prefix="gemel-api-") as folder:
        path = Path(folder) / "s"
        server = await serve(engine, path)
        made = await engine.containers.create(CreateRequest(image="i"), "box")
        box = engine.containers.all[made["Id"]]
        requests = (
            post(ATTACH, UPGRADE),
            "GET /events HTTP/1.1\r\nHost: d\r\n\r\n",
            "GET /containers/box/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n",
            post("/containers/box/wait"),
        )
        opened = []
        for request in requests:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(request.encode())
            opened.append((reader, writer))
            await head(reader)
        await until(lambda: engine.system.listeners == 1 and engine.containers.followers == 1)
        async with asyncio.timeout(60):
            await server.close()
        for reader, writer in opened:
            await rest(reader)
            writer.close()
        assert engine.system.listeners == engine.containers.followers == 0
        assert box.streams[0].closed.is_set()
        assert box.running is False and not box.ended.is_set()  # the instance was left alone
