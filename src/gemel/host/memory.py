"""How much memory processes really take."""

from __future__ import annotations

from collections.abc import Iterable


def proportional(pids: Iterable[int]) -> int:
    """Sum of the proportional set sizes in bytes (what is shared is divided among its users).

    A process that is gone counts nothing.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith(b"Pss:"):
                        total += int(line.split()[1]) * 1024
                        break
        except (OSError, ValueError, IndexError):
            continue
    return total
