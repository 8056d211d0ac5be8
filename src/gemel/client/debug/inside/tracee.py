"""Calling functions in another process (ptrace(2), x86-64), and finding them (ELF).

Only the thread that is asked is stopped: the others go on, so that what the called
function waits for (Python's interpreter lock, say) can come.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import time
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

_CONT, _GETREGS, _SETREGS, _DETACH, _SYSCALL = 7, 12, 13, 17, 24
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_SYSGOOD, _TRACE_EXEC = 0x1, 0x10
_WALL = 0x40000000
_EVENT_STOP = 128
_REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base"),
    *("ds", "es", "fs", "gs"),
)
_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
#: Bytes below the stack's top that a function may use without asking (its red zone), and more.
_CLEAR = 1024


class Trouble(Exception):
    """What cannot be done, in words for a person."""


def supported() -> bool:
    """Whether functions of other processes can be called on this machine."""
    return platform.machine() == "x86_64"


class Mapping:
    """A file that is mapped in a process: where its first byte is, and its path in its root."""

    def __init__(self, base: int, path: str) -> None:
        self.base = base
        self.path = path


def mappings(pid: int) -> list[Mapping]:
    """The files mapped at their beginning, each once."""
    found: dict[str, Mapping] = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as file:
        for line in file:
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[5].startswith("/") and int(fields[2], 16) == 0:
                path = fields[5].rstrip("\n").removesuffix(" (deleted)")
                found.setdefault(path, Mapping(int(fields[0].split("-")[0], 16), path))
    return list(found.values())


def symbols(pid: int, mapping: Mapping, wanted: set[str]) -> dict[str, int]:
    """Addresses of a mapped file's dynamic symbols. Empty for what is no 64-bit ELF file."""
    try:
        with open(f"/proc/{pid}/root{mapping.path}", "rb") as file:
            return _dynamic(file.fileno(), mapping.base, wanted)
    except (OSError, struct.error, ValueError):
        return {}


def _dynamic(fd: int, base: int, wanted: set[str]) -> dict[str, int]:
    head = os.pread(fd, 64, 0)
    if head[:5] != b"\x7fELF\x02":
        return {}
    kind, (sections, entries, count) = (
        struct.unpack_from("<H", head, 16)[0],
        (
            struct.unpack_from("<Q", head, 40)[0],
            *struct.unpack_from("<HH", head, 58),
        ),
    )
    shift = base if kind == 3 else 0  # ET_DYN
    table = os.pread(fd, entries * count, sections)
    for n in range(count):
        fields = struct.unpack_from("<IIQQQQIIQQ", table, n * entries)
        if fields[1] == 11:  # SHT_DYNSYM
            names = struct.unpack_from("<IIQQQQIIQQ", table, fields[6] * entries)
            return _named(fd, fields[4:6], names[4:6], shift, wanted)
    return {}


