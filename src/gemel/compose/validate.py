"""Checks a document against the rules of ``schema``; tells of everything that is wrong."""

from __future__ import annotations

from typing import Any

from gemel.compose.broken import Scope
from gemel.compose.problems import Path, closest, nearest
from gemel.compose.raw import is_open
from gemel.compose.schema import COMPOSE, Rule, compiled

_WORDS = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "nothing",
}


def validate(value: Any, scope: Scope, rule: Rule = COMPOSE, at: Path = ()) -> None:
    """Checks ``value``, which stands at ``at``; what was told of already is passed over."""
    _Check(scope).value(value, rule, at)


class _Check:
    def __init__(self, scope: Scope) -> None:
        self._tell = scope.tell
        self._tell_key = scope.tell_key
        self._bad = scope.bad

    def value(self, value: Any, rule: Rule, path: Path) -> None:
        if self._bad and path in self._bad:
            return
        if isinstance(value, dict) and rule.fields is not None:
            self._mapping(value, rule, path)
        elif isinstance(value, list) and rule.items is not None:
            self._list(value, rule, path)
        elif isinstance(value, (dict, list)) or not _is_scalar(value, rule.scalars):
            words = f"{_name(path)} must be {expected(rule)}, not {kind(value)}"
            self._tell(path, words + hint(value, rule, path))
        elif rule.enum or rule.pattern or rule.low is not None:
            self._limits(value, rule, path)

    def _mapping(self, value: dict[str, Any], rule: Rule, path: Path) -> None:
        fields = rule.fields or {}
        if path == ("services",):
            self._too_far_left(value)
        for key, item in value.items():
            below = fields.get(key)
            if below is None:
                if rule.extensions and key.startswith("x-"):
                    continue
                below = rule.other
                if below is None:
                    elsewhere = _elsewhere(key, item, path)
                    words = f'unknown key "{key}"{elsewhere or nearest(key, fields)}'
                    meant = "" if elsewhere else closest(key, fields)
                    self._tell_key((*path, key), words, meant)
                    continue
                if rule.names and not compiled(rule.names).fullmatch(key):
                    words = f'"{key}" is not a valid name: letters, digits, . _ - are allowed'
                    self._tell_key((*path, key), words)
            self.value(item, below, (*path, key))

    def _too_far_left(self, services: dict[str, Any]) -> None:
        """Attributes that stand beside their service, which is empty, instead of below it."""
        empty, attributes = "", _service_fields()
        for name, item in services.items():
            if item is None:
                empty = name
            elif empty and name in attributes and not isinstance(item, dict):
                words = f'{name} belongs to the service "{empty}": indent it further than that'
                self._tell_key(("services", name), words)
                self._tell(("services", empty), "")

    def _list(self, value: list[Any], rule: Rule, path: Path) -> None:
        items = rule.items or Rule()
        for index, item in enumerate(value):
            self.value(item, items, (*path, index))
        if rule.unique and len(value) > 1:
            seen: set[str] = set()
            for index, item in enumerate(value):
                mark = repr(item)
                if mark in seen:
                    self._tell((*path, index), f"{_name(path)} has {_short(item)} twice")
                seen.add(mark)

    def _limits(self, value: Any, rule: Rule, path: Path) -> None:
        if isinstance(value, str):
            if is_open(value):
                return
            if rule.enum and value not in rule.enum:
                words = f'{_name(path)} is "{value}"{nearest(value, rule.enum)}'
                self._tell(path, f"{words}; it must be one of {', '.join(rule.enum)}")
            elif rule.pattern and not compiled(rule.pattern).fullmatch(value):
                self._tell(path, f'{_name(path)} cannot be "{value}"{_known(value, rule.pattern)}')
        elif isinstance(value, (int, float)):
            if rule.low is not None and value < rule.low:
                self._tell(path, f"{_name(path)} must be at least {rule.low}")
            elif rule.high is not None and value > rule.high:
                self._tell(path, f"{_name(path)} must be at most {rule.high}")


