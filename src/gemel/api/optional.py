"""What the engine's interface does not promise: used where it is there, refused where not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemel.errors import Unsupported


def offered(part: object, name: str) -> Callable[..., Any]:
    """Method ``name`` of a part of the engine. Raises Unsupported if it has none."""
    method = getattr(part, name, None)
    if method is None:
        raise Unsupported(f"this engine does not offer {name} yet")
    result: Callable[..., Any] = method
    return result
