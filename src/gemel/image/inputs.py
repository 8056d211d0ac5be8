"""What a build is given beside its context and may not show: secrets and SSH keys.

A client sends them in a request of their own and names them in the build's by a
token. Until that comes, and for a few minutes at most, they are in the engine's
memory; then in a file without a name, and in a tmpfs that only the build has.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import secrets
import tarfile
import time
from collections.abc import Mapping

import msgspec

from gemel.errors import InvalidInput

#: Bytes of one secret (BuildKit takes as many), of all that wait, and how long they wait.
MOST = 500 << 10
_MOST_WAITING = 16 << 20
_WAITS = 300.0
_ID = re.compile(r"[A-Za-z0-9][\w.@-]*", re.ASCII)


class Private(msgspec.Struct, frozen=True):
    """Secrets and keys by the ids that a Dockerfile knows them by."""

    secrets: dict[str, bytes] = {}
    ssh: dict[str, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self.secrets or self.ssh)

    def size(self) -> int:
        """Bytes of all of them."""
        return sum(map(len, [*self.secrets.values(), *self.ssh.values()]))

    def names(self) -> list[tuple[str, str, str]]:
        """Option of buildah, id and name of the file for each."""
        made = [("--secret", id, f"secret-{n}") for n, id in enumerate(self.secrets)]
        return made + [("--ssh", id, f"key-{n}") for n, id in enumerate(self.ssh)]

    def archive(self) -> int:
        """A descriptor of a tar of the files, readable by root only, that is on no disk."""
        contents = [*self.secrets.values(), *self.ssh.values()]
        fd = os.memfd_create("gemel-build", os.MFD_CLOEXEC)
        with (
            os.fdopen(os.dup(fd), "wb") as out,
            tarfile.open(fileobj=out, mode="w") as tar,
        ):
            for (_, _, name), data in zip(self.names(), contents, strict=True):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o600
                tar.addfile(entry, io.BytesIO(data))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def parse(body: Mapping[str, object]) -> Private:
    """Reads ``{"secrets": {id: base64}, "ssh": {id: base64}}``. Raises InvalidInput."""
    unknown = set(body) - {"secrets", "ssh"}
    if unknown:
        raise InvalidInput(f"unknown kinds of inputs of a build: {', '.join(sorted(unknown))}")
    return Private(_decoded(body.get("secrets")), _decoded(body.get("ssh")))


def _decoded(entries: object) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    try:
        texts = msgspec.convert(entries or {}, dict[str, str])
    except msgspec.ValidationError as error:
        raise InvalidInput("secrets of a build are an object of texts in base64") from error
    for id, text in texts.items():
        if not _ID.fullmatch(id):
            raise InvalidInput(f"{id[:100]!r} is no id of a build's secret")
        try:
            made[id] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput(f"the build's secret {id} is not base64") from None
        if len(made[id]) > MOST:
            raise InvalidInput(f"the build's secret {id} is larger than {MOST >> 10} KiB")
    return made


class Waiting:
    """What clients have sent for builds that have not begun."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[float, Private]] = {}

    def keep(self, private: Private) -> str:
        """Keeps it for one build; the token to name it by. Raises InvalidInput if it is full."""
        self._forget()
        if sum(p.size() for _, p in self._waiting.values()) + private.size() > _MOST_WAITING:
            raise InvalidInput(
                "too many secrets wait for builds",
                resolution="begin the builds that they were sent for, or try again later",
            )
        token = secrets.token_hex(16)
        self._waiting[token] = (time.monotonic() + _WAITS, private)
        return token

    def take(self, token: str) -> Private:
        """What was kept under the token, once. Raises InvalidInput."""
        self._forget()
        found = self._waiting.pop(token, None)
        if found is None:
            raise InvalidInput(
                "the secrets of this build are not here",
                details="they are kept for one build, and for five minutes",
                resolution="send them again",
            )
        return found[1]

    def _forget(self) -> None:
        now = time.monotonic()
        for token in [token for token, (until, _) in self._waiting.items() if until < now]:
            del self._waiting[token]
