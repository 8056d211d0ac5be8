"""Who is let in: one-time codes, sessions, and the names that a browser may call this by. Pure."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

#: Seconds that a code may wait for its one use; seconds that a session may lie unused.
CODE_LIFE, SESSION_LIFE = 3600.0, 7 * 86400.0
#: Codes and sessions at once; the oldest go first.
MOST = 64

_NAMES = ("127.0.0.1", "localhost")


def _digest(text: str) -> bytes:
    # what is looked up is a digest: how long that takes tells nothing of the secret
    return hashlib.sha256(text.encode()).digest()


class Gate:
    """Codes come from the engine; each opens one session. Secrets are kept as digests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._codes: dict[bytes, float] = {}
        self._sessions: dict[bytes, float] = {}

    def add_code(self, code: str) -> None:
        """A code that opens one session."""
        self._codes[_digest(code)] = self._clock() + CODE_LIFE
        while len(self._codes) > MOST:
            del self._codes[next(iter(self._codes))]

    def redeem(self, code: str) -> str:
        """A new session for a code that is good and was not used; "" for any other."""
        ends = self._codes.pop(_digest(code), 0.0)
        if ends < self._clock():
            return ""
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = self._clock() + SESSION_LIFE
        while len(self._sessions) > MOST:
            del self._sessions[next(iter(self._sessions))]
        return session

    def knows(self, session: str) -> bool:
        """Whether a session is open; that it is used keeps it open."""
        key = _digest(session)
        if self._sessions.get(key, 0.0) < self._clock():
            return False
        self._sessions[key] = self._clock() + SESSION_LIFE
        return True


def host_is_ours(host: str) -> bool:
    """Whether a Host header names this machine's loopback, by whatever port it is reached.

    A page of somebody else's can have its own name resolved to 127.0.0.1, but not
    make a browser send another name than its own.
    """
    try:
        return urlsplit(f"//{host}").hostname in _NAMES
    except ValueError:
        return False


def origin_is_ours(origin: str | None, host: str, *, needed: bool) -> bool:
    """Whether a request comes from this very page; a browser may leave it out of a plain GET."""
    if origin is None:
        return not needed
    return origin == f"http://{host}"
