"""What a build takes beside its folder: secrets, SSH keys, further contexts. Read by the client.

The engine opens no file that a client names: contents go through the API, those
of secrets in a request of their own that the engine keeps in memory.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from gemel.client.engine import Client
from gemel.errors import InvalidInput

Json = dict[str, Any]
#: Id, path of a file or None, name of an environment variable or None.
Secret = tuple[str, str | None, str | None]
_MOST = 500 << 10
_IMAGE = "docker-image://"


def private_token(
    client: Client,
    given: Iterable[Secret],
    ssh: Mapping[str, str | None],
    environment: Mapping[str, str] | None = None,
) -> str | None:
    """Sends secrets and keys to the engine; how the build names them, None without any.

    ssh: path of a private key by id. environment: of which variables are read, if not
    the process's. Raises InvalidInput for what cannot be read.
    """
    known = os.environ if environment is None else environment
    body: dict[str, dict[str, str]] = {"secrets": {}, "ssh": {}}
    for id, path, variable in given:
        if variable is not None:
            if variable not in known:
                raise InvalidInput(
                    f"the build's secret {id} is to come from the environment variable"
                    f" {variable}, which is not set"
                )
            content = known[variable].encode("utf-8", "surrogateescape")
        elif path is None:
            raise InvalidInput(
                f"the build's secret {id} comes from no file and no variable",
                resolution="give it `file:` or `environment:` at the top of the Compose file",
            )
        else:
            content = _read(path, f"the build's secret {id}")
        body["secrets"][id] = base64.b64encode(content).decode()
    for id, path in ssh.items():
        if path is not None:
            key = _read(path, f"the SSH key {id}")
            body["ssh"][id] = base64.b64encode(key).decode()
    if not body["secrets"] and not body["ssh"]:
        return None
    return str(client.post("/gemel/build/secrets", body)["Id"])


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {what}", details=str(error)) from error
    if len(data) > _MOST:
        raise InvalidInput(f"{what} is larger than {_MOST >> 10} KiB", details=path)
    return data


def is_address(context: str) -> bool:
    """Whether a context is fetched by the engine."""
    return "://" in context or context.startswith(("git@", "github.com/"))


def placed_contexts(given: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """The parameter ``contexts``, and folders to send with the build's own by name in the tar.

    Raises InvalidInput for a folder that is not there.
    """
    places: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name, context in given.items():
        if context.startswith("oci-layout://"):
            raise InvalidInput(
                f"the build context {name} is an OCI layout",
                resolution="load it (gemel image load), and name it as docker-image://NAME",
            )
        if is_address(context):
            places[name] = context
        elif os.path.isdir(context):
            folder = f".gemel-context-{secrets.token_hex(8)}"
            folders[folder] = os.path.abspath(context)
            places[name] = f"tar://{folder}"
        else:
            raise InvalidInput(
                f"the build context {name} is no folder: {context}",
                resolution=f"for an image write {_IMAGE}NAME",
            )
    return json.dumps(places) if places else None, folders


def secret(text: str) -> Secret:
    """``id=ID,src=FILE`` or ``id=ID,env=VARIABLE``, as docker build has it. Raises InvalidInput."""
    parts = dict(part.partition("=")[::2] for part in text.split(","))
    id = parts.get("id", "")
    path = parts.get("src") or parts.get("source")
    variable = parts.get("env")
    kind = parts.get("type", "")
    unknown = set(parts) - {"id", "src", "source", "env", "type"}
    if not id or unknown or kind not in ("", "file", "env"):
        raise InvalidInput(
            f"{text!r} is no secret of a build", resolution="write id=ID,src=FILE or id=ID,env=NAME"
        )
    if path is None and variable is None:  # as docker does: a variable of that name, or a file
        if kind == "env" or (kind == "" and id in os.environ):
            variable = id
        else:
            path = id
    elif kind == "env" and variable is None:
        path, variable = None, path
    return id, path, variable


def named(texts: Iterable[str], what: str) -> dict[str, str]:
    """``NAME=VALUE`` options. Raises InvalidInput."""
    made: dict[str, str] = {}
    for text in texts:
        name, found, value = text.partition("=")
        if not name or not found or not value:
            raise InvalidInput(f"{text!r} is no {what}", resolution="write NAME=VALUE")
        made[name] = value
    return made


def keys(texts: Iterable[str]) -> dict[str, str | None]:
    """``--ssh ID=KEYFILE`` options. Raises InvalidInput where a key is not named."""
    made: dict[str, str | None] = {}
    for text in texts:
        id, _, path = text.partition("=")
        if not path or "," in path:
            raise InvalidInput(
                f"--ssh {text} names no single private key",
                details="no SSH agent is passed on to builds",
                resolution=f"write --ssh {id or 'default'}=FILE, a key without a passphrase",
            )
        made[id] = os.path.expanduser(path)
    return made
