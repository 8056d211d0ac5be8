"""A real guest under QEMU: its agent does what docs/guest-protocol.md says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tarfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio

from gemel.runtime.microvm import protocol
from gemel.runtime.microvm.protocol import ErrorKind, FromGuest, Record, ToGuest
from tests.system.guestclient import WAIT, Guest, Machine, boot
from tests.system.guestparts import make_image, make_layer, parts

pytestmark = [pytest.mark.root, pytest.mark.asyncio(loop_scope="module")]

DEFAULT_CAPS = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
    *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
CAPS: list[Record] = [("cap", f"CAP_{name}") for name in DEFAULT_CAPS]
MASKED: list[Record] = [
    *(("masked", path) for path in ("/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/nope")),
    *(("ropath", path) for path in ("/proc/sys", "/proc/bus", "/proc/irq")),
]


CONFIG: list[Record] = [
    ("time", str(1_700_000_000 * 10**9)),
    ("entropy", os.urandom(64)),
    ("hostname", "box", "example.test"),
    ("machine-id", "0" * 31 + "7"),
    ("loopback",),
    ("nic", "02:00:00:00:00:02", "eth0", "10.7.0.2/24", "10.7.0.1", "1400", "1"),
    ("nic", "02:00:00:00:00:99", "back", "10.8.0.2/16", "10.8.0.1", "1500", "0"),
    ("root", "squashfs", "serial:root"),
    ("shm", str(1 << 20)),
    ("mount", "tmpfs", "", "/var/cache/deep", "0", "size=1m,mode=1777,exec"),
    ("mount", "tmpfs", "", "/escape/etc/over", "1", ""),
    ("file", "/etc/hosts", "0644", "0", "0", b"127.0.0.1 localhost\n"),
    ("file", "/run/secrets/key", "0400", "1000", "1001", b"\0secret"),
    ("sysctl", "net.ipv4.ip_unprivileged_port_start", "99"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def machine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machine]:
    """A guest whose service is a shell that waits; execs are made beside it."""
    folder = tmp_path_factory.mktemp("guest")
    found, image, line = await parts(folder)
    disks = {"root": (make_image(folder), True), "layer": (make_layer(folder), False)}
    async with boot(folder, found.vmlinux, image, line, disks) as running:
        guest = running.guest
        await guest.configure([*CONFIG, ("layer", "serial:layer")])
        service = guest.start(
            [
                *(
                    ("arg", arg)
                    for arg in ("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 1; done")
                ),
                ("env", "GREETING=hello"),
                ("cwd", "/made/for/me"),
                ("pids", "300"),
                *CAPS,
                *MASKED,
            ]
        )
        await service.until("s.pid or s.error")
        assert service.error is None, service.error
        yield running


@pytest.fixture
def guest(machine: Machine) -> Guest:
    return machine.guest


async def output(guest: Guest, *args: str, more: list[Record] | None = None) -> str:
    """Standard output of a program that must succeed."""
    session = guest.exec(*args, more=[*CAPS, *(more or [])])
    status = await session.end()
    assert (status, session.err) == (0, b""), (session.out, session.err)
    return session.out.decode()


async def sh(guest: Guest, script: str, more: list[Record] | None = None) -> str:
    return await output(guest, "sh", "-c", script, more=more)


async def test_what_config_asked_for(guest: Guest) -> None:
    assert await sh(guest, "hostname; cat /proc/sys/kernel/domainname") == "box\nexample.test\n"
    assert int(await sh(guest, "date +%s")) - 1_700_000_000 < 600
    assert await sh(guest, "cat /etc/hosts") == "127.0.0.1 localhost\n"
    assert await sh(guest, "stat -c '%a %u %g %s' /run/secrets/key") == "400 1000 1001 7\n"
    assert await sh(guest, "test -e /etc/machine-id || echo none") == "none\n"
    assert await sh(guest, "stat -fc %T /var/cache/deep /etc/over") == "tmpfs\ntmpfs\n"
    assert "ro,nosuid,nodev,noexec" in await sh(guest, "grep ' /etc/over ' /proc/mounts")
    port = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert await sh(guest, port) == "99\n"
    assert "127.0.0.1" in await sh(guest, "ip -4 addr show lo")
    assert await sh(guest, "readlink /proc/1/cwd; pidof sh | grep -cw 1") == "/made/for/me\n1\n"


async def test_network_interfaces(guest: Guest) -> None:
    """The first is found by its MAC though it comes second; the other gets the MAC asked for."""
    assert await sh(guest, "ls /sys/class/net") == "back\neth0\nlo\n"
    front = await sh(guest, "ip addr show eth0")
    assert "02:00:00:00:00:02" in front and "inet 10.7.0.2/24 brd 10.7.0.255" in front
    assert "mtu 1400" in front and "UP" in front
    back = await sh(guest, "ip addr show back")
    assert "02:00:00:00:00:99" in back and "inet 10.8.0.2/16" in back
    routes = await sh(guest, "ip route")
    assert "default via 10.7.0.1 dev eth0" in routes
    assert "via 10.8.0.1" not in routes


async def test_it_looks_like_a_container(guest: Guest) -> None:
    mounts = await sh(guest, "cat /proc/mounts")
    assert "overlay / overlay rw" in mounts
    assert "sysfs /sys sysfs ro" in mounts
    assert "/gemel" not in "".join(line.split()[1] for line in mounts.splitlines())
    assert await sh(guest, "cat /proc/kcore | wc -c; ls /sys/firmware") == "0\n"
    assert await sh(guest, "(echo 1 >/proc/sys/vm/overcommit_memory) 2>/dev/null || echo ro")
    assert await sh(guest, "ls /dev") == (
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n"
        "urandom\nzero\n"
    )
    assert await sh(guest, "cat /proc/self/cgroup") == "0::/\n"
    status = await sh(guest, "cat /proc/self/status")
    assert re.search(r"CapBnd:\s+00000000a80425fb", status)
    assert re.search(r"CapEff:\s+00000000a80425fb", status)
    assert re.search(r"CapInh:\s+0000000000000000", status)
    assert "size=1024k" in await sh(guest, "grep /dev/shm /proc/mounts")


@pytest.mark.parametrize(
    ("user", "more", "expected"),
    [
        ("", [], "uid=0(root) gid=0(root) groups=0(root)\n/root\n"),
        ("ann", [], "uid=1000(ann) gid=1001(ann) groups=10(wheel),1001(ann)\n/home/ann\n"),
        ("1000", [], "uid=1000(ann) gid=1001(ann) groups=10(wheel),1001(ann)\n/home/ann\n"),
        ("ann:wheel", [], "uid=1000(ann) gid=10(wheel) groups=10(wheel)\n/home/ann\n"),
        ("4242:77", [("group", "tty")], "uid=4242 gid=77 groups=5(tty),77\n/\n"),
    ],
)
async def test_users(guest: Guest, user: str, more: list[Record], expected: str) -> None:
    text = await sh(guest, 'id; echo "$HOME"', [("user", user), *more])
    groups = re.search(r"groups=(\S+)", text)
    assert groups
    text = text.replace(groups[1], ",".join(sorted(groups[1].split(","))))
    assert text == expected


async def test_a_user_who_is_not_root_has_no_capabilities_and_own_streams(guest: Guest) -> None:
    script = "grep -E 'Cap(Prm|Eff)|NoNewPrivs' /proc/self/status; echo hi >/dev/stdout"
    text = await sh(guest, script, [("user", "ann"), ("nnp",)])
    assert text.split() == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1", "hi"]


@pytest.mark.parametrize(
    ("args", "more", "kind", "text"),
    [
        (["foo"], [], ErrorKind.NOT_FOUND, 'exec: "foo": executable file not found in $PATH'),
        (["/foo"], [], ErrorKind.NOT_FOUND, 'exec: "/foo": stat /foo: no such file or directory'),
        (["/etc"], [], ErrorKind.NOT_RUNNABLE, 'exec: "/etc": is a directory'),
        (["/etc/passwd"], [], ErrorKind.NOT_RUNNABLE, 'exec: "/etc/passwd": permission denied'),
        (["/etc/script"], [], ErrorKind.NOT_FOUND, "exec /etc/script: no such file or directory"),
        (["/etc/broken"], [], ErrorKind.NOT_RUNNABLE, "exec /etc/broken: exec format error"),
        (
            ["id"],
            [("user", "bob")],
            ErrorKind.FAILED,
            "unable to find user bob: no matching entries in passwd file",
        ),
        (
            ["id"],
            [("user", "ann:none")],
            ErrorKind.FAILED,
            "unable to find group none: no matching entries in group file",
        ),
        (
            ["id"],
            [("cwd", "/nope")],
            ErrorKind.FAILED,
            'chdir to cwd ("/nope") set in config.json failed: no such file or directory',
        ),
    ],
)
async def test_errors(
    guest: Guest, args: list[str], more: list[Record], kind: ErrorKind, text: str
) -> None:
    session = guest.exec(*args, more=more)
    await session.until("s.error or s.pid")
    assert session.error == (kind, text)


async def test_streams_status_environment(guest: Guest) -> None:
    session = guest.exec(
        "sh", "-c", 'echo "$A $PATH"; pwd; echo bad >&2; exit 42',
        more=[("env", "A=1"), ("env", "A=2"), ("cwd", "/tmp")],
    )  # fmt: skip
    assert await session.end() == 42
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (session.out.decode(), session.err) == (f"2 {path}\n/tmp\n", b"bad\n")


async def test_stdin_passes_both_ways_and_ends(guest: Guest) -> None:
    data = os.urandom(3 << 20)
    session = guest.exec("cat", more=[("stdin",)])
    await session.write(data)
    session.send(ToGuest.STDIN_EOF)
    assert await session.end() == 0
    assert hashlib.sha256(session.out).digest() == hashlib.sha256(data).digest()


async def test_stdin_of_a_program_that_does_not_read_it_blocks_nobody(guest: Guest) -> None:
    session = guest.exec("sh", "-c", "exec <&-; sleep 1; echo done", more=[("stdin",)])
    await session.write(b"x" * (1 << 20))
    assert await session.end() == 0
    assert session.out == b"done\n"


async def test_five_megabytes_of_output_come_whole(guest: Guest) -> None:
    script = "head -c 5242880 /dev/urandom >/tmp/big; sha256sum </tmp/big >&2; cat /tmp/big"
    session = guest.exec("sh", "-c", script)
    assert await session.end() == 0
    assert len(session.out) == 5242880
    assert hashlib.sha256(session.out).hexdigest() == session.err.decode().split()[0]


async def test_a_slow_reader_holds_up_only_its_own_program(guest: Guest) -> None:
    slow = guest.exec("head", "-c", "1000000", "/dev/zero", auto=False)
    await slow.until(f"len(s.out) == {protocol.WINDOW}")
    assert await sh(guest, "echo quick") == "quick\n"
    assert (len(slow.out), slow.status) == (protocol.WINDOW, None)
    slow.credit(1_000_000)
    assert await slow.end() == 0
    assert len(slow.out) == 1_000_000


async def test_a_background_child_does_not_hold_up_the_exit(guest: Guest) -> None:
    session = guest.exec("sh", "-c", "sleep 500 & echo $!; exit 3")
    assert await session.end() == 3
    assert await sh(guest, f"kill {int(session.out)} && echo found") == "found\n"


async def test_many_execs_at_once(guest: Guest) -> None:
    sessions = [guest.exec("sh", "-c", f"cat; echo {i}", more=[("stdin",)]) for i in range(64)]
    for session in sessions:
        await session.write(b"in ")
        session.send(ToGuest.STDIN_EOF)
    assert [await session.end() for session in sessions] == [0] * 64
    assert [session.out for session in sessions] == [b"in %d\n" % i for i in range(64)]


async def test_a_terminal(guest: Guest) -> None:
    session = guest.exec("sh", more=[("tty", "40", "100"), ("env", "PS1=%")])
    await session.until("b'%' in s.out")
    # what tells that it runs is itself the program in the foreground, which ^C is for
    await session.write(b"tty; stty size; sh -c 'echo $TERM; exec sleep 100'\n")
    await session.until("b'xterm' in s.out.replace(b'$TERM', b'')")
    assert b"/dev/pts/" in session.out and b"40 100" in session.out
    await session.write(b"\x03")
    await session.until("s.out.count(b'%') == 2")
    session.send(ToGuest.RESIZE, protocol.encode_size(20, 50))
    await session.write(b"stty size; sleep 100\n")
    await session.until("b'20 50' in s.out")
    async with asyncio.timeout(WAIT):
        while b"Stopped" not in session.out:  # the shell may not have handed over the terminal yet
            await session.write(b"\x1a")
            await asyncio.sleep(0.3)
    await session.write(b"exit 7\nexit 7\n")
    assert await session.end() == 7
    assert session.err == b""


async def test_signals(guest: Guest) -> None:
    session = guest.exec(
        "sh", "-c", "trap 'echo got; exit 5' USR1; echo up; while :; do sleep .1; done"
    )
    await session.until("s.out")
    session.send(ToGuest.SIGNAL, protocol.encode_u32(10))
    assert await session.end() == 5
    assert session.out == b"up\ngot\n"
    session = guest.exec("sleep", "100")
    await session.until("s.pid")
    session.send(ToGuest.SIGNAL, protocol.encode_u32(9))
    assert await session.end() == 137
    assert not session.oom


async def test_close_hangs_up(guest: Guest) -> None:
    session = guest.exec(
        "sh", "-c", "trap 'touch /tmp/hup; exit' HUP; echo up; while :; do sleep .1; done"
    )
    await session.until("s.out")
    session.send(ToGuest.CLOSE)
    assert await sh(guest, "while ! test -e /tmp/hup; do sleep .1; done; echo ok") == "ok\n"


async def test_freeze_and_thaw(guest: Guest) -> None:
    session = guest.exec("sh", "-c", "while :; do echo .; sleep .05; done")
    await session.until("len(s.out) > 4")
    assert await guest.ask(ToGuest.FREEZE, FromGuest.FROZEN) == b"\1"
    refused = guest.exec("true")
    await refused.until("s.error")
    assert refused.error == (ErrorKind.FAILED, "the service is paused")
    await guest.ask(ToGuest.PING, FromGuest.PONG, b"x")
    before = len(session.out)
    await asyncio.sleep(0.5)
    await guest.ask(ToGuest.PING, FromGuest.PONG, b"y")
    assert len(session.out) == before
    assert await guest.ask(ToGuest.THAW, FromGuest.FROZEN) == b"\0"
    await session.until(f"len(s.out) > {before + 4}")
    session.send(ToGuest.SIGNAL, protocol.encode_u32(9))
    await session.end()


async def test_usage_and_processes(guest: Guest) -> None:
    session = guest.exec("sleep", "77", more=[("user", "ann")])
    await session.until("s.pid")
    usage = protocol.decode_usage(await guest.ask(ToGuest.USAGE, FromGuest.USAGE))
    assert usage["cpu_ns"] > 0
    assert usage["pids"] >= 2
    assert usage["pids_limit"] == 300
    assert 0 < usage["memory"] < usage["guest_total"] < 256 << 20
    assert usage["memory.anon"] > 0
    guest.send(protocol.CONTROL, ToGuest.PROCESSES)
    frame = await guest.expect(FromGuest.PROCESSES)
    assert frame.flags & protocol.LAST
    (found,) = [p for p in protocol.decode_processes(frame.payload) if p.pid == session.pid]
    assert (found.user, found.uid, found.command) == ("ann", 1000, "sleep 77")
    session.send(ToGuest.SIGNAL, protocol.encode_u32(15))
    assert await session.end() == 143


async def test_memory_ends_a_program_and_it_is_said(guest: Guest) -> None:
    session = guest.exec("dd", "if=/dev/zero", "of=/dev/null", "bs=195M", "count=1")
    assert await session.end() == 137
    assert session.oom


async def test_archive_helper_stays_inside(guest: Guest) -> None:
    await sh(guest, "mkdir -p /data/a; echo text >/data/a/f; ln -s /etc/passwd /data/a/l")
    helper: list[Record] = [("helper",)]
    session = guest.exec("tar", "-c", "-C", "/data", "a", more=helper)
    assert await session.end() == 0
    with tarfile.open(fileobj=BytesIO(session.out)) as archive:
        assert sorted(archive.getnames()) == ["a", "a/f", "a/l"]
        assert archive.getmember("a/l").issym()
    session = guest.exec("tar", "-x", "-C", "/escape/tmp", more=[*helper, ("stdin",)])
    raw = BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        member = tarfile.TarInfo("put")
        member.size, member.uid = 3, 1000
        archive.addfile(member, BytesIO(b"abc"))
    await session.write(raw.getvalue())
    session.send(ToGuest.STDIN_EOF)
    assert await session.end() == 0, session.err
    assert await sh(guest, "cat /tmp/put; stat -c %u /tmp/put") == "abc1000\n"


async def test_a_file_is_replaced_in_place(guest: Guest) -> None:
    await guest.configure([("file", "/etc/hosts", "0644", "0", "0", b"127.0.0.1 new\n")])
    assert await sh(guest, "cat /etc/hosts") == "127.0.0.1 new\n"


#: What the guest becomes for a moment.
IDENTITY: list[Record] = [
    ("entropy", os.urandom(64)),
    ("hostname", "twin", ""),
    ("machine-id", "0" * 31 + "8"),
    ("nic", "02:00:00:00:00:12", "eth0", "10.7.0.9/24", "10.7.0.3", "1400", "1"),
    ("file", "/etc/hosts", "0644", "0", "0", b"10.7.0.9 twin\n"),
]
#: A connection that leaves the guest's own addresses, as far as it can tell, and one that does not.
CONNECTIONS = """
    for to in 10.7.0.2 127.0.0.1; do
        port=$((7000 + ${to%%.*}))
        nc -l -p $port -e cat &
        mkfifo /tmp/$to
        (sleep 1; nc $to $port <> /tmp/$to >/tmp/$to.said; touch /tmp/$to.ended) 2>/dev/null &
        until grep -q hello /tmp/$to.said 2>/dev/null; do echo hello >/tmp/$to; sleep .2; done
    done >/dev/null 2>&1
