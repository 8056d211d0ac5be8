"""Secrets do not go into the record: the rules by which they are found. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

HIDDEN = "***"

_NAME = (
    r"(?:authorization|passw(?:or)?d|passwd|pwd|secret|token|api[-_]?key|apikey|access[-_]?key"
    r"|private[-_]?key|credential|session[-_]?id|sessionid|signature|auth)"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_COOKIE = re.compile(r"([^=;\s]+)=([^;]*)")
_SCHEME = re.compile(r"(Basic|Bearer|Digest|Negotiate|Token|AWS4-HMAC-SHA256)\s", re.IGNORECASE)
_JSON = re.compile(
    r'("[^"\\]{0,64}' + _NAME + r'[^"\\]{0,64}"\s*:\s*)("(?:[^"\\]|\\.)*"?|[^\s,}\]]+)',
    re.IGNORECASE,
)
_FORM = re.compile(r"((?:^|[?&;])[^=&?;\s]{0,64}" + _NAME + r"[^=&?;\s]{0,64}=)[^&;\s#]*", re.I)
_JWT = re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?")
_SQL = re.compile(r"(\bpassword\s+)('(?:[^']|'')*'?)", re.IGNORECASE)


#: Length of a header up to which its masking is remembered.
SHORT = 512


def header(name: str, value: str) -> str:
    """The value of a header as it may be shown: the scheme, and the names of cookies, stay."""
    short = len(name) + len(value) <= SHORT
    return _short_header(name, value) if short else _header(name, value)


def _header(name: str, value: str) -> str:
    lower = name.lower()
    if lower == "cookie":
        return _COOKIE.sub(rf"\1={HIDDEN}", value)
    if lower == "set-cookie":
        first, sep, rest = value.partition(";")
        return f"{first.partition('=')[0]}={HIDDEN}{sep}{rest}"
    if lower in ("www-authenticate", "proxy-authenticate"):
        return value
    if _SECRET_NAME.search(lower):
        scheme = _SCHEME.match(value)
        return f"{scheme[1]} {HIDDEN}" if scheme else HIDDEN
    return _plain(value)


_short_header = lru_cache(maxsize=4096)(_header)


def _plain(text: str) -> str:
    """What needs no look at names but those of a form."""
    if "=" in text:
        text = _FORM.sub(rf"\1{HIDDEN}", text)
    return _JWT.sub(HIDDEN, text) if "eyJ" in text else text


def path(text: str) -> str:
    """A path with its query."""
    return _plain(text)


def body(text: str) -> str:
    """The start of a body: JSON members, form fields and tokens by their names and looks."""
    if '"' in text and _SECRET_NAME.search(text):
        text = _JSON.sub(rf'\1"{HIDDEN}"', text)
    return _plain(text)


def sql(text: str) -> str:
    """A statement: the password of CREATE ROLE and the like."""
    return _SQL.sub(rf"\1'{HIDDEN}'", text)
