"""Runs test suites that others wrote, unchanged, against gemel. Their code is not kept here.

    aiodocker   its tests, out of its source archive on PyPI
    compose     Docker Compose 1.29's acceptance and integration tests, out of Debian's sources
    docker-py   its integration tests, out of a checkout (--docker-py FOLDER): in no archive

What is needed is fetched into --cache. Then everything happens in network and mount
namespaces of its own: an engine, and a registry that stands in for Docker Hub, with
images made from busybox-static and Debian's packages under the names that the tests use.
They run in pieces; after each, the results go to CACHE/SUITE.json and what pytest said to
CACHE/SUITE.log. The output has a summary and all failures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as etree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import conftest
from tests.engine import EngineProcess
from tests.fetch_clients import mirror
from tests.images import busybox_tar
from tests.imagestore import free_port

AIODOCKER = "aiodocker==0.27.0"
BUSYBOX = (
    "busybox:latest", "busybox:1.27.0.2", "busybox:1.27.2", "busybox:1.31.0-uclibc", "busybox:1",
    "alpine:latest",
    "alpine:3.10", "alpine:3.10.1", "alpine:3.12", "alpine:3.18", "alpine:edge",
    "hello-world:latest", "busybox:buildroot-2014.02",
)  # fmt: skip
DEBIAN = ("python:latest", "python:3.13-alpine", "python:3.14-alpine", "registry:2", "nginx:latest")
SOURCES = "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {0} bookworm main\n"
APT = """\
Dir::State::Lists "{0}/lists";
Dir::Cache "{0}/cache";
Dir::Etc::SourceList "{0}/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "root";
"""


#: By test: passed, failed or skipped, and the reason.
Found = dict[str, tuple[str, str]]


class Suite(NamedTuple):
    """How a suite is run. files: arguments of pytest, in ``folder``."""

    folder: Path
    python: Path
    files: list[str]


def sh(*argv: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a program; its failure is an exception."""
    subprocess.run(list(map(str, argv)), check=True, cwd=cwd, env={**os.environ, **(env or {})})


def venv(folder: Path, *packages: str, base: str = sys.executable, system: bool = False) -> Path:
    """A Python of its own with packages; made once."""
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        sh(base, "-m", "venv", *(["--system-site-packages"] if system else []), folder)
        sh(python, "-m", "pip", "install", "-q", *packages)
        (folder / "done").touch()
    return python


def prepare(cache: Path, name: str, checkout: str) -> Suite:
    """Fetches a suite."""
    source = cache / "src"
    source.mkdir(parents=True, exist_ok=True)
    common = ("pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-timeout==2.4.0")
    if name == "aiodocker":
        python = venv(
            cache / "venv-aiodocker", AIODOCKER, *common, "testcontainers==4.15.0", "pytest-cov",
            "asyncssh", "paramiko", "async-timeout",
        )  # fmt: skip
        folder = source / AIODOCKER.replace("==", "-")
        if not folder.exists():
            sh(python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
               AIODOCKER, "-d", cache)  # fmt: skip
            sh("tar", "xzf", cache / f"{folder.name}.tar.gz", "-C", source)
        words = ["-o", "addopts=", "-W", "ignore::pytest.PytestDeprecationWarning", "tests"]
        return Suite(folder, python, words)
    if name == "compose":
        base = "/usr/bin/python3"
        python = venv(
            cache / "venv-compose", "pytest==7.4.4", "pytest-timeout==2.4.0", "ddt", "mock",
            base=base, system=True,
        )  # fmt: skip
        folder = source / "compose-1.29.2"
        if not folder.exists():
            fetch_debian_source(cache, "docker-compose")
            sh("tar", "xzf", cache / "docker-compose_1.29.2.orig.tar.gz", "-C", source)
        return Suite(folder, python, ["tests/acceptance", "tests/integration"])
    if not checkout:
        raise SystemExit("docker-py's tests are in no archive: give a checkout with --docker-py")
    python = venv(cache / "venv-docker-py", "docker==7.2.0", *common, "paramiko", "websockets",
                  "websocket-client")  # fmt: skip
    return Suite(Path(checkout).resolve(), python, ["tests/integration"])


def fetch_debian_source(cache: Path, package: str) -> None:
    """With an apt configuration of its own; the machine's is left alone."""
    apt = cache / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(SOURCES.format(mirror()))
    (apt / "apt.conf").write_text(APT.format(apt))
    env = {"APT_CONFIG": str(apt / "apt.conf")}
    sh("apt-get", "update", "-q", env=env)
    sh("apt-get", "source", "-q", "--download-only", package, env=env, cwd=cache)


