"""The engine's mount namespace: outlives a killed engine, and goes when it is let go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gemel.host import lock, mountns, mounts

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]


def run(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, as an engine is."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )


KILLED = """
    import os, pathlib, signal, sys
    from gemel.host import mountns, mounts
    folder, place = map(pathlib.Path, sys.argv[1:])
    space = mountns.enter(folder)
    assert not space.adopted
    assert not pathlib.Path("/sys/fs/cgroup/unified/cgroup.controllers").exists()
    mounts.mount("tmpfs", place, "tmpfs")
    (place / "inside").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
ADOPTS = """
    import pathlib, sys
    from gemel.host import mountns
    folder, place = map(pathlib.Path, sys.argv[1:])
    space = mountns.enter(folder)
    assert space.adopted
    assert (place / "inside").exists()
    if pathlib.Path(sys.argv[1], "go").exists():
        space.release()
    space.close()
"""


def test_mounts_outlive_a_killed_engine_and_go_with_the_pin(tmp_path: Path) -> None:
    folder, place = tmp_path / "mnt", tmp_path / "place"
    place.mkdir()
    done = run(KILLED, folder, place)
    assert done.returncode == -signal.SIGKILL, done.stderr
    try:
        assert mountns.is_pinned(folder)
        assert not (place / "inside").exists()  # seen in the engine's namespace only
        for last in (False, True):
            if last:
                (folder / "go").touch()
            done = run(ADOPTS, folder, place)
            assert done.returncode == 0, done.stderr
            assert mountns.is_pinned(folder) is not last
        assert not mounts.is_mount(folder)
    finally:
        mounts.unmount(folder / "ns")
        mounts.unmount(folder)


def test_a_later_mount_of_the_host_is_seen_inside(tmp_path: Path) -> None:
    """A volume's file system that is mounted after the engine has started."""
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts.bind(shared, shared)
    mounts.mount("none", shared, flags=mounts.Flag.SHARED)
    (shared / "disk").mkdir()
    code = """
        import pathlib, sys, os
        from gemel.host import mountns
        folder, shared = map(pathlib.Path, sys.argv[1:])
        space = mountns.enter(folder)
        print("entered", flush=True)
        sys.stdin.readline()
        assert (shared / "disk" / "late").exists()
        space.release()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "mnt"), str(shared)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "entered\n", process.communicate(timeout=60)
        mounts.mount("tmpfs", shared / "disk", "tmpfs")
        (shared / "disk" / "late").touch()
        _, errors = process.communicate("go\n", timeout=60)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait()
        mounts.unmount(shared / "disk")
        mounts.unmount(shared)


def test_one_engine_at_a_time(tmp_path: Path) -> None:
    code = """
        import pathlib, sys
        from gemel.errors import Conflict
        from gemel.host import lock
        try:
            lock.acquire(pathlib.Path(sys.argv[1]), "an engine")
        except Conflict as error:
            print(error.brief)
    """
    path = tmp_path / "lock"
    held = lock.acquire(path, "an engine")
    assert f"an engine is running already (process {os.getpid()})" in run(code, path).stdout
    held.release()
    assert run(code, path).stdout == ""


def test_a_mount_is_told_from_a_folder_or_file(tmp_path: Path) -> None:
    folder, file, odd = tmp_path / "folder", tmp_path / "file", tmp_path / "with space"
    folder.mkdir()
    odd.mkdir()
    file.touch()
    assert not any(map(mounts.is_mount, (folder, file, odd, tmp_path / "absent", file / "below")))
    done = []
    try:
        mounts.mount("none", folder, "tmpfs")
        done.append(folder)
        mounts.bind(file, file)  # the same file system: only the table tells
        done.append(file)
        mounts.bind(odd, odd)
        done.append(odd)
        assert all(map(mounts.is_mount, done))
    finally:
        for one in done:
            mounts.unmount(one)
    assert not any(map(mounts.is_mount, done))
