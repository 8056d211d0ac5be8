"""Archives and the trees that layers make: golden, laws, hostile."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import threading
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.errors import InvalidInput
from gemel.image import tarfmt
from gemel.image.tarfmt import FILE, FOLDER, LINK, SYMLINK, Entry, Limits, scan
from gemel.image.tree import Tree, emit

Spec = tuple[str, bytes, str]
F, D, S, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def archive(*specs: Spec, **facts: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, text in specs:
            entry = tarfile.TarInfo(name)
            entry.name, entry.type = name, kind
            for key, value in facts.items():
                setattr(entry, key, value)
            if kind == F:
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
            else:
                entry.linkname = text
                tar.addfile(entry)
    return out.getvalue()


def flatten(*layers: bytes) -> bytes:
    """The layers' tree, written out as one archive through the real writer."""
    tree = Tree()
    files: list[BinaryIO] = []
    for layer in layers:
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        file.write(layer)
        file.flush()
        file.seek(0)
        files.append(file)
        tree.add(list(scan(file, Limits())), file.fileno())
    reader, writer = os.pipe()

    def write() -> None:
        try:
            emit(tree, writer)
        finally:
            os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    thread.join()
    for file in files:
        file.close()
    return data


def shown(data: bytes) -> dict[str, str]:
    """Path to content, to -> target, or / for a folder; hard links have their content."""
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            if entry.name == ".":
                continue
            if entry.isdir():
                found[entry.name] = "/"
            elif entry.issym():
                found[entry.name] = f"-> {entry.linkname}"
            else:
                file = tar.extractfile(entry)
                assert file is not None
                found[entry.name] = file.read().decode()
    return found