def _named(
    fd: int, where: tuple[int, int], names: tuple[int, int], shift: int, wanted: set[str]
) -> dict[str, int]:
    text = os.pread(fd, min(names[1], 16 << 20), names[0])
    found = {}
    for name, _, _, section, value, _ in struct.iter_unpack(
        "<IBBHQQ", os.pread(fd, min(where[1], 16 << 20) // 24 * 24, where[0])
    ):
        if section and value:
            end = text.find(b"\0", name)
            label = text[name:end].decode("ascii", "replace")
            if label in wanted:
                found[label] = shift + value
    return found


class Tracee:
    """One thread of another process, stopped while the block runs."""

    def __init__(self, pid: int, timeout: float) -> None:
        """timeout: seconds that all that is done with it may take."""
        self.pid = pid
        self._end = time.monotonic() + timeout
        self._memory = -1

    def __enter__(self) -> Tracee:
        self._ptrace(_SEIZE, _SYSGOOD | _TRACE_EXEC)
        try:
            self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR | os.O_CLOEXEC)
            self._ptrace(_INTERRUPT, 0)
            self._wait_stop()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, Trouble):
            self._ptrace(_DETACH, 0)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _ptrace(self, request: int, data: int | ctypes.Array[ctypes.c_char]) -> None:
        if _libc.ptrace(request, self.pid, None, data) != 0:
            code = ctypes.get_errno()
            raise Trouble(f"process {self.pid} cannot be traced: {os.strerror(code)}")

    def _wait(self) -> int:
        """The next stop's status. Raises Trouble at its end, or when time is up."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | _WALL)
            if pid:
                if not os.WIFSTOPPED(status):
                    raise Trouble(f"process {self.pid} has ended")
                return status
            if time.monotonic() > self._end:
                raise Trouble(f"process {self.pid} did not come to a stop in time")
            time.sleep(0.001)

    def _wait_stop(self) -> None:
        """Until it stands still because it was asked to."""
        while (status := self._wait()) >> 16 != _EVENT_STOP:
            self._go(_CONT, status)

    def _go(self, request: int, status: int) -> None:
        """Goes on from a stop; a signal that was on its way arrives."""
        plain = status >> 16 == 0 and not os.WSTOPSIG(status) & 0x80
        self._ptrace(request, os.WSTOPSIG(status) if plain else 0)

    @property
    def registers(self) -> dict[str, int]:
        """All of them, by name."""
        raw = ctypes.create_string_buffer(8 * len(_REGISTERS))
        self._ptrace(_GETREGS, raw)
        return dict(zip(_REGISTERS, struct.unpack(f"<{len(_REGISTERS)}Q", raw.raw), strict=True))

    @registers.setter
    def registers(self, values: dict[str, int]) -> None:
        packed = struct.pack(f"<{len(_REGISTERS)}Q", *(values[name] for name in _REGISTERS))
        self._ptrace(_SETREGS, ctypes.create_string_buffer(packed, len(packed)))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory."""
        return os.pread(self._memory, size, address)

    def write(self, address: int, data: bytes) -> None:
        """Writes its memory, code too."""
        os.pwrite(self._memory, data, address)

    def call(self, function: int, *arguments: int) -> int:
        """Calls a function as C does, and gives back what it returns; all is as before then."""
        before = self.registers
        stack = (before["rsp"] - _CLEAR) // 16 * 16 - 8
        self.write(stack, bytes(8))  # it returns to address 0, which is told as a fault
        inside = before | {"rip": function, "rsp": stack, "rax": 0, "orig_rax": (1 << 64) - 1}
        inside |= dict(zip(_ARGUMENTS, arguments, strict=False))
        self.registers = inside
        try:
            self._run_to_zero()
            return self.registers["rax"]
        finally:
            with contextlib.suppress(Trouble):
                self.registers = before

    def _run_to_zero(self) -> None:
        status = 0
        while True:
            self._go(_CONT, status)
            status = self._wait()
            number = os.WSTOPSIG(status)
            if status >> 16 == 0 and number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGTRAP):
                rip = self.registers["rip"]
                if rip == 0:
                    return
                raise Trouble(f"process {self.pid} failed in the called function (at {rip:#x})")

    def syscalls(self) -> Iterator[bool]:
        """Runs on from system call to system call; True after it has executed a program."""
        status = 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        while True:
            self._go(_SYSCALL, status)
            status = self._wait()
            yield status >> 16 == 4  # PTRACE_EVENT_EXEC

    def run_to(self, address: int) -> None:
        """Runs on until it is about to carry out the instruction at ``address``."""
        kept = self.read(address, 1)
        self.write(address, b"\xcc")
        status = 0
        while True:
            self._go(_CONT, status)
            status = self._wait()
            if status >> 16 == 0 and os.WSTOPSIG(status) == signal.SIGTRAP:
                registers = self.registers
                if registers["rip"] == address + 1:
                    self.write(address, kept)
                    self.registers = registers | {"rip": address}
                    return
