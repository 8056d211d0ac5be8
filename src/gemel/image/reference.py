"""References to images, in Docker's grammar (distribution/reference), as value types.

    reference   := name [":" tag] ["@" digest]
    name        := [domain "/"] component ["/" component]*
    tag         := [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
    digest      := algorithm ":" hexadecimal digits

``nginx`` is short for ``docker.io/library/nginx:latest``. Pure.
"""

from __future__ import annotations

import re

import msgspec

from gemel.errors import InvalidInput

HUB = "docker.io"
_LEGACY_HUB = "index.docker.io"
_MAX_NAME = 255

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(
    rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?", re.ASCII
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ID = re.compile(r"[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True, order=True):
    """A name of an image, complete: domain and path are never empty.

    tag and digest: empty where the text has none.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: ``docker.io/library/nginx``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows it: ``nginx``."""
        if self.domain != HUB:
            return self.name
        short = self.path.removeprefix("library/")
        return short if "/" not in short else self.path

    @property
    def familiar(self) -> str:
        """The whole as Docker shows it: ``nginx:latest``."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix

    def tagged(self) -> Reference:
        """With the tag ``latest`` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return msgspec.structs.replace(self, tag="latest")

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, so that Docker would allow plain HTTP."""
        if self.domain.startswith("["):
            return self.domain.startswith("[::1]")
        host = self.domain.partition(":")[0]
        return host == "localhost" or host.startswith("127.")


def parse(text: str) -> Reference:
    """Reads a reference. No tag is added. Raises InvalidInput in Docker's words."""
    if not text or text != text.strip():
        raise _invalid(text)
    if _ID.fullmatch(text):
        raise InvalidInput(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(text, "a digest is sha256: and 64 hexadecimal digits")
    domain, remote = _split_domain(rest)
    path, colon, tag = remote.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, "a tag has letters, digits, '_', '.' and '-', 128 at most")
    if path != path.lower():
        raise InvalidInput(
            f"invalid reference format: repository name ({path}) must be lowercase",
            details=f"image reference: {text!r}",
        )
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise _invalid(text)
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise InvalidInput(f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(domain, path, tag, digest)


def parse_tagged(text: str) -> Reference:
    """As ``parse``, and ``latest`` where there is neither tag nor digest."""
    return parse(text).tagged()


def familiar(text: str) -> str:
    """A stored reference in the short form that Docker shows."""
    return parse(text).familiar


def _split_domain(text: str) -> tuple[str, str]:
    """Docker's rule: a first part with '.', ':' or a capital, or localhost, is a domain."""
    first, slash, rest = text.partition("/")
    is_domain = slash and (
        "." in first or ":" in first or first == "localhost" or first != first.lower()
    )
    domain, path = (first, rest) if is_domain else (HUB, text)
    if domain == _LEGACY_HUB:
        domain = HUB
    if domain == HUB and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _invalid(text: str, why: str = "") -> InvalidInput:
    return InvalidInput(
        "invalid reference format",
        details=f"image reference: {text!r}" + (f"; {why}" if why else ""),
        resolution="write NAME[:TAG], such as nginx:1.27 or registry.example.com/team/app:v2",
    )
