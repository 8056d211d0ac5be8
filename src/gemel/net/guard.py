"""Keeps instances away from a TCP port of the engine's own, by a table of its own."""

from __future__ import annotations

from gemel.host import run
from gemel.model.paths import Paths
from gemel.net.names import BRIDGE_PREFIX


def table(paths: Paths) -> str:
    """Name of the table."""
    return f"{paths.cgroup}-api"


def rules(name: str, port: int) -> str:
    """Text for ``nft -f -``: no instance of any engine reaches the port."""
    return (
        f"table inet {name} {{}}\ndelete table inet {name}\n"
        f"table inet {name} {{\n    chain input {{\n"
        "        type filter hook input priority -10; policy accept;\n"
        f'        iifname "{BRIDGE_PREFIX}*" tcp dport {port} drop\n    }}\n}}\n'
    )


async def shut(paths: Paths, port: int) -> None:
    """Puts the rule in place. Raises Failed, Unavailable."""
    await run.run(["nft", "-f", "-"], input=rules(table(paths), port).encode())


async def open_again(paths: Paths) -> None:
    """Takes it away, whether it is there or not."""
    name = table(paths)
    text = f"table inet {name} {{}}\ndelete table inet {name}\n"
    await run.run(["nft", "-f", "-"], input=text.encode(), check=False)
