"""Docker's current clients (docker, Compose v2), out of a later suite of Debian.

They are programs in Go that run on Debian 12; fetched with an apt configuration of
their own and unpacked, never installed. A mirror that stands still for longer than a
suite's lists are valid will do: they are signed all the same. Without the network there are
none, and the tests that want them are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SUITE = "forky"
PACKAGES = ("docker-cli", "docker-compose")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_TIMEOUT = 300
_CONFIG = """\
Dir::State::Lists "{0}/lists";
Dir::State::Status "{0}/status";
Dir::Cache "{0}/cache";
Dir::Etc::SourceList "{0}/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "root";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
"""


def mirror() -> str:
    """The machine's own Debian mirror; empty without one."""
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    return next((uri for uri in targets if uri.rstrip("/").endswith("/debian")), "")


def docker(cache: Path) -> Path:
    """Where the docker command is, once fetched."""
    return cache / "clients" / "usr" / "bin" / "docker"


def compose(cache: Path) -> Path:
    """Where Compose v2 is, once fetched."""
    return cache / "clients" / "usr" / "libexec" / "docker" / "cli-plugins" / "docker-compose"


def fetch(cache: Path) -> str:
    """Fetches them unless they are there; says why if that is not possible."""
    if docker(cache).exists() and compose(cache).exists():
        return ""
    work, target = cache / "apt", cache / "clients"
    for folder in (work / "lists" / "partial", work / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {mirror()} {SUITE} main\n")
    (work / "apt.conf").write_text(_CONFIG.format(work))
    try:
        for command in (("update", "-q"), ("download", "-q", *PACKAGES)):
            subprocess.run(
                ["apt-get", *command],
                env={**os.environ, "APT_CONFIG": str(work / "apt.conf")},
                cwd=work,
                check=True,
                capture_output=True,
                timeout=_TIMEOUT,
            )
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, target], check=True, timeout=_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", b"") or b""
        return f"{error} {output.decode(errors='replace')[-300:]}"
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ""
