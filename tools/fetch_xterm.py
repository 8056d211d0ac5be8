"""Fetches xterm.js, the dashboard's terminal, into the package; does nothing if it is there.

The files are those of @xterm/xterm 6.0.0 and @xterm/addon-fit 0.11.0, byte for byte: their
digests are checked. They come out of a Python package that carries them, since pip is here
anyway, or else by npm. Without them the dashboard says that it has no terminal.

usage: python tools/fetch_xterm.py
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parents[1] / "src/gemel/web/vendor"
FILES = {
    "xterm.js": "14903579ff54664cd72f8e8699e6961a6272c21863ec1c3b118cdc8af5d4a972",
    "xterm.css": "854a7c0fb70e8b1a083c16797ab827299fb18744f5ad34f227b48337e33293c6",
    "addon-fit.js": "ba3ea256ce0620a0992a197d6c9baea64823fc93d8da07a9e366ca9943c18527",
}
CARRIER = "tinyterminal==0.1.0"
PACKAGES = ("@xterm/xterm@6.0.0", "@xterm/addon-fit@0.11.0")
TIMEOUT = 120


def good(name: str, data: bytes) -> bool:
    """Whether a file is the one that is meant."""
    return hashlib.sha256(data).hexdigest() == FILES[name]


def by_pip(folder: Path) -> dict[str, bytes]:
    """Out of the wheel of ``CARRIER``."""
    argv = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    argv += ["--no-deps", "--only-binary", ":all:", "-d", str(folder), CARRIER]
    subprocess.run(argv, check=True, timeout=TIMEOUT, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        inside = {name.rpartition("/")[2]: name for name in wheel.namelist() if "/vendor/" in name}
        return {name: wheel.read(inside[name]) for name in FILES}


def by_npm(folder: Path) -> dict[str, bytes]:
    """Out of npm's own packages."""
    argv = ["npm", "pack", "--silent", "--ignore-scripts", *PACKAGES]
    subprocess.run(argv, check=True, timeout=TIMEOUT, capture_output=True, cwd=folder)
    found = {}
    for archive in folder.glob("*.tgz"):
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                content = tar.extractfile(member) if name in FILES else None
                if content is not None:
                    found[name] = content.read()
    return found


def fetch(way: Callable[[Path], dict[str, bytes]]) -> str:
    """Fetches and checks; gives back what went wrong, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = way(Path(folder))
            wrong = [name for name in FILES if not good(name, found[name])]
        except (OSError, LookupError, StopIteration, subprocess.SubprocessError) as error:
            return f"{way.__name__}: {error!r}"
    if wrong:
        return f"{way.__name__}: not the files that are meant: {', '.join(wrong)}"
    HERE.mkdir(exist_ok=True)
    for name in FILES:
        (HERE / name).write_bytes(found[name])
    return ""


def main() -> int:
    """0 if the files are here."""
    here = {name: HERE / name for name in FILES}
    if all(path.is_file() and good(name, path.read_bytes()) for name, path in here.items()):
        return 0
    problems = []
    for way in (by_pip, by_npm):
        problem = fetch(way)
        if not problem:
            return 0
        problems.append(problem)
    print("xterm.js could not be fetched:", *problems, sep="\n  ", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
