"""What VMs that stand by rehearse: a CONFIG and a START of no instance, and the disks for them."""

from __future__ import annotations

import hashlib
import io
import secrets
import tarfile
from pathlib import Path

from gemel.errors import Unavailable
from gemel.host import files
from gemel.host.run import find, run
from gemel.model.instance import InstanceSpec, Interface, Network, Process, RuntimeName
from gemel.model.paths import Paths
from gemel.runtime.microvm import setup
from gemel.runtime.microvm.machine import Disk
from gemel.runtime.microvm.protocol import Record, encode_records

#: Where the relay listens while it is rehearsed (guest/relay/standbynet.c).
_GATEWAY, _PORT = "192.0.2.1", 7000
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
_FILES = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n"}
#: A shell that forks, a pipe, a file of the writable layer, a program that is looked for.
_SCRIPT = "mkdir /w && echo fine > /w/index.html && cat /w/index.html | cat && exec true"


def _tar(busybox: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in _FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in {**_FILES, "bin/busybox": busybox}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name in ("sh", "cat", "mkdir", "true"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return out.getvalue()


async def ensure_image(paths: Paths) -> Path:
    """The rehearsal's root: a squashfs with busybox, made once. Raises Unavailable, Failed."""
    found = find("busybox")
    if found is None:
        raise Unavailable("there is no busybox", resolution="apt-get install busybox-static")
    tar = _tar(Path(found).read_bytes())
    folder = files.folder(paths.root / "microvm")
    target = folder / f"rehearsal-{hashlib.sha256(tar).hexdigest()[:16]}.sqfs"
    if not target.exists():
        temporary = folder / f"{target.name}.{secrets.token_hex(4)}.new"
        try:
            await run(["tar2sqfs", "-q", "-c", "lz4", str(temporary)], input=tar)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target


def disks(image: Path, layer: Path) -> tuple[Disk, ...]:
    """In the places of an instance's."""
    return (Disk(image, setup.ROOT_SERIAL), Disk(layer, setup.LAYER_SERIAL, writable=True))


def records(nics: int) -> list[Record]:
    """Of the REHEARSE, without time and entropy. nics: how many networks the VM has."""
    spec = InstanceSpec(
        id="0" * 64,
        name="rehearsal",
        runtime=RuntimeName.MICROVM,
        image_id="",
        root_image=Path("/"),
        rootfs=None,
        layer=Path("/"),
        process=Process(argv=("sh", "-c", _SCRIPT)),
        hostname="rehearsal",
        network=Network(interfaces=tuple(_interface(number) for number in range(nics))),
    )
    config: list[Record] = list(setup.config_records(spec, {}, {}))
    for name in ("hosts", "hostname", "resolv.conf"):
        config.append(("file", f"/etc/{name}", "644", "0", "0", b"rehearsal\n"))
    peer: list[Record] = [("peer", _GATEWAY, str(_PORT))] if nics else []
    return [
        *peer,
        ("config", encode_records(config)),
        ("start", encode_records(list(setup.start_records(spec)))),
    ]


def _interface(number: int) -> Interface:
    """In a network for examples (RFC 5737), which no packet leaves; the first has _GATEWAY."""
    return Interface(
        name=f"eth{number}",
        host="",
        bridge="",
        mac=f"02:00:00:00:01:{number:02x}",
        address=f"192.0.2.{16 * number + 2}/28" if number < 16 else "",
        gateway=f"192.0.2.{16 * number + 1}" if number < 16 else "",
        default_route=number == 0,
    )