"""


async def test_another_identity(guest: Guest) -> None:
    await sh(guest, CONNECTIONS)
    waiting = guest.exec("sleep", "1000")
    await waiting.until("s.pid")
    refused = await guest.become(IDENTITY, FromGuest.ERROR)
    assert b"stands still" in refused
    assert await guest.ask(ToGuest.FREEZE, FromGuest.FROZEN) == b"\1"
    await guest.become(IDENTITY, FromGuest.READY)
    hook = await sh(guest, "hostname; cat /etc/hosts; ls -d /proc/[0-9]* | wc -l", [("hook",)])
    assert hook.startswith("twin\n10.7.0.9 twin\n")
    assert await guest.ask(ToGuest.THAW, FromGuest.FROZEN) == b"\0"
    shown = await sh(guest, "ip -4 addr show eth0; ip link show eth0; ip route")
    assert "inet 10.7.0.9/24" in shown and "10.7.0.2/" not in shown
    assert "02:00:00:00:00:12" in shown and "default via 10.7.0.3" in shown
    script = "until test -e /tmp/10.7.0.2.ended; do sleep .1; done; ls /tmp"
    assert "127.0.0.1.ended" not in await sh(guest, script)
    assert waiting.status is None  # it was the original's, and nobody hears of its end
    assert "sleep 1000" not in await sh(guest, "ps")
    # back, so that other tests find what they expect
    assert await guest.ask(ToGuest.FREEZE, FromGuest.FROZEN) == b"\1"
    await guest.become([("hostname", "box", "example.test"), CONFIG[5]], FromGuest.READY)
    cut = guest.become([("nic", "x", "eth0", "", "", "0", "0")], FromGuest.ERROR)
    assert b"bad MAC" in await cut
    assert await guest.ask(ToGuest.THAW, FromGuest.FROZEN) == b"\0"
    await guest.configure([("file", "/etc/hosts", "0644", "0", "0", b"127.0.0.1 localhost\n")])
    await sh(guest, "kill $(pidof nc cat)")


async def test_a_second_boot_finds_what_was_written_and_ends_with_its_program(
    tmp_path: Path,
) -> None:
    found, image, line = await parts(tmp_path)
    disks = {"root": (make_image(tmp_path), True), "layer": (make_layer(tmp_path), False)}
    async with boot(tmp_path, found.vmlinux, image, line, disks) as running:
        guest = running.guest
        await guest.configure([*CONFIG, ("layer", "serial:layer"), ("init", "1")])
        # before START only helpers may look at the files
        early = guest.exec("ls", "/escape", more=[("helper",)])
        assert await early.end() == 0, early.err
        assert b"passwd" not in early.out and b"bin" in early.out
        refused = guest.exec("true")
        await refused.until("s.error")
        assert refused.error == (ErrorKind.FAILED, "the service is not running")
        script = (
            "(sleep 0.1; exit 1) & trap 'echo kept >/kept; echo bye; exit 9' TERM; "
            "tty; echo up; while :; do sleep .1; done"
        )
        service = guest.start(
            [
                ("arg", "sh"),
                ("arg", "-c"),
                ("arg", script),
                ("tty", "25", "80"),
                ("memory", "90000000"),
            ]
        )
        await service.until("b'up' in s.out")
        assert b"/dev/pts/0" in service.out
        other = guest.exec("sleep", "1000")
        names = await sh(
            guest, "cat /proc/1/comm; ls /proc/1/fd | wc -l; test -c /dev/console && echo tty"
        )
        assert names == "init\n0\ntty\n"
        service.send(ToGuest.SIGNAL, protocol.encode_u32(15))
        assert await service.end() == 9
        assert service.out.endswith(b"bye\r\n")
        assert await other.end() == 137
        guest.send(protocol.CONTROL, ToGuest.SHUTDOWN)
        async with asyncio.timeout(WAIT):
            assert await running.process.wait() == 0
    async with boot(tmp_path, found.vmlinux, image, line, disks) as running:
        guest = running.guest
        await guest.configure([*CONFIG, ("layer", "serial:layer"), ("readonly-root",)])
        service = guest.start(
            [("arg", "sh"), ("arg", "-c"), ("arg", "cat /kept; (: >/no) 2>/dev/null || echo ro")]
        )
        assert await service.end() == 0, service.err
        assert service.out == b"kept\nro\n"
