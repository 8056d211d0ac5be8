"""Language models that services use: ``models``. Pure.

A service is told a model's server and name by its environment. The server is Docker's model
runner, as in Compose, or the one that the file names:

models:
  llm:
    model: ai/smollm2
    x-gemel:
      endpoint: http://host.docker.internal:8080/v1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from gemel.compose.extension import wrong_keys
from gemel.compose.problems import Path
from gemel.compose.project import Project, Service
from gemel.compose.provider import with_environment

Json = dict[str, Any]
KEYS = ("endpoint",)
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1", "0.0.0.0")


def problems(value: Any) -> Iterator[tuple[Path, str]]:
    """What is wrong in the ``x-gemel`` of a model: where below it, and words."""
    yield from wrong_keys(value, KEYS, "a model's x-gemel")
    if isinstance(value, dict) and "endpoint" in value and not _is_url(value["endpoint"]):
        yield ("endpoint",), 'endpoint must be a URL, such as "http://host.docker.internal:8080/v1"'


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in value


def endpoint(model: Json) -> str:
    """The server that the file names for a model, or nothing."""
    asked = model.get("x-gemel")
    return str(asked.get("endpoint") or "") if isinstance(asked, dict) else ""


def is_local(url: str) -> bool:
    """Whether a URL means whoever asks, which in a container is the container."""
    return (urlsplit(url).hostname or "") in _LOCAL


def uses(service: Service) -> dict[str, Json]:
    """The models that a service uses, by their keys in the file."""
    found = service.config.get("models") or {}
    return {key: use or {} for key, use in found.items()}


def used(project: Project, services: Iterable[str]) -> dict[str, Json]:
    """The models that these services use, in the file's order."""
    keys = {
        key
        for name in services
        if project.service(name).provider is None
        for key in uses(project.service(name))
    }
    return {key: model for key, model in project.models.items() if key in keys}


def told(project: Project, server: Callable[[str], str]) -> Project:
    """The project whose services know their models. server: URL for a key; "": not known."""
    more: dict[str, dict[str, str]] = {}
    for service in project:
        if service.provider is not None:
            continue
        for key, use in uses(service).items():
            url = server(key)
            if not url or key not in project.models:
                continue
            prefix = key.upper().replace("-", "_")
            more.setdefault(service.name, {}).update(
                {
                    use.get("model_var") or f"{prefix}_MODEL": project.models[key]["model"],
                    use.get("endpoint_var") or f"{prefix}_URL": url,
                }
            )
    return with_environment(project, more)