def _name(path: Path) -> str:
    """What a place is called in a message: the last keys of its path."""
    if not path:
        return "a Compose file"
    parts = path[2:] if len(path) > 2 and isinstance(path[0], str) else path
    out = ""
    for part in parts:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def _short(item: Any) -> str:
    text = str(item) if not isinstance(item, str) else f'"{item}"'
    return text if len(text) <= 60 else text[:57] + "…"


def _known(value: str, pattern: str) -> str:
    """What a pattern takes, in words."""
    words = pattern.replace(r"every_([0-9]+[wdhms])+", "every_12h").split("|")
    if len(words) == 1:
        return f" (it must match {pattern})"
    return f"{nearest(value, words)}; it must be one of {', '.join(words)}"


_TIMES = frozenset(
    ["stop_grace_period", "interval", "timeout", "start_period", "start_interval", "delay"]
    + ["monitor", "window"]
)


def hint(value: Any, rule: Rule, path: Path) -> str:
    """What to write instead of a value of the wrong kind, in brackets."""
    if isinstance(value, dict) and path and isinstance(path[-1], int) and len(value) == 1:
        key, item = next(iter(value.items()))
        if path[-2:-1] == ("environment",) and not isinstance(item, (dict, list)):
            return f" (write {key}=VALUE, or leave out all the dashes)"
        return " (leave out the dashes, if a mapping is meant)"
    if isinstance(value, list) and rule.items is None and rule.fields is not None:
        return ' (write "name:" instead of "- name")'
    if isinstance(value, (bool, int, float)) and "string" in rule.scalars:
        if path[-1] in _TIMES:
            return f" (with its unit: {value}s)"
        return "" if "boolean" in rule.scalars else " (put it in quotes)"
    return ""


def _is_scalar(value: Any, kinds: frozenset[str]) -> bool:
    if isinstance(value, str):
        return "string" in kinds
    if value is None:
        return "null" in kinds
    if isinstance(value, bool):
        return "boolean" in kinds
    if isinstance(value, int):
        return "number" in kinds or "integer" in kinds
    if isinstance(value, float):
        return "number" in kinds or ("integer" in kinds and value.is_integer())
    return False


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {_short(value)}"
    return "a list" if isinstance(value, list) else "a mapping"


def expected(rule: Rule) -> str:
    """What a rule takes, in words."""
    kinds = rule.scalars
    if "number" in kinds:
        kinds = kinds - {"integer"}
    words = [_WORDS[k] for k in _WORDS if k in kinds]
    if rule.items is not None:
        simple = rule.items.scalars == frozenset(("string",)) and rule.items.fields is None
        words.append("a list of texts" if simple else "a list")
    if rule.fields is not None:
        words.append("a mapping")
    return " or ".join(words)


def _elsewhere(key: str, item: Any, path: Path) -> str:
    """A word on keys that people look for at the wrong level."""
    top, service = COMPOSE.fields or {}, _service_fields()
    if not path and key in service:
        return ' (it belongs to a service, under "services")'
    if not path and isinstance(item, dict) and ("image" in item or "build" in item):
        return ' (services stand below "services:", indented)'
    if len(path) != 2 or path[0] != "services":
        return ""
    if key in top and key not in service:
        return " (it belongs to the top of the file)"
    holder = _holder(key, service)
    return f' (it belongs to "{holder}")' if holder else ""


def _holder(key: str, fields: dict[str, Rule], above: str = "") -> str:
    """The attribute of a service that has ``key`` among its own keys; the least deep one."""
    groups = [(f"{above}{name}", rule.fields or {}) for name, rule in fields.items()]
    for name, below in groups:
        if key in below:
            return name
    for name, below in groups:
        if below and (found := _holder(key, below, f"{name}.")):
            return found
    return ""


def _service_fields() -> dict[str, Rule]:
    services = (COMPOSE.fields or {})["services"].other
    return (services and services.fields) or {}
