"""Texts that look like secrets, for a question before they are given away. Pure.

It knows the shapes of well-known keys and tokens, and names under which passwords stand.
It finds what is likely, not everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gemel.compose import yamlread
from gemel.compose.problems import Problems, dotted

_SHAPES = (
    ("AWS Client ID", r"\b(?:A3T[A-Z0-9]|AKIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ASIA)[A-Z0-9]{16}\b"),
    ("Github authentication", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})"),
    ("GitLab token", r"\bglpat-[\w-]{20,}"),
    ("JSON Web Token", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
    ("Private Key", r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"),
    ("Slack token", r"\bxox[abposr]-[\w-]{10,}"),
    ("Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    ("Google API key", r"\bAIza[\w-]{35}"),
    ("Password in an address", r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@${}]{1,100}:[^\s:/@${}]{2,200}@"),
)  # fmt: skip
_SHAPE = [(kind, re.compile(pattern)) for kind, pattern in _SHAPES]
_KEY = re.compile(
    r"(?:^|[_.-])(?:password|pgpassword|passwd|pwd|pass|secret|token|api[_-]?key|private[_-]?key|access[_-]?key"
    r"|credentials?|auth)(?:$|[_.-])",
    re.IGNORECASE,
)
_AWS_SECRET = re.compile(r"aws\w*(?:secret|access)\w*key", re.IGNORECASE)
_FILE = re.compile(r"_(?:file|path|name|id|url|host|port|user|type|ttl)$", re.IGNORECASE)
"""Names that end so say where a secret is, not what it is."""
_ASSIGNED = re.compile(r"\s*(?:export\s+)?([A-Za-z_][\w.-]*)\s*[=:]\s*(.*)")
_LONGEST = 100_000


class Finding(NamedTuple):
    """kind: what it looks like. key: where it stands. value: the text, shortened."""

    kind: str
    key: str
    value: str


def kind_of(name: str, value: str) -> str:
    """What a value under this name looks like; "" for nothing secret."""
    for kind, shape in _SHAPE:
        if shape.search(value[:_LONGEST]):
            return kind
    if not _literal(value):
        return ""
    if _AWS_SECRET.search(name):
        return "AWS Secret Key"
    if _KEY.search(name) and not _FILE.search(name):
        return "Secret by its name"
    return ""


def _literal(value: str) -> bool:
    """Whether a text says something itself: no variable, no switch, no path of a file."""
    text = value.strip().strip("\"'")
    if len(text) < 3 or text.lower() in ("true", "false", "null", "none", "yes", "no"):
        return False
    return not text.replace("$$", "").startswith("$") and not text.startswith("/run/secrets/")


def shown(value: str) -> str:
    """The beginning of a secret: enough to know it again."""
    first = value.strip().splitlines()[0] if value.strip() else ""
    return first if first.startswith("-----BEGIN") else first[: min(4, len(first) // 3)] + "…"


def scan(name: str, text: str) -> list[Finding]:
    """What looks secret in a file: by keys in YAML, else by lines."""
    found = []
    if name.endswith((".yaml", ".yml", ".json")):
        for key, value in _yaml(name, text):
            found += _look(key, value)
    else:
        for line in text.splitlines()[:_LONGEST]:
            match = _ASSIGNED.fullmatch(line)
            found += _look(match[1], match[2]) if match else _look("", line)
    return list(dict.fromkeys(found))


def _look(key: str, value: str) -> list[Finding]:
    kind = kind_of(key.rpartition(".")[2], value)
    return [Finding(kind, key, shown(value))] if kind else []


def _yaml(name: str, text: str) -> Iterator[tuple[str, str]]:
    for document in yamlread.parse(text, name, name, Problems()):
        yield from _values(document.value, ())


def _values(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _entry(item, path, index)
    elif isinstance(value, str):
        yield dotted(path), value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield dotted(path), str(value)


def _entry(item: Any, path: tuple[str | int, ...], index: int) -> Iterator[tuple[str, str]]:
    """An entry of a list: ``KEY=value`` stands for a key of its own."""
    if isinstance(item, str):
        key, found, value = item.partition("=")
        if found and re.fullmatch(r"[\w.-]{1,100}", key):
            yield dotted((*path, key)), value
        else:
            yield dotted((*path, index)), item
    else:
        yield from _values(item, (*path, index))
