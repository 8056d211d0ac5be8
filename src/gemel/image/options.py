"""Parameters of Docker's POST /build, parsed. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from gemel.errors import InvalidInput, Unsupported
from gemel.host.cgrouplimits import Limits
from gemel.image import reference
from gemel.image.manifest import parse_platform
from gemel.image.reference import Reference
from gemel.model import buildcache

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_LIMITS = {
    "memory": "memory",
    "memswap": "memory_swap",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota",
}
_IGNORED = ("cgroupparent", "isolation", "entitlements")
_EMPTY = ("", "0", "[]", "{}", "null", "default")
_ULIMIT = re.compile(r"[a-z]+", re.ASCII)
_CPUSET = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
_CONTEXT = re.compile(r"[A-Za-z0-9][\w./:@-]*", re.ASCII)
_MOST_CONTEXTS = 64
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
    shm_size: int = 0
    """Bytes of /dev/shm; 0: 64 MiB."""
    ulimits: tuple[str, ...] = ()
    """As buildah has them: ``nofile=1024:2048``."""
    limits: Limits = Limits()
    secrets: str = ""
    """The token of what was sent for this build alone (gemel.image.inputs)."""
    contexts: dict[str, str] = {}
    """Further contexts by name: ``docker-image://NAME``, ``tar://FOLDER`` of the archive, a URL."""
    remote: str = ""
    """Where the context is fetched from, instead of the body."""
    cache_from: Reference | None = None
    """A repository, without a tag, that steps are fetched from instead of being run."""
    cache_to: Reference | None = None
    """A repository that steps which have been run are sent to."""
    ignored: tuple[str, ...] = ()
    """What was given and has no effect; the client is told."""

    @property
    def caches(self) -> list[Reference]:
        """The repositories of both."""
        return [name for name in (self.cache_from, self.cache_to) if name is not None]

    def arguments_of_buildah(self) -> list[str]:
        """Options of ``buildah bud``."""
        # what is missing is pulled in any case: newer buildahs take "false" for "never"
        words = ["--network", self.network, f"--pull={'true' if self.pull else 'missing'}"]
        for option, values in (("--build-arg", self.arguments), ("--label", self.labels)):
            words += [w for name, text in values.items() for w in (option, f"{name}={text}")]
        words += [w for host in self.hosts for w in ("--add-host", host)]
        words += ["--target", self.target] if self.target else []
        words += ["--platform", self.platform] if self.platform else []
        words += ["--no-cache"] if self.no_cache else []
        words += ["--squash"] if self.squash else []
        words += ["--cache-from", self.cache_from.name] if self.cache_from else []
        words += ["--cache-to", self.cache_to.name] if self.cache_to else []
        for name, place in self.contexts.items():
            words += ["--build-context", f"{name}={place}"]
        words += [w for limit in self.ulimits for w in ("--ulimit", limit)]
        return words


def parse(query: Mapping[str, str]) -> BuildOptions:
    """From the query's parameters; several tags and hosts are parted by newlines or commas.

    Raises InvalidInput, and Unsupported for network modes and outputs that there are not.
    """
    if query.get("outputs", "") not in _EMPTY:
        raise Unsupported(
            "a build's outputs are images only",
            resolution="leave --output out; `docker cp` or `docker save` takes files out",
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
    caches = buildcache.choose(_list(query, "cachefrom"), _list(query, "cacheto"))
    ignored = [name for name in _IGNORED if query.get(name, "") not in _EMPTY]
    ignored += [f"cachefrom {why}" for why in caches.unused_from]
    ignored += [f"cacheto {why}" for why in caches.unused_to]
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
        shm_size=_number(query, "shmsize"),
        ulimits=tuple(_ulimits(query.get("ulimits", ""))),
        limits=_limits(query),
        secrets=query.get("secrets", ""),
        contexts=_contexts(query.get("contexts", "")),
        remote=query.get("remote", ""),
        cache_from=reference.parse(caches.source) if caches.source else None,
        cache_to=reference.parse(caches.target) if caches.target else None,
        ignored=tuple(ignored),
    )


def _number(query: Mapping[str, str], key: str, least: int = 0) -> int:
    text = query.get(key, "") or "0"
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 1 << 62:
        raise InvalidInput(f"the parameter {key} is no number of its kind: {text[:50]!r}")
    return value


def _limits(query: Mapping[str, str]) -> Limits:
    values = {field: _number(query, key, -1) for key, field in _LIMITS.items()}
    for key in ("cpusetcpus", "cpusetmems"):
        if query.get(key) and not _CPUSET.fullmatch(query[key]):
            raise InvalidInput(f"the parameter {key} is no list like 0-3,6: {query[key][:50]!r}")
    limits = Limits(
        cpuset_cpus=query.get("cpusetcpus", ""), cpuset_mems=query.get("cpusetmems", ""), **values
    )
    if limits.memory and limits.memory < 6 << 20:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if 0 < limits.memory_swap < limits.memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    return limits


def _given(text: str, empty: str) -> str:
    """docker sends ``null`` for what it has not been given."""
    return empty if text in ("", "null") else text


class _Ulimit(msgspec.Struct, rename="pascal"):
    name: str
    soft: int
    hard: int


def _ulimits(text: str) -> list[str]:
    made = []
    for limit in _json(_given(text, "[]"), "ulimits", list[_Ulimit]):
        if not _ULIMIT.fullmatch(limit.name):
            raise InvalidInput(f"{limit.name!r} is no name of a ulimit")
        made.append(f"{limit.name}={limit.soft}:{limit.hard}")
    return made


def _contexts(text: str) -> dict[str, str]:
    made = _json(_given(text, "{}"), "contexts", dict[str, str])
    if len(made) > _MOST_CONTEXTS:
        raise InvalidInput(f"a build has more than {_MOST_CONTEXTS} further contexts")
    for name, place in made.items():
        if not _CONTEXT.fullmatch(name):
            raise InvalidInput(f"{name!r} is no name of a build context")
        if "://" not in place:
            raise InvalidInput(
                f"the build context {name} is at {place!r}",
                resolution="known are docker-image://NAME, http:// and https:// URLs",
            )
    return made


def _list(query: Mapping[str, str], key: str) -> list[str]:
    return _json(_given(query.get(key, ""), "[]"), key, list[str])


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
    values = _json(
        _given(query.get(key, ""), "{}"), key, dict[str, str | int | float | bool | None]
    )
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
