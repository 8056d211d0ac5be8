"""Which images a Dockerfile needs. Pure; buildah is what really reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_ESCAPE = re.compile(r"#\s*escape\s*=\s*(\S)\s*", re.IGNORECASE)
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(.+)", re.IGNORECASE)
_COPY_FROM = re.compile(r"(?:COPY|ADD)\s.*?--from=(\S+)", re.IGNORECASE)
_MOUNT_FROM = re.compile(r"--mount=\S*\bfrom=([^,\s]+)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?:(:[-+])([^}]*))?\}|(\w+))")


def images(text: str, arguments: Mapping[str, str]) -> list[str]:
    """Names of images that stages and copies begin from, as they are written.

    arguments: build arguments given; they go before the defaults of ARG.
    """
    found: dict[str, None] = {}
    stages: set[str] = set()
    values: dict[str, str] = {}
    before = True
    for line in _instructions(text):
        if before and (match := _ARG.fullmatch(line)):
            for word in match[1].split():
                name, _, default = word.partition("=")
                default = default.strip("\"'")
                values[name] = arguments.get(name, _expand(default, values))
        elif match := _FROM.fullmatch(line):
            before = False
            name = _expand(match[1].strip("\"'"), values)
            if name.lower() not in stages and name != "scratch":
                found[name] = None
            if match[2]:
                stages.add(match[2].lower())
        else:
            for name in _sources(line):
                if name.lower() not in stages and not name.isdigit():
                    found[_expand(name, values)] = None
    return list(found)


def _sources(line: str) -> Iterator[str]:
    if match := _COPY_FROM.match(line):
        yield match[1]
    if line[:4].upper() == "RUN ":
        yield from _MOUNT_FROM.findall(line)


def _instructions(text: str) -> Iterator[str]:
    """Instructions with their continued lines joined, without comments."""
    lines = text.lstrip("\ufeff").splitlines()
    escape = "\\"
    for line in lines:
        if not line.lstrip().startswith("#"):
            break
        if match := _ESCAPE.fullmatch(line.strip()):
            escape = match[1]
    whole = ""
    for line in lines:
        part = line.strip()
        if not part or part.startswith("#"):
            continue
        if part.endswith(escape):
            whole += part[:-1] + " "
            continue
        yield (whole + part).strip()
        whole = ""
    if whole.strip():
        yield whole.strip()


def _expand(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        got = values.get(match[1] or match[4], "")
        if match[2] == ":-":
            return got or match[3]
        if match[2] == ":+":
            return match[3] if got else ""
        return got

    return _VARIABLE.sub(value, text)
