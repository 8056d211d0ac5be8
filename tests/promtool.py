"""promtool, Prometheus' own checker, out of Debian's package: unpacked, never installed.

Since Debian 13 it is a package of its own; before, it came with Prometheus.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_TIMEOUT = 300


def program(cache: Path) -> Path:
    """Where promtool is, once fetched."""
    return cache / "promtool"


def _download(package: str, folder: Path) -> None:
    """Raises CalledProcessError if apt has no such package."""
    subprocess.run(
        ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package],
        cwd=folder, check=True, capture_output=True, timeout=_TIMEOUT,
    )  # fmt: skip


def fetch(cache: Path) -> str:
    """Fetches it unless it is there; says why if that is not possible."""
    if program(cache).exists():
        return ""
    work = cache / "prometheus"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    work.chmod(0o755)
    try:
        try:
            _download("promtool", work)
        except subprocess.CalledProcessError:
            _download("prometheus", work)
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, work / "root"], check=True, timeout=_TIMEOUT)
        (work / "root/usr/bin/promtool").rename(program(cache))
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", b"") or b""
        return f"{error} {output.decode(errors='replace')[-300:]}"
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ""
