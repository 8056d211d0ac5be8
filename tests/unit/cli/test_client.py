"""The HTTP client and the hijacked streams, against a server of bytes that the tests choose."""

from __future__ import annotations

import os
import pty
import socket
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gemel import errors
from gemel.client import http
from gemel.client.errors import EngineDown, EngineHung, from_answer
from gemel.client.hijack import (
    Demultiplexer,
    DetachKeys,
    Output,
    open_stream,
    parse_keys,
    pump,
)
from gemel.client.http import Http

Handler = Callable[[socket.socket, bytes], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[Handler], str]]:
    """Starts a server that hands each connection and its request's head to a handler."""
    listeners: list[socket.socket] = []

    def start(handler: Handler) -> str:
        path = str(tmp_path / "s.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        data = connection.recv(65536)
                        if not data:
                            break
                        head += data
                    handler(connection, head)

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def answering(*pieces: bytes) -> Handler:
    """A handler that sends these pieces."""

    def handler(connection: socket.socket, _head: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return handler


def test_an_answer_with_a_length(server: Callable[[Handler], str]) -> None:
    path = server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b'{"a"', b":1}"))
    assert Http(path).call("GET", "/x").json() == {"a": 1}


def test_a_chunked_answer_cut_anywhere(server: Callable[[Handler], str]) -> None:
    body = b'5\r\n{"a":\r\n3;x=y\r\n1}\n\r\n9\r\n{"b":"\xc3\xa4\r\n2\r\n"}\r\n0\r\n\r\n'
    body = body.replace(b"9\r\n", b"8\r\n")
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    path = server(answering(*(raw[i : i + 1] for i in range(len(raw)))))
    assert list(Http(path).call("GET", "/x").messages()) == [{"a": 1}, {"b": "ä"}]


def test_an_answer_that_ends_too_early(server: Callable[[Handler], str]) -> None:
    path = server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"))
    with pytest.raises(errors.Failed, match="half-way"):
        Http(path).call("GET", "/x").read()


def test_no_answer_at_all(server: Callable[[Handler], str]) -> None:
    path = server(answering())
    with pytest.raises(errors.Failed, match="before it had answered"):
        Http(path).call("GET", "/x")


def test_something_else_answers(server: Callable[[Handler], str]) -> None:
    path = server(answering(b"SSH-2.0-nonsense\r\n\r\n"))
    with pytest.raises(errors.Failed, match="does not speak HTTP"):
        Http(path).call("GET", "/x")


def test_a_hung_engine_is_told_apart_from_one_that_is_down(
    server: Callable[[Handler], str], tmp_path: Path
) -> None:
    release = threading.Event()
    path = server(lambda *_: release.wait(30) and None)
    with pytest.raises(EngineHung, match="does not answer"):
        Http(path).call("GET", "/x", timeout=0.3)
    release.set()
    with pytest.raises(EngineDown, match="not running"):
        Http(str(tmp_path / "nobody")).call("GET", "/x")


def test_a_stream_goes_out_in_chunks(server: Callable[[Handler], str]) -> None:
    seen: list[bytes] = []

    def handler(connection: socket.socket, head: bytes) -> None:
        data = head
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65536)
        seen.append(data)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    path = server(handler)
    Http(path).call(
        "PUT", "/x y", query={"t": ["a", "b"], "n": None, "f": True}, body=iter([b"abc"])
    )
    assert seen[0].startswith(b"PUT /v1.47/x%20y?t=a&t=b&f=1 HTTP/1.1\r\n")
    assert seen[0].endswith(b"3\r\nabc\r\n0\r\n\r\n")


