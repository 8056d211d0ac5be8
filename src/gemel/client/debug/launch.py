"""Where a service's source lies on this machine, and an editor's launch.json for it. Pure
but for reading and writing that file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from gemel.client.http import Json
from gemel.compose.project import Service
from gemel.errors import Failed

#: A folder of this machine and the service's that has the same files.
Pair = tuple[str, str]


def mapped(service: Service | None, working_dir: str, fallback: str) -> list[Pair]:
    """Folders here and in the service, the most telling first.

    From develop.watch, bind mounts, and the build's context (which a Dockerfile mostly
    copies into its working folder). fallback: the folder for a service without any.
    """
    found: list[Pair] = []
    config = service.config if service is not None else {}
    for rule in (config.get("develop") or {}).get("watch") or []:
        if str(rule.get("action", "")).startswith("sync") and rule.get("target"):
            found.append((str(rule["path"]), str(rule["target"])))
    for mount in config.get("volumes") or []:
        if mount.get("type") == "bind" and mount.get("source") and mount.get("target"):
            found.append((str(mount["source"]), str(mount["target"])))
    context = str((config.get("build") or {}).get("context") or "")
    if context and "://" not in context and working_dir not in ("", "/"):
        found.append((context, working_dir))
    if not found:
        found.append((fallback, working_dir or "/"))
    taken: dict[str, str] = {}
    for local, remote in found:
        taken.setdefault(str(PurePosixPath(remote)), local)
    return [(local, remote) for remote, local in taken.items()]


def entry(kind: str, name: str, port: int, pairs: Sequence[Pair], told: Json, root: str) -> Json:
    """The configuration that attaches. told: what the debugger's side said."""
    local = [(_below(here, root), there) for here, there in pairs]
    title = f"gemel: {name}"
    if kind == "python":
        return {
            "name": title,
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": port},
            "pathMappings": [{"localRoot": here, "remoteRoot": there} for here, there in local],
            "justMyCode": True,
        }
    if kind == "node":
        return {
            "name": title,
            "type": "node",
            "request": "attach",
            "address": "127.0.0.1",
            "port": port,
            "localRoot": local[0][0],
            "remoteRoot": local[0][1],
        }
    return {
        "name": title,
        "type": "cppdbg",
        "request": "launch",
        "MIMode": "gdb",
        "miDebuggerServerAddress": f"127.0.0.1:{port}",
        "program": str(told.get("exe") or ""),
        "cwd": "${workspaceFolder}",
        "sourceFileMap": {there: here for here, there in local},
    }


def _below(path: str, root: str) -> str:
    relative = os.path.relpath(path, root)
    if relative == ".":
        return "${workspaceFolder}"
    return path if relative.startswith("..") else "${workspaceFolder}/" + relative


def _plain(text: str) -> str:
    """JSON with comments and trailing commas, as editors write it, made JSON."""
    out: list[str] = []
    for part in re.findall(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|[^"/]+|/', text, re.DOTALL):
        if not part.startswith(("//", "/*")):
            out.append(part)
    return _without_trailing("".join(out))


def _without_trailing(text: str) -> str:
    parts = re.split(r'("(?:\\.|[^"\\])*")', text)
    parts[::2] = [re.sub(r",(\s*[}\]])", r"\1", part) for part in parts[::2]]
    joined = "".join(parts)
    # a comma may stand between a string and the bracket that follows it
    return re.sub(r'("(?:\\.|[^"\\])*")|,(\s*[}\]])', lambda m: m[1] or m[2], joined)


def merged(text: str, wanted: Json) -> str | None:
    """The file's text with the configuration in it; None if it is to be left as it is.

    What others wrote stays. In a file with comments, which would get lost, a new
    configuration is put in as text, and one of the same name is left.
    """
    if not text.strip():
        return json.dumps({"version": "0.2.0", "configurations": [wanted]}, indent=4) + "\n"
    try:
        known = json.loads(_plain(text))
        configurations = known.setdefault("configurations", [])
        names = [c.get("name") if isinstance(c, dict) else None for c in configurations]
    except (ValueError, AttributeError, TypeError):
        return None
    try:
        strict = json.loads(text) is not None
    except ValueError:
        strict = False
    if strict:
        if wanted["name"] in names:
            configurations[names.index(wanted["name"])] = wanted
        else:
            configurations.append(wanted)
        return json.dumps(known, indent=4, ensure_ascii=False) + "\n"
    if wanted["name"] in names:
        return None
    return _put_in(text, wanted)


def _put_in(text: str, wanted: Json) -> str | None:
    match = re.search(r'"configurations"\s*:\s*\[', text)
    if match is None:
        return None
    block = json.dumps(wanted, indent=4).replace("\n", "\n        ")
    rest = text[match.end() :]
    comma = "" if rest.lstrip().startswith("]") else ","
    made = f"{text[: match.end()]}\n        {block}{comma}{rest}"
    try:
        json.loads(_plain(made))
    except ValueError:
        return None
    return made


def write(root: str, wanted: Json) -> tuple[Path, bool]:
    """Puts it into ``.vscode/launch.json`` below ``root``; where that is, and whether it was
    (False: it is there with other content, or cannot be read). Raises Failed."""
    path = Path(root) / ".vscode" / "launch.json"
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        made = merged(text, wanted)
        if made is None:
            return path, False
        if made != text:
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_name(".launch.json.gemel")
            temporary.write_text(made, encoding="utf-8")
            os.replace(temporary, path)
        return path, True
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{path} cannot be written", details=str(error)) from error


def remotes(pairs: Iterable[Pair]) -> str:
    """The pairs for a person."""
    return ", ".join(f"{here} → {there}" for here, there in pairs)
