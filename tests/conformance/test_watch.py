"""Edits of bind-mounted folders on the host make events inside, so reloaders notice."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import pytest

from gemel.model.instance import InstanceSpec, Mount, MountKind
from tests.conformance.conftest import DEADLINE, Harness

pytestmark = pytest.mark.root

#: What a reloader does: watches the paths that it is given, and says what it hears.
WATCH = r"""
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>
int main(int count, char **paths)
{
    static char room[65536] __attribute__((aligned(8)));
    int fd = inotify_init();
    for (int i = 1; i < count; i++)
        if (inotify_add_watch(fd, paths[i], IN_CLOSE_WRITE | IN_MODIFY) < 0)
            perror(paths[i]);
    dprintf(1, "watching\n");
    for (ssize_t got; (got = read(fd, room, sizeof room)) > 0;)
        for (ssize_t at = 0; at < got;) {
            struct inotify_event *event = (struct inotify_event *)(room + at);
            const char *name = event->len ? event->name : "";
            const char *path = paths[event->wd];
            if (event->mask & IN_CLOSE_WRITE)
                dprintf(1, "written %s %s\n", path, name);
            if (event->mask & IN_MODIFY)
                dprintf(1, "changed %s %s\n", path, name);
            at += sizeof *event + event->len;
        }
    return 1;
}
"""


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, which needs nothing of an image."""
    program = tmp_path_factory.mktemp("watch") / "watch"
    command = ["gcc", "-static", "-O1", "-D_GNU_SOURCE", "-x", "c", "-", "-o", str(program)]
    subprocess.run(command, input=WATCH.encode(), check=True, timeout=60)
    return program


async def edited(harness: Harness, spec: InstanceSpec, file: Path, told: bytes) -> None:
    """Edits the file until that is heard of inside."""
    async with asyncio.timeout(DEADLINE):
        while told not in (await harness.output(spec))[0]:
            file.write_text(f"{time.monotonic()}\n")
            await asyncio.sleep(0.3)


async def test_edits_of_the_host_make_events(harness: Harness, tmp_path: Path, watch: Path) -> None:
    code = tmp_path / "code"
    (code / "deep/er").mkdir(parents=True)
    (code / "main.py").write_text("1\n")
    (code / "deep/er/part.py").write_text("1\n")
    before = (code / "main.py").stat()
    one = tmp_path / "one.conf"
    one.write_text("1\n")
    spec = harness.spec(
        *("/watch", "/code", "/code/deep/er", "/etc/one.conf"),
        mounts=(
            Mount(kind=MountKind.BIND, target="/watch", source=watch, readonly=True),
            Mount(kind=MountKind.BIND, target="/code", source=code),
            Mount(kind=MountKind.BIND, target="/etc/one.conf", source=one),
        ),
    )
    await harness.start(spec)
    await harness.expect(spec, b"watching\n")
    for file, told in (
        (code / "main.py", b"written /code main.py\n"),
        (code / "deep/er/part.py", b"written /code/deep/er part.py\n"),
        (one, b"written /etc/one.conf \n"),
    ):
        await edited(harness, spec, file, told)
    changed = (code / "deep/er/part.py").stat()
    # as editors save: a new file, renamed over the old one
    (code / ".main.py.new").write_text("3\n")
    (code / ".main.py.new").rename(code / "main.py")
    (code / "fresh").mkdir()
    (code / "fresh/new.py").write_text("1\n")
    got = await harness.exec(
        spec,
        "sh",
        "-c",
        "until grep -qx 3 /code/main.py; do sleep 0.1; done; cat /code/fresh/new.py",
    )
    assert got.stdout == b"1\n"
    out = (await harness.output(spec))[0]
    assert b"changed /code main.py\n" in out and b"changed /code/deep/er part.py\n" in out
    # what the agent does is heard of by the host as well, and must come to an end
    count = -1
    async with asyncio.timeout(DEADLINE):
        while count != (count := (await harness.output(spec))[0].count(b"\n")):  # noqa: ASYNC110
            await asyncio.sleep(1)
    assert (code / "deep/er/part.py").stat().st_mtime == changed.st_mtime
    # nothing but the host's own edits has changed what is there
    assert (code / "main.py").read_text() == "3\n"
    assert (code / "main.py").stat().st_mode == before.st_mode
    await harness.stop(spec)
