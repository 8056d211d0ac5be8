"""Parameters of Docker's POST /build, parsed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from gemel.errors import InvalidInput, Unsupported
from gemel.image import reference
from gemel.image.manifest import parse_platform
from gemel.image.reference import Reference

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_IGNORED = (
    "memory",
    "memswap",
    "cpushares",
    "cpusetcpus",
    "cpusetmems",
    "cpuperiod",
    "cpuquota",
    "cgroupparent",
)
_TRUE = ("1", "true", "True", "TRUE", "t", "T")


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a build is asked for."""

    dockerfile: str = "Dockerfile"
    tags: tuple[Reference, ...] = ()
    arguments: dict[str, str] = {}
    labels: dict[str, str] = {}
    hosts: tuple[str, ...] = ()
    target: str = ""
    platform: str = ""
    network: str = "host"
    no_cache: bool = False
    pull: bool = False
    squash: bool = False
    quiet: bool = False
    ignored: tuple[str, ...] = ()
    """Parameters that were given and have no effect; the client is told."""

    def arguments_of_buildah(self) -> list[str]:
        """Options of ``buildah bud``."""
        words = ["--network", self.network, f"--pull={'true' if self.pull else 'false'}"]
        for option, values in (("--build-arg", self.arguments), ("--label", self.labels)):
            words += [w for name, text in values.items() for w in (option, f"{name}={text}")]
        words += [w for host in self.hosts for w in ("--add-host", host)]
        words += ["--target", self.target] if self.target else []
        words += ["--platform", self.platform] if self.platform else []
        words += ["--no-cache"] if self.no_cache else []
        words += ["--squash"] if self.squash else []
        return words


def parse(query: Mapping[str, str]) -> BuildOptions:
    """From the query's parameters; several tags and hosts are parted by newlines or commas.

    Raises InvalidInput, and Unsupported for contexts elsewhere, secrets, BuildKit's protocol.
    """
    if query.get("remote"):
        raise Unsupported(
            "a build context at a URL is not supported",
            resolution="fetch it first and send the folder",
        )
    for key, what in (("secrets", "secrets"), ("contexts", "further contexts")):
        if query.get(key, "") not in ("", "{}", "[]", "null"):
            raise Unsupported(
                f"builds with {what} are not supported",
                resolution=f"leave the build's {what} out; nothing was built",
            )
    network = query.get("networkmode", "") or "default"
    if network not in ("default", "host", "none", "bridge"):
        raise Unsupported(
            f"the network mode {network!r} is not supported for builds",
            resolution="use host, none or default",
        )
    platform = query.get("platform", "")
    if platform:
        parse_platform(platform)
    return BuildOptions(
        dockerfile=query.get("dockerfile", "") or "Dockerfile",
        tags=tuple(_tag(text) for text in _several(query.get("t", ""))),
        arguments=_strings(query, "buildargs", names=True),
        labels=_strings(query, "labels"),
        hosts=tuple(_host(text) for text in _hosts(query.get("extrahosts", ""))),
        target=query.get("target", ""),
        platform=platform,
        network="none" if network == "none" else "host",
        no_cache=query.get("nocache", "") in _TRUE,
        pull=query.get("pull", "") in _TRUE,
        squash=query.get("squash", "") in _TRUE,
        quiet=query.get("q", "") in _TRUE,
        ignored=tuple(name for name in _IGNORED if query.get(name, "") not in ("", "0")),
    )


def _several(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[\n,]", text) if part.strip()]


def _hosts(text: str) -> list[str]:
    if text.startswith("["):
        return [str(host) for host in _json(text, "extrahosts", list[str])]
    return _several(text)


def _host(text: str) -> str:
    name, mark, address = text.partition("=") if "=" in text else text.partition(":")
    if not mark or not name or not address:
        raise InvalidInput(f"{text!r} is no extra host", resolution="write NAME:ADDRESS")
    return f"{name}:{address}"


def _tag(text: str) -> Reference:
    name = reference.parse_tagged(text)
    if name.digest:
        raise InvalidInput(f"a build cannot be tagged with a digest: {text}")
    return name


def _strings(query: Mapping[str, str], key: str, *, names: bool = False) -> dict[str, str]:
    """An object of strings. A null (an argument without value) is left out, as dockerd does."""
    values = _json(query.get(key, "") or "{}", key, dict[str, str | int | float | bool | None])
    found: dict[str, str] = {}
    for name, value in values.items():
        if names and not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is no name of a build argument")
        if value is not None:
            found[name] = str(value)
    return found


def _json(text: str, key: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"the parameter {key} is not as expected", str(error)) from error
