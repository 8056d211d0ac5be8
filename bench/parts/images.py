"""Loading an archive and pulling from a registry: an image of 200 MB."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Case, Once, in_turns, timed
from bench.peers import Field, Peer, command
from bench.wire import wait_until
from gemel.host import namespaces

_LOADED, _PORT = "bench/large:latest", 5077
_PULLED = f"127.0.0.1:{_PORT}/bench/large"
_FILES, _FILE_BYTES = 200, 1 << 20
_REGISTRY = Path("/usr/bin/docker-registry")


def _layer() -> bytes:
    """A tar of 200 files of 1 MB, a third of each as good as random."""
    source = random.Random(1)
    words = [source.randbytes(8).hex().encode() for _ in range(4096)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(_FILES):
            text = b" ".join(source.choices(words, k=_FILE_BYTES * 2 // 3 // 17))
            data = (text + source.randbytes(_FILE_BYTES))[:_FILE_BYTES]
            entry = tarfile.TarInfo(f"data/{number:03}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def write_archive(path: Path) -> None:
    """An archive as ``docker save`` writes it."""
    layer = _layer()
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [digest],
            },
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [_LOADED], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        files = {name: config, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
        for member, data in files.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def _load(peer: Peer, archive: Path) -> Once:
    def measure() -> float:
        with archive.open("rb") as file:
            took = timed(lambda: peer.api.call("POST", "/images/load?quiet=1", file))
        peer.api.call("DELETE", f"/images/{_LOADED}?force=1")
        return took

    return measure


def _pull(peer: Peer) -> Once:
    def work() -> None:
        peer.api.call("POST", f"/images/create?fromImage={_PULLED}&tag=latest")
        peer.api.call("GET", f"/images/{_PULLED}:latest/json")

    def measure() -> float:
        took = timed(work)
        peer.api.call("DELETE", f"/images/{_PULLED}:latest?force=1")
        return took

    return measure


def _listens() -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", _PORT)) == 0


@contextlib.contextmanager
def _registries(folder: Path, peers: list[Peer]) -> Iterator[None]:
    """A registry in each engine's network namespace, all on the same files."""
    settings = folder / "registry.yml"
    text = f"""\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder / "registry"}}}}}
http: {{addr: "127.0.0.1:{_PORT}"}}
"""
    settings.write_text(text)
    with contextlib.ExitStack() as stack:
        for peer in peers:
            argv = ["/usr/bin/nsenter", f"--net={peer.netns}"] if peer.name != "gemel" else []
            process = subprocess.Popen(
                [*argv, str(_REGISTRY), "serve", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            wait_until(
                lambda netns=peer.netns: namespaces.inside(netns, _listens),  # type: ignore[misc]
                20,
                "the registry",
            )
        yield


def run(field: Field, rounds: int, seconds: float) -> list[Case]:
    """Load, and pull from a registry on this machine."""
    engines: list[Peer] = [field.gemel()]
    if (docker := field.dockerd()) is not None:
        engines.append(docker)
    archive = field.folder / "large.tar"
    write_archive(archive)
    load, pull = Case("images", "load, 200 MB"), Case("images", "pull, 200 MB")
    rounds = min(rounds, 5)
    in_turns(load, {p.name: _load(p, archive) for p in engines}, rounds, seconds / 2)
    if not _REGISTRY.exists():
        load.notes.append("no pull: Debian's package docker-registry is missing")
        return [load]
    with _registries(field.folder, engines):
        target = f"docker://{_PULLED}:latest"
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
        command([*argv, f"docker-archive:{archive}", target], field.gemel().env)
        in_turns(pull, {p.name: _pull(p) for p in engines}, rounds, seconds / 2)
    return [load, pull]
