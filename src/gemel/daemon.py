"""The engine as a process: ``gemel daemon``.

    lock → mount namespace → engine → API → ready … signal → API closed → engine closed

Instances go on running when the engine stops, and when it is killed. When it
stops and none is left, its mount namespace goes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import logging.handlers
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gemel.api import serve, tcp
from gemel.errors import GemelError
from gemel.host import lock, mountns
from gemel.model.paths import Paths
from gemel.net import guard

log = logging.getLogger("gemel.daemon")

#: Exit codes: stopped as asked; could not start (EX_TEMPFAIL of sysexits for "runs already").
OK, FAILED, RUNS_ALREADY = 0, 1, 75

_LOG_BYTES = 8 << 20
_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
#: Seconds that the engine is given to let go of everything when it stops.
_CLOSE_TIMEOUT = 30.0


def listener(
    url: str,
    *,
    cert: Path | None = None,
    key: Path | None = None,
    ca: Path | None = None,
    token_file: Path | None = None,
    hosts: Iterable[str] = (),
) -> tcp.Listen:
    """What ``gemel daemon --listen`` asks for. Raises InvalidInput for what is not safe."""
    address, port = tcp.parse(url)
    token = tcp.read_token(token_file) if token_file else ""
    return tcp.checked(tcp.Listen(address, port, cert, key, ca, token, frozenset(hosts)))


def run_daemon(paths: Paths, *, debug: bool = False, listen: tcp.Listen | None = None) -> int:
    """Runs the engine until it is told to stop, and gives back the exit code.

    Everything that keeps it from starting is told on standard error.
    """
    try:
        paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        paths.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        held = lock.acquire(paths.run / "gemel.lock", "an engine")
    except GemelError as error:
        print(error, file=sys.stderr)
        return RUNS_ALREADY
    except OSError as error:
        print(f"cannot prepare {paths.run} and {paths.root}: {error}", file=sys.stderr)
        return FAILED
    try:
        _set_up_logging(paths, debug)
        return _run_locked(paths, listen)
    finally:
        held.release()
        logging.shutdown()


def _run_locked(paths: Paths, listen: tcp.Listen | None) -> int:
    namespace: mountns.MountNamespace | None = None
    idle = False
    try:
        _prepare_process()
        namespace = mountns.enter(paths.run / "mnt")
        log.info(
            "mount namespace %s", "of an earlier engine" if namespace.adopted else "made and pinned"
        )
        idle = asyncio.run(_serve(paths, listen))
        return OK
    except GemelError as error:
        log.error("%s", error)
        # an engine that never started has nothing in a namespace that it made itself
        idle = namespace is not None and not namespace.adopted
        return FAILED
    except Exception:
        log.exception("the engine failed")
        return FAILED
    finally:
        if namespace is not None:
            _leave(namespace, idle)


def _leave(namespace: mountns.MountNamespace, idle: bool) -> None:
    if idle:
        try:
            namespace.release()
        except GemelError as error:
            log.warning("the mount namespace stays: %s", error)
    namespace.close()


def _prepare_process() -> None:
    """Limits, working folder, umask: what the engine's children inherit."""
    if found := os.environ.get("PYTHONPATH"):
        # helpers that are started from the new working folder must find gemel too
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, found.split(os.pathsep)))
    os.chdir("/")
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _set_up_logging(paths: Paths, debug: bool) -> None:
    """To standard error; and to a file unless systemd's journal keeps it already."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    formatter = logging.Formatter(_FORMAT)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if "JOURNAL_STREAM" not in os.environ:
        handlers.append(
            logging.handlers.RotatingFileHandler(
                paths.root / "engine.log", maxBytes=_LOG_BYTES, backupCount=1, delay=True
            )
        )
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


async def _serve(paths: Paths, listen: tcp.Listen | None) -> bool:
    """Opens the engine and answers until told to stop. True if no instance is left."""
    loop = asyncio.get_running_loop()
    _watch_children_by_pidfd()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, _tell_tasks)
    # loaded here: what cannot be loaded is told in the log like any other failure
    engine: Any = await importlib.import_module("gemel.engine.engine").Engine.open(paths)
    try:
        server = await serve(engine, paths.socket, on_shutdown=stop.set)
        try:
            if listen is not None:
                # the rule first: no instance ever reaches the port
                await guard.shut(paths, listen.port)
                await server.listen(listen)
            # what is loaded stays: it need not be looked through time and again
            gc.freeze()
            gc.set_threshold(5_000, 20, 20)
            notify("READY=1\nSTATUS=answering on " + str(paths.socket))
            log.info("answering on %s (process %d)", paths.socket, os.getpid())
            await stop.wait()
            notify("STOPPING=1")
            log.info("stopping; instances go on running")
        finally:
            await server.close()
            if listen is not None:
                await guard.open_again(paths)
        return not await engine.containers.list(False, 0, False, {})
    finally:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await engine.close()


def _watch_children_by_pidfd() -> None:
    """As Python does from 3.12 on by itself; 3.11 starts a thread for every program it runs."""
    if sys.version_info < (3, 12) and hasattr(os, "pidfd_open"):
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:
            return
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.get_event_loop_policy().set_child_watcher(watcher)


def _tell_tasks() -> None:
    """SIGUSR1 (as dockerd has it): writes where every task waits into the log."""
    for task in asyncio.all_tasks():
        lines = [task.get_name()]
        waiting: Any = task.get_coro()
        while waiting is not None:  # from the task's coroutine to the innermost one
            frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
            if frame is not None:
                lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
        log.info("%s", "\n    ".join(lines))


def notify(state: str) -> None:
    """Tells systemd (sd_notify's protocol), if it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.send(state.encode())
