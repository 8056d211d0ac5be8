"""A word to who asks for a shell that the image has not."""

from __future__ import annotations

from gemel.cli.targets import Target
from gemel.client.engine import Client
from gemel.errors import GemelError

SHELLS = ("bash", "zsh", "fish", "ash", "dash", "ksh", "sh")
_FOLDERS = ("/bin", "/usr/bin", "/usr/local/bin")
_MISSING = 127


def shell_hint(client: Client, target: Target, argv: tuple[str, ...], status: int) -> str:
    """What to do instead of ``exec TARGET argv``, which ended with ``status``; maybe nothing."""
    asked = argv[0].rpartition("/")[2]
    if status != _MISSING or asked not in SHELLS:
        return ""
    name = target.service or target.name
    debug = f"gemel debug {name} gives a shell with tools, whatever the image has"
    try:
        if _has(client, target.id, asked):
            return ""  # it ran, and something in it was not found
        if asked != "sh" and _has(client, target.id, "sh"):
            return f"the image has no {asked}, but sh: gemel exec {name} sh; {debug}"
    except GemelError:
        return ""  # a hint is not worth an error
    return f"the image has no shell: {debug}"


def _has(client: Client, id: str, program: str) -> bool:
    """Whether a container has a program in one of the usual folders."""
    for folder in _FOLDERS:
        query = {"path": f"{folder}/{program}"}
        answer = client.call("HEAD", f"/containers/{id}/archive", query=query, ok=(404,))
        answer.close()
        if answer.status == 200:
            return True
    return False
