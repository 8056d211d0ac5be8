"""skopeo: its image proxy, its other commands, credentials, and what its errors mean.

The proxy (skopeo-experimental-image-proxy(1)) is one program per source that
hands out manifests and blobs over a socket, unchanged: so an image keeps the
digests it has, known blobs are not fetched again, and progress is in bytes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gemel.errors import Failed, GemelError, InvalidInput, NotFound, Unavailable
from gemel.host import files, run
from gemel.image import threads
from gemel.image.blobs import Blobs
from gemel.image.manifest import Descriptor
from gemel.image.reference import Reference

_POLICY = Path("/etc/containers/policy.json")
_CALL_TIMEOUT = 120.0
_STALL_TIMEOUT = 120.0
"""Seconds without one byte after which a transfer is given up."""
_PACKET = 32 * 1024
_PIECE = 1 << 20


def argv(command: str, *arguments: str, scratch: Path | None = None) -> list[str]:
    """A command of skopeo. The machine's signature policy holds where there is one.

    scratch: where it puts temporary files. It leaves some behind, so what reads from or writes
    to buildah's storage needs a folder that goes afterwards; TMPDIR does not count for it.
    """
    options = [] if _POLICY.exists() else ["--insecure-policy"]
    if scratch is not None:
        options += ["--tmpdir", str(scratch)]
    return ["skopeo", *options, command, *arguments]


@contextlib.contextmanager
def authfile(folder: Path, auths: Mapping[str, Mapping[str, Any] | None]) -> Iterator[str]:
    """A temporary file with the credentials for some registries, readable by root only.

    auths: by registry, as Docker's X-Registry-Auth header has them, or None. Always a
    file, so that the engine never uses credentials of whoever started it.
    """
    entries = {domain: entry for domain, auth in auths.items() if (entry := _entry(auth or {}))}
    path = folder / f"auth-{os.urandom(8).hex()}.json"
    files.write(path, json.dumps({"auths": entries}))
    try:
        yield str(path)
    finally:
        files.remove(path)


def tls(name: Reference, flag: str) -> list[str]:
    """Plain HTTP is fine for registries of this machine, as for Docker."""
    return [f"{flag}=false"] if name.is_loopback else []


def _entry(auth: Mapping[str, Any]) -> dict[str, str]:
    entry: dict[str, str] = {}
    if auth.get("username") or auth.get("password"):
        pair = f"{auth.get('username', '')}:{auth.get('password', '')}"
        entry["auth"] = base64.b64encode(pair.encode()).decode()
    elif auth.get("auth"):
        entry["auth"] = str(auth["auth"])
    if auth.get("identitytoken"):
        entry["identitytoken"] = str(auth["identitytoken"])
    return entry


@contextlib.contextmanager
def _scratch(temporary: Path) -> Iterator[Path]:
    folder = files.folder(temporary / f"skopeo-{os.urandom(8).hex()}")
    try:
        yield folder
    finally:
        files.remove(folder)


class Sink(Protocol):
    """Where the bytes of a blob go."""

    @property
    def size(self) -> int:
        """Bytes so far."""
        ...

    def write(self, data: bytes) -> None: ...


class Proxy:
    """A running image proxy. Use ``open``."""

    def __init__(self, connection: socket.socket, process: asyncio.subprocess.Process) -> None:
        self._connection = connection
        self._process = process
        self._lock = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, temporary: Path, *options: str, prefix: Sequence[str] = ()
    ) -> AsyncIterator[Proxy]:
        """Starts the program; it ends with the context. Raises Unavailable without skopeo.

        temporary: where a folder for it is made, which goes with it.
        prefix: what the command is started through.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, _scratch(temporary) as scratch:
            with theirs:
                words = ("--sockfd", str(theirs.fileno()), *options)
                command = argv("experimental-image-proxy", *words, scratch=scratch)
                process = await run.spawn([*prefix, *command], pass_fds=[theirs.fileno()])
            ours.setblocking(False)
            proxy = cls(ours, process)
            try:
                await proxy._call("Initialize")
                yield proxy
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                await process.wait()

    async def image(self, name: str) -> int:
        """Opens ``transport:name`` and gives a number for it. Raises Failed."""
        value, _, _ = await self._call("OpenImage", name)
        return int(value)

    async def fetch(
        self, image: int, blob: Descriptor, writer: Sink, tell: Callable[[int], None]
    ) -> None:
        """Copies a blob into ``writer``; ``tell`` is called with the bytes so far.

        One at a time: the proxy answers nothing else until a blob is through.

        Raises Failed if the source breaks off, InvalidInput if it sends too much.
        """
        _, pipe, fd = await self._call("GetBlob", image, blob.digest, blob.size)
        loop = asyncio.get_running_loop()

        def later(size: int) -> None:
            loop.call_soon_threadsafe(tell, size)

        # the pipe only ends when the proxy is asked to finish it, so both go on at once
        finish = asyncio.create_task(self._call("FinishPipe", pipe, timeout=None))
        try:
            await threads.call(_drain, fd, blob.size, writer, later)
            await finish
        finally:
            finish.cancel()

    async def _call(
        self, method: str, *args: Any, timeout: float | None = _CALL_TIMEOUT
    ) -> tuple[Any, int, int]:
        """Value, number of a pipe (0: none) and its descriptor (-1: none) of an answer."""
        try:
            async with self._lock, asyncio.timeout(timeout):
                self._connection.send(json.dumps({"method": method, "args": args}).encode())
                await _readable(self._connection)
                raw, fds, _, _ = socket.recv_fds(self._connection, _PACKET, 1)
        except TimeoutError:
            raise Failed(f"skopeo did not answer within {timeout:g} s ({method})") from None
        except OSError as error:
            raise Failed(f"skopeo went away ({method})", details=str(error)) from error
        if not raw:
            raise Failed(f"skopeo went away ({method})")
        answer = json.loads(raw)
        if not answer.get("success"):
            for fd in fds:
                os.close(fd)
            raise Failed(f"skopeo could not do {method}", details=str(answer.get("error", "")))
        return answer.get("value"), int(answer.get("pipeid", 0)), fds[0] if fds else -1


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)


