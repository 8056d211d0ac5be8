"""How an instance was when it last worked, and what is otherwise now. Pure."""

from __future__ import annotations

import hashlib
import re

import msgspec

from gemel.engine.records import Container
from gemel.model.docker import HostConfig
from gemel.observe.capture import mask

_PREFIX = "com.docker.compose."
_ASSIGNED = re.compile(
    r"(?i)(\b[\w.-]{0,64}(?:passw(?:or)?d|passwd|secret|token|api[-_]?key|access[-_]?key"
    r"|private[-_]?key|credential)[\w.-]{0,64}\s{0,4}[=:]\s{0,4})([^\s\"',;&}]+)"
)
_URL = re.compile(r"(\b[a-zA-Z][\w+.-]{0,30}://[^\s:/@]{0,128}:)[^\s@/]{1,256}@")


class Good(msgspec.Struct, kw_only=True):
    """What is kept of one that worked. env: a digest of each value, never the value."""

    key: str
    at: float
    """Seconds since the epoch."""
    image_id: str
    image_ref: str
    runtime: str
    argv: list[str]
    env: dict[str, str]
    memory: int = 0
    user: str = ""
    mounts: list[str] = []
    config_hash: str = ""


def key_of(one: Container) -> str:
    """By what it is known again when it is made anew: project, service, number, else its name."""
    labels = one.request.labels or {}
    parts = [labels.get(_PREFIX + k, "") for k in ("project", "service", "container-number")]
    return "/".join(parts) if all(parts) else one.name


def facts(one: Container, at: float) -> Good:
    """What is to be kept of one that works."""
    return Good(
        key=key_of(one),
        at=at,
        image_id=one.image_id,
        image_ref=one.image_ref,
        runtime=one.runtime.value,
        argv=list(one.argv),
        env={name: _digest(value) for name, value in environment(one)},
        memory=(one.request.host_config or HostConfig()).memory or 0,
        user=one.request.user,
        mounts=sorted(f"{m.name or m.source}:{m.target}" for m in one.mounts if not m.anonymous),
        config_hash=(one.request.labels or {}).get(_PREFIX + "config-hash", ""),
    )


def environment(one: Container) -> list[tuple[str, str]]:
    """Names and values."""
    pairs = [entry.partition("=") for entry in one.request.env or []]
    return [(name, value) for name, _, value in pairs]


def masked(one: Container) -> list[str]:
    """The environment as it may be shown."""
    return [f"{name}={mask.header(name, text(value))}" for name, value in environment(one)]


def text(words: str) -> str:
    """Free text with what looks like secrets masked: those that have a name, and in addresses."""
    found = mask.body(words)
    return _URL.sub(rf"\1{mask.HIDDEN}@", _ASSIGNED.sub(rf"\1{mask.HIDDEN}", found))


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def differences(before: Good, now: Good) -> list[str]:
    """What is otherwise, a line each."""
    found = []
    if before.image_id != now.image_id:
        old, new = before.image_id[7:19], now.image_id[7:19]
        found.append(f"image: {before.image_ref} ({old}) → {now.image_ref} ({new})")
    for what, old, new in (
        ("runtime", before.runtime, now.runtime),
        ("command", " ".join(before.argv)[:200], " ".join(now.argv)[:200]),
        ("user", before.user or "root", now.user or "root"),
        ("memory limit", _size(before.memory), _size(now.memory)),
    ):
        if old != new:
            found.append(f"{what}: {old} → {new}")
    found += _sets("mount", set(before.mounts), set(now.mounts))
    found += _sets("variable", before.env.keys() - now.env.keys(), now.env.keys() - before.env)
    changed = [n for n in sorted(before.env.keys() & now.env) if before.env[n] != now.env[n]]
    found += [f"variable {name} has another value" for name in changed]
    if not found and before.config_hash != now.config_hash:
        found.append("the service's configuration in the Compose file")
    return found


def _sets(what: str, before: set[str], now: set[str]) -> list[str]:
    gone, added = sorted(before - now), sorted(now - before)
    return [f"{what} {one} is gone" for one in gone] + [f"{what} {one} is new" for one in added]


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit else "none"
