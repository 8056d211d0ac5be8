"""Boots a guest with QEMU and talks to its agent directly, without the product's runtime."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO

from gemel.host.run import find, spawn
from gemel.runtime.microvm import protocol
from gemel.runtime.microvm.protocol import Frame, FromGuest, Record, ToGuest

WAIT = 90.0
#: Of the guest's two network interfaces, which lead nowhere.
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")


class Session:
    """A program in the guest: its output so far and its end."""

    def __init__(self, guest: Guest, number: int, auto: bool) -> None:
        self.guest = guest
        self.number = number
        self.auto = auto
        self.out = b""
        self.err = b""
        self.pid = 0
        self.error: tuple[protocol.ErrorKind, str] | None = None
        self.status: int | None = None
        self.oom = False
        self.stdin_credit = protocol.WINDOW
        self.changed = asyncio.Event()

    def take(self, frame: Frame) -> None:
        match frame.type:
            case FromGuest.STARTED:
                self.pid = protocol.decode_u32(frame.payload)
            case FromGuest.STDOUT:
                self.out += frame.payload
            case FromGuest.STDERR:
                self.err += frame.payload
            case FromGuest.EXIT:
                self.status, self.oom = protocol.decode_exit(frame.payload)
            case FromGuest.ERROR:
                self.error = protocol.decode_error(frame.payload)
            case FromGuest.CREDIT:
                self.stdin_credit += protocol.decode_u32(frame.payload)
        if self.auto and frame.type in (FromGuest.STDOUT, FromGuest.STDERR):
            self.credit(len(frame.payload))
        self.changed.set()

    def credit(self, more: int) -> None:
        self.send(ToGuest.CREDIT, protocol.encode_u32(more))

    def send(self, type: ToGuest, payload: bytes = b"", flags: int = 0) -> None:
        self.guest.send(self.number, type, payload, flags)

    async def until(self, what: str) -> None:
        """Waits until the Python expression ``what`` on this session (``s``) is true."""
        try:
            async with asyncio.timeout(WAIT):
                while not eval(what, {"s": self}):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            state = (self.out[-500:], self.err[-500:], self.status, self.error)
            raise AssertionError(f"never {what}: {state}") from None

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), 32768):
            chunk = data[start : start + 32768]
            while self.stdin_credit < len(chunk):
                self.changed.clear()
                async with asyncio.timeout(WAIT):
                    await self.changed.wait()
            self.stdin_credit -= len(chunk)
            self.send(ToGuest.STDIN, chunk)
            await self.guest.writer.drain()

    async def end(self) -> int:
        await self.until("s.status is not None or s.error")
        assert self.error is None, self.error
        assert self.status is not None
        return self.status


class Guest:
    """The host's end of the protocol, as small as it can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sessions: dict[int, Session] = {}
        self.control: asyncio.Queue[Frame] = asyncio.Queue()
        self.logs: list[str] = []
        self.next = protocol.FIRST_EXEC

    async def pump(self) -> None:
        decoder = protocol.Decoder()
        while data := await self.reader.read(1 << 18):
            for frame in decoder.feed(data):
                if frame.type == FromGuest.LOG:
                    self.logs.append(frame.payload.decode())
                elif frame.session == protocol.CONTROL:
                    self.control.put_nowait(frame)
                elif session := self.sessions.get(frame.session):
                    session.take(frame)

    def send(self, session: int, type: ToGuest, payload: bytes = b"", flags: int = 0) -> None:
        self.writer.write(protocol.encode(session, type, payload, flags))

    async def expect(self, type: FromGuest) -> Frame:
        async with asyncio.timeout(WAIT):
            frame = await self.control.get()
        assert frame.type == type, frame
        return frame

    async def ask(self, type: ToGuest, answer: FromGuest, payload: bytes = b"") -> bytes:
        self.send(protocol.CONTROL, type, payload)
        return (await self.expect(answer)).payload

    async def configure(self, records: Sequence[Record]) -> None:
        for part in protocol.message(protocol.CONTROL, ToGuest.CONFIG, records):
            self.writer.write(part)
        await self.expect(FromGuest.READY)

    async def become(self, records: Sequence[Record], answer: FromGuest) -> bytes:
        """Another identity; the answer's payload."""
        for part in protocol.message(protocol.CONTROL, ToGuest.IDENTITY, records):
            self.writer.write(part)
        return (await self.expect(answer)).payload

    def start(self, records: Sequence[Record], *, auto: bool = True) -> Session:
        return self._run(protocol.SERVICE, ToGuest.START, records, auto)

    def exec(self, *args: str, more: Sequence[Record] = (), auto: bool = True) -> Session:
        self.next += 1
        records: list[Record] = [("arg", arg) for arg in args]
        return self._run(self.next, ToGuest.EXEC, [*records, *more], auto)

    def _run(self, number: int, type: ToGuest, records: Sequence[Record], auto: bool) -> Session:
        session = self.sessions[number] = Session(self, number, auto)
        for part in protocol.message(number, type, records):
            self.writer.write(part)
        return session


