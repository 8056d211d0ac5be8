"""An image as the store knows it (OCI image-spec v1.1, config.md)."""

from __future__ import annotations

from typing import Any

import msgspec


class HealthConfig(msgspec.Struct, kw_only=True, rename="pascal", omit_defaults=True):
    """A health check (Docker's names; durations in nanoseconds)."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class ImageConfig(msgspec.Struct, kw_only=True, rename="pascal", omit_defaults=True):
    """What an image says of how it is run (the ``config`` object of OCI's config.md)."""

    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    healthcheck: HealthConfig | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class History(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of an image's history."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A stored image. id: ``sha256:`` and the digest of its config; size: bytes of its layers."""

    id: str
    tags: tuple[str, ...] = ()
    """Full references: ``docker.io/library/nginx:latest``, or as the user gave them, normalised."""
    digests: tuple[str, ...] = ()
    created: str = ""
    """RFC 3339."""
    architecture: str = "amd64"
    variant: str = ""
    os: str = "linux"
    author: str = ""
    comment: str = ""
    size: int = 0
    config: ImageConfig = msgspec.field(default_factory=ImageConfig)
    history: tuple[History, ...] = ()
    diff_ids: tuple[str, ...] = ()
    parent: str = ""