def small_tar() -> bytes:
    """The tests' busybox root with users and folders that alpine has."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(busybox_tar())) as old,
        tarfile.open(fileobj=out, mode="w") as new,
    ):
        for entry in old:
            data = old.extractfile(entry).read() if entry.isfile() else b""  # type: ignore[union-attr]
            if entry.name.lstrip("./") == "etc/passwd":
                data += b"operator:x:11:0:operator:/root:/bin/sh\n"
                data += b"postgres:x:70:70::/var/lib/postgresql:/bin/sh\n"
                entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
        folder = tarfile.TarInfo("var/opt")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        new.addfile(folder)
    return out.getvalue()


def debian_tar(cache: Path) -> bytes:
    """A root with Python and docker-registry, by mmdebstrap."""
    target = cache / "debian.tar"
    if not target.exists():
        sh("mmdebstrap", "--variant=minbase", "--mode=root",
           "--include=python3,python-is-python3,docker-registry,ca-certificates", "bookworm",
           target.with_suffix(".new.tar"))  # fmt: skip
        target.with_suffix(".new.tar").rename(target)
    return target.read_bytes()


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[str]:
    """A registry that skopeo takes for Docker Hub (only in this mount namespace)."""
    port = free_port()
    folder.mkdir()
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "registries.conf").write_text(
        'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "disabled"\n'
        f'[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    sh("mount", "--bind", folder / "registries.conf", "/etc/containers/registries.conf")
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.json")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        sh("umount", "/etc/containers/registries.conf")


def stand_ins(engine: EngineProcess, address: str, debian: bytes) -> None:
    """Makes the images and puts them into the registry."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    registry = '["docker-registry", "serve", "/etc/docker/registry/config.yml"]'
    for names, tar, changes in (
        (BUSYBOX, small_tar(), ['CMD ["sh"]', f"ENV {path}"]),
        (DEBIAN, debian, ['CMD ["python3"]', f"ENV {path}"]),
    ):
        for name in names:
            repo, _, tag = name.partition(":")
            own = [f"CMD {registry}", "EXPOSE 5000"] if repo == "registry" else changes
            if repo == "hello-world":
                own = ['CMD ["echo", "Hello from Docker!"]', f"ENV {path}"]
            query = "".join(f"&changes={c.replace(' ', '%20')}" for c in own)
            engine.ok("POST", f"/images/create?fromSrc=-&repo={repo}&tag={tag}{query}", tar)
            full = f"{address}/library/{repo}"
            engine.ok("POST", f"/images/{name}/tag?repo={full}&tag={tag}")
            engine.ok("POST", f"/images/{full}/push?tag={tag}")
            engine.ok("DELETE", f"/images/{full}:{tag}")


def results(file: Path) -> Found:
    """By test: passed, failed or skipped, and the reason."""
    found: Found = {}
    for case in etree.parse(file).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        state, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                state, why = "failed", (child.get("message") or child.text or "").strip()
            elif child.tag == "skipped" and state == "passed":
                state, why = "skipped", child.get("message") or ""
        found[name] = (state, " ".join(why.split())[:400])
    return found


def collect(suite: Suite, env: dict[str, str], keyword: str) -> list[str]:
    """The names of the tests, as pytest takes them."""
    command = [suite.python, "-m", "pytest", "--collect-only", "-q", "--tb=no", "-W", "ignore"]
    command += ["-p", "no:cacheprovider", *suite.files, *(["-k", keyword] if keyword else [])]
    out = subprocess.run(list(map(str, command)), cwd=suite.folder, env=env, capture_output=True)
    return [line for line in out.stdout.decode().splitlines() if re.match(r"\S+\.py::", line)]


def run(suite: Suite, engine: EngineProcess, options: argparse.Namespace, file: Path) -> Found:
    """Runs a suite with the engine as its Docker, in pieces; ``file`` has what is known so far."""
    env = {
        **engine.env,
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "PYTHONPATH": str(suite.folder),
        "COMPOSE_HTTP_TIMEOUT": "60",
    }
    env.pop("DOCKER_BUILDKIT", None)
    flags = [word for word in suite.files if not word.startswith("tests")]
    names = collect(suite, env, options.k)[options.skip :]
    found: Found = {}
    for begin in range(0, len(names), options.piece):
        piece = names[begin : begin + options.piece]
        report = Path(engine.base) / "report.xml"
        report.unlink(missing_ok=True)
        command = [str(suite.python), "-m", "pytest", "-v", "--timeout", "120", "--tb=short"]
        command += ["-p", "no:cacheprovider", f"--junitxml={report}", *flags]
        with file.with_suffix(".log").open("ab") as out:
            subprocess.run([*command, *piece], cwd=suite.folder, env=env, stdout=out, stderr=out)
        if report.exists():
            found |= results(report)
        else:
            found |= dict.fromkeys(piece, ("failed", "the run of its piece broke off"))
        file.write_text(json.dumps(found, indent=1))
        done = min(begin + options.piece, len(names))
        print(f"{done}/{len(names)}: {dict(Counter(s for s, _ in found.values()))}", flush=True)
    return found


def main() -> None:
    """See the module's text."""
    # a shell starts background jobs with SIGINT ignored; the suites send it to their clients
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser()
    parser.add_argument("suites", nargs="+", choices=["aiodocker", "compose", "docker-py"])
    parser.add_argument("--cache", default="build/compat")
    parser.add_argument("--docker-py", default="", metavar="FOLDER")
    parser.add_argument("-k", default="", help="only tests that match (as pytest's -k)")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N")
    parser.add_argument("--piece", type=int, default=40, metavar="N", help="tests of one pytest")
    options = parser.parse_args()
    cache = Path(options.cache).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    suites = {name: prepare(cache, name, options.docker_py) for name in options.suites}
    debian = debian_tar(cache)
    conftest._isolate()
    engine = EngineProcess()
    try:
        with tempfile.TemporaryDirectory() as folder, hub(Path(folder) / "hub") as address:
            engine.start()
            stand_ins(engine, address, debian)
            for name, suite in suites.items():
                found = run(suite, engine, options, cache / f"{name}.json")
                print(f"\n{name}: {dict(Counter(state for state, _ in found.values()))}")
                for test, (state, why) in sorted(found.items()):
                    if state == "failed":
                        print(f"  {test}\n      {why}")
    finally:
        engine.stop()


if __name__ == "__main__":
    main()
