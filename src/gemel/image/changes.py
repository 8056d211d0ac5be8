"""Dockerfile instructions that change a config (``docker import --change``). Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from gemel.errors import InvalidInput

Config = dict[str, Any]


def apply(config: Config, changes: Sequence[str]) -> Config:
    """A config with the instructions carried out. Raises InvalidInput, Docker's words."""
    config = dict(config)
    for change in changes:
        for line in change.splitlines():
            if not line.strip():
                continue
            word, _, rest = line.strip().partition(" ")
            act = _INSTRUCTIONS.get(word.upper())
            if act is None:
                raise InvalidInput(
                    f"{word.lower()} is not a valid change command",
                    resolution="valid are: " + ", ".join(sorted(_INSTRUCTIONS)),
                )
            act(config, rest.strip())
    return config


def _command(text: str) -> list[str]:
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"{text!r} is no JSON list", details=str(error)) from error
        if not all(isinstance(word, str) for word in words):
            raise InvalidInput(f"{text!r} is no list of strings")
        return list(words)
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> dict[str, str]:
    """``A=b C="d e"``, or the old ``A b c``."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} has an open quote", details=str(error)) from error
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    if not all("=" in word for word in words):
        raise InvalidInput(f"{text!r}: write NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _env(config: Config, text: str) -> None:
    new = _pairs(text)
    kept = [line for line in config.get("Env") or [] if line.partition("=")[0] not in new]
    config["Env"] = kept + [f"{name}={value}" for name, value in new.items()]


def _expose(config: Config, text: str) -> None:
    ports: Config = {port if "/" in port else f"{port}/tcp": {} for port in text.split()}
    config["ExposedPorts"] = (config.get("ExposedPorts") or {}) | ports


def _volume(config: Config, text: str) -> None:
    names = _command(text) if text.startswith("[") else text.split()
    config["Volumes"] = (config.get("Volumes") or {}) | {name: {} for name in names}


def _set(key: str) -> Callable[[Config, str], None]:
    def act(config: Config, text: str) -> None:
        config[key] = text

    return act


def _set_command(key: str) -> Callable[[Config, str], None]:
    def act(config: Config, text: str) -> None:
        config[key] = _command(text)

    return act


def _label(config: Config, text: str) -> None:
    config["Labels"] = (config.get("Labels") or {}) | _pairs(text)


def _onbuild(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or []), text]


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _set_command("Cmd"),
    "ENTRYPOINT": _set_command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _set("StopSignal"),
    "USER": _set("User"),
    "VOLUME": _volume,
    "WORKDIR": _set("WorkingDir"),
}
