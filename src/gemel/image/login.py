"""docker login: credentials tried at a registry, by ``skopeo login``, which keeps nothing here.

skopeo speaks both ways that registries have: basic and bearer (a token service).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gemel.errors import Failed, InvalidInput, Unauthorized
from gemel.host import run
from gemel.image import reference, skopeo
from gemel.image.core import Core
from gemel.image.reference import Reference

_TIMEOUT = 60.0
_HUB_ADDRESSES = ("", "index.docker.io", "registry-1.docker.io", "docker.io")


def registry_of(address: str) -> str:
    """``https://index.docker.io/v1/`` or ``host:5000`` as a registry's name."""
    host = urlsplit(address).netloc if "://" in address else address.partition("/")[0]
    return reference.HUB if host in _HUB_ADDRESSES else host


async def verify(core: Core, credentials: Mapping[str, Any]) -> None:
    """Raises Unauthorized if the registry refuses them, Unavailable if it is not reached."""
    name = Reference(registry_of(str(credentials.get("serveraddress") or "")), "login")
    reference.parse(f"{name.domain}/login")
    user, password = str(credentials.get("username") or ""), str(credentials.get("password") or "")
    if not (user and password):
        raise InvalidInput("username and password are missing")
    if any(ord(letter) < 32 for letter in user + password):
        raise InvalidInput("username and password hold no control characters")
    with skopeo.authfile(core.blobs.temporary, {}) as secret:
        words = ["--authfile", secret, f"--username={user}", "--password-stdin"]
        words += ["--tls-verify=false"] if name.is_loopback else []
        command = skopeo.argv("login", *words, name.domain)
        try:
            await run.run(command, input=f"{password}\n".encode(), timeout=_TIMEOUT)
        except Failed as error:
            if "invalid username/password" in (error.details or "").lower():
                raise Unauthorized(
                    f"login attempt to https://{name.domain}/v2/ failed with status: "
                    "401 Unauthorized"
                ) from error
            raise skopeo.explain(error, name) from error
