"""The caller's own terminal: raw mode, its size, signals that go to the other side."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import Any

from gemel.client.hijack import Output


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is a terminal; False for a closed one."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int = 1) -> tuple[int, int]:
    """Rows and columns; (24, 80) if it is no terminal."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return (rows or 24), (columns or 80)


@contextlib.contextmanager
def raw_mode(fd: int = 0) -> Iterator[None]:
    """Every key goes to the other side as it is, Ctrl-C too; put back at the end."""
    saved = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


@contextlib.contextmanager
def handled(signals: list[int], handler: Callable[[int], None]) -> Iterator[None]:
    """Calls ``handler`` on each of these signals while inside."""

    def call(number: int, _frame: Any) -> None:
        handler(number)

    saved = {number: signal.signal(number, call) for number in signals}
    try:
        yield
    finally:
        for number, old in saved.items():
            signal.signal(number, old)


@contextlib.contextmanager
def following_size(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Tells the size now and at each change. A refusal is not worth an error: it may have ended."""

    asked = told = 0

    def tell(_number: int = 0) -> None:
        # a change while it is told would be told first, and then be taken back
        nonlocal asked, told
        asked += 1
        if asked > told + 1:
            return
        while told < asked:
            now = asked
            try:
                with contextlib.suppress(Exception):
                    resize(*size())
            finally:
                told = now

    with handled([signal.SIGWINCH], tell):
        tell()
        yield


def writer(fd: int) -> Callable[[bytes], None]:
    """Writes all bytes to a descriptor, at once and unbuffered."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


def standard_output() -> Output:
    """The process's own stdout and stderr; what was printed before comes first."""
    sys.stdout.flush()
    sys.stderr.flush()
    return Output(writer(1), writer(2))
