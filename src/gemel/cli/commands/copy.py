"""cp: files from and to a service or container."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from typing import IO, Any

import click

from gemel.cli.app import App, command, pass_app
from gemel.cli.targets import Target, one, resolve
from gemel.client.http import Response
from gemel.errors import InvalidInput, NotFound


@command()
@click.argument("source", metavar="[SERVICE:]FROM|-")
@click.argument("target", metavar="[SERVICE:]TO|-")
@click.option("-a", "--archive", is_flag=True, help="Keep owners.")
@click.option("-L", "--follow-link", is_flag=True, help="Follow a link at FROM.")
@click.option("--index", type=int, default=0, help="Which replica, from 1.")
@click.option("--all", "every", is_flag=True, help="To all replicas.")
@click.option("-q", "--quiet", is_flag=True, help="For Docker's sake; it says nothing anyway.")
@pass_app
def cp(
    app: App,
    source: str,
    target: str,
    archive: bool,
    follow_link: bool,
    index: int,
    every: bool,
    quiet: bool,
) -> None:
    """Copy files between this machine and a service or container, running or not.

    `-` is a tar on standard input or output.
    """
    from_name, from_path = _split(source)
    to_name, to_path = _split(target)
    if from_name and to_name:
        raise InvalidInput("copying between services is not supported")
    if not from_name and not to_name:
        raise InvalidInput(
            "one of the two must be in a service or container", resolution="gemel cp web:/etc ."
        )
    if from_name:
        take_out(app, one(app, from_name, index), from_path, to_path, follow_link)
        return
    members = resolve(app, [to_name]) if every else [one(app, to_name, index)]
    for member in members:
        put_in(app, member, from_path, to_path, archive, follow_link)


def _split(text: str) -> tuple[str, str]:
    """Name and path of ``web:/etc``; no name for a path of this machine."""
    if text.startswith(("/", ".", "-")) or ":" not in text:
        return "", text
    name, _, path = text.partition(":")
    return name, path or "/"


def _stat(response: Response) -> dict[str, Any]:
    header = response.headers.get("x-docker-container-path-stat", "")
    if not header:
        return {}
    found: dict[str, Any] = json.loads(base64.b64decode(header))
    return found


def _lookup(app: App, member: Target, path: str) -> dict[str, Any] | None:
    response = app.client.call(
        "HEAD", f"/containers/{member.id}/archive", query={"path": path}, ok=(404,)
    )
    response.close()
    return None if response.status == 404 else _stat(response)


def _is_folder(found: dict[str, Any] | None) -> bool:
    # Go's FileMode: bit 31 is a folder
    return bool(found and int(found.get("mode", 0)) & (1 << 31))


class _Reader(io.RawIOBase):
    """Pieces as a file for tarfile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def take_out(app: App, member: Target, path: str, target: str, follow: bool) -> None:
    """From the instance to this machine. Nothing is written outside of ``target``."""
    if follow:
        found = _lookup(app, member, path)
        if found and found.get("linkTarget"):
            path = os.path.join(os.path.dirname(path), found["linkTarget"])
    response = app.client.call(
        "GET", f"/containers/{member.id}/archive", query={"path": path}, timeout=None
    )
    if target == "-":
        for chunk in response.chunks():
            sys.stdout.buffer.write(chunk)
        return
    contents_only = path.endswith("/.") or path == "."
    into = os.path.isdir(target)
    if target.endswith("/") and not into:
        raise NotFound(f"no such folder: {target}")
    base = target if into else (os.path.dirname(os.path.abspath(target)) or ".")
    if not os.path.isdir(base):
        raise NotFound(f"no such folder: {base}")
    rename = "" if into and not contents_only else os.path.basename(os.path.abspath(target))
    base = os.path.dirname(os.path.abspath(target)) if rename else base
    with tarfile.open(fileobj=_Reader(response.chunks()), mode="r|") as tar:
        for entry in tar:
            top, slash, rest = entry.name.partition("/")
            entry.name = (rename or top) + slash + rest
            if entry.islnk():
                head, slash, rest = entry.linkname.partition("/")
                entry.linkname = (rename or head) + slash + rest
            _extract(tar, entry, base)


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, base: str) -> None:
    """Through tarfile's ``data`` filter but for links that point elsewhere, kept as they are."""
    if entry.issym():
        where = os.path.join(base, entry.name)
        parent = os.path.realpath(os.path.dirname(where))
        if os.path.commonpath([parent, os.path.realpath(base)]) != os.path.realpath(base):
            raise InvalidInput(f"{entry.name} leads out of {base}")
        if os.path.lexists(where):
            os.unlink(where)
        os.symlink(entry.linkname, where)
        return
    if not (entry.isreg() or entry.isdir() or entry.islnk()):
        return  # devices and sockets stay where they are
    try:
        tar.extract(entry, base, filter="data", set_attrs=True)
    except tarfile.FilterError as error:
        raise InvalidInput(f"refused to unpack {entry.name}", details=str(error)) from error


def put_in(app: App, member: Target, source: str, target: str, archive: bool, follow: bool) -> None:
    """From this machine into the instance."""
    url = f"/containers/{member.id}/archive"
    if source == "-":
        pieces: Iterator[bytes] = iter(lambda: sys.stdin.buffer.read(1 << 18), b"")
        _upload(app, url, target, pieces)
        return
    real = os.path.realpath(source) if follow else source
    if not os.path.lexists(real):
        raise NotFound(f"no such file: {source}")
    found = _lookup(app, member, target)
    folder = os.path.isdir(real) and not os.path.islink(real)
    contents_only = source.endswith("/.") or source == "."
    if _is_folder(found):
        name = "" if contents_only else os.path.basename(os.path.abspath(source))
        where = target
    else:
        if found is not None and folder:
            raise InvalidInput(f"{target} is a file, {source} a folder")
        if target.endswith("/") and not folder:
            raise NotFound(f"no such folder in {member.name}: {target}")
        where, name = os.path.split(target.rstrip("/"))
    _upload(app, url, where or "/", _packed(real, name, archive))


def _upload(app: App, url: str, path: str, pieces: Iterator[bytes]) -> None:
    headers = {"Content-Type": "application/x-tar"}
    app.client.call(
        "PUT", url, query={"path": path}, body=pieces, headers=headers, timeout=None
    ).read()


def _packed(source: str, name: str, archive: bool) -> Iterator[bytes]:
    """A tar whose top entry is called ``name`` (the folder's content alone without a name)."""
    import tempfile

    def owner(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not archive:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
        return entry if entry.name else None

    spool: IO[bytes]
    with tempfile.SpooledTemporaryFile(max_size=1 << 24) as spool:
        with tarfile.open(fileobj=spool, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            if name:
                tar.add(source, name, filter=owner)
            else:
                for inner in sorted(os.listdir(source)):
                    tar.add(os.path.join(source, inner), inner, filter=owner)
        spool.seek(0)
        while data := spool.read(1 << 18):
            yield data
