"""``$VAR``, ``${VAR}`` and its operators in the texts of a document, nested ones included.

The grammar is Compose's: names are ``[_a-zA-Z][_a-zA-Z0-9]*``, ``$$`` is a dollar
sign, a dollar sign before anything else stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gemel.compose.problems import Path
from gemel.compose.tables import Table

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATOR = re.compile(r":?[-+?]")


class BadTemplate(Exception):
    """A text that cannot be interpolated; the message says why, or nothing if that was told."""


class Variables:
    """Variables for interpolation; ``missing`` collects names that were not set, in order.

    unsure: an env file is wrong, so that what is not set may stand there.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        missing: dict[str, None] | None = None,
        unsure: bool = False,
    ) -> None:
        self.values = values
        self.missing: dict[str, None] = {} if missing is None else missing
        self.unsure = unsure

    def with_more(self, values: Mapping[str, str], unsure: bool = False) -> Variables:
        """The same with ``values`` for names that are not set."""
        return Variables({**values, **self.values}, self.missing, unsure or self.unsure)


def substitute(text: str, variables: Variables) -> str:
    """``text`` with its variables replaced. Raises BadTemplate."""
    if "$" not in text:
        return text
    out: list[str] = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0 or dollar + 1 >= len(text):
            out.append(text[at:])
            return "".join(out)
        out.append(text[at:dollar])
        piece, at = _one(text, dollar + 1, variables)
        out.append(piece)


def parts(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, operator and word of every variable in a text. Raises BadTemplate."""
    at = 0
    while 0 <= (dollar := text.find("$", at)) < len(text) - 1:
        at = dollar + 1
        inner, end = "", at + 1
        if text[at] == "{":
            end = _closing(text, at) + 1
            inner = text[at + 1 : end - 1]
        name = _NAME.match(inner or text, 0 if inner else at)
        if name is not None:
            operator = _OPERATOR.match(inner, name.end()) if inner else None
            word = inner[operator.end() :] if operator else ""
            yield name[0], operator[0] if operator else "", word
            end = end if inner else name.end()
        at = end


def _one(text: str, at: int, variables: Variables) -> tuple[str, int]:
    """The value of what follows a dollar sign, and where it ends."""
    if text[at] == "$":
        return "$", at + 1
    if text[at] == "{":
        end = _closing(text, at)
        return _braced(text[at + 1 : end], variables), end + 1
    name = _NAME.match(text, at)
    if name is None:
        return "$", at
    return _plain(name[0], variables), name.end()


def _closing(text: str, at: int) -> int:
    depth = 0
    for index in range(at, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise BadTemplate(f'invalid interpolation "{text}": no closing brace (write $$ for a $)')


def _plain(name: str, variables: Variables) -> str:
    value = variables.values.get(name)
    if value is None:
        if variables.unsure:
            raise BadTemplate
        variables.missing[name] = None
        return ""
    return value


def _braced(inner: str, variables: Variables) -> str:
    name = _NAME.match(inner)
    if name is None:
        raise BadTemplate(f'invalid interpolation "${{{inner}}}": no variable name')
    if name.end() == len(inner):
        return _plain(name[0], variables)
    operator = _OPERATOR.match(inner, name.end())
    if operator is None:
        raise BadTemplate(
            f'invalid interpolation "${{{inner}}}": after the name comes one of'
            " :- - :? ? :+ + or the closing brace"
        )
    return _operate(name[0], operator[0], inner[operator.end() :], variables)


def _operate(name: str, operator: str, word: str, variables: Variables) -> str:
    value = variables.values.get(name)
    there = value is not None and (operator[0] != ":" or value != "")
    kind = operator[-1]
    if kind == "+":
        return substitute(word, variables) if there else value or ""
    if there:
        return value or ""
    if kind == "-":
        return substitute(word, variables)
    if variables.unsure:
        raise BadTemplate
    reason = substitute(word, variables)
    told = f": {reason}" if reason else " (set it in the environment or in .env)"
    raise BadTemplate(f"required variable {name} is missing a value{told}")


Cast = Callable[[str], Any]


def _integer(text: str) -> int:
    if not re.fullmatch(r"[-+]?[0-9]+", text):
        raise ValueError(f'"{text}" is not a whole number')
    return int(text)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a number') from None


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in ("true", "y", "yes", "on"):
        return True
    if word in ("false", "n", "no", "off"):
        return False
    raise ValueError(f'"{text}" is neither true nor false')


_SERVICE: dict[str, Cast] = {
    **dict.fromkeys(
        [
            "cpu_count",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "cpu_shares",
            "deploy.replicas",
            "deploy.update_config.parallelism",
            "deploy.rollback_config.parallelism",
            "deploy.restart_policy.max_attempts",
            "deploy.placement.max_replicas_per_node",
            "healthcheck.retries",
            "oom_score_adj",
            "pids_limit",
            "ports.*.target",
            "scale",
            "ulimits.*",
            "ulimits.*.hard",
            "ulimits.*.soft",
        ],
        _integer,
    ),
    **dict.fromkeys(
        [
            "cpu_percent",
            "cpus",
            "deploy.update_config.max_failure_ratio",
            "deploy.rollback_config.max_failure_ratio",
        ],
        _float,
    ),
    **dict.fromkeys(
        [
            "init",
            "depends_on.*.required",
            "depends_on.*.restart",
            "healthcheck.disable",
            "oom_kill_disable",
            "privileged",
            "read_only",
            "stdin_open",
            "tty",
            "volumes.*.read_only",
            "volumes.*.volume.nocopy",
            "build.no_cache",
            "build.pull",
            "build.privileged",
            "attach",
            "volumes.*.bind.create_host_path",
            "env_file.*.required",
            "post_start.*.privileged",
            "pre_stop.*.privileged",
            "pre_start.*.privileged",
            "pre_start.*.per_replica",
        ],
        _boolean,
    ),
}
_TOP = [
    "networks.*.external",
    "networks.*.internal",
    "networks.*.attachable",
    "networks.*.enable_ipv4",
    "networks.*.enable_ipv6",
    "volumes.*.external",
    "secrets.*.external",
    "configs.*.external",
]
CASTS: Table[Cast] = Table(
    {f"services.*.{key}": cast for key, cast in _SERVICE.items()} | dict.fromkeys(_TOP, _boolean)
)
"""Where a text stands for a number or a boolean, as interpolation can only make texts."""


Tell = Callable[[Path, str], None]


def interpolate(
    value: Any, variables: Variables | None, tell: Tell, table: Table[Cast] | None = CASTS
) -> Any:
    """A copy of ``value``, interpolated (unless ``variables`` is None) and cast.

    tell: is given the path and the words of what went wrong.
    """
    return _walk(value, variables, tell, table, ())


def _walk(
    value: Any, variables: Variables | None, tell: Tell, table: Table[Cast] | None, path: Path
) -> Any:
    if isinstance(value, str):
        if "$" in value or (table is not None and table.entry is not None):
            return _text(value, variables, tell, table, path)
        return value
    if isinstance(value, dict):
        return {
            key: _walk(item, variables, tell, table and table.below(key), (*path, key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        star = table and table.star
        return [_walk(e, variables, tell, star, (*path, i)) for i, e in enumerate(value)]
    return value


def _text(
    text: str, variables: Variables | None, tell: Tell, table: Table[Cast] | None, path: Path
) -> Any:
    try:
        if variables is not None:
            text = substitute(text, variables)
        elif "$" in text:
            return text
        if table is not None and table.entry is not None:
            return table.entry(text)
    except (BadTemplate, ValueError) as error:
        tell(path, str(error))
    return text
