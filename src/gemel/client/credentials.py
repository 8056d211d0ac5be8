"""Credentials for registries, as ``docker login`` leaves them: in config.json or with a helper.

What cannot be had is warned of and done without: most images want none.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gemel.errors import GemelError, InvalidInput

T = TypeVar("T")
Json = dict[str, Any]
_HUB = "https://index.docker.io/v1/"
_HUB_NAME = "docker.io"
#: Helpers say so instead of a user's name if the secret is an identity token.
_TOKEN = "<token>"


class Config:
    """Docker's config.json, empty if it is not there. Raises InvalidInput if it is broken."""

    def __init__(self) -> None:
        folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        path = os.path.join(folder, "config.json")
        try:
            with open(path, encoding="utf-8") as file:
                value = json.load(file)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            value = {}
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"{path} cannot be read", str(error), "mend it: docker login writes to it"
            ) from error
        known: Json = value if isinstance(value, dict) else {}
        self._auths: Json = _object(known.get("auths"))
        self._helpers: Json = _object(known.get("credHelpers"))
        self._store = str(known.get("credsStore") or "")

    def of(self, host: str) -> Json | None:
        """What Docker's X-Registry-Auth holds for a registry. Raises Failed for a helper."""
        helper = str(self._helpers.get(host) or self._store)
        if helper:
            from gemel.host import credentials as helpers

            found = helpers.ask(helper, host)
            if found is None:
                return None
            user, secret = found
            if user == _TOKEN:
                return {"identitytoken": secret, "serveraddress": host}
            return {"username": user, "password": secret, "serveraddress": host}
        entry = _object(self._auths.get(host) or self._auths.get(f"https://{host}"))
        return _plain(entry, host)

    def hosts(self) -> list[str]:
        """Registries that there may be credentials for."""
        return list(dict.fromkeys((*self._auths, *self._helpers)))


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _plain(entry: Json, host: str) -> Json | None:
    made: Json = {"serveraddress": host}
    if entry.get("identitytoken"):
        made["identitytoken"] = str(entry["identitytoken"])
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"])).decode()
        except (binascii.Error, ValueError):
            return None
        made["username"], _, made["password"] = text.rstrip("\0").partition(":")
    return made if len(made) > 1 else None


def of_image(ref: str) -> str:
    """X-Registry-Auth for an image's registry; "" without one."""
    return _encoded(_or_warn(lambda: _of_image(ref)))


def headers(ref: str, *, always: bool = False) -> dict[str, str] | None:
    """The header that carries them, or None without any.

    always: empty ones then, which the API wants of who sends something.
    """
    auth = of_image(ref) or ("e30=" if always else "")
    return {"X-Registry-Auth": auth} if auth else None


def _of_image(ref: str) -> Json | None:
    first = ref.split("/", 1)[0]
    named = "/" in ref and ("." in first or ":" in first or first == "localhost")
    return Config().of(first if named and first != _HUB_NAME else _HUB)


def of_all() -> str:
    """X-Registry-Config: those of all registries by their names; "" without any."""
    config = _or_warn(Config)
    made: Json = {}
    if config is None:
        return ""
    for host in config.hosts():
        found = _or_warn(partial(config.of, host))
        if found:
            name = host.removeprefix("https://").removeprefix("http://").partition("/")[0]
            made[_HUB_NAME if name == "index.docker.io" else name] = found
    return _encoded(made)


def _or_warn(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except GemelError as problem:
        print(f"warning: no credentials: {problem.brief}", file=sys.stderr)
        return None


def _encoded(value: Json | None) -> str:
    if not value:
        return ""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
