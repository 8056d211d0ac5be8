"""Programs of the user's that are told something and answer on standard output. Blocking.

Each runs in a session of its own, so that all of it can be ended: at its deadline, when it
says too much, and when the person gives up (Ctrl-C).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gemel.errors import Failed

#: Bytes of one line, and of all that a program may say.
LONGEST_LINE = 64 * 1024
MOST = 4 * 1024 * 1024
#: Seconds that a program has to end after it was asked to.
GRACE = 5.0
#: Seconds for what is still in the pipes of a program that has ended: one that it left
#: running in the background may hold them open for ever.
REST = 1.0
#: Seconds between looks at the program.
_TURN = 0.1
#: Characters of standard error that are kept: its end.
_KEPT = 4000


class Ended(NamedTuple):
    """How a program ended: exit status (negative: signal), the end of its standard error."""

    status: int
    errors: str


class Talks:
    """The programs that one command runs. Any thread may call."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._over = False

    @property
    def over(self) -> bool:
        """Whether they were given up."""
        return self._over

    def run(
        self,
        argv: Sequence[str],
        told: Callable[[bytes], None],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Runs a program to its end; ``told`` gets each line of its output, without the end.

        timeout is in seconds. The program and all that it started is ended if it takes longer,
        says more than MOST bytes or a line of more than LONGEST_LINE, or if ``told`` raises.
        Raises Failed.
        """
        process = self._start(argv, env)
        try:
            reading = _Reading(process, told, os.path.basename(argv[0]))
            with reading:
                reading.until_end(time.monotonic() + timeout, timeout)
            return Ended(process.wait(), reading.errors)
        finally:
            end(process)
            with self._lock:
                self._running.discard(process)

    def _start(self, argv: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._over:
                raise Failed("the command was interrupted")
            try:
                process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=env,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise Failed(f"{argv[0]} cannot be run", str(error)) from error
            self._running.add(process)
            return process

    def end_all(self) -> None:
        """Ends every program that runs, and lets none begin any more."""
        with self._lock:
            self._over = True
            running = list(self._running)
        threads = [threading.Thread(target=end, args=(one,), daemon=True) for one in running]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join(GRACE + 2)
        except BaseException:  # a second Ctrl-C
            for process in running:
                _kill(process)
            raise

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """No program outlives what is inside if that is given up: Ctrl-C, SIGTERM, SIGHUP."""
        with _interrupted_by(signal.SIGTERM), _interrupted_by(signal.SIGHUP):
            try:
                yield
            except BaseException:
                self.end_all()
                raise


@contextlib.contextmanager
def _interrupted_by(number: int) -> Iterator[None]:
    """A signal that would end this process at once is as Ctrl-C meanwhile."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(number) is not signal.SIG_DFL:
        yield
        return
    signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


class _Reading:
    """Reads what a program says, in bounds."""

    def __init__(
        self, process: subprocess.Popen[bytes], told: Callable[[bytes], None], name: str
    ) -> None:
        self._process = process
        self._told = told
        self._name = name
        self._selector = selectors.DefaultSelector()
        self._line = b""
        self._count = 0
        self._errors = b""
        assert process.stdout is not None and process.stderr is not None
        self._out, self._err = process.stdout, process.stderr

    def __enter__(self) -> _Reading:
        for stream in (self._out, self._err):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._out.close()
        self._err.close()

    @property
    def errors(self) -> str:
        """The end of what it said on standard error."""
        return self._errors.decode("utf-8", "replace").strip()

    def until_end(self, deadline: float, timeout: float) -> None:
        """Until the program has ended and all is read. Raises Failed."""
        while self._selector.get_map() or self._process.poll() is None:
            now = time.monotonic()
            if self._process.poll() is not None:
                deadline = min(deadline, now + REST)
            if now >= deadline:
                if self._process.poll() is None:
                    raise Failed(
                        f"{self._name} took longer than {timeout:g} s and was ended", self.errors
                    )
                break
            self._read(min(_TURN, deadline - now))
        if self._line:
            self._told(self._line)

    def _read(self, seconds: float) -> None:
        if not self._selector.get_map():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            return
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, LONGEST_LINE)
            if not data:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._err:
                self._errors = (self._errors + data)[-_KEPT:]
            else:
                self._take(data)

    def _take(self, data: bytes) -> None:
        self._count += len(data)
        if self._count > MOST:
            raise Failed(f"{self._name} said more than {MOST >> 20} MiB and was ended")
        *lines, self._line = (self._line + data).split(b"\n")
        for line in (*lines, self._line):
            if len(line) > LONGEST_LINE:
                raise Failed(
                    f"{self._name} said a line of more than {LONGEST_LINE >> 10} KiB and was ended"
                )
        for line in lines:
            self._told(line)


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks a program and all that it started to end, and makes it after GRACE seconds.

    One that has ended is left alone, with what it left running on purpose.
    """
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        pass
    except BaseException:  # a second Ctrl-C
        _kill(process)
        raise
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Its group, whether its first process is still there or not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
