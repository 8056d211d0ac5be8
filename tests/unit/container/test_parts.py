"""The other pure parts: users, seccomp, control groups, ps, crun's words, conmon's argv."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.errors import (
    CommandNotFound,
    CommandNotRunnable,
    Failed,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from gemel.host import rooted
from gemel.runtime.container import archive, crun, facts, seccomp, top, users
from gemel.runtime.container.cgroup import Cgroups

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
app:x:1000:100:,,,:/home/app:/bin/sh
7:x:70:70::/seven:
bad
"""
GROUP = b"root:x:0:\nusers:x:100:\nextra:x:200:app,other\nmore:x:300:other, app\nbroken:x\n"


@pytest.mark.parametrize(
    ("user", "extra", "wanted"),
    [
        ("", (), users.Identity(0, 0, (0,), "/root")),
        ("app", (), users.Identity(1000, 100, (100, 200, 300), "/home/app")),
        ("1000", (), users.Identity(1000, 100, (100, 200, 300), "/home/app")),
        ("app:users", (), users.Identity(1000, 100, (100,), "/home/app")),
        ("app:999", ("extra", "4"), users.Identity(1000, 999, (999, 200, 4), "/home/app")),
        ("555", (), users.Identity(555, 0, (0,), "/")),
        ("555:5", (), users.Identity(555, 5, (5,), "/")),
        ("7", (), users.Identity(70, 70, (70,), "/seven")),  # a name comes before a number
        ("root:0", (), users.Identity(0, 0, (0,), "/root")),
    ],
)
def test_users(user: str, extra: tuple[str, ...], wanted: users.Identity) -> None:
    assert users.resolve(user, extra, PASSWD, GROUP) == wanted


@pytest.mark.parametrize("user", ["ghost", "app:ghost", "4294967296", "0:4294967296", "٣"])
def test_users_that_are_none(user: str) -> None:
    with pytest.raises(InvalidInput):
        users.resolve(user, (), PASSWD, GROUP)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_is_in_the_files(passwd: bytes, group: bytes) -> None:
    who = users.resolve("12:34", (), passwd, group)
    assert who.gid == 34 or b"34" in group


