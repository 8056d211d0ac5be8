"""Where a build's cache is kept beside the builder's own: ``cache_from`` and ``cache_to``. Pure.

buildah keeps cached steps as images of one repository of a registry, under tags of its own:
one to read from and one to write to, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

_TAG = re.compile(r":[\w][\w.-]*$|@sha256:[0-9a-f]+$", re.ASCII)


class Caches(msgspec.Struct, frozen=True):
    """Repositories without a tag, empty for none; and for each entry without effect why."""

    source: str = ""
    target: str = ""
    unused_from: tuple[str, ...] = ()
    unused_to: tuple[str, ...] = ()


def choose(froms: Sequence[str], tos: Sequence[str]) -> Caches:
    """What is carried out of both lists, whose entries are as in a Compose file:
    ``NAME`` or ``type=registry,ref=NAME``.
    """
    target, unused_to = "", []
    for entry in tos:
        kind, name = _parse(entry)
        if kind not in ("registry", "") or not name:
            unused_to.append(_only(entry))
        elif target and target != name:
            unused_to.append(f"{entry}: a cache is written to one repository, here to {target}")
        else:
            target = name
    source, unused_from = "", []
    for entry in froms:
        kind, name = _parse(entry)
        if kind not in ("registry", "") or not name:
            unused_from.append(_only(entry))
        elif not kind and name != target:
            unused_from.append(
                f"{entry}: an image is no cache for buildah; what cache_to wrote to a registry"
                " is read by type=registry,ref=NAME"
            )
        elif source and source != name:
            unused_from.append(f"{entry}: a cache is read from one repository, here from {source}")
        else:
            source = name
    return Caches(source, target, tuple(unused_from), tuple(unused_to))


def _only(entry: str) -> str:
    return f"{entry}: a cache is kept in a registry alone (type=registry,ref=NAME)"


def _parse(entry: str) -> tuple[str, str]:
    """Type (empty: a bare name) and repository (empty if there is none)."""
    if "=" not in entry:
        return "", _TAG.sub("", entry.strip())
    parts = dict(part.strip().partition("=")[::2] for part in entry.split(","))
    return parts.get("type", "registry"), _TAG.sub("", parts.get("ref", ""))
