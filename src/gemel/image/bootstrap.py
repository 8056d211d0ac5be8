"""A base image from Debian's packages, by mmdebstrap: no registry is needed.

The packages come from where the machine's own apt has them (/etc/apt). The same
packages make the same layer and image: times are those of one fixed day.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from gemel.errors import Failed, InvalidInput, Unavailable
from gemel.host import files, run
from gemel.image import threads
from gemel.image.progress import Emit

_TIMEOUT = 1800.0
_EPOCH = 1_767_225_600
CREATED = datetime.datetime.fromtimestamp(_EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
CHANGES = (
    'CMD ["bash"]',
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NAME = re.compile(r"[a-z0-9][a-z0-9+.:=~-]*")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)")
# Run at the end with the new root as its argument. Documents and translations that no
# service needs go, and packages that a build installs on top leave them out too (told to
# dpkg from the start, mmdebstrap takes a minute to filter). Python's modules are compiled,
# since services in micro VMs start seconds later without; by hashes, as times are changed
# afterwards.
_FINISH = r"""#!/bin/sh
set -e
cd "$1"
if [ -x usr/bin/python3 ]; then
  chroot . python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
    /usr/lib/python3 /usr/lib/python3.* || true
fi
rm -rf usr/share/man/* usr/share/locale/* usr/share/info/*
find usr/share/doc ! -type d ! -name copyright -delete
find usr/share/doc -mindepth 1 -type d -empty -delete
rm -f etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/hostname etc/resolv.conf
cat > etc/dpkg/dpkg.cfg.d/slim <<END
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
force-unsafe-io
END
"""
_EXTRA = """
tar -xf {tar}
chroot . python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt || true
"""
_PRIVATE = ("unshare", "--mount", "--propagation", "private")
# dpkg syncs much: in memory it takes less than half the time, and nothing has to be tidied up
_IN_MEMORY = (
    *_PRIVATE,
    *("sh", "-c", 'mount -t tmpfs -o mode=755,size=60% gemel "$TMPDIR" && exec "$@"', "sh"),
)
_ENOUGH_MEMORY = 3 << 30
_APT_OPTIONS = ("Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries")


class Source(msgspec.Struct, frozen=True):
    """One place that packages come from."""

    uri: str
    suite: str
    components: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        options = f"[{' '.join(self.options)}] " if self.options else ""
        return f"deb {options}{self.uri} {self.suite} {self.components}"


def sources(texts: Mapping[str, str], suite: str) -> list[Source]:
    """Those of the machine's apt sources that are Debian's, for ``suite``. Pure.

    texts: file names (``.list``, ``.sources``) with their content. Repositories of
    others stay out: they are signed with other keys. A suite that the machine does
    not use comes from the machine's mirrors. Raises InvalidInput if it has none.
    """
    known: list[Source] = []
    for name, text in texts.items():
        known += _deb822(text) if name.endswith(".sources") else _one_line(text)
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    found = [source for source in known if source.suite in wanted]
    if any(source.suite == suite for source in found):
        return list(dict.fromkeys(found))
    mirror = next((s for s in known if s.uri.rstrip("/").endswith("/debian")), None)
    security = next((s for s in known if s.uri.rstrip("/").endswith("/debian-security")), None)
    signed = (f"signed-by={_KEYRING}",)
    if mirror is None:
        raise InvalidInput(
            "this machine's apt sources name no mirror of Debian",
            details="a base image is made from the packages that they lead to",
            resolution="add one to /etc/apt/sources.list.d, or load an image: gemel image load",
        )
    guessed = [Source(mirror.uri, suite, "main", signed)]
    if security is not None and suite not in ("sid", "unstable", "experimental"):
        guessed.append(Source(security.uri, f"{suite}-security", "main", signed))
    return guessed


def _one_line(text: str) -> list[Source]:
    found: list[Source] = []
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match and _is_debians(match[4], match[1] or ""):
            options = tuple(o for o in (match[1] or "").split() if not o.startswith("arch="))
            found.append(Source(match[2], match[3], " ".join(match[4].split()), options))
    return found


def _deb822(text: str) -> list[Source]:
    found: list[Source] = []
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields = {
            key.lower(): " ".join(value.split())
            for key, value in re.findall(r"^(\S+?):(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        signed = fields.get("signed-by", "")
        if (
            "deb" not in fields.get("types", "").split()
            or fields.get("enabled", "yes").lower() in ("no", "false")
            or not _is_debians(fields.get("components", ""), signed)
        ):
            continue
        options = [f"signed-by={signed}"] if signed.startswith("/") else []
        options += ["trusted=yes"] if fields.get("trusted", "").lower() == "yes" else []
        found += [
            Source(uri, suite, fields["components"], tuple(options))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _is_debians(components: str, signed: str) -> bool:
    keys = "signed-by=" in signed.lower() or signed.startswith("/")
    return "main" in components.split() and (not keys or "debian-archive" in signed)


def check(suite: str, packages: Iterable[str]) -> None:
    """Raises InvalidInput for what is no name of a suite or package."""
    if not _SUITE.fullmatch(suite):
        raise InvalidInput(f"{suite!r} is no Debian suite", resolution="bookworm, trixie, sid")
    for package in packages:
        if not _NAME.fullmatch(package):
            raise InvalidInput(f"{package!r} is no name of a Debian package")


async def tar(
    work: Path, emit: Emit, suite: str, packages: Sequence[str], extra: bytes = b""
) -> AsyncIterator[bytes]:
    """The archive of a root file system. Raises Failed, Unavailable, InvalidInput.

    work: a folder for the archive, emptied by the caller. extra: a tar that is unpacked over
    the packages; Python's modules under /opt in it are compiled.
    """
    suite = suite or await threads.call(_own_suite)
    check(suite, packages)
    texts = await threads.call(_apt_files)
    listed = "\n".join(map(str, sources(texts, suite))) + "\n"
    files.write(work / "sources.list", listed, mode=0o644)
    finish = _FINISH
    if extra:
        files.write(work / "extra.tar", extra)
        finish += _EXTRA.format(tar=work / "extra.tar")
    files.write(work / "finish", finish, mode=0o755)
    target = work / "root.tar"
    options = await _options()
    in_memory = await threads.call(_memory) >= _ENOUGH_MEMORY
    while True:
        command = _argv(suite, packages, options, work / "sources.list", target)
        tail: list[str] = []
        try:
            await _run([*(_IN_MEMORY if in_memory else _PRIVATE), *command], emit, tail)
            break
        except Failed as error:
            if not (in_memory and any("No space left" in line for line in tail)):
                raise _explain(error, tail, suite) from error
            in_memory = False
            emit({"stream": "not enough memory, again on the disk\n"})
    with target.open("rb") as file:
        target.unlink()
        while data := await threads.call(file.read, 1 << 20):
            yield data


async def _run(command: Sequence[str], emit: Emit, tail: list[str]) -> None:
    # apt drops to a user of its own, so this folder must be open to others
    with tempfile.TemporaryDirectory(prefix="gemel-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(_EPOCH), "TMPDIR": folder}
        lines = run.lines(command, timeout=_TIMEOUT, env=env, new_session=True)
        async with contextlib.aclosing(lines):
            async for line in lines:
                tail[:] = (tail + [line])[-20:]
                if "--customize-hook" not in line:
                    emit({"stream": line.removeprefix("I: ") + "\n"})


def _memory() -> int:
    """Bytes of memory that are free for use."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _argv(
    suite: str, packages: Sequence[str], options: Sequence[str], list_: Path, target: Path
) -> list[str]:
    words = ["mmdebstrap", "--variant=minbase", "--mode=root", "--format=tar"]
    words += [f"--aptopt={option}" for option in ('Acquire::Languages "none"', *options)]
    words += ["--dpkgopt=force-unsafe-io"]
    if packages:
        words.append("--include=" + ",".join(packages))
    words.append(f"--customize-hook={list_.with_name('finish')}")
    return [*words, suite, str(target), str(list_)]


async def _options() -> list[str]:
    """How the machine's apt reaches its sources: proxies, checks, retries."""
    result = await run.run(["apt-config", "dump"], check=False)
    found: list[str] = []
    for line in result.stdout.decode("utf-8", "replace").splitlines():
        if line.startswith(_APT_OPTIONS) and not line.endswith('"";'):
            found.append(line.rstrip(";"))
    return found


def _own_suite() -> str:
    """The machine's Debian suite. Raises InvalidInput if it is another system."""
    text = Path("/etc/os-release").read_text()
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name = fields.get("VERSION_CODENAME", "").strip('"')
    if fields.get("ID", "").strip('"') != "debian" or not name:
        raise InvalidInput("which Debian suite?", resolution="name one: bookworm, trixie, sid")
    return name


def _apt_files() -> dict[str, str]:
    folder = Path("/etc/apt")
    paths = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    found: dict[str, str] = {}
    for path in paths:
        if path.suffix in (".list", ".sources") and path.is_file():
            with contextlib.suppress(OSError):
                found[path.name] = path.read_text(errors="replace")
    return found


def _explain(error: Failed, tail: list[str], suite: str) -> Failed | Unavailable | InvalidInput:
    text = "\n".join(tail)
    if match := re.search(r"Unable to locate package (\S+)", text):
        return InvalidInput(f"Debian {suite} has no package {match[1]}", details=text)
    if re.search(r"Could not (resolve|connect)|Temporary failure|unreachable|timed out", text):
        return Unavailable(
            "the machine's Debian mirror cannot be reached",
            details=text,
            resolution="try `apt-get update`; the sources are those of /etc/apt",
        )
    return Failed(f"cannot bootstrap Debian {suite}", details=text or error.details)
