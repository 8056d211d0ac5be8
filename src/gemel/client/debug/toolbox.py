"""The toolbox, and programs of it beside an instance."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from gemel.client import session
from gemel.client.engine import Client
from gemel.client.hijack import Hijacked, Output, pump
from gemel.client.http import Json
from gemel.client.pull import checked
from gemel.errors import Failed

#: Bytes of a program's output that are kept when it is only asked for its answer.
ANSWER_MOST = 1 << 20
#: Modules that programs of the toolbox share, in the order in which they are loaded.
_SHARED = ("tracee", "processes")


def prepare(client: Client, image: str, told: Callable[[str], None]) -> str:
    """Makes the toolbox if it is missing; its id. told: takes each line of progress."""
    id = ""
    stream = client.stream("POST", "/gemel/debug/toolbox", query={"image": image or None})
    for message in checked(stream):
        if "aux" in message:
            id = str(message["aux"]["ID"])
        else:
            told(str(message.get("status") or message.get("stream") or "").strip())
    if not id:
        raise Failed("the toolbox was not made")
    return id


class Beside:
    """Programs of the toolbox beside one instance."""

    def __init__(self, client: Client, id: str, image: str = "", *, ended: bool = False) -> None:
        """image: another toolbox than gemel's. ended: of an instance that does not run."""
        self.client = client
        self.id = id
        self._fixed: Json = {"Image": image, "Ended": ended}

    def config(self, argv: Sequence[str], *, tty: bool = False, stdin: bool = True) -> Json:
        """The body that asks for a program."""
        return {
            **self._fixed,
            "Cmd": list(argv),
            "Tty": tty,
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
        }

    @property
    def route(self) -> str:
        """Where such a body goes."""
        return f"/gemel/containers/{self.id}/debug"

    def attached(self, argv: Sequence[str], *, tty: bool, detach_keys: str) -> int:
        """Runs it with this command's own input and output; its status."""
        wanted = session.Wanted(stdin=True, tty=tty, detach_keys=detach_keys)
        config = self.config(argv, tty=tty)
        return session.exec_made(self.client, self.route, config, wanted) or 0

    def open(self, argv: Sequence[str]) -> tuple[str, Hijacked]:
        """Starts it: the exec's id and its streams, which the caller closes."""
        id = str(self.client.post(self.route, self.config(argv))["Id"])
        return id, self.client.hijack(f"/exec/{id}/start", {"Detach": False, "Tty": False})

    def ask(self, argv: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Runs it to its end: status, output, errors (both cut at 1 MiB)."""
        id, stream = self.open(argv)
        out, err = bytearray(), bytearray()

        def keep(buffer: bytearray) -> Callable[[bytes], None]:
            return lambda data: buffer.extend(data[: max(0, ANSWER_MOST - len(buffer))])

        try:
            stream.close_write()
            pump(stream, Output(keep(out), keep(err)), stdin=None, raw=False)
        finally:
            stream.close()
        return session.exec_status(self.client, id), bytes(out), bytes(err)


_LOADER = """
import base64, json, sys, types, zlib
for name, text in json.loads(zlib.decompress(base64.b85decode(sys.argv.pop(1)))):
    module = types.ModuleType(name)
    sys.modules[name] = module
    if "." in name:
        sys.modules[name.rpartition(".")[0]].__dict__[name.rpartition(".")[2]] = module
    exec(compile(text, name, "exec"), module.__dict__)
"""


def python(program: str, *arguments: str) -> list[str]:
    """An argv that runs a program of ``gemel.client.debug.inside`` in the toolbox, which

    has no gemel: the sources of it and of what it needs are in the argv.
    """
    package = "gemel.client.debug.inside"
    folder = Path(__file__).parent / "inside"
    parts = [(name, "") for name in ("gemel", "gemel.client", "gemel.client.debug", package)]
    parts += [(f"{package}.{name}", (folder / f"{name}.py").read_text()) for name in _SHARED]
    parts.append(("<gemel>", (folder / f"{program}.py").read_text()))
    packed = base64.b85encode(zlib.compress(json.dumps(parts).encode(), 9)).decode()
    return ["/usr/bin/python3", "-I", "-c", _LOADER, packed, *arguments]
