"""Where things lie. One object, made from --root and --run-dir, handed to every part."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec


class Paths(msgspec.Struct, frozen=True):
    """root (lasting, default /var/lib/gemel) and run (until reboot, default /run/gemel)."""

    root: Path
    run: Path

    @property
    def socket(self) -> Path:
        """The API's socket."""
        return self.run / "gemel.sock"

    @property
    def state(self) -> Path:
        """The sqlite file."""
        return self.root / "state.db"

    @property
    def images(self) -> Path:
        """Blobs, squashfs files and the index of images (gemel.image)."""
        return self.root / "images"

    @property
    def volumes(self) -> Path:
        """Named volumes: ``volumes/NAME/_data``."""
        return self.root / "volumes"

    @property
    def kernels(self) -> Path:
        """Guest kernels and initrds."""
        return self.root / "kernels"

    def layer(self, id: str) -> Path:
        """Folder of an instance's writable layer."""
        return self.root / "instances" / id / "layer"

    def instance(self, id: str) -> Path:
        """Folder of what lasts of an instance: log, files."""
        return self.root / "instances" / id

    def instance_run(self, id: str) -> Path:
        """Folder of a running instance: bundle, sockets, pid and exit files."""
        return self.run / "instances" / id

    def netns(self, id: str) -> Path:
        """Where an instance's network namespace is kept open."""
        return self.run / "netns" / id[:24]

    @property
    def cgroup(self) -> str:
        """Name of the control group that this engine's instances are under."""
        return "gemel-" + hashlib.sha256(str(self.run).encode()).hexdigest()[:8]
