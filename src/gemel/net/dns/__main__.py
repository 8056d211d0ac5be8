"""``python -m gemel.net.dns``: starts the server in the background; returns once it is ready."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
from pathlib import Path

from gemel.host import privileges
from gemel.net.dns.server import serve


def main() -> None:
    """Binds the control socket as root, goes to the background, becomes nobody, serves."""
    parser = argparse.ArgumentParser(prog="gemel-dns")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    arguments = parser.parse_args()
    folder: Path = arguments.run_dir / "dns"
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # a relative path: those of unix sockets may not be longer than 107 bytes
    os.chdir(folder)
    Path("control.sock").unlink(missing_ok=True)
    before = os.umask(0o177)
    control.bind("control.sock")
    os.umask(before)
    control.listen(8)
    ready = privileges.detach(folder / "log")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    (folder / "pid").write_text(f"{os.getpid()} {privileges.start_time(os.getpid())}\n")
    privileges.set_name("gemel-dns")
    if os.geteuid() == 0:
        privileges.drop_root(keep=(privileges.NET_BIND_SERVICE,))
    asyncio.run(serve(control, arguments.resolv_conf, ready))


if __name__ == "__main__":
    main()