def test_errors_keep_their_three_parts(server: Callable[[Handler], str]) -> None:
    body = b'{"message":"a: b","brief":"a","details":"b","resolution":"c"}'
    head = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % len(body)
    path = server(answering(head + body))
    with pytest.raises(errors.Conflict) as raised:
        Http(path).call("POST", "/x")
    assert (raised.value.brief, raised.value.details, raised.value.resolution) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "No such container: x", errors.NotFound),
        (400, 'exec: "x": executable file not found in $PATH', errors.CommandNotFound),
        (400, 'exec: "/etc": permission denied', errors.CommandNotRunnable),
        (500, "boom", errors.Failed),
        (501, "no", errors.Unsupported),
        (418, "teapot", errors.InvalidInput),
    ],
)
def test_kinds_of_errors(status: int, message: str, kind: type[Exception]) -> None:
    assert type(from_answer(status, {"message": message})) is kind


def frame(stream: int, data: bytes) -> bytes:
    """A frame of Docker's stream format."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_frames_cut_anywhere_come_out_whole() -> None:
    raw = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(1, b"more")
    for size in range(1, len(raw)):
        out, err = bytearray(), bytearray()
        split = Demultiplexer(Output(out.extend, err.extend), raw=False)
        for start in range(0, len(raw), size):
            split.feed(raw[start : start + size])
        assert (bytes(out), bytes(err)) == (b"outmore", b"err")


def test_detach_keys() -> None:
    keys = DetachKeys()
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"c") == (b"\x10c", False)
    assert keys.feed(b"d\x10\x11e") == (b"d", True)
    assert parse_keys("ctrl-a,x") == b"\x01x"
    with pytest.raises(ValueError, match="no such key"):
        parse_keys("hyper-x")


def upgraded(serve: Callable[[socket.socket], None]) -> Handler:
    """A handler that answers 101 and goes on with raw bytes."""

    def handler(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        serve(connection)

    return handler


def test_a_big_echo_blocks_neither_side(server: Callable[[Handler], str], tmp_path: Path) -> None:
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            connection.sendall(frame(1, data))

    path = server(upgraded(echo))
    source = tmp_path / "big"
    content = os.urandom(3 << 20)
    source.write_bytes(content)
    out = bytearray()
    with source.open("rb") as file:
        stream = open_stream(Http(path), "/attach")
        assert pump(stream, Output(out.extend, out.extend), stdin=file.fileno(), raw=False)
        stream.close()
    assert bytes(out) == content


def test_input_ends_and_output_goes_on(server: Callable[[Handler], str]) -> None:
    def late(connection: socket.socket) -> None:
        got = b""
        while data := connection.recv(65536):
            got += data
        connection.sendall(frame(2, b"got " + got))

    path = server(upgraded(late))
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    err = bytearray()
    stream = open_stream(Http(path), "/attach")
    assert pump(stream, Output(err.extend, err.extend), stdin=reading, raw=False)
    stream.close()
    os.close(reading)
    assert bytes(err) == b"got abc"


def test_detaching_leaves_the_other_side_running(server: Callable[[Handler], str]) -> None:
    done = threading.Event()

    def patient(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass
        done.set()

    path = server(upgraded(patient))
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.write(master, b"ls\x10\x11")
    stream = open_stream(Http(path), "/attach")
    ended = pump(
        stream,
        Output(len, len),
        stdin=slave,
        raw=True,
        detach=DetachKeys(),  # type: ignore[arg-type]
    )
    stream.close()
    os.close(master)
    os.close(slave)
    assert ended is False
    assert done.wait(60)


def test_a_refused_upgrade_is_an_error(server: Callable[[Handler], str]) -> None:
    path = server(
        answering(b"HTTP/1.1 409 Conflict\r\nContent-Length: 19\r\n\r\n", b'{"message":"no"}   ')
    )
    with pytest.raises(errors.Conflict, match="no"):
        open_stream(Http(path), "/attach")


def test_queries() -> None:
    assert http.encode_query({"a": None, "b": False, "c": {"x": ["y"]}}) == (
        "?b=0&c=%7B%22x%22:%20%5B%22y%22%5D%7D"
    )
    assert http.encode_query({}) == ""
