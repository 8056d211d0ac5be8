"""Programs that extend Docker's command line, found where Docker looks for them."""

from __future__ import annotations

import json
import os
import re
import shutil

from gemel.errors import Failed
from gemel.host.talk import Talks

_NAME = re.compile(r"[a-z][a-z0-9]*")
_SYSTEM = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
#: Tells a plugin that Docker's own command line has called it, which is not so.
_CALLED_BY_DOCKER = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
#: Seconds that a plugin may take to say what it is.
_TAKE = 20.0


def find(name: str) -> str | None:
    """Path of the plugin ``docker NAME``, None if it is not installed."""
    if not _NAME.fullmatch(name):
        return None
    for folder in _folders():
        path = os.path.join(folder, f"docker-{name}")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def provider(kind: str) -> str | None:
    """Path of the program that a provider's type names: a plugin, else a program in PATH."""
    if kind == "compose":
        return None  # which would call itself
    return find(kind) or shutil.which(kind)


def version(path: str, talks: Talks, env: dict[str, str]) -> tuple[int, ...]:
    """The version that a plugin says it has; () if it says none."""
    said: list[bytes] = []
    try:
        talks.run([path, "docker-cli-plugin-metadata"], said.append, timeout=_TAKE, env=env)
        text = str(json.loads(b"\n".join(said))["Version"])
    except (Failed, ValueError, KeyError, TypeError, RecursionError):
        return ()
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def environment(given: dict[str, str]) -> dict[str, str]:
    """The environment of a program: the project's, as Compose has it."""
    return {key: value for key, value in given.items() if key != _CALLED_BY_DOCKER}


def _folders() -> list[str]:
    """Where plugins lie: the user's, those that Docker's configuration adds, the system's."""
    home = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    more: list[str] = []
    try:
        with open(os.path.join(home, "config.json"), encoding="utf-8") as file:
            value = json.load(file)
        extra = value.get("cliPluginsExtraDirs") if isinstance(value, dict) else None
        more = [one for one in extra or [] if isinstance(one, str)]
    except (OSError, ValueError, TypeError):
        pass  # what is wrong with it is told where its credentials are read
    return [os.path.join(home, "cli-plugins"), *more, *_SYSTEM]