class Machine:
    """A running QEMU and its guest."""

    def __init__(self, guest: Guest, process: asyncio.subprocess.Process, hello: float) -> None:
        self.guest = guest
        self.process = process
        self.hello_seconds = hello


@contextlib.asynccontextmanager
async def boot(
    folder: Path, kernel: Path, initrd: Path, line: str, disks: dict[str, tuple[Path, bool]]
) -> AsyncIterator[Machine]:
    """A guest that has said HELLO; QEMU is gone afterwards, whatever happens."""
    connected: asyncio.Future[Guest] = asyncio.get_running_loop().create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set_result(Guest(reader, writer))

    path = folder / "agent.sock"
    server = await asyncio.start_unix_server(accept, path, limit=1 << 20)
    argv = arguments(path, kernel, initrd, line, disks, folder / "console")
    begun = time.monotonic()
    with _log(folder) as log:
        process = await spawn(argv, stdout=log, stderr=log)
    pump: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(WAIT):
            guest = await connected
        pump = asyncio.create_task(guest.pump())
        await guest.expect(FromGuest.HELLO)
        yield Machine(guest, process, time.monotonic() - begun)
    except BaseException:
        print(_text(folder / "qemu.log")[-2000:])
        print(_text(folder / "console")[-6000:])
        raise
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if pump:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        server.close()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _log(folder: Path) -> IO[bytes]:
    return open(folder / "qemu.log", "wb")


def arguments(
    socket: Path,
    kernel: Path,
    initrd: Path,
    line: str,
    disks: dict[str, tuple[Path, bool]],
    console: Path,
) -> list[str]:
    """QEMU's command line: software emulation, one processor."""
    argv = [find("qemu-system-x86_64") or "qemu-system-x86_64"]
    serial = "on" if "console=ttyS0" in line else "off"
    argv += ["-M", f"microvm,acpi=on,pcie=off,rtc=on,isa-serial={serial},usb=off"]
    argv += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    argv += ["-cpu", "max", "-m", "256", "-smp", "1", "-accel", "tcg,thread=multi,tb-size=128"]
    argv += ["-serial", f"file:{console}"] if "console=ttyS0" in line else []
    argv += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", line]
    argv += ["-global", "virtio-mmio.force-legacy=false"]
    for name, (image, readonly) in disks.items():
        only = "on" if readonly else "off"
        argv += ["-drive", f"if=none,id={name},file={image},format=raw,readonly={only}"]
        argv += ["-device", f"virtio-blk-device,drive={name},serial={name}"]
    for number, mac in enumerate(MACS):
        argv += ["-netdev", f"user,id=net{number},restrict=on"]
        argv += ["-device", f"virtio-net-device,netdev=net{number},mac={mac}"]
    argv += ["-device", "virtio-serial-device", "-chardev", f"socket,id=agent,path={socket}"]
    argv += ["-device", f"virtserialport,chardev=agent,name={protocol.PORT_NAME}"]
    return argv
