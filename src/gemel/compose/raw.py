"""Texts that are read without filling in their variables (``config --no-interpolate``).

What such a text says is not known yet, so it is not checked. In every other reading a
``$`` is a dollar sign like any other character.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_RAW: ContextVar[bool] = ContextVar("raw", default=False)


@contextmanager
def reading(*, raw: bool) -> Iterator[None]:
    """Within it texts are read so."""
    token = _RAW.set(raw)
    try:
        yield
    finally:
        _RAW.reset(token)


def is_open(text: str) -> bool:
    """Whether what a text says depends on variables that are not filled in."""
    return "$" in text and _RAW.get()
