"""A build context as a tar stream, without what .dockerignore names."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator

from gemel.client.dockerignore import Ignore, parse
from gemel.errors import InvalidInput

_PIECE = 1 << 18


def check(folder: str, dockerfile: str = "Dockerfile") -> str:
    """Path of the Dockerfile. Raises InvalidInput if it or the folder is missing."""
    if not os.path.isdir(folder):
        raise InvalidInput(
            f"build context {folder} is not a folder", resolution="check `build.context`"
        )
    path = os.path.join(folder, dockerfile)
    if not os.path.isfile(path):
        raise InvalidInput(
            f"there is no {dockerfile} in {folder}",
            resolution="name it with -f, or `build.dockerfile` in the Compose file",
        )
    return path


def ignore_of(folder: str, dockerfile: str) -> Ignore:
    """The rules: DOCKERFILE.dockerignore beside the Dockerfile, else .dockerignore."""
    own = os.path.join(folder, dockerfile) + ".dockerignore"
    path = own if os.path.isfile(own) else os.path.join(folder, ".dockerignore")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return Ignore(parse(file.read()))
    except FileNotFoundError:
        return Ignore([])
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {path}", details=str(error)) from error


def files(folder: str, ignore: Ignore, always: frozenset[str]) -> Iterator[str]:
    """Relative paths in a fixed order; ``always`` (the Dockerfile) is in whatever the rules say."""
    for base, folders, names in os.walk(folder):
        prefix = os.path.relpath(base, folder)
        prefix = "" if prefix == "." else prefix + "/"
        kept = []
        for name in sorted(folders):
            path = prefix + name
            if os.path.islink(os.path.join(base, name)):
                names.append(name)
            elif not ignore.prunes(path) or any(a.startswith(path + "/") for a in always):
                kept.append(name)
                if not ignore.excluded(path):
                    yield path
        folders[:] = kept
        for name in sorted(names):
            path = prefix + name
            if path in always or not ignore.excluded(path):
                yield path


class _Pieces(io.RawIOBase):
    """A file to write to, whose content is taken out in pieces."""

    def __init__(self) -> None:
        self.pending = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self.pending += view
        return view.nbytes

    def take(self) -> bytes:
        data = bytes(self.pending)
        self.pending.clear()
        return data


def tar(
    folder: str,
    dockerfile: str = "Dockerfile",
    extra: dict[str, bytes] | None = None,
    further: dict[str, str] | None = None,
) -> Iterator[bytes]:
    """The context as a tar in pieces. extra: further files (an inline Dockerfile) by name.

    further: folders of further contexts, by the name that each has at the top. Owners
    are root, as Docker's clients send it; sockets and devices are left out.
    """
    outside = os.path.normpath(dockerfile).startswith("..") or os.path.isabs(dockerfile)
    always = frozenset() if outside else frozenset({os.path.normpath(dockerfile)})
    pieces = _Pieces()
    out = tarfile.open(fileobj=pieces, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
    for path in files(folder, ignore_of(folder, dockerfile), always):
        yield from _add(out, pieces, os.path.join(folder, path), path)
    for top, place in (further or {}).items():
        out.addfile(_top(top))
        for path in files(place, ignore_of(place, "Dockerfile"), frozenset()):
            yield from _add(out, pieces, os.path.join(place, path), f"{top}/{path}")
    for name, content in (extra or {}).items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        out.addfile(info, io.BytesIO(content))
    out.close()
    yield pieces.take()


def _top(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


def _add(out: tarfile.TarFile, pieces: _Pieces, source: str, path: str) -> Iterator[bytes]:
    try:
        info = out.gettarinfo(source, path)
        if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
            return
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        if not info.isreg():
            out.addfile(info)
        else:
            with open(source, "rb") as file:
                yield from _content(out, pieces, info, file)
    except OSError as error:
        raise InvalidInput(f"cannot read {source} of the build context", str(error)) from error
    if len(pieces.pending) >= _PIECE:
        yield pieces.take()


def _content(
    out: tarfile.TarFile, pieces: _Pieces, info: tarfile.TarInfo, file: io.BufferedReader
) -> Iterator[bytes]:
    """A file piece by piece (addfile would hold a big one whole)."""
    out.addfile(info.replace(deep=False)) if info.size == 0 else None
    if info.size == 0:
        return
    stream = out.fileobj
    assert stream is not None
    stream.write(info.tobuf(out.format, out.encoding or "utf-8", out.errors or "surrogateescape"))
    left = info.size
    while left:
        data = file.read(min(left, _PIECE))
        if not data:
            data = bytes(min(left, _PIECE))  # it has shrunk meanwhile: the head gives its length
        stream.write(data)
        left -= len(data)
        if len(pieces.pending) >= _PIECE:
            yield pieces.take()
    stream.write(bytes(-info.size % 512))
