"""YAML in the style of Go's yaml.v3: block style, lists indented, quotes only where needed.

PyYAML's C emitter cannot indent lists, its Python one takes seconds for large projects.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from gemel.compose.units import go_float
from gemel.compose.yamlread import plain

_OLD_BOOLEANS = frozenset(("y", "yes", "on", "n", "no", "off"))
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")
_SIMPLE = re.compile(r"[A-Za-z_./$][A-Za-z0-9_./$+=@-]*")
_QUOTED = re.compile(r"""[#,\[\]{}&*!|>'"%@` ]|[-?:]([ ]|$)|---|\.\.\.|.*(:([ ]|$)|[ ]\#|[ ]$)""")
_UNPRINTABLE = re.compile(
    r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_SPACE_BREAK = re.compile(r" \n")


def dump(value: Any) -> str:
    """``value`` (dicts, lists, scalars) as a YAML document."""
    if isinstance(value, (dict, list)) and value:
        lines: list[str] = []
        _block(value, "", lines)
        return "\n".join(lines) + "\n"
    return _inline(value, "") + "\n"


def _block(value: Any, indent: str, lines: list[str]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _entry(f"{indent}{_text(str(key))}:", item, indent + "  ", lines)
    else:
        for item in value:
            _item(item, indent, lines)


def _entry(head: str, value: Any, indent: str, lines: list[str]) -> None:
    if isinstance(value, (dict, list)) and value:
        lines.append(head)
        _block(value, indent, lines)
    else:
        lines.append(f"{head} {_inline(value, indent)}")


def _item(item: Any, indent: str, lines: list[str]) -> None:
    if isinstance(item, (dict, list)) and item:
        start = len(lines)
        _block(item, indent + "  ", lines)
        lines[start] = f"{indent}- {lines[start][len(indent) + 2 :]}"
    else:
        lines.append(f"{indent}- {_inline(item, indent + '  ')}")


def _inline(value: Any, indent: str) -> str:
    if isinstance(value, str):
        if "\n" in value and not _UNPRINTABLE.search(value) and not _SPACE_BREAK.search(value):
            return _literal(value, indent)
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return {"NaN": ".nan", "+Inf": ".inf", "-Inf": "-.inf"}.get(t := go_float(value), t)
    if isinstance(value, int):
        return str(value)
    return "{}" if isinstance(value, dict) else "[]"


def _literal(text: str, indent: str) -> str:
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    mark = "-" if ends == 0 else "" if ends == 1 else "+"
    hint = "2" if text[0] in " \n" else ""
    lines = [indent + line if line else "" for line in text[: len(text) - (ends > 0)].split("\n")]
    return "\n".join([f"|{hint}{mark}", *lines])


@functools.lru_cache(4096)
def _text(text: str) -> str:
    """A text on one line, plain or in the quotes that it needs."""
    if _SIMPLE.fullmatch(text):
        return f'"{text}"' if _ambiguous(text) else text
    if not text or _UNPRINTABLE.search(text) or "\n" in text:
        return _double(text)
    if _ambiguous(text):
        return f'"{text}"'
    if _QUOTED.match(text):
        return "'" + text.replace("'", "''") + "'"
    return text


def _double(text: str) -> str:
    escaped = json.dumps(text, ensure_ascii=False)
    out = []
    for char in escaped:
        if _UNPRINTABLE.match(char):
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
        else:
            out.append(char)
    return re.sub(r"\\u00([0-9a-f]{2})", lambda m: f"\\x{m[1].upper()}", "".join(out))


def _ambiguous(text: str) -> bool:
    """Whether some YAML reader would take the text for something else than a text."""
    if not isinstance(plain(text), str) or text.lower() in _OLD_BOOLEANS or text == "<<":
        return True
    return bool(_SIXTIES.fullmatch(text) or _DATE.fullmatch(text))


@functools.lru_cache(8192)
def natural(key: Any) -> list[tuple[int, int, str]]:
    """A key to sort by: other characters, then digits by value, then letters."""
    parts: list[tuple[int, int, str]] = []
    for number, other in re.findall(r"([0-9]+)|([^0-9])", str(key)):
        if number:
            parts.append((1, int(number), ""))
        else:
            parts.append((2 if other.isalpha() else 0, 0, other))
    return parts
