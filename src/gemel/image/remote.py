"""Build contexts that are elsewhere: a Dockerfile or an archive at a URL, a git repository.

The engine's host fetches them, bounded in time and size, with no credentials of
the machine's own. What comes is unpacked as what a client sends is.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from gemel.errors import Failed, InvalidInput, NotFound, Unavailable, Unsupported
from gemel.host import files, run
from gemel.image import context as contexts
from gemel.image import threads
from gemel.image.incoming import spool
from gemel.image.progress import Emit
from gemel.image.tarfmt import Limits

_TOTAL = 1800.0
_STALL = 60.0
_GIT_TIMEOUT = 900.0
_DOCKERFILE = 4 << 20
_SCHEMES = ("http", "https", "git", "ssh")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[^/@\s]*@)?([^/\s]+)(/\S*)?", re.IGNORECASE)
_GIT_HTTP = re.compile(r"https?://\S+\.git(?:#\S*)?", re.IGNORECASE)
_REF = re.compile(r"[\w][\w./@+-]*", re.ASCII)


class Repository(NamedTuple):
    """Where a git context is: address, branch or tag or commit ("": its HEAD), folder inside."""

    url: str
    ref: str
    folder: str


def shown(url: str) -> str:
    """The address without a user's name and password."""
    return re.sub(r"//[^/@\s]*@", "//", url)[:300]


def repository(url: str) -> Repository | None:
    """The git repository that an address means, as docker reads it; None for another URL.

    Raises InvalidInput for a reference that git would take for an option.
    """
    if url.startswith("github.com/"):
        url = f"https://{url}"
        found = True
    elif url.startswith("git@"):
        found = True
    else:
        found = url.startswith(("git://", "ssh://")) or bool(_GIT_HTTP.fullmatch(url))
    if not found:
        return None
    address, _, fragment = url.partition("#")
    ref, _, folder = fragment.partition(":")
    if ref and not _REF.fullmatch(ref):
        raise InvalidInput(f"{ref[:100]!r} is no branch, tag or commit")
    return Repository(address, ref, folder.strip("/"))


async def fetch(tell: Emit, url: str, folder: Path, limits: Limits) -> bool:
    """Puts what is at ``url`` into ``folder``; whether it was a Dockerfile alone.

    Raises InvalidInput for what is no context, NotFound, Unavailable, Unsupported.
    """
    if (found := repository(url)) is not None:
        tell({"stream": f"Fetching {shown(found.url)}\n"})
        await _clone(found, folder, limits)
        return False
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in ("http", "https"):
        raise InvalidInput(
            f"{shown(url)!r} is no address of a build context",
            resolution="known are http:// and https:// URLs and git repositories (ending in .git)",
        )
    tell({"stream": f"Downloading build context from remote url: {shown(url)}\n"})
    with tempfile.TemporaryFile(dir=folder.parent) as file:
        await spool(_download(url), file, limits.size)
        return await threads.call(_placed, cast(BinaryIO, file), folder, limits, url)


def archive(url: str) -> tuple[str, AsyncIterator[bytes]]:
    """An archive at a URL, not fetched yet, and words for where it is. Raises InvalidInput."""
    url = url if "://" in url else f"http://{url}"  # as dockerd reads fromSrc
    if not url.lower().startswith(("http://", "https://")) or not _URL.fullmatch(url):
        raise InvalidInput(
            f"{shown(url)!r} is no address of an archive",
            resolution="write an http:// or https:// URL, or send the archive (fromSrc=-)",
        )
    return shown(url), _download(url)


async def _download(url: str) -> AsyncIterator[bytes]:
    import aiohttp  # its client is needed here only

    timeout = aiohttp.ClientTimeout(total=_TOTAL, sock_connect=_STALL, sock_read=_STALL)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, trust_env=True, auto_decompress=False
            ) as session,
            session.get(url, max_redirects=10) as answer,
        ):
            if answer.status == 404:
                raise NotFound(f"there is nothing at {shown(url)}")
            if answer.status != 200:
                raise Unavailable(f"{shown(url)} answers {answer.status}")
            async for data in answer.content.iter_any():
                yield data
    except (aiohttp.ClientError, TimeoutError) as error:
        words = shown(str(error)) or "no data came in time"
        raise Unavailable(f"cannot fetch {shown(url)}", details=words) from error


