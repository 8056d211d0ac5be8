"""Makes a running Python service accept a debugger. Runs in the toolbox, beside the service.

debugpy's adapter runs here; the service's process only connects to it. The code that
does so is called in the process: by the interpreter's own way (PEP 768) where it has
it, else by calling the interpreter's C functions. debugpy's files are read through the
root of a process of ours that has the service's user and nothing else, so that no
file system of the service is touched.

argument: JSON {"pid": 0 or which, "wait": whether it was started halted, "seconds": patience}.
Says one line of JSON, then waits for the end of its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from gemel.client.debug.inside import processes
from gemel.client.debug.inside.tracee import (
    Tracee,
    Trouble,
    mappings,
    supported,
    symbols,
)

_DEBUGPY = "/opt/debugpy"
_WANTED = {
    "PyGILState_Check",
    "PyGILState_Ensure",
    "PyGILState_Release",
    "PyRun_SimpleString",
    "Py_AddPendingCall",
    "Py_RunMain",
}
_libc = ctypes.CDLL(None, use_errno=True)

#: What the service's process carries out. In a thread of its own, so that the service goes
#: on meanwhile; but when it waits for the debugger.
_INSIDE = """
def _gemel():
    import sys, threading
    def work():
        import os, socket, traceback
        said = 'ok'
        name = 'PYDEVD_DISABLE_FILE_VALIDATION'
        try:
            path = {path!r}
            for module in list(sys.modules.values()):
                places = getattr(module, '__path__', None)
                if type(places) is list:
                    places[:] = [{old}.sub(path, place) if type(place) is str else place
                                 for place in places]
            sys.path[:] = [{old}.sub(path, place) if type(place) is str else place
                           for place in sys.path]
            before = os.environ.get(name)
            os.environ[name] = '1'
            sys.path.insert(0, path)
            try:
                import debugpy, debugpy.server.api, pydevd
            finally:
                if path in sys.path:
                    sys.path.remove(path)
                if before is None:
                    os.environ.pop(name, None)
            # pydevd forgets its debugger some time after the editor has gone, or does not
            attached = getattr(sys, '_gemel_attached', False)
            if attached or pydevd.get_global_debugger() is not None:
                raise RuntimeError('attached before')
            api = debugpy.server.api
            def connect(address, settings):  # as debugpy.listen, with our adapter
                api._settrace(host=address[0], port=address[1], wait_for_ready_to_run=False,
                              block_until_connected=True, **settings)
            api._starts_debugging(connect)(('127.0.0.1', {port}))
            sys._gemel_attached = True
            said += ' ' + debugpy.__version__
        except BaseException:
            said = traceback.format_exc()
        answer = socket.create_connection(('127.0.0.1', {answer}))
        answer.sendall(said.encode())
        answer.close()
        if {wait} and said[:2] == 'ok':
            debugpy.wait_for_client()
    if getattr(sys, '_gemel_debugger', 0) == {answer}:
        return  # handed over a second time, since the first took long
    sys._gemel_debugger = {answer}
    if {wait}:
        work()
    else:
        threading.Thread(target=work, name='gemel debugger', daemon=True).start()
_gemel()
"""


def interpreter(pid: int) -> dict[str, int]:
    """Addresses of the interpreter's functions; empty for what is no Python."""
    for mapping in mappings(pid):
        name = mapping.path.rsplit("/", 1)[-1]
        if "python" in name or "pypy" in name:
            found = symbols(pid, mapping, _WANTED)
            if "PyRun_SimpleString" in found:
                return found
    return {}


def version(pid: int) -> tuple[int, int]:
    """The interpreter's version, by the names of its files; (0, 0) if they do not tell."""
    for mapping in mappings(pid):
        match = re.search(r"python(\d)\.(\d+)", mapping.path)
        if match:
            return int(match[1]), int(match[2])
    return 0, 0


def choose(wanted: int) -> tuple[int, list[int]]:
    """The process to attach to, and all of the service that are Python. Raises Trouble."""
    of_service = processes.all_of_service()
    found = [pid for pid in of_service if interpreter(pid)]
    if wanted:
        if wanted not in found:
            raise Trouble(f"process {wanted} is none of the service's that runs Python")
        return wanted, found
    if not found:
        seen = ", ".join(f"{pid} {processes.program(pid)}" for pid in of_service[:8])
        raise Trouble(f"the service runs no Python that could be debugged; it runs: {seen}")
    return found[0], found


