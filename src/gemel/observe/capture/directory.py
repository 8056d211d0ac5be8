"""Who has which address: now, and a little while ago."""

from __future__ import annotations

from collections.abc import Mapping

from gemel.observe.capture.records import Peer

#: Seconds for which an address that nobody has any more still names who had it: packets wait
#: in the ring, and what is over in a moment (a command, a job) is gone when they are read.
LINGER = 10.0


class Directory:
    """Names of addresses. An address that is given to another names that one at once."""

    def __init__(self) -> None:
        self._now: Mapping[str, Peer] = {}
        self._gone: dict[str, tuple[float, Peer]] = {}

    def learn(self, peers: Mapping[str, Peer], now: float) -> None:
        """All that have an address at this moment (seconds of any steady clock)."""
        for address, peer in self._now.items():
            if address not in peers:
                self._gone[address] = (now, peer)
        self._gone = {
            address: (since, peer)
            for address, (since, peer) in self._gone.items()
            if address not in peers and now - since < LINGER
        }
        self._now = peers

    def find(self, address: str, port: int) -> Peer:
        """The end of a connection, with its name if it has one."""
        known = self._now.get(address)
        if known is None:
            known = self._gone.get(address, (0.0, None))[1]
        if known is None:
            return Peer(address, port)
        return Peer(address, port, known.instance, known.name, known.service, known.project)
