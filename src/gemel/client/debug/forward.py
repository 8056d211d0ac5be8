"""A port of this machine's loopback that leads into a service's own, while a block runs.

Each connection is a program of the toolbox (socat) whose input and output are the
connection's. So it works for a service that listens on its loopback alone, in
either runtime, and nothing stays open when the command ends.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from gemel.client.debug.toolbox import Beside
from gemel.client.hijack import Output, pump
from gemel.errors import Conflict, GemelError

#: Connections at the same time.
MOST = 16


class Forward:
    """Listens on 127.0.0.1 from the beginning of the block to its end."""

    def __init__(self, beside: Beside, target: int, port: int) -> None:
        """target: the service's port. port: ours; 0 for any that is free. Raises Conflict."""
        self._beside = beside
        self._target = target
        self._room = threading.Semaphore(MOST)
        self._open: set[socket.socket] = set()
        try:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=MOST)
        except OSError as error:
            raise Conflict(
                f"port {port} of this machine is taken",
                details=error.strerror or "",
                resolution="choose another one: --port NUMBER, or 0 for any",
            ) from error
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="forward", daemon=True)

    def __enter__(self) -> Forward:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            self._open.add(connection)
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._pump(connection)
        except (GemelError, OSError):
            pass  # its closing tells the other side
        finally:
            self._open.discard(connection)
            self._room.release()

    def _pump(self, connection: socket.socket) -> None:
        argv = ["/usr/bin/socat", "-", f"TCP:127.0.0.1:{self._target}"]
        _, stream = self._beside.open(argv)
        try:
            out = Output(connection.sendall, lambda data: None)
            pump(stream, out, stdin=connection.fileno(), raw=False)
        finally:
            stream.close()
