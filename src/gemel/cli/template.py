"""The part of Go's templates that people use with ``--format``.

Fields (``{{.State.Status}}``), ``{{json .}}``, ``{{index .Map "key"}}``,
``{{len .}}``, ``{{upper}}``/``{{lower}}``, ``{{join .List ","}}``,
``{{range}}…{{end}}``, ``{{if}}…{{else}}…{{end}}``, ``{{println}}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from gemel.errors import InvalidInput

_TOKEN = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')

Node = str | tuple[str, str, list[Any], list[Any]] | tuple[str, str]


def render(template: str, data: Any) -> str:
    """The template filled in with ``data``. Raises InvalidInput for one that is not understood."""
    nodes, rest = _parse(_split(template), 0)
    if rest is not None:
        raise _wrong(template)
    return "".join(_run(nodes, data))


def unescape(template: str) -> str:
    r"""``\t`` and ``\n`` of the shell's single quotes as what they mean."""
    return template.replace("\\t", "\t").replace("\\n", "\n")


def _wrong(what: str) -> InvalidInput:
    return InvalidInput(
        f"template not understood: {what}",
        resolution="--format takes json, table, or a Go template such as '{{.Name}}'",
    )


def _split(template: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    at = 0
    for match in _TOKEN.finditer(template):
        out.append(("text", template[at : match.start()]))
        out.append(("code", match[1]))
        at = match.end()
    out.append(("text", template[at:]))
    return out


def _parse(tokens: list[tuple[str, str]], at: int) -> tuple[list[Any], int | None]:
    """Nodes from ``at`` on, and the index of the ``end``/``else`` that stopped them (None: end)."""
    nodes: list[Any] = []
    while at < len(tokens):
        kind, text = tokens[at]
        word, _, rest = text.partition(" ")
        if kind == "text":
            nodes.append(text)
        elif word in ("end", "else"):
            return nodes, at
        elif word in ("range", "if", "with"):
            body, stop = _parse(tokens, at + 1)
            other: list[Any] = []
            if stop is not None and tokens[stop][1] == "else":
                other, stop = _parse(tokens, stop + 1)
            if stop is None:
                raise _wrong(f"{{{{{word}}}}} without {{{{end}}}}")
            nodes.append((word, rest.strip(), body, other))
            at = stop
        else:
            nodes.append(("print", text))
        at += 1
    return nodes, None


def _run(nodes: list[Any], data: Any) -> list[str]:
    out: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif node[0] == "print":
            out.append(_show(_value(node[1], data)))
        else:
            out.extend(_block(node, data))
    return out


def _block(node: tuple[str, str, list[Any], list[Any]], data: Any) -> list[str]:
    word, expression, body, other = node
    names = re.match(r"(\$\w+)\s*(?:,\s*(\$\w+))?\s*:=\s*(.*)", expression)
    value = _value(names[3] if names else expression, data)
    if word == "if":
        return _run(body if value else other, data)
    if word == "with":
        return _run(body, value) if value else _run(other, data)
    pairs = value.items() if isinstance(value, dict) else enumerate(value or [])
    out: list[str] = []
    for key, item in pairs:
        inner = item
        if names:
            named = {names[1]: key, names[2]: item} if names[2] else {names[1]: item}
            inner = _Scope(data if isinstance(data, dict) else {}, named)
        out.extend(_run(body, inner))
    return out if value else _run(other, data)


class _Scope(dict[str, Any]):
    """Data with the variables of a range."""

    def __init__(self, data: dict[str, Any], names: dict[str, Any]) -> None:
        super().__init__(data)
        self.names = {**getattr(data, "names", {}), **names}


def _value(expression: str, data: Any) -> Any:
    if "|" in expression:
        first, _, second = expression.rpartition("|")
        return _call(second.strip(), [_value(first.strip(), data)], data)
    return _call(expression, [], data)


def _call(expression: str, piped: list[Any], data: Any) -> Any:
    words = _WORD.findall(expression)
    if not words:
        raise _wrong("{{}}")
    if len(words) == 1 and not piped and words[0][1] not in _FUNCTIONS:
        return _atom(words[0], data)
    name = words[0][1]
    function = _FUNCTIONS.get(name)
    if function is None:
        raise _wrong(expression)
    arguments = [_atom(word, data) for word in words[1:]] + piped
    try:
        return function(*arguments)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise _wrong(f"{expression} ({error})") from error


def _atom(word: tuple[str, str], data: Any) -> Any:
    quoted, bare = word
    if not bare:
        return unescape(quoted)
    if bare == ".":
        return data
    if bare.lstrip("-").isdigit():
        return int(bare)
    if bare.startswith("$"):
        head, _, rest = bare.partition(".")
        data = getattr(data, "names", {}).get(head, data)
        bare = "." + rest if rest else "."
        if bare == ".":
            return data
    if not bare.startswith("."):
        raise _wrong(bare)
    for part in bare[1:].split("."):
        if not isinstance(data, dict):
            return None
        data = data.get(part)
    return data


def _show(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{_show(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(_show(v) for v in value) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "index": _index,
    "len": len,
    "upper": lambda value: str(value).upper(),
    "lower": lambda value: str(value).lower(),
    "join": lambda value, between=" ": between.join(map(str, value)),
    "println": lambda *values: " ".join(map(_show, values)) + "\n",
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
}
