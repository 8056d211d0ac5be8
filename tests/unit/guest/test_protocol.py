"""Frames and records: what is encoded comes back, and hostile bytes are refused or harmless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.runtime.microvm import protocol
from gemel.runtime.microvm.protocol import Decoder, Frame, FromGuest, ProtocolError, ToGuest

frames = st.builds(
    Frame,
    session=st.integers(0, 2**32 - 1),
    type=st.sampled_from(list(FromGuest)).map(int),
    payload=st.binary(max_size=300),
    flags=st.integers(0, 255),
)


@given(st.lists(frames, max_size=8), st.integers(1, 40))
def test_frames_come_back_however_the_bytes_are_cut(sent: list[Frame], step: int) -> None:
    data = b"".join(protocol.encode(f.session, f.type, f.payload, f.flags) for f in sent)
    decoder = Decoder()
    got: list[Frame] = []
    for start in range(0, len(data), step):
        got += decoder.feed(data[start : start + step])
    assert got == sent
    assert decoder.pending == 0


@given(st.lists(st.binary(max_size=200), max_size=40))
def test_hostile_bytes_are_refused_or_kept_within_one_frame(chunks: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            assert decoder.pending < protocol.HEADER.size + protocol.PAYLOAD_MAX
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "header",
    [
        (65537, 1, FromGuest.STDOUT, 0, 0),
        (0, 1, ToGuest.START, 0, 0),
        (0, 1, 0, 0, 0),
        (0, 1, FromGuest.STDOUT, 0, 1),
    ],
)
def test_a_bad_header_is_refused_before_its_payload_is_awaited(header: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(protocol.HEADER.pack(*header))


records = st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=6), max_size=10)


@given(records)
def test_records_come_back(sent: list[list[bytes]]) -> None:
    assert protocol.decode_records(protocol.encode_records(sent)) == sent


@given(records, st.integers(1, 50))
def test_records_that_are_cut_short_are_refused(sent: list[list[bytes]], cut: int) -> None:
    data = protocol.encode_records([*sent, [b"key", b"v" * 50]])
    with pytest.raises(ProtocolError):
        protocol.decode_records(data[:-cut])


@given(st.binary(max_size=400))
def test_hostile_records_are_refused_or_whole(data: bytes) -> None:
    try:
        assert protocol.encode_records(protocol.decode_records(data)) == data
    except ProtocolError:
        pass


def test_text_of_any_encoding_passes() -> None:
    assert protocol.decode_records(protocol.encode_records([("é", "\udcff")])) == [
        [b"\xc3\xa9", b"\xff"]
    ]


@pytest.mark.parametrize("size", [0, 1, 65523, 65524, 65525, 200_000])
def test_a_long_message_is_split_and_its_end_marked(size: int) -> None:
    sent = [("arg", b"x" * size)]
    decoder = Decoder(ToGuest)
    got = decoder.feed(b"".join(protocol.message(7, ToGuest.EXEC, sent)))
    assert [frame.flags for frame in got] == [0] * (len(got) - 1) + [protocol.LAST]
    assert {(frame.session, frame.type) for frame in got} == {(7, ToGuest.EXEC)}
    whole = b"".join(frame.payload for frame in got)
    assert protocol.decode_records(whole) == [[b"arg", b"x" * size]]


def test_a_message_without_records_is_one_frame() -> None:
    (only,) = protocol.message(0, ToGuest.CONFIG, [])
    assert only == protocol.encode(0, ToGuest.CONFIG, b"", protocol.LAST)


def test_too_much_is_refused_when_encoding() -> None:
    with pytest.raises(ValueError, match="over"):
        list(protocol.message(0, ToGuest.CONFIG, [("file", b"x" * (8 << 20))]))
    with pytest.raises(ValueError, match="over"):
        protocol.encode(1, ToGuest.STDIN, b"x" * 65537)
    with pytest.raises(ValueError, match="strings"):
        protocol.encode_records([()])


@given(st.binary(max_size=12))
def test_hostile_payloads_are_refused_or_in_range(payload: bytes) -> None:
    for decode in (protocol.decode_exit, protocol.decode_error, protocol.decode_u32):
        try:
            decode(payload)
        except ProtocolError:
            pass
    try:
        assert 0 <= protocol.decode_credit(payload, 5) <= protocol.CREDIT_MAX
    except ProtocolError:
        pass


def test_payloads() -> None:
    assert protocol.decode_exit(b"\x89\0\0\0\1") == (137, True)
    assert protocol.decode_error(b"\x01exec") == (protocol.ErrorKind.NOT_FOUND, "exec")
    assert protocol.decode_u32(b"\1\0\0\x006.1", rest=True) == 1
    assert protocol.encode_size(-1, 70000) == b"\0\0\xff\xff"
    usage = b"cpu_ns 12\nmemory -1\nfoo\n\xff 3\nbig 99999999999999999999\nhuge " + b"9" * 5000
    decoded = protocol.decode_usage(usage)
    assert decoded.pop("\ufffd") == 3
    assert decoded == {"cpu_ns": 12, "big": 2**63 - 1}


def test_processes() -> None:
    line = b"7\t1\t0\troot\tS\t1000\t1700000000\t4096\t?\tsh -c a\tb\n"
    (process,) = protocol.decode_processes(line)
    assert (process.pid, process.user, process.command) == (7, "root", "sh -c a\tb")
    with pytest.raises(ProtocolError):
        protocol.decode_processes(b"1\t2\n")
    with pytest.raises(ProtocolError):
        protocol.decode_processes(line.replace(b"1000", b"-1"))
