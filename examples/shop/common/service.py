"""What the shop's Python services share: a small JSON server on the standard library."""

import json
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
LARGEST_BODY = 64 * 1024


class Refused(Exception):
    """An answer other than 200: status and a message for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service(ThreadingHTTPServer):
    """Threads for requests; a queue long enough for a burst."""

    daemon_threads = True
    request_queue_size = 128


def serve(port: int, route: Callable[[str, str, Any], Answer]) -> None:
    """Serves until SIGTERM. route: method, path, decoded body → status, value or HTML bytes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            status, value = self.answer()
            html = isinstance(value, bytes)
            body = value if html else json.dumps(value).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8" if html else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = handle_any

        def answer(self) -> Answer:
            try:
                length = int(self.headers.get("Content-Length") or 0)
                if length > LARGEST_BODY:
                    return 413, {"error": "the body is too large"}
                body = json.loads(self.rfile.read(length)) if length else None
                return route(self.command, self.path, body)
            except Refused as refused:
                return refused.status, {"error": str(refused)}
            except ValueError as error:
                return 400, {"error": f"not understood: {error}"}
            except Exception as error:  # a bug or a dependency away: the caller is told, it is logged
                print(f"{self.command} {self.path}: {type(error).__name__}: {error}", file=sys.stderr)
                return 502, {"error": f"{type(error).__name__}: {error}"}

        def log_message(self, format: str, *args: object) -> None:
            if self.path != "/healthz":
                print(f"{self.client_address[0]} {format % args}", flush=True)

    server = Service(("0.0.0.0", port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on port {port}", flush=True)
    server.serve_forever(poll_interval=0.2)
    print("stopped", flush=True)
