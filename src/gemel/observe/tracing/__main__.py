"""``python -m gemel.observe.tracing``: starts the process in the background, once ready returns."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from pathlib import Path

from gemel.host import helper, packets, privileges
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
    otlp = [socket.socket(fileno=number) for number in arguments.otlp]
    control, ready = helper.begin(folder, "gemel-traces")
    packets.limit_memory(MEMORY)
    if os.geteuid() == 0:
        privileges.drop_root()
    asyncio.run(_serve(control, otlp, ready))


if __name__ == "__main__":
    main()