GOLDEN: dict[str, tuple[list[list[Spec]], dict[str, str] | None]] = {
    "a later layer replaces": (
        [[("a", F, "1")], [("a", F, "2")]], {"a": "2"}),
    "whiteout of a file": (
        [[("d", D, ""), ("d/a", F, "1"), ("d/b", F, "2")], [("d/.wh.a", F, "")]],
        {"d": "/", "d/b": "2"}),
    "whiteout of a folder": (
        [[("d/e/f", F, "1")], [(".wh.d", F, "")]], {}),
    "whiteout, then the same name anew in one layer": (
        [[("d/old", F, "1")], [("d", D, ""), ("d/new", F, "2"), (".wh.d", F, "")]],
        {"d": "/", "d/new": "2"}),
    "opaque keeps the layer's own, whatever the order": (
        [[("d/old", F, "1")], [("d/new", F, "2"), ("d/.wh..wh..opq", F, "")]],
        {"d": "/", "d/new": "2"}),
    "opaque reaches deep": (
        [[("d/e/old", F, "1")], [("d/.wh..wh..opq", F, ""), ("d/e/new", F, "2")]],
        {"d": "/", "d/e": "/", "d/e/new": "2"}),
    "whiteout of what is not there": ([[("a", F, "1")], [("x/.wh.y", F, "")]], {"a": "1"}),
    "notes of AUFS": ([[("a", F, "1"), (".wh..wh.plnk", D, ""), (".wh..wh.aufs", F, "")]],
                      {"a": "1"}),
    "a hard link outlives its target": (
        [[("a", F, "1"), ("b", H, "a")], [(".wh.a", F, "")]], {"b": "1"}),
    "a hard link to a replaced file keeps the old content": (
        [[("a", F, "1"), ("b", H, "a")], [("a", F, "2")]], {"a": "2", "b": "1"}),
    "a hard link to a lower layer": ([[("a", F, "1")], [("b", H, "a")]], {"a": "1", "b": "1"}),
    "a link that sorts before its target": (
        [[("z", F, "1"), ("a", H, "z")]], {"a": "1", "z": "1"}),
    "a file takes a folder's place": ([[("d/a", F, "1")], [("d", F, "2")]], {"d": "2"}),
    "a folder takes a file's place": ([[("d", F, "1")], [("d/a", F, "2")]],
                                      {"d": "/", "d/a": "2"}),
    "a folder takes a link's place": ([[("d", S, "e")], [("d", D, "")]], {"d": "/"}),
    "a link takes a folder's place": ([[("d/a", F, "1")], [("d", S, "e")]], {"d": "-> e"}),
    "names through a link stay inside": (
        [[("usr/lib", D, ""), ("lib", S, "usr/lib")], [("lib/a", F, "1")]],
        {"lib": "-> usr/lib", "usr": "/", "usr/lib": "/", "usr/lib/a": "1"}),
    "an absolute link stays inside": (
        [[("l", S, "/etc"), ("l/passwd", F, "x")]],
        {"l": "-> /etc", "etc": "/", "etc/passwd": "x"}),
    "a link above the root stays inside": (
        [[("l", S, "../../../etc"), ("l/passwd", F, "x")]],
        {"l": "-> ../../../etc", "etc": "/", "etc/passwd": "x"}),
    "links in a circle end": (
        [[("a", S, "b"), ("b", S, "a"), ("a/x", F, "1")]], None),
    "entries twice: the last counts": (
        [[("a", F, "1"), ("a", F, "2"), ("d", D, ""), ("d/x", F, "1"), ("d", D, "")]],
        {"a": "2", "d": "/", "d/x": "1"}),
    "absolute and odd names": (
        [[("/a", F, "1"), ("./b/./c", F, "2"), ("d//e", F, "3")]],
        {"a": "1", "b": "/", "b/c": "2", "d": "/", "d/e": "3"}),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_layers(name: str) -> None:
    layers, expected = GOLDEN[name]
    data = flatten(*(archive(*layer) for layer in layers))
    if expected is not None:
        assert shown(data) == expected


def test_owners_modes_times_devices_and_attributes_are_kept() -> None:
    long = "d" * 120 + "/" + "f" * 120
    pax = {"SCHILY.xattr.security.capability": "\x01\x02", "mtime": "1700000000.75"}
    data = archive((long, F, "x"), mode=0o4751, uid=3_000_000, gid=7, pax_headers=pax)
    with tarfile.open(fileobj=io.BytesIO(flatten(data))) as tar:
        entry = tar.getmember(long)
    assert (entry.mode, entry.uid, entry.gid, int(entry.mtime)) == (0o4751, 3_000_000, 7, 1.7e9)
    assert entry.pax_headers["SCHILY.xattr.security.capability"] == "\x01\x02"
    device = archive(("null", tarfile.CHRTYPE, ""), devmajor=1, devminor=3)
    with tarfile.open(fileobj=io.BytesIO(flatten(device))) as tar:
        entry = tar.getmember("null")
    assert (entry.type, entry.devmajor, entry.devminor) == (tarfile.CHRTYPE, 1, 3)


def test_gnu_long_names() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo("n" * 200)
        entry.type, entry.linkname = tarfile.SYMTYPE, "t" * 200
        tar.addfile(entry)
    assert shown(flatten(out.getvalue())) == {"n" * 200: "-> " + "t" * 200}


def test_a_large_file_comes_through() -> None:
    text = "0123456789abcdef" * 100_000
    assert shown(flatten(archive(("big", F, text)))) == {"big": text}


names = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e/f"])
layers = st.lists(
    st.lists(st.tuples(names, st.sampled_from([F, D]), st.text("xyz", max_size=3)), max_size=6),
    min_size=1,
    max_size=3,
)


@given(layers)
def test_without_links_it_is_as_if_unpacked_one_after_the_other(
    stack: list[list[tuple[str, bytes, str]]],
) -> None:
    model: dict[str, str] = {}

    def drop(path: str) -> None:
        for known in [k for k in model if k == path or k.startswith(path + "/")]:
            del model[known]

    for layer in stack:
        for path, kind, text in layer:
            parts = path.split("/")
            for end in range(1, len(parts)):
                above = "/".join(parts[:end])
                if model.get(above) != "/":
                    drop(above)
                    model[above] = "/"
            if kind == F:
                drop(path)
                model[path] = "=" + text
            elif model.get(path) != "/":
                drop(path)
                model[path] = "/"
    data = flatten(
        *(archive(*((p, k, "=" + t if k == F else "") for p, k, t in la)) for la in stack)
    )
    assert shown(data) == model


entries = st.builds(
    Entry,
    kind=st.sampled_from([FILE, FOLDER, SYMLINK, LINK]),
    path=st.lists(st.binary(min_size=1, max_size=80), min_size=1, max_size=4).map(b"/".join),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime=st.integers(0, 2**32 - 1),
    target=st.binary(max_size=150),
    xattrs=st.dictionaries(st.binary(min_size=1, max_size=9), st.binary(max_size=99), max_size=3),
)


@given(entries)
def test_a_header_that_is_written_is_read_back(entry: Entry) -> None:
    try:
        path = tarfmt.clean(entry.path)
        target = tarfmt.clean(entry.target) if entry.kind == LINK else entry.target
    except InvalidInput:
        return
    if b"\0" in target or any(b"=" in key for key in entry.xattrs) or not path:
        return
    if entry.kind in (FILE, FOLDER):
        target = b""
    changed = {"path": path, "target": target, "offset": 0}
    wanted = Entry(**{f: getattr(entry, f) for f in entry.__struct_fields__} | changed)
    (found,) = scan(io.BytesIO(tarfmt.header(wanted)), Limits())
    found = Entry(**{f: getattr(found, f) for f in found.__struct_fields__} | {"offset": 0})
    assert found == wanted


@given(st.binary(max_size=2048), st.integers(0, 511), st.integers(0, 255))
def test_damaged_archives_are_refused_or_read_never_more(
    junk: bytes, place: int, byte: int
) -> None:
    whole = bytearray(archive(("d/a", F, "content"), ("l", S, "d")))
    whole[place] = byte
    for data in (bytes(whole), junk, bytes(whole[: 512 + place])):
        try:
            for entry in scan(io.BytesIO(data), Limits()):
                assert b".." not in entry.path.split(b"/")
                assert entry.offset + entry.size <= len(data)
        except InvalidInput:
            pass


@pytest.mark.parametrize(
    "data",
    [
        archive(("../a", F, "x")),
        archive(("a/../../b", F, "x")),
        archive(("..", D, "")),
        archive(("l", H, "../../etc/passwd")),
        archive(("l", H, "nothing")),
        archive(("d", D, ""), ("l", H, "d")),
        archive(("x" * 256, F, "x")),
        archive(*[("/".join(["a" * 200] * 25), F, "x")]),
        archive(("a", F, "x"), pax_headers={"GNU.sparse.major": "1"}),
        archive(("a", F, "x"), pax_headers={"path": "../../etc/cron.d/x"}),
    ],
    ids=["up", "hidden", "dots", "link-out", "link-none", "link-folder", "long", "deep", "sparse",
         "pax-path"],
)  # fmt: skip
def test_hostile_archives_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        flatten(data)


def test_whiteouts_never_reach_above() -> None:
    data = flatten(archive(("d/a", F, "1")), archive(("d/.wh...", F, ""), ("d/.wh..", F, "")))
    assert shown(data) == {"d": "/", "d/a": "1"}
