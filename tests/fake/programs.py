"""What instances of the fake runtime run: coroutines instead of processes.

A program gets its ``Io`` and gives back an exit status. ``sh -c`` is a very small shell: lists of
simple commands, variables, ``while``, ``trap``, ``>&2``. What it does not know it says.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Iterator

Write = Callable[[int, bytes], None]


class Ended(Exception):
    """A program ends with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Io:
    """A program's surroundings: standard input, output, signals, and whether it is frozen.

    traps: signal number to what is done. first: the first process of an instance, which a
    signal that it does not handle does nothing to.
    """

    def __init__(self, argv: tuple[str, ...], write: Write, *, first: bool) -> None:
        self.argv = argv
        self.write = write
        self.first = first
        self.traps: dict[int, Callable[[], Awaitable[None]]] = {}
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._stdin = bytearray()
        self._stdin_ended = False
        self._changed = asyncio.Event()
        self._signals: list[int] = []

    def feed(self, data: bytes) -> None:
        """Standard input."""
        self._stdin += data
        self._changed.set()

    def feed_end(self) -> None:
        """The end of standard input."""
        self._stdin_ended = True
        self._changed.set()

    def signal(self, number: int) -> None:
        """Sends a signal other than SIGKILL."""
        self._signals.append(number)
        self._changed.set()

    async def settle(self) -> None:
        """Waits while frozen, then does what signals ask for. Raises Ended."""
        await self.thawed.wait()
        while self._signals:
            number = self._signals.pop(0)
            if number in self.traps:
                await self.traps[number]()
            elif not self.first and number not in (signal.SIGCONT, signal.SIGWINCH):
                raise Ended(128 + number)

    async def _wait(self, seconds: float | None) -> bool:
        """Whether something changed before the time was over."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    async def sleep(self, seconds: float) -> None:
        """Wakes up for signals in between. Raises Ended."""
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            await self._wait(left)
            await self.settle()
        await self.settle()

    async def read(self) -> bytes:
        """What has come on standard input; empty at its end. Raises Ended."""
        while not self._stdin and not self._stdin_ended:
            await self._wait(None)
            await self.settle()
        data = bytes(self._stdin)
        self._stdin.clear()
        return data

    async def line(self) -> bytes | None:
        """A line without its end; None at the end of the input. Raises Ended."""
        while b"\n" not in self._stdin and not self._stdin_ended:
            await self._wait(None)
            await self.settle()
        if b"\n" not in self._stdin:
            return None
        found, _, rest = bytes(self._stdin).partition(b"\n")
        self._stdin[:] = rest
        return found


Program = Callable[[Io], Awaitable[int]]


async def _true(io: Io) -> int:
    return 0


async def _false(io: Io) -> int:
    return 1


async def _sleep(io: Io) -> int:
    await io.sleep(float(io.argv[1]))
    return 0


async def _echo(io: Io) -> int:
    io.write(1, " ".join(io.argv[1:]).encode() + b"\n")
    return 0


async def _printf(io: Io) -> int:
    io.write(1, io.argv[1].encode())
    return 0


async def _cat(io: Io) -> int:
    while data := await io.read():
        io.write(1, data)
    return 0


async def _sh(io: Io) -> int:
    if len(io.argv) != 3 or io.argv[1] != "-c":
        raise NotImplementedError(f"the fake's shell takes -c SCRIPT, not {io.argv[1:]}")
    return await _Shell(io).run(io.argv[2])


PROGRAMS: dict[str, Program] = {
    "true": _true, "false": _false, "sleep": _sleep, "echo": _echo, "printf": _printf,
    "cat": _cat, "sh": _sh,
}  # fmt: skip
_TOKEN = re.compile(r"\s*(?:(;|\n)|('[^']*')|((?:\$\(\([^)]*\)\)|[^\s;'])+))")


class _Shell:
    """One shell: variables, and commands one after the other."""

    def __init__(self, io: Io) -> None:
        self._io = io
        self._variables: dict[str, str] = {}
        self._status = 0

    async def run(self, script: str) -> int:
        """The status of the last command, or the one that ``exit`` names."""
        try:
            await self._list(iter(_tokens(script)))
        except Ended as end:
            return end.status
        return self._status

    async def _list(self, tokens: Iterator[str]) -> None:
        command: list[str] = []
        for token in tokens:
            if token == "while" and not command:
                await self._while(tokens)
            elif token != ";":
                command.append(token)
            elif command:
                await self._command(command)
                command = []
        if command:
            await self._command(command)

    async def _while(self, tokens: Iterator[str]) -> None:
        condition, body = _until(tokens, "do"), _until(tokens, "done")
        while True:
            await self._list(iter(condition))
            if self._status != 0:
                self._status = 0
                return
            await self._list(iter(body))
            await asyncio.sleep(0)
            await self._io.settle()

    def _expand(self, word: str) -> str:
        if word.startswith("'"):
            return word[1:-1]
        word = word.replace("$$", "1")
        word = re.sub(
            r"\$\(\((\w+)\+(\d+)\)\)",
            lambda m: str(int(self._variables.get(m[1], "0")) + int(m[2])),
            word,
        )
        return re.sub(r"\$(\w+)", lambda m: self._variables.get(m[1], ""), word)

    async def _command(self, raw: list[str]) -> None:
        to_stderr = ">&2" in raw
        words = [self._expand(word) for word in raw if word != ">&2"]
        name, _, value = words[0].partition("=")
        if "=" in words[0] and name.isidentifier():
            self._variables[name] = value
        elif (own := getattr(self, f"_do_{words[0]}", None)) is not None:
            await own(words[1:])
        elif words[0] == ":" or words[0] in PROGRAMS:
            await self._program(words, to_stderr)
        else:
            raise NotImplementedError(f"the fake's shell does not know {words[0]!r}")

    async def _program(self, words: list[str], to_stderr: bool) -> None:
        if words[0] == ":":
            self._status = 0
            return
        io, argv, write = self._io, self._io.argv, self._io.write
        io.argv = tuple(words)
        if to_stderr:
            io.write = lambda _, data: write(2, data)
        try:
            self._status = await PROGRAMS[words[0]](io)
        finally:
            io.argv, io.write = argv, write

    async def _do_exit(self, words: list[str]) -> None:
        raise Ended(int(words[0]) if words else self._status)

    async def _do_exec(self, words: list[str]) -> None:
        await self._program(words, False)
        raise Ended(self._status)

    async def _do_read(self, words: list[str]) -> None:
        line = await self._io.line()
        self._variables[words[0]] = (line or b"").decode()
        self._status = 0 if line is not None else 1

    async def _do_kill(self, words: list[str]) -> None:
        raise Ended(128 + int(words[0].removeprefix("-")))

    async def _do_trap(self, words: list[str]) -> None:
        async def handler() -> None:
            await self._list(iter(_tokens(words[0])))

        for name in words[1:]:
            self._io.traps[signal.Signals[f"SIG{name}"]] = handler


def _tokens(script: str) -> list[str]:
    found = [m[1] or m[2] or m[3] for m in _TOKEN.finditer(script.strip())]
    return [";" if token == "\n" else token for token in found]


def _until(tokens: Iterator[str], word: str) -> list[str]:
    """The tokens up to a keyword. Loops inside loops are more than this shell knows."""
    found = []
    for token in tokens:
        if token == word:
            return found
        found.append(token)
    raise NotImplementedError(f"the fake's shell misses {word!r}")
