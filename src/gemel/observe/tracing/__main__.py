"""``python -m gemel.observe.tracing``: starts the process in the background, once ready returns."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
from pathlib import Path

from gemel.host import packets, privileges
from gemel.observe.tracing.server import Server

#: Bytes of address space; what is kept takes a quarter of it at most.
MEMORY = 1 << 30


async def _serve(control: socket.socket, otlp: list[socket.socket], ready: int) -> None:
    await Server().run(control, otlp, ready)


def main() -> None:
    """Makes its socket as root, goes to the background, becomes nobody, serves.

    --otlp: numbers of descriptors that listen for OTLP.
    """
    parser = argparse.ArgumentParser(prog="gemel-traces")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--otlp", type=int, nargs="*", default=[])
    arguments = parser.parse_args()
    folder: Path = arguments.run_dir / "traces"
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # a relative path: those of unix sockets may not be longer than 107 bytes
    os.chdir(folder)
    Path("control.sock").unlink(missing_ok=True)
    before = os.umask(0o177)
    control.bind("control.sock")
    os.umask(before)
    control.listen(64)
    otlp = [socket.socket(fileno=number) for number in arguments.otlp]
    ready = privileges.detach(folder / "log")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    (folder / "pid").write_text(f"{os.getpid()} {privileges.start_time(os.getpid())}\n")
    privileges.set_name("gemel-traces")
    packets.limit_memory(MEMORY)
    if os.geteuid() == 0:
        privileges.drop_root()
    asyncio.run(_serve(control, otlp, ready))


if __name__ == "__main__":
    main()