def _drain(fd: int, size: int, writer: Sink, tell: Callable[[int], None]) -> None:
    """Reads a pipe to its end into ``writer``. size: most bytes accepted, if known."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        while True:
            if not poll.poll(_STALL_TIMEOUT * 1000):
                raise Failed(f"no data came for {_STALL_TIMEOUT:g} s")
            data = os.read(fd, _PIECE)
            if not data:
                return
            writer.write(data)
            if 0 < size < writer.size:
                raise InvalidInput("a blob is longer than its manifest says")
            tell(writer.size)
    finally:
        os.close(fd)


async def raw_manifest(source: str, *options: str, prefix: Sequence[str] = ()) -> bytes:
    """The bytes of a manifest. Raises Failed, with skopeo's words as details."""
    command = [*prefix, *argv("inspect", "--raw", *options, source)]
    result = await run.run(command, timeout=_CALL_TIMEOUT)
    return result.stdout


@contextlib.contextmanager
def folder_of(blobs: Blobs, manifest: bytes, digests: frozenset[str]) -> Iterator[str]:
    """An image of the store as skopeo's ``dir:`` transport wants it; yields the source's name."""
    folder = files.folder(blobs.temporary / f"dir-{os.urandom(8).hex()}")
    try:
        files.write(folder / "version", "Directory Transport Version: 1.1\n")
        files.write(folder / "manifest.json", manifest)
        for digest in digests:
            (folder / digest[7:]).symlink_to(blobs.path(digest).absolute())
        yield f"dir:{folder}"
    finally:
        files.remove(folder)


_UNREACHABLE = (
    "connection refused",
    "no such host",
    "i/o timeout",
    "network is unreachable",
    "no route to host",
    "server misbehaving",
    "temporary failure in name resolution",
    "tls handshake",
    "http response to https client",
    "x509",
    "connection reset",
    "deadline exceeded",
    "unexpected eof",
    "took longer than",
)


def explain(error: GemelError, name: Reference) -> GemelError:
    """What an error of skopeo's about a registry means, in Docker's words."""
    text = error.details or error.brief
    low = text.lower()
    if "manifest unknown" in low:
        return NotFound(
            f"manifest for {name.familiar} not found: manifest unknown: manifest unknown",
            resolution="look at the registry which tags there are",
        )
    if "invalid username/password" in low or "authentication required" in low:
        return Failed(
            "unauthorized: authentication required",
            details=f"{name.domain} refused {name.familiar}",
            resolution=f"log in first: docker login {name.domain}",
        )
    if any(word in low for word in ("denied", "unauthorized", "name unknown", "name_unknown")):
        return NotFound(
            f"pull access denied for {name.familiar_name}, repository does not exist or may "
            "require 'docker login'",
            details=_last(text),
        )
    if any(word in low for word in _UNREACHABLE):
        return Unavailable(
            f"cannot reach the registry {name.domain}",
            details=_last(text),
            resolution="check the network and the name; without a registry, `gemel image "
            "bootstrap` makes a base image and `gemel image load` reads an archive",
        )
    return error


def _last(text: str) -> str:
    """The last line, without skopeo's time and level around it."""
    line = text.strip().splitlines()[-1] if text.strip() else ""
    begin = line.find('msg="')
    return line[begin + 5 : -1].replace('\\"', '"') if begin >= 0 else line
