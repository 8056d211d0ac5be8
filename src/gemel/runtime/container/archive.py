"""docker cp: tar out of and into a container, running or not, never leaving its root.

Every path is opened by the kernel inside the root (openat2, see gemel.host.rooted), so
links that the container makes or changes meanwhile lead nowhere else. The work is done
in a thread; tar streams through a queue with a few pieces, never whole in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import shutil
import stat
import tarfile
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from gemel.errors import Conflict, Failed, GemelError, InvalidInput, NotFound
from gemel.host import rooted
from gemel.model.instance import InstanceSpec
from gemel.runtime.container.packing import Packer

#: Where the kernel shows what is no file: processes, devices.
KERNELS = ("proc", "sys", "dev")
#: Bytes of a piece of a tar, and pieces under way.
PIECE = 256 << 10
PIECES = 8


class Stat(msgspec.Struct, kw_only=True):
    """``PathStat``."""

    name: str
    size: int
    mode: int
    mtime: float
    link_target: str = ""


def refuse_readonly(spec: InstanceSpec, path: str) -> None:
    """Raises Conflict where an instance with a read-only root cannot be written to."""
    if spec.security.readonly_rootfs and not in_volume(spec, path):
        raise Conflict(
            "container rootfs is marked read-only",
            resolution="write into one of its volumes",
        )


def in_volume(spec: InstanceSpec, path: str) -> bool:
    """Whether ``path`` lies in something writable that is mounted over the root."""
    where = PurePosixPath("/" + path.lstrip("/"))
    return any(not m.readonly and where.is_relative_to(m.target) for m in spec.mounts)


def _parent(root: int, path: str) -> tuple[int, str]:
    """A descriptor of the folder that ``path`` is in, and its base name (``.`` for the root)."""
    pure = PurePosixPath("/" + path.strip("/"))
    folder = rooted.open_in(root, str(pure.parent), os.O_PATH | os.O_DIRECTORY)
    return folder, pure.name or "."


def _missing(path: str, error: OSError) -> GemelError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"Could not find the file {path} in container")
    return Failed(f"cannot open {path}", details=os.strerror(error.errno or 0))


def facts(root_path: Path, path: str) -> Stat:
    """What lies at ``path``; a link itself is told of, not what it leads to. Raises NotFound."""
    try:
        with rooted.root(root_path) as root:
            folder, name = _parent(root, path)
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(found.st_mode) else ""
                if path.endswith("/") and target:
                    fd = rooted.open_in(root, path, os.O_PATH)
                    found = os.fstat(fd)
                    os.close(fd)
            finally:
                os.close(folder)
    except OSError as error:
        raise _missing(path, error) from error
    return Stat(
        name=PurePosixPath(path.rstrip("/") or "/").name or "/",
        size=found.st_size,
        mode=found.st_mode,
        mtime=found.st_mtime,
        link_target=target,
    )


class _Cancelled(Exception):
    """The other side has gone."""


class _Channel:
    """A bounded queue between a thread and the event loop; None is its end."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(PIECES)
        self._gone = threading.Event()

    def put(self, data: bytes | None) -> None:
        """Called by a thread. Raises _Cancelled if nobody takes it any more."""
        while not self._gone.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(data, timeout=0.2)
                return
        raise _Cancelled

    def get(self) -> bytes | None:
        """Called by a thread. Raises _Cancelled if nothing will come any more."""
        while not self._gone.is_set():
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.2)
        raise _Cancelled

    def give_up(self) -> None:
        """Has both sides stop."""
        self._gone.set()


async def read(root_path: Path, path: str) -> AsyncIterator[bytes]:
    """A tar whose one top entry is the base name of ``path``. Raises NotFound."""
    await asyncio.to_thread(facts, root_path, path)
    async with contextlib.aclosing(packed(lambda tar: _pack(root_path, path, tar))) as pieces:
        async for piece in pieces:
            yield piece


async def packed(fill: Callable[[tarfile.TarFile], None]) -> AsyncGenerator[bytes, None]:
    """The tar that ``fill``, in a thread, writes; an error of its is raised at the end."""
    channel = _Channel()
    work = asyncio.create_task(asyncio.to_thread(_fill, fill, channel))
    try:
        while (piece := await asyncio.to_thread(channel.get)) is not None:
            yield piece
        await work
    finally:
        channel.give_up()
        with contextlib.suppress(_Cancelled, OSError):
            await asyncio.shield(work)


