"""``python -m gemel.observe.capture``: starts the process in the background; returns once ready."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from gemel.host import carried, helper, packets, privileges
from gemel.observe.capture.server import Server

#: Bytes of address space; what is recorded takes a quarter of it at most.
MEMORY = 1 << 30
#: Where processors are short, services go first; the ring holds what comes meanwhile.
NICE = 5


def main() -> None:
    """Makes its sockets as root, goes to the background, becomes nobody, serves."""
    parser = argparse.ArgumentParser(prog="gemel-capture")
    parser.add_argument("--run-dir", type=Path, required=True)
    arguments = parser.parse_args()
    folder: Path = arguments.run_dir / "traffic"
    ledger = carried.Reader(carried.place(arguments.run_dir))
    control, ready = helper.begin(folder, "gemel-capture")
    ring = packets.PacketRing()
    packets.limit_memory(MEMORY)
    privileges.give_way(NICE)
    if os.geteuid() == 0:
        privileges.drop_root()
    with ring, ledger:
        asyncio.run(Server(ring, ledger).run(control, ready))


if __name__ == "__main__":
    main()