def _placed(file: BinaryIO, folder: Path, limits: Limits, url: str) -> bool:
    """Unpacks an archive, or puts a Dockerfile where it belongs; whether it was one. Blocks."""
    file.seek(0)
    head = file.read(512)
    if len(head) == 512 and head[257:262] == b"ustar":
        contexts.unpack(file, folder, limits)
        return False
    file.seek(0)
    data = file.read(_DOCKERFILE + 1)
    if len(data) > _DOCKERFILE or b"\0" in data or not data.strip():
        raise InvalidInput(f"what is at {shown(url)} is neither an archive nor a Dockerfile")
    files.write(folder / "Dockerfile", data)
    return True


async def _clone(found: Repository, folder: Path, limits: Limits) -> None:
    if run.find("git") is None:
        raise Unsupported(
            "a git repository as build context needs git, which is not installed here",
            resolution="apt-get install git, or clone it and send the folder",
        )
    place = Path(tempfile.mkdtemp(dir=folder.parent, prefix="git-"))
    try:
        try:
            await _checked_out(place, found, limits)
        except Failed as error:
            raise Unavailable(
                f"cannot fetch the repository {shown(found.url)}", details=shown(error.details)
            ) from error
        if await asyncio.to_thread(files.disk_use, str(place)) > limits.size:
            raise InvalidInput(f"{shown(found.url)} is larger than {limits.size >> 20} MiB")
        await threads.call(_moved, place, found, folder)
    finally:
        await threads.call(files.remove, place)


async def _checked_out(place: Path, found: Repository, limits: Limits) -> None:
    await _git(place, limits, "init", "-q", "--template=", ".")
    fetch = ("fetch", "-q", "--no-tags")
    try:
        await _git(place, limits, *fetch, "--depth", "1", "--", found.url, found.ref or "HEAD")
    except Failed:  # a server of plain files, or one that gives no single commits
        every = "+refs/*:refs/gemel/*"
        await _git(place, limits, *fetch, "--", found.url, every, "HEAD")
        await _checkout(place, limits, found.ref)
    else:
        await _git(place, limits, "checkout", "-q", "--detach", "FETCH_HEAD")
    modules = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1")
    await _git(place, limits, *modules)


async def _checkout(place: Path, limits: Limits, ref: str) -> None:
    tried = [f"refs/gemel/heads/{ref}", f"refs/gemel/tags/{ref}", ref] if ref else ["FETCH_HEAD"]
    for name in tried:
        found = await _git(
            place, limits, "rev-parse", "-q", "--verify", f"{name}^{{commit}}", check=False
        )
        if found.status == 0:
            await _git(place, limits, "checkout", "-q", "--detach", found.stdout.decode().strip())
            return
    raise NotFound(f"the repository has no {ref}")


async def _git(place: Path, limits: Limits, *words: str, check: bool = True) -> run.Result:
    """Runs git with nobody's settings. Raises Unavailable with its words for a fetch."""
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(place),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(_SCHEMES),
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "LC_ALL": "C",
    } | {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    command = ["prlimit", f"--fsize={limits.size}", "git", "-C", str(place), *words]
    return await run.run(command, env=env, timeout=_GIT_TIMEOUT, check=check, new_session=True)


def _moved(place: Path, found: Repository, folder: Path) -> None:
    """Moves the repository's files, or those of a folder of it, without git's own."""
    files.remove(place / ".git")
    top = place.resolve()
    source = (top / found.folder).resolve()
    if not source.is_relative_to(top):
        raise InvalidInput(f"{found.folder} leads out of the repository")
    if not source.is_dir():
        raise NotFound(f"the repository has no folder {found.folder}")
    for name in os.listdir(source):
        shutil.move(str(source / name), str(folder / name))
