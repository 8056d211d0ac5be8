"""Query parameters, in the forms that dockerd takes."""

from __future__ import annotations

import datetime
import re
from urllib.parse import parse_qs, unquote

from gemel.api.decode import parse_json
from gemel.errors import InvalidInput

_FALSE = ("", "0", "no", "false", "none")
_TIME = re.compile(r"(-?\d{1,18})(?:\.(\d{1,9})\d*)?")
_MAX_INT = 1 << 63
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class Query:
    """The decoded query string of one request."""

    def __init__(self, text: str) -> None:
        try:
            self._values = parse_qs(text, keep_blank_values=True, max_num_fields=10_000)
        except ValueError as error:
            raise InvalidInput("too many query parameters", details=str(error)) from None

    def items(self) -> list[tuple[str, list[str]]]:
        """All parameters with all their values."""
        return list(self._values.items())

    def text(self, name: str, default: str = "") -> str:
        """First value of a parameter."""
        values = self._values.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        """All values of a parameter."""
        return self._values.get(name, [])

    def has(self, name: str) -> bool:
        """Whether it is there, even if empty."""
        return name in self._values

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's BoolValue: everything but a few words for no is true."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in _FALSE

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole number. Raises InvalidInput."""
        text = self.text(name).strip()
        if not text:
            return default
        try:
            value = int(text) if text.isascii() and len(text) < 20 else _MAX_INT
        except ValueError:
            value = _MAX_INT
        if not -_MAX_INT <= value < _MAX_INT or "_" in text:
            raise InvalidInput(
                f'strconv.Atoi: parsing "{text[:40]}": invalid syntax',
                details=f"query parameter {name}",
            )
        return value

    def filters(self, name: str = "filters") -> dict[str, list[str]]:
        """``{"a": ["b"]}`` or the older ``{"a": {"b": true}}``. Raises InvalidInput."""
        text = self.text(name)
        if not text:
            return {}
        value = parse_json(text.encode("utf-8", "surrogateescape"))
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise InvalidInput("invalid filter", details="filters are a JSON object")
        return {key: _filter_values(key, part) for key, part in value.items()}

    def moment(self, name: str) -> int:
        """Nanoseconds since the epoch of ``seconds[.fraction]`` or RFC 3339; 0 if absent."""
        text = self.text(name).strip()
        if not text:
            return 0
        found = _TIME.fullmatch(text)
        if found is None:
            return _rfc3339(name, text)
        seconds = int(found[1])
        fraction = int((found[2] or "").ljust(9, "0") or 0)
        return seconds * 1_000_000_000 + (-fraction if text.startswith("-") else fraction)


def _filter_values(key: str, value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, dict) and all(isinstance(item, bool) for item in value.values()):
        return [item for item, wanted in value.items() if wanted]
    raise InvalidInput("invalid filter", details=f"values of {key[:100]!r} must be strings")


def _rfc3339(name: str, text: str) -> int:
    try:
        # fromisoformat knows microseconds only: what is finer is added by hand
        whole, _, tail = text.partition(".")
        digits = re.match(r"\d*", tail)
        fraction = digits[0][:9] if digits else ""
        zone = tail[len(digits[0]) :] if digits else ""
        moment = datetime.datetime.fromisoformat(whole + zone)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        delta = moment - _EPOCH
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"invalid value for {name!r}: {text[:60]!r} is no time",
            resolution="give seconds since 1970, or a time like 2026-01-31T12:00:00Z",
        ) from None
    seconds = delta.days * 86400 + delta.seconds
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)


def unescape(path: str) -> str:
    """A path of a URL, unescaped; bytes that are no UTF-8 become U+FFFD."""
    return unquote(path, errors="replace")
