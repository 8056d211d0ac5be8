"""Stopping a program between its loading and its first instruction (ptrace(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time

from gemel.errors import Failed

_libc = ctypes.CDLL(None, use_errno=True)
_SEIZE, _CONT, _DETACH = 0x4206, 7, 17
_TRACE_EXEC = 0x10
_EXEC_STOP = signal.SIGTRAP | (4 << 8)
_WALL = 0x40000000


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    _libc.ptrace.restype = ctypes.c_long
    if _libc.ptrace(request, pid, None, data) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class ExecTrap:
    """Leaves a process stopped (as by SIGSTOP) once it has executed another program.

    Tracing is a matter of one thread, so each trap has one, which ends with it.
    """

    def __init__(self, pid: int, timeout: float = 60.0) -> None:
        """timeout: seconds that the process may take until it executes. Raises Failed."""
        self._pid = pid
        self._timeout = timeout
        self._error: OSError | None = None
        self._set = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exec trap", daemon=True)
        self._thread.start()
        self._set.wait(10)
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise Failed("cannot stop the program at its start", details=str(self._error))

    def _run(self) -> None:
        try:
            _ptrace(_SEIZE, self._pid, _TRACE_EXEC)
        except OSError as error:
            self._error = error
            return
        finally:
            self._set.set()
        try:
            self._follow(time.monotonic() + self._timeout)
        except OSError as error:
            self._error = error

    def _follow(self, end: float) -> None:
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG | _WALL)
            if pid == 0:
                if time.monotonic() > end:
                    raise TimeoutError(f"it executed nothing within {self._timeout:g} s")
                time.sleep(0.002)
                continue
            if not os.WIFSTOPPED(status):
                return  # it ended
            if status >> 8 == _EXEC_STOP:
                os.kill(self._pid, signal.SIGSTOP)
                _ptrace(_DETACH, self._pid)
                return
            number = os.WSTOPSIG(status) if status >> 16 == 0 else 0
            _ptrace(_CONT, self._pid, number)

    def wait(self) -> None:
        """Returns when the program is loaded and stopped, or has ended. Blocks. Raises Failed."""
        self._thread.join(self._timeout + 5)
        with contextlib.suppress(ProcessLookupError):
            self._check()
