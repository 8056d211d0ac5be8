"""``python -m gemel.net.dns``: starts the server in the background; returns once it is ready."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from gemel.host import helper, privileges
from gemel.net.dns.server import serve


def main() -> None:
    """Binds the control socket as root, goes to the background, becomes nobody, serves."""
    parser = argparse.ArgumentParser(prog="gemel-dns")
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"))
    arguments = parser.parse_args()
    folder: Path = arguments.run_dir / "dns"
    control, ready = helper.begin(folder, "gemel-dns", backlog=8)
    if os.geteuid() == 0:
        privileges.drop_root(keep=(privileges.NET_BIND_SERVICE,))
    asyncio.run(serve(control, arguments.resolv_conf, ready))


if __name__ == "__main__":
    main()
