"""JSON bodies into structs, as Go's encoding/json reads them in dockerd.

Unknown fields are ignored, names match in any case, null leaves a field at its
default, a whole number may be written as a float. What does not fit is told in
Go's words, which clients show to people.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec

from gemel.errors import InvalidInput

T = TypeVar("T", bound=msgspec.Struct)
Convert = Callable[[Any, str], Any]

_INT64 = 1 << 63
_GO_NAMES = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}


def parse_json(body: bytes) -> Any:
    """A JSON text as Python values. Raises InvalidInput."""
    if not body.strip():
        raise InvalidInput("invalid JSON: got EOF while reading request body")
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise InvalidInput("invalid JSON", details=str(error)) from None


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON body as ``kind``. Raises InvalidInput."""
    value = parse_json(body)
    result: T = converter(kind)(value, "")
    return result


def decode_object(body: bytes) -> dict[str, Any]:
    """A JSON body that must be an object; an empty one gives {}. Raises InvalidInput."""
    if not body.strip():
        return {}
    value = parse_json(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _mismatch(value, "", "object")
    return value


def field(value: dict[str, Any], name: str, kind: Hashable, default: Any) -> Any:
    """Field ``name`` of an object, in any case, as ``kind``. Raises InvalidInput."""
    found = value.get(name)
    if found is None:
        lower = name.lower()
        found = next((v for k, v in value.items() if k.lower() == lower), None)
    return default if found is None else converter(kind)(found, f".{name}")


def _mismatch(value: Any, path: str, wanted: str) -> InvalidInput:
    name = _GO_NAMES.get(type(value), "object")
    where = f"Go struct field {path.lstrip('.')}" if path else "Go value"
    return InvalidInput(
        f"invalid JSON: json: cannot unmarshal {name} into {where} of type {wanted}"
    )


def _any(value: Any, path: str) -> Any:
    return value


def _string(value: Any, path: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _mismatch(value, path, "string")
    return value


def _boolean(value: Any, path: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _mismatch(value, path, "bool")
    return value


def _integer(value: Any, path: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, path, "int64")
    if isinstance(value, float) and not value.is_integer():
        raise _mismatch(value, path, "int64")
    if not -_INT64 <= value < _INT64:
        raise _mismatch(value, path, "int64")
    return int(value)


def _number(value: Any, path: str) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _mismatch(value, path, "float64")
    return float(value)


def _list_of(item: Convert) -> Convert:
    def convert(value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _mismatch(value, path, "array")
        return [item(part, path) for part in value]

    return convert


def _map_of(item: Convert) -> Convert:
    def convert(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _mismatch(value, path, "map")
        return {key: item(part, path) for key, part in value.items()}

    return convert


def _string_or_list(value: Any, path: str) -> list[str]:
    """Docker's StrSlice: one string means a list of one."""
    if isinstance(value, str):
        return [value]
    result: list[str] = _list_of(_string)(value, path)
    return result


def _optional(inner: Convert) -> Convert:
    def convert(value: Any, path: str) -> Any:
        return None if value is None else inner(value, path)

    return convert


def _struct(kind: type[msgspec.Struct]) -> Convert:
    hints = typing.get_type_hints(kind)
    table = {
        info.encode_name.lower(): (info.name, f".{info.encode_name}", converter(hints[info.name]))
        for info in msgspec.structs.fields(kind)
    }

    required = {
        info.name: f".{info.encode_name}" for info in msgspec.structs.fields(kind) if info.required
    }

    def convert(value: Any, path: str) -> msgspec.Struct:
        value = {} if value is None else value
        if not isinstance(value, dict):
            raise _mismatch(value, path, "object")
        known: dict[str, Any] = {}
        for key, part in value.items():
            entry = table.get(key.lower())
            if entry is not None and part is not None:
                known[entry[0]] = entry[2](part, path + entry[1])
        for name, wanted in required.items():
            if name not in known:
                raise InvalidInput(f"the field {(path + wanted).lstrip('.')} is missing")
        return kind(**known)

    return convert


@functools.cache
def converter(kind: Any) -> Convert:
    """The function that turns a JSON value into ``kind`` (made once for each kind)."""
    simple: dict[Any, Convert] = {
        Any: _any,
        str: _string,
        bool: _boolean,
        int: _integer,
        float: _number,
    }
    if kind in simple:
        return simple[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return _list_of(converter(arguments[0]))
    if origin is dict:
        return _map_of(converter(arguments[1]))
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in arguments if part is not type(None)]
        inner = _string_or_list if str in parts and len(parts) > 1 else converter(parts[0])
        return _optional(inner) if len(parts) < len(arguments) else inner
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind)
    raise TypeError(f"no way to decode {kind}")
