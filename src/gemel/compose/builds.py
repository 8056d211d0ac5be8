"""A service's ``build`` section as one request to the image builder."""

from __future__ import annotations

import os.path
from typing import Any

import msgspec

from gemel.compose.paths import is_remote
from gemel.compose.project import Project, Service
from gemel.compose.support import other_platform
from gemel.errors import InvalidInput

Json = dict[str, Any]


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One image to build. tags: the first names the image.

    context: an absolute folder, or an address if ``remote``. dockerfile: relative
    to the context, or absolute if it lies outside; empty with ``dockerfile_inline``.
    secrets: id, path of the file or None, name of the environment variable or
    None. limits: parameters of POST /build by their names.
    """

    service: str
    context: str
    remote: bool = False
    dockerfile: str = "Dockerfile"
    dockerfile_inline: str = ""
    tags: tuple[str, ...] = ()
    args: dict[str, str] = {}
    labels: dict[str, str] = {}
    target: str = ""
    nocache: bool = False
    pull: bool = False
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[Json, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    additional_contexts: dict[str, str] = {}
    secrets: tuple[tuple[str, str | None, str | None], ...] = ()
    ssh: dict[str, str | None] = {}
    platforms: tuple[str, ...] = ()
    privileged: bool = False
    limits: Json | None = None


def build_request(
    project: Project,
    service: Service,
    *,
    nocache: bool = False,
    pull: bool = False,
    args: dict[str, str | None] | None = None,
    more: Json | None = None,
) -> BuildRequest:
    """What to build for a service. nocache, pull, args: of the command line, over the file's.

    more: further fields of the request from the command line; objects and lists are added
    to the file's. Raises InvalidInput if the service has no build section.
    """
    build = service.build
    if build is None:
        raise InvalidInput(f'service "{service.name}" has no build section')
    context = build["context"]
    given = {k: project.environment.get(k) if v is None else v for k, v in (args or {}).items()}
    request = BuildRequest(
        service=service.name,
        context=context,
        remote=is_remote(context),
        dockerfile=_dockerfile(build),
        dockerfile_inline=build.get("dockerfile_inline") or "",
        tags=(project.image_of(service), *(build.get("tags") or ())),
        args={
            **(build.get("args") or {}),
            **{k: v for k, v in given.items() if v is not None},
        },
        labels={
            **(build.get("labels") or {}),
            "com.docker.compose.project": project.name,
            "com.docker.compose.service": service.name,
            "com.docker.compose.version": _version(),
        },
        target=build.get("target") or "",
        nocache=nocache or bool(build.get("no_cache")),
        pull=pull or bool(build.get("pull")),
        network=build.get("network") or "",
        extra_hosts=tuple(h.replace("=", ":", 1) for h in build.get("extra_hosts") or ()),
        shm_size=int(build.get("shm_size") or 0),
        ulimits=tuple(_ulimits(build.get("ulimits") or {})),
        cache_from=tuple(build.get("cache_from") or ()),
        cache_to=tuple(build.get("cache_to") or ()),
        additional_contexts=_contexts(project, build),
        secrets=tuple(_secrets(project, build)),
        ssh=dict(build.get("ssh") or {}),
        platforms=_platforms(service, build),
        privileged=bool(build.get("privileged")),
    )
    return msgspec.structs.replace(request, **_added(request, more or {}))


def _added(request: BuildRequest, more: Json) -> Json:
    """Fields of the command line, together with what the file has of each."""
    made: Json = {}
    for name, value in more.items():
        old = getattr(request, name)
        if isinstance(value, dict):
            value = {**(old or {}), **value}
        elif isinstance(value, tuple):
            value = (*old, *value)
        made[name] = value
    return made


def _dockerfile(build: Json) -> str:
    if build.get("dockerfile_inline"):
        return ""
    return build.get("dockerfile") or "Dockerfile"


def _platforms(service: Service, build: Json) -> tuple[str, ...]:
    """The one to build first: the service's, else the machine's own, else the first."""
    given: list[str] = list(build.get("platforms") or ())
    wanted = service.config.get("platform")
    return tuple(sorted(given, key=lambda one: (one != wanted, other_platform(one))))


def _version() -> str:
    from gemel.compose.requests import COMPOSE_VERSION

    return COMPOSE_VERSION


def _contexts(project: Project, build: Json) -> dict[str, str]:
    """Further contexts; ``service:x`` is the image that x is built into."""
    made = {}
    for name, context in (build.get("additional_contexts") or {}).items():
        if context.startswith("service:"):
            other = project.service(context.removeprefix("service:"))
            context = f"docker-image://{project.image_of(other)}"
        made[name] = context
    return made


def built_before(service: Service) -> list[str]:
    """Services whose images must be built first, as this one's build uses them."""
    contexts = (service.build or {}).get("additional_contexts") or {}
    return [c.removeprefix("service:") for c in contexts.values() if c.startswith("service:")]


def _secrets(project: Project, build: Json) -> list[tuple[str, str | None, str | None]]:
    made = []
    for use in build.get("secrets") or ():
        source = project.secrets.get(use["source"]) or {}
        id = use.get("target") or use["source"]
        made.append((os.path.basename(id), source.get("file"), source.get("environment")))
    return made


def _ulimits(ulimits: Json) -> list[Json]:
    made = []
    for name, value in sorted(ulimits.items()):
        both = value if isinstance(value, dict) else {"soft": value, "hard": value}
        made.append({"Name": name, "Soft": int(both["soft"]), "Hard": int(both["hard"])})
    return made