class Holder:
    """A process with the service's user and no capability, whose root is the toolbox.

    What may be read through /proc/PID/root is decided as for tracing: by the same user,
    with no more capabilities.
    """

    def __init__(self, pid: int) -> None:
        uid, gid, groups = processes.owner(pid)
        self._end, self._own = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._hold(uid, gid, groups)
        os.close(self._end)

    def _hold(self, uid: int, gid: int, groups: list[int]) -> None:
        try:
            os.close(self._own)
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)
            if _libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
                os._exit(1)
            _libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: a change of user had taken it
            os.read(self._end, 1)
        finally:
            os._exit(0)

    @property
    def root(self) -> str:
        """The toolbox's root, as the service's process can open it."""
        return f"/proc/{self.pid}/root"

    def close(self) -> None:
        """Ends it."""
        os.close(self._own)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def start_adapter(seconds: float) -> tuple[int, int]:
    """debugpy's adapter: the ports for the editor and for the service's process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(seconds)
        port = str(listener.getsockname()[1])
        command = [sys.executable, f"{_DEBUGPY}/debugpy/adapter", "--for-server", port]
        command += ["--host", "127.0.0.1", "--port", "0"]
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=seconds)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            raise Trouble("debugpy's adapter did not start in time") from None
        with connection:
            connection.settimeout(seconds)
            told = json.loads(_all_of(connection))
    if "error" in told:
        raise Trouble(str(told["error"]))
    return int(told["client"]["port"]), int(told["server"]["port"])


def _all_of(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < 1 << 20 and (piece := connection.recv(65536)):
        data += piece
    return data


class Injection:
    """The code, and where its answer comes."""

    def __init__(self, root: str, port: int, wait: bool) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        old = "__import__('re').compile('^/proc/[0-9]+/root/opt/debugpy')"
        self.code = _INSIDE.format(
            path=root + _DEBUGPY,
            port=port,
            answer=self._listener.getsockname()[1],
            wait=wait,
            old=old,
        ).encode()

    def answered(self, seconds: float) -> bool:
        """Whether the answer is there, within so many seconds."""
        return bool(select.select([self._listener], [], [], seconds)[0])

    def answer(self, seconds: float) -> str:
        """Version of the debugpy that has connected. Raises Trouble with what went wrong."""
        if not self.answered(seconds):
            raise Trouble(
                "the service's Python did not carry out the debugger's code in time: "
                "its main thread may be in native code that does not return"
            )
        with self._listener.accept()[0] as connection:
            connection.settimeout(10)
            text = _all_of(connection).decode("utf-8", "replace")
        if "attached before" in text:
            # pydevd takes a second session in one process, and then misses breakpoints
            raise Trouble(
                "a debugger is or was attached to this process: its breakpoints would not be sure "
                "to be hit in a second session (start the service anew: gemel restart)"
            )
        if not text.startswith("ok"):
            raise Trouble("debugpy failed in the service's process:\n" + text)
        return text[3:]

    def close(self) -> None:
        """No answer is waited for any more."""
        self._listener.close()


def by_interpreter(pid: int, code: bytes, injection: Injection, root: str) -> bool:
    """PEP 768: the service's own interpreter hands the code over. False: it cannot."""
    if version(pid) < (3, 14):
        return False
    exe = os.readlink(f"/proc/{pid}/exe")
    with tempfile.NamedTemporaryFile(suffix=".py") as file:
        file.write(code)
        file.flush()
        os.chmod(file.name, 0o644)
        call = f"import sys; sys.remote_exec({pid}, {root + file.name!r})"
        done = subprocess.run(
            [exe, "-I", "-c", call],
            preexec_fn=lambda: _enter(pid),
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
        return done.returncode == 0 and injection.answered(10)


def _enter(pid: int) -> None:
    os.chroot(f"/proc/{pid}/root")
    os.chdir("/")


def by_calls(pid: int, code: bytes, seconds: float) -> None:
    """Calls the interpreter's functions in the process's main thread. Raises Trouble."""
    if not supported():
        raise Trouble("Python before 3.14 can only be attached to on x86-64")
    known = interpreter(pid)
    with Tracee(pid, seconds) as main:
        place = _put(main, code)
        if known.get("PyGILState_Check") and main.call(known["PyGILState_Check"]) & 0xFFFFFFFF:
            # it is in the midst of Python code: that is to come to a safe place first
            if main.call(known["Py_AddPendingCall"], known["PyRun_SimpleString"], place):
                raise Trouble("the interpreter takes no further calls now: try again")
            return
        state = main.call(known["PyGILState_Ensure"]) & 0xFFFFFFFF
        main.call(known["PyRun_SimpleString"], place)
        main.call(known["PyGILState_Release"], state)


def _put(thread: Tracee, code: bytes) -> int:
    """The code in the process's memory, in pages of its own."""
    size = -(-(len(code) + 1) // 4096) * 4096
    for mapping in mappings(thread.pid):
        name = mapping.path.rsplit("/", 1)[-1]
        if re.match(r"(libc[.-]|ld-musl|libc\.musl)", name):
            found = symbols(thread.pid, mapping, {"mmap"})
            if "mmap" in found:
                # readable and writable, private and of no file
                place = thread.call(found["mmap"], 0, size, 3, 0x22, (1 << 64) - 1, 0)
                if place >= 1 << 63:
                    raise Trouble("the service's process has no memory for the debugger")
                thread.write(place, code + b"\0")
                return place
    raise Trouble("the service's C library was not found in its process")


def at_start(pid: int, code: bytes, seconds: float) -> None:
    """Of a halted process: runs it until Python is up, and calls the code there."""
    if not supported():
        raise Trouble("waiting for a debugger from the start works on x86-64 only")
    with Tracee(pid, seconds) as main:
        known: dict[str, int] = {}
        for _ in main.syscalls():
            known = interpreter(pid)
            if known.keys() >= {"Py_RunMain", "Py_AddPendingCall"}:
                break
        main.run_to(known["Py_RunMain"])
        # carried out before the first line of the program: it may wait there for long, so
        # it is not called here
        main.call(known["Py_AddPendingCall"], known["PyRun_SimpleString"], _put(main, code))


def attach(wanted: dict[str, Any]) -> dict[str, Any]:
    """Does it; what is told. Raises Trouble."""
    seconds = float(wanted["seconds"])
    end = time.monotonic() + seconds
    pid, others = (1, [1]) if wanted["wait"] else choose(int(wanted["pid"]))
    if wanted["wait"]:
        pid = int(os.readlink("/service").split("/")[2])
    holder = Holder(pid)
    port, server = start_adapter(seconds)
    way = "calls"
    injection = Injection(holder.root, server, bool(wanted["wait"]))
    if wanted["wait"]:
        at_start(pid, injection.code, seconds)
    elif by_interpreter(pid, injection.code, injection, holder.root):
        way = "remote_exec"
    else:
        by_calls(pid, injection.code, seconds)
    debugpy = injection.answer(max(5.0, end - time.monotonic()))
    return {
        "port": port,
        "pid": pid,
        "others": [p for p in others if p != pid],
        "python": ".".join(map(str, version(pid))),
        "debugpy": debugpy,
        "way": way,
        "folder": processes.folder(pid),
        "words": processes.words(pid),
    }


def end_children() -> None:
    """The adapter, which has made itself a stranger, is a child again: see main."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                    os.kill(int(name), 9)
    # none is left for the service's first process to reap
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, 0):
            pass


def main() -> int:
    """See the module's text."""
    _libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: the adapter is not the service's to reap
    try:
        told = attach(json.loads(sys.argv[1]))
        print(json.dumps(told), flush=True)
        while processes.alive(told["pid"]):
            ready, _, _ = select.select([0], [], [], 1.0)
            if ready and not os.read(0, 4096):
                return 0
        print(json.dumps({"ended": True}), flush=True)
        return 0
    except (Trouble, OSError, subprocess.SubprocessError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    finally:
        end_children()


if __name__ in ("__main__", "<gemel>"):
    sys.exit(main())