def test_seccomp_conditions() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}},
            {"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["b"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.10"}},
            {
                "names": ["e"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 1,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    got = seccomp.oci(profile, {"CAP_CHOWN"}, "x86_64", (6, 9))
    assert got["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"][0] for rule in got["syscalls"]] == ["read", "b", "e"]
    assert got["syscalls"][2]["errnoRet"] == 1 and got["syscalls"][2]["args"][0]["value"] == 1
    got = seccomp.oci(profile, {"CAP_SYS_ADMIN"}, "aarch64", (6, 10))
    assert [rule["names"][0] for rule in got["syscalls"]] == ["read", "a", "c", "d", "e"]


def test_narrowed_as_dockers() -> None:
    """Namespaces, mounts and keyrings are for CAP_SYS_ADMIN or nobody; clone for all."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "mount", "keyctl", "clone", "clone3"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["unshare"], "action": "SCMP_ACT_ALLOW"},
        ],
    }

    def allowed(*caps: str) -> dict[str, object]:
        rules = seccomp.oci(seccomp.narrowed(profile), caps, "x86_64", (6, 1))["syscalls"]
        return {
            name: rule.get("args")
            for rule in rules
            if rule["action"] == "SCMP_ACT_ALLOW"
            for name in rule["names"]
        }

    plain = allowed()
    assert set(plain) == {"read", "clone"} and plain["clone"]
    admin = allowed("CAP_SYS_ADMIN")
    assert {"read", "mount", "unshare", "clone", "clone3"} <= set(admin)
    assert admin["clone"] is None and "keyctl" not in admin


def test_profiles(tmp_path: Path) -> None:
    file = tmp_path / "seccomp.json"
    profiles = facts.Profiles(file)
    with pytest.raises(Unavailable):
        profiles.get("default")
    file.write_text(json.dumps({"a": 1, "syscalls": []}))
    assert (profiles.get("default") or {})["a"] == 1
    other = tmp_path / "other"
    other.write_text(json.dumps({"a": 2}))
    os.replace(other, file)
    assert (profiles.get("default") or {})["a"] == 2
    assert profiles.get("unconfined") is None
    assert profiles.get('{"defaultAction": "b"}') == {"defaultAction": "b"}
    for wrong in ("{", "[]", "{}"):
        with pytest.raises(InvalidInput):
            profiles.get(wrong)


@pytest.mark.parametrize(
    ("message", "program", "kind", "words"),
    [
        (
            "executable file `x` not found in $PATH: No such file",
            "x",
            CommandNotFound,
            "in \\$PATH",
        ),
        ("executable file `/x` not found: No such file", "/x", CommandNotFound, "stat /x: no such"),
        ("open executable: Permission denied", "/x", CommandNotRunnable, "permission denied"),
        ("the path `/x` exists but it is not executable: E", "/x", CommandNotRunnable, "denied"),
        ("the path `/x` is not a regular file: E", "/x", CommandNotRunnable, 'exec: "/x": perm'),
        ("cannot open `/x`: Too many levels of symbolic links", "/x", CommandNotRunnable, "denied"),
        ("cannot open `/proc/self/status`: E", "/x", Failed, "unable to start"),
        ("chdir `/x`: No such file or directory", "x", CommandNotFound, "no such file"),
        ("chdir `/x`: Not a directory", "x", CommandNotRunnable, "chdir"),
        ("setrlimit `RLIMIT_NOFILE`: Operation not permitted", "x", Unsupported, "rlimits"),
        (
            "write to `/proc/self/oom_score_adj`: Permission denied",
            "x",
            Unsupported,
            "oom_score_adj",
        ),
        ("container `x` does not exist", "", NotFound, "no such container"),
        ("anything else", "x", Failed, "unable to start"),
    ],
)
def test_refusals(message: str, program: str, kind: type[Exception], words: str) -> None:
    error = crun.refusal(message, program)
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


MOUNTS_V1 = """\
30 29 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
MOUNTS_V2 = "30 29 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_where_groups_are() -> None:
    one, two = Cgroups(MOUNTS_V1), Cgroups(MOUNTS_V2)
    assert one.v2 is None
    assert one.folder("cpuacct", "/g/x") == Path("/sys/fs/cgroup/cpu,cpuacct/g/x")
    assert two.folder("memory", "/g/x") == Path("/sys/fs/cgroup/g/x")
    assert two.folders("/g") == [Path("/sys/fs/cgroup/g")]


def test_usage_of_version_2(tmp_path: Path) -> None:
    """The files of the kernel's Documentation/admin-guide/cgroup-v2.rst."""
    group = tmp_path / "g"
    (group / "inner").mkdir(parents=True)
    for name, text in {
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\n",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1\nfile 2\ninactive_file 3\n",
        "memory.events": "low 0\noom 2\noom_kill 1\n",
        "pids.current": "3\n",
        "pids.max": "50\n",
        "io.stat": "8:0 rbytes=5 wbytes=7 rios=1\n8:16 rbytes=1 wbytes=1\n",
        "cgroup.procs": "12\n",
        "cgroup.events": "populated 1\nfrozen 1\n",
        "inner/cgroup.procs": "9\n12\n",
    }.items():
        (group / name).write_text(text)
    groups = Cgroups(f"30 29 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    usage = groups.usage("/g")
    assert (usage.cpu_ns, usage.user_ns, usage.system_ns) == (30_000, 20_000, 10_000)
    assert (usage.memory, usage.memory_peak, usage.memory_limit) == (4096, 8192, 0)
    assert usage.memory_stats["inactive_file"] == 3
    assert (usage.pids, usage.pids_limit) == (3, 50)
    assert (usage.read_bytes, usage.write_bytes) == (6, 8)
    assert groups.oom_kills("/g") == 1 and groups.frozen("/g")
    assert groups.members("/g") == [9, 12]
    assert groups.usage("/none").cpu_ns == 0


def test_ps() -> None:
    text = "UID   PID CMD\nroot    1 init\napp    22 sh -c a  b\napp    23 -\n"
    assert top.select(text, {22, 23}) == (
        ["UID", "PID", "CMD"],
        [["app", "22", "sh -c a  b"], ["app", "23", "-"]],
    )
    with pytest.raises(InvalidInput, match="PID"):
        top.select("CMD\ninit\n", {1})


def test_opening_inside_a_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.mkdir()
    (outside / "passwd").write_text("of the host")
    (root / "etc/passwd").symlink_to(outside / "passwd")
    (root / "up").symlink_to("../" * 20 + str(outside))
    os.mkfifo(root / "fifo")
    with rooted.root(root) as fd:
        assert rooted.read_in(fd, "/etc/passwd") == b""
        assert rooted.read_in(fd, "/up/passwd") == b""
        assert rooted.read_in(fd, "fifo") == b""  # does not wait for a writer
        rooted.make_folders(fd, str(outside))
        (root / str(outside).lstrip("/") / "passwd").write_text("inside")
        assert rooted.read_in(fd, "/etc/passwd") == b"inside"
        rooted.make_folders(fd, "/up/made")
        with pytest.raises(NotADirectoryError):
            rooted.make_folders(fd, "/fifo/x")
    assert sorted(os.listdir(outside)) == ["passwd"]
    assert (root / str(outside).lstrip("/") / "made").is_dir()


async def test_a_truncated_archive_is_told_of(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("x")
        entry.size, entry.uid, entry.gid = 100_000, os.getuid(), os.getgid()
        tar.addfile(entry, io.BytesIO(bytes(100_000)))

    async def half() -> AsyncIterator[bytes]:
        yield out.getvalue()[:50_000]

    with pytest.raises(InvalidInput):
        await archive.write(tmp_path, "/", half())
