"""Compares gemel's canonical form of Compose files with that of Docker Compose.

    python tools/compare_compose.py --compose PATH/docker-compose FILE_OR_FOLDER…

Every file named (and in folders every compose.yaml, docker-compose.yml and so on)
goes through both; differences are printed, then a summary. What differs on
purpose is taken out of both before comparing (see ``same``). With --fill, variables
that a file uses without a default have a value that fits their name, so that both
read past them.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gemel.compose import load
from gemel.compose.render import canonical, to_json, to_yaml
from gemel.errors import GemelError

VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)(?!\w|:?-)")
#: What --fill gives variables with such words in their names; the first that fits.
VALUES = (
    ("PORT", "8080"), ("DIR|PATH|ROOT|DATA|VOLUME|FOLDER", "/srv/data"), ("IP|ADDRESS", "10.9.8.7"),
    ("MEM|SIZE", "64m"), ("CPU", "1"), ("REPLICAS|COUNT|UID|GID|ID$", "2"),
)  # fmt: skip
NAMES = ("compose*.y*ml", "docker-compose*.y*ml")
ENVIRONMENT = {"HOME": "/root", "PATH": os.environ["PATH"], "USER": "root"}


def environment(file: Path, fill: bool) -> dict[str, str]:
    """The environment that both read the file in."""
    if not fill:
        return ENVIRONMENT
    names = VARIABLE.findall(file.read_text(errors="replace"))
    filled = {name: _value(name) for name in names if not name.startswith("COMPOSE_")}
    return {**filled, **ENVIRONMENT}


def _value(name: str) -> str:
    fits = (value for words, value in VALUES if re.search(words, name.upper()))
    return next(fits, "word")


def found(paths: list[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            for name in NAMES:
                yield from sorted(one for one in path.rglob(name) if one.is_file())
        else:
            yield path


def theirs(compose: str, file: Path, env: dict[str, str]) -> tuple[Any, str]:
    command = [compose, "-f", file.name, "--profile", "*", "config", "--format", "json"]
    ran = subprocess.run(
        command, cwd=file.parent, env=env, capture_output=True, text=True, timeout=60
    )
    if ran.returncode:
        return None, ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "failed"
    return json.loads(ran.stdout), ""


def ours(file: Path, env: dict[str, str]) -> tuple[Any, str]:
    try:
        loaded = load([file.name], cwd=str(file.parent), env=env, profiles=["*"])
        return json.loads(to_json(canonical(loaded.project, as_json=True))), ""
    except GemelError as error:
        return None, f"{error.brief}: {error.details.splitlines()[0] if error.details else ''}"


def same(value: Any) -> Any:
    """Without what differs on purpose.

    create_host_path: Compose 2.40 prints it only where the short syntax gave it.
    models: its JSON lacks them.
    """
    value.pop("models", None)
    for service in (value or {}).get("services", {}).values():
        for volume in service.get("volumes") or ():
            (volume.get("bind") or {}).pop("create_host_path", None)
            if volume.get("bind") == {}:
                del volume["bind"]
        service.pop("x-gemel", None)
    return value


def differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            if key not in b:
                yield f"{path}.{key}: only Compose has {json.dumps(a[key])[:200]}"
            elif key not in a:
                yield f"{path}.{key}: only gemel has {json.dumps(b[key])[:200]}"
            else:
                yield from differences(a[key], b[key], f"{path}.{key}")
    elif a != b:
        yield f"{path}: {json.dumps(a)[:300]} != {json.dumps(b)[:300]}"


def compare_text(compose: str, file: Path) -> str:
    """The YAML that both print, line by line."""
    command = [compose, "-f", file.name, "--profile", "*", "config"]
    ran = subprocess.run(
        command, cwd=file.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    try:
        loaded = load([file.name], cwd=str(file.parent), env=ENVIRONMENT, profiles=["*"])
    except GemelError:
        return "refused"
    mine = to_yaml(canonical(loaded.project))
    if ran.returncode:
        return "refused"
    if ran.stdout.rstrip() == mine.rstrip():
        return "equal"
    print(f"{file}:")
    lines = difflib.unified_diff(ran.stdout.splitlines(), mine.splitlines(), lineterm="", n=1)
    print("\n".join(list(lines)[2:22]))
    return "different"


def compare(compose: str, file: Path, verbose: bool, fill: bool) -> str:
    """equal, refused (by both), or what is not so."""
    env = environment(file, fill)
    (left, why_left), (right, why_right) = theirs(compose, file, env), ours(file, env)
    if left is None and right is None:
        if verbose:
            print(f"{file}: both refuse\n  Compose: {why_left}\n  gemel:   {why_right}")
        return "refused"
    if left is None or right is None:
        who, why = ("Compose", why_left) if left is None else ("gemel", why_right)
        print(f"{file}: only {who} refuses: {why}")
        return f"refused by {who} only"
    found = list(differences(same(left), same(right)))
    if not found:
        return "equal"
    print(f"{file}:")
    for line in found[:20]:
        print(f"  {line}")
    return "different"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compose", required=True, help="the docker-compose v2 program")
    parser.add_argument("--yaml", action="store_true", help="compare the YAML, as text")
    parser.add_argument("--fill", action="store_true", help="give unset variables a value")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("paths", nargs="+")
    given = parser.parse_args()
    counts: dict[str, int] = {}
    for file in found(given.paths):
        if given.yaml:
            outcome = compare_text(given.compose, file)
        else:
            outcome = compare(given.compose, file, given.verbose, given.fill)
        counts[outcome] = counts.get(outcome, 0) + 1
    print(json.dumps(counts))
    return 0 if set(counts) <= {"equal", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
