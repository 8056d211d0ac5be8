"""What a page may know of an instance: everything but its secrets. Pure."""

from __future__ import annotations

from typing import Any

from gemel.observe.capture import mask


def masked(whole: dict[str, Any]) -> dict[str, Any]:
    """An inspect whose environment and command line do not tell secrets; the rest as it is."""
    config = dict(whole.get("Config") or {})
    config["Env"] = [_variable(str(entry)) for entry in config.get("Env") or []]
    for key in ("Cmd", "Entrypoint"):
        if isinstance(config.get(key), list):
            config[key] = [mask.body(str(word)) for word in config[key]]
    return {
        **whole,
        "Config": config,
        "Args": [mask.body(str(word)) for word in whole.get("Args") or []],
    }


def _variable(entry: str) -> str:
    """``NAME=value``, hidden by the name, or by a password inside an address."""
    name, sep, value = entry.partition("=")
    if not sep:
        return entry
    shown = mask.header(name, value)
    return f"{name}={_address(shown)}"


def _address(value: str) -> str:
    """``scheme://user:***@host``: what connection strings carry."""
    scheme, sep, rest = value.partition("://")
    if not sep or "@" not in rest:
        return value
    login, _, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}://{user}:{mask.HIDDEN}@{place}" if colon else value
