"""The file system that an image's layers make, as a tree in memory.

Layers are put on from the lowest to the topmost, whiteouts applied, links
resolved inside the tree; content stays in the layers' files and is only pointed
to. Pure but for ``emit``, which writes the tree as one tar stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from gemel.errors import InvalidInput
from gemel.image import tarfmt
from gemel.image.tarfmt import BLOCK, FILE, FOLDER, LINK, SYMLINK, Entry

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_MAX_LINKS = 40
_BUFFER = 256 * 1024
_KINDS = frozenset((FILE, LINK, SYMLINK, tarfmt.CHAR, tarfmt.DEVICE, FOLDER, tarfmt.FIFO))


class Node:
    """What a path leads to. fd: the file that holds the content, at entry.offset.

    Several names of one Node are hard links.
    """

    __slots__ = ("children", "entry", "fd", "shown")

    def __init__(self, entry: Entry, fd: int) -> None:
        self.entry = entry
        self.fd = fd
        self.children: dict[bytes, Node] | None = {} if entry.kind == FOLDER else None
        self.shown: bytes | None = None
        """Path under which ``emit`` wrote it, for the other names to point to."""


class Tree:
    """Begins empty; ``add`` puts a layer on top."""

    def __init__(self) -> None:
        self.root = Node(Entry(kind=FOLDER, path=b"", mode=0o755), -1)

    def add(self, entries: Iterable[Entry], fd: int) -> None:
        """Puts a layer on top. Raises InvalidInput for what is damaged or hostile.

        Whiteouts hide lower layers only, wherever they stand in the archive
        (image-spec, layer.md), so they go first.
        """
        plain: list[Entry] = []
        for entry in entries:
            folder, _, name = entry.path.rpartition(b"/")
            if name.startswith(_WHITEOUT):
                self._whiteout(folder, name)
            elif entry.kind in _KINDS:
                plain.append(entry)
        for entry in plain:
            self._put(entry, fd)

    def _whiteout(self, path: bytes, name: bytes) -> None:
        folder = self._folder(path, make=False)
        if folder is None or folder.children is None:
            return
        if name == _OPAQUE:
            folder.children.clear()
        elif not name.startswith(_META):  # others are AUFS's own notes
            folder.children.pop(name[len(_WHITEOUT) :], None)

    def _put(self, entry: Entry, fd: int) -> None:
        if not entry.path:
            if entry.kind == FOLDER:
                self.root.entry = entry
            return
        path, _, name = entry.path.rpartition(b"/")
        folder = self._folder(path, make=True)
        assert folder is not None and folder.children is not None
        old = folder.children.get(name)
        if entry.kind == LINK:
            folder.children[name] = self._linked(entry)
        elif old is not None and old.children is not None and entry.kind == FOLDER:
            old.entry = entry
        else:
            folder.children[name] = Node(entry, fd)

    def _linked(self, entry: Entry) -> Node:
        path, _, name = entry.target.rpartition(b"/")
        folder = self._folder(path, make=False)
        found = folder.children.get(name) if folder and folder.children else None
        if found is None or found.children is not None:
            raise InvalidInput(
                "an image is refused: a hard link leads to nothing, or to a folder",
                details=f"{entry.path.decode('utf-8', 'backslashreplace')} -> "
                f"{entry.target.decode('utf-8', 'backslashreplace')}",
            )
        return found

    def _folder(self, path: bytes, *, make: bool) -> Node | None:
        """The folder at ``path``, symbolic links followed inside the tree.

        make: make what is missing, and put a folder in the place of a file. A
        link that leads in circles, or to what is no folder, is replaced too.
        """
        node = self.root
        trail: list[Node] = []
        todo = _parts(path)
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                node = trail.pop() if trail else self.root
                continue
            children = node.children
            assert children is not None
            child = children.get(part)
            if child is not None and child.entry.kind == SYMLINK and links < _MAX_LINKS:
                links += 1
                if child.entry.target.startswith(b"/"):
                    node, trail = self.root, []
                todo += [
                    p for p in reversed(child.entry.target.split(b"/")) if p not in (b"", b".")
                ]
                continue
            if child is None or child.children is None:
                if not make:
                    return None
                child = Node(Entry(kind=FOLDER, path=b"", mode=0o755), -1)
                children[part] = child
            trail.append(node)
            node = child
        return node

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path with its node, folders before what they hold, sorted. The root is ''."""
        stack: list[tuple[bytes, Node]] = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            if node.children:
                prefix = path + b"/" if path else b""
                for name in sorted(node.children, reverse=True):
                    stack.append((prefix + name, node.children[name]))


def emit(tree: Tree, out: int) -> None:
    """Writes the tree as a tar stream to descriptor ``out``. Blocks; for a thread.

    Raises BrokenPipeError if the reader went away.
    """
    buffer = bytearray()
    for path, node in tree.walk():
        entry = _named(node, path)
        buffer += tarfmt.header(entry)
        if entry.size:
            if entry.size > _BUFFER:
                _write(out, buffer)
                buffer.clear()
                _copy(node.fd, out, entry)
            else:
                data = os.pread(node.fd, entry.size, entry.offset)
                if len(data) != entry.size:
                    raise InvalidInput("a layer became shorter while it was read")
                buffer += data
            buffer += b"\0" * (-entry.size % BLOCK)
        if len(buffer) > _BUFFER:
            _write(out, buffer)
            buffer.clear()
    _write(out, buffer + b"\0" * (2 * BLOCK))


def _parts(path: bytes) -> list[bytes]:
    """The parts of a path, the last one first."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]


def _named(node: Node, path: bytes) -> Entry:
    """The entry to write: the node's own, or a hard link to where it was written."""
    kind, entry = node.entry.kind, node.entry
    if kind == FILE:
        if node.shown is not None:
            return Entry(kind=LINK, path=path, mode=entry.mode, target=node.shown)
        node.shown = path
    return Entry(
        kind=kind,
        path=path if path else b".",
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        size=entry.size,
        offset=entry.offset,
        target=entry.target if kind == SYMLINK else b"",
        major=entry.major,
        minor=entry.minor,
        xattrs=entry.xattrs,
    )


def _write(out: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]


def _copy(source: int, out: int, entry: Entry) -> None:
    """Moves a large file's content inside the kernel."""
    offset, left = entry.offset, entry.size
    while left:
        sent = os.sendfile(out, source, offset, min(left, 1 << 30))
        if not sent:
            raise InvalidInput("a layer became shorter while it was read")
        offset, left = offset + sent, left - sent