class _Sink:
    """A file to write to, for tarfile."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._size += len(data)
        if self._size >= PIECE:
            self.flush()
        return len(data)

    def flush(self) -> None:
        if self._pieces:
            self._channel.put(b"".join(self._pieces))
            self._pieces, self._size = [], 0


def _pack(root_path: Path, path: str, tar: tarfile.TarFile) -> None:
    with rooted.root(root_path) as root:
        folder, name = _parent(root, path)
        try:
            # what the kernel shows there is no file to copy (as dockerd, which leaves it empty)
            shown = _devices(root, KERNELS) - _devices(folder, (name,))
            Packer(tar, shown).add(folder, name, PurePosixPath("/" + path.strip("/")).name or ".")
        finally:
            os.close(folder)


def _devices(folder: int, names: Sequence[str]) -> frozenset[int]:
    """The file systems that lie at these names."""
    found = set()
    for name in names:
        with contextlib.suppress(OSError):
            found.add(os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev)
    return frozenset(found)


def _fill(fill: Callable[[tarfile.TarFile], None], channel: _Channel) -> None:
    try:
        sink = _Sink(channel)
        with tarfile.open(
            fileobj=sink,  # type: ignore[call-overload]
            mode="w|",
            format=tarfile.PAX_FORMAT,
            bufsize=tarfile.BLOCKSIZE * 128,
        ) as tar:
            fill(tar)
        sink.flush()
    finally:
        with contextlib.suppress(_Cancelled):
            channel.put(None)


async def write(root_path: Path, path: str, tar: AsyncIterator[bytes], keep: bool = True) -> None:
    """Unpacks a tar (or a compressed one) into the folder ``path``.

    keep: a folder is not replaced by a file, nor the other way round. Raises
    NotFound, InvalidInput (no folder, no tar), Failed.
    """
    channel = _Channel()
    work = asyncio.create_task(asyncio.to_thread(_unpack, root_path, path, channel, keep))
    try:
        async for piece in tar:
            for at in range(0, len(piece), PIECE):
                if work.done():
                    break
                await asyncio.to_thread(channel.put, piece[at : at + PIECE])
        if not work.done():
            await asyncio.to_thread(channel.put, None)
        await work
    except _Cancelled:
        await work  # its error tells more
    except BaseException:
        channel.give_up()
        with contextlib.suppress(_Cancelled, GemelError):
            await asyncio.shield(work)
        raise


class _Source:
    """A file to read from, for tarfile."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._rest = b""
        self._over = False

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._over:
            piece = self._channel.get()
            self._over = piece is None
            self._rest += piece or b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def drain(self) -> None:
        """Takes what comes after the end of the tar."""
        while not self._over:
            self._over = self._channel.get() is None


def _unpack(root_path: Path, path: str, channel: _Channel, keep: bool) -> None:
    try:
        with rooted.root(root_path) as root:
            try:
                folder = rooted.open_in(root, path, os.O_PATH)
            except OSError as error:
                raise _missing(path, error) from error
            try:
                if not stat.S_ISDIR(os.fstat(folder).st_mode):
                    raise InvalidInput("extraction point is not a directory", details=path)
            finally:
                os.close(folder)
            source = _Source(channel)
            with tarfile.open(fileobj=source, mode="r|*") as tar:  # type: ignore[call-overload]
                unpacker = _Unpacker(root, path, keep)
                for entry in tar:
                    unpacker.add(tar, entry)
                unpacker.finish()
            source.drain()
    except tarfile.TarError as error:
        raise InvalidInput("this is no tar archive", details=str(error)) from error
    except OSError as error:
        if error.errno == 30:  # EROFS
            raise Conflict("the file system there is read-only", details=path) from error
        raise Failed("cannot unpack", details=str(error)) from error
    finally:
        channel.give_up()


class _Unpacker:
    """Makes the entries of a tar under a folder of the root."""

    def __init__(self, root: int, folder: str, keep: bool) -> None:
        self._root = root
        self._keep = keep
        self._folder = "/" + folder.strip("/")
        self._folders: list[tuple[str, tarfile.TarInfo]] = []

    def _place(self, name: str) -> str:
        """The path inside the root; ``..`` cannot leave it, and is refused for clearness."""
        if ".." in PurePosixPath(name).parts:
            raise InvalidInput(f"the archive has an entry outside itself: {name}")
        return f"{self._folder}/{name.strip('/')}"

    def add(self, tar: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        place = self._place(entry.name)
        pure = PurePosixPath(place)
        if str(pure) == self._folder:
            return
        rooted.make_folders(self._root, str(pure.parent))
        parent = rooted.open_in(self._root, str(pure.parent), os.O_PATH | os.O_DIRECTORY)
        try:
            if entry.isdir():
                self._make_folder(parent, pure.name)
                self._folders.append((place, entry))
                return
            self._clear(parent, pure.name, entry.name)
            self._make(tar, entry, parent, pure.name)
            if entry.islnk():
                return  # owner and mode are those of the file that it is another name of
            os.chown(pure.name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            if not entry.issym():
                _set_mode(parent, pure.name, entry)
        finally:
            os.close(parent)

    def _clear(self, parent: int, name: str, path: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            if self._keep:
                raise InvalidInput(
                    f"cannot overwrite directory {path} with non-directory"
                ) from None
            shutil.rmtree(name, dir_fd=parent)  # follows no link

    def _make_folder(self, parent: int, name: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
            return
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode) or (self._keep and stat.S_ISLNK(found.st_mode)):
            return
        if self._keep:
            raise InvalidInput(f"cannot overwrite non-directory {name} with directory")
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)

    def _make(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        if entry.isreg():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
                content = tar.extractfile(entry)
                while content is not None and (piece := content.read(PIECE)):
                    file.write(piece)
        elif entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            self._link(entry, parent, name)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            device = os.makedev(entry.devmajor, entry.devminor)
            os.mknod(name, 0o600 | kind, device, dir_fd=parent)
        else:
            raise InvalidInput(f"the archive has an entry of an unknown kind: {entry.name}")

    def _link(self, entry: tarfile.TarInfo, parent: int, name: str) -> None:
        target = PurePosixPath(self._place(entry.linkname))
        folder = rooted.open_in(self._root, str(target.parent), os.O_PATH | os.O_DIRECTORY)
        try:
            os.link(target.name, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(folder)

    def finish(self) -> None:
        """Folders get their mode and time last, so that they can be written into until then."""
        for place, entry in reversed(self._folders):
            try:
                fd = rooted.open_in(self._root, place, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                os.fchown(fd, entry.uid, entry.gid)
                os.fchmod(fd, stat.S_IMODE(entry.mode))
                os.utime(fd, (entry.mtime, entry.mtime))
            finally:
                os.close(fd)


def _set_mode(parent: int, name: str, entry: tarfile.TarInfo) -> None:
    """Mode and time, on the thing itself: the name may be something else by now."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            path = f"/proc/self/fd/{fd}"
            os.chmod(path, stat.S_IMODE(entry.mode))
            os.utime(path, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)
