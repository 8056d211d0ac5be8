"""The root file system of a container: overlay mount, owner lookup, files, device nodes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gemel.errors import InvalidInput
from gemel.host import files, mounts, rooted
from gemel.model.instance import InstanceSpec
from gemel.runtime.container import users
from gemel.runtime.container.bundle import DeviceNode


def make_layer(spec: InstanceSpec) -> None:
    """The writable layer. Its top folder has the image's mode and owner. Idempotent."""
    upper = spec.layer / "upper"
    if upper.is_dir():
        return
    files.folder(spec.layer)
    files.folder(spec.layer / "work")
    fresh = spec.layer / "upper.new"
    files.remove(fresh)
    fresh.mkdir()
    facts = os.stat(_lower(spec))
    os.chown(fresh, facts.st_uid, facts.st_gid)
    os.chmod(fresh, stat.S_IMODE(facts.st_mode))
    fresh.rename(upper)


def _lower(spec: InstanceSpec) -> Path:
    if spec.rootfs is None:
        raise InvalidInput(
            "the image's root is not mounted", f"{spec.name} is to run as a container"
        )
    return spec.rootfs


def mount(spec: InstanceSpec, target: Path) -> None:
    """Mounts image and writable layer together on ``target``. Raises Failed."""
    make_layer(spec)
    files.folder(target)
    layers = (
        ("lowerdir", _lower(spec)),
        ("upperdir", spec.layer / "upper"),
        ("workdir", spec.layer / "work"),
    )
    options = ",".join(f"{key}={_escaped(path)}" for key, path in layers)
    mounts.mount("overlay", target, "overlay", data=options)


def _escaped(path: Path) -> str:
    text = str(path).replace("\\", "\\\\")
    return text.replace(":", "\\:").replace(",", "\\,")


def mount_shm(target: Path, size: int) -> None:
    """The tmpfs of a container's /dev/shm; size in bytes, 0 for Docker's 64 MB."""
    files.folder(target)
    flags = mounts.Flag.NOSUID | mounts.Flag.NODEV | mounts.Flag.NOEXEC
    mounts.mount("shm", target, "tmpfs", flags, f"mode=1777,size={size or 64 << 20}")


def identity(root: str | Path, user: str, groups: tuple[str, ...]) -> users.Identity:
    """Who ``user`` is according to the files under ``root``. Raises InvalidInput."""
    with rooted.root(root) as fd:
        passwd = rooted.read_in(fd, "/etc/passwd")
        group = rooted.read_in(fd, "/etc/group")
    return users.resolve(user, groups, passwd, group)


def make_cwd(root: Path, cwd: str) -> None:
    """Makes the working folder if the image lacks it, as Docker does. Raises InvalidInput."""
    if not cwd.startswith("/"):
        raise InvalidInput(f"the working directory '{cwd}' is invalid, it needs to be absolute")
    try:
        with rooted.root(root) as fd:
            rooted.make_folders(fd, cwd)
    except OSError as error:
        raise InvalidInput(
            f"cannot make the working directory '{cwd}'", details=os.strerror(error.errno or 0)
        ) from error


def own_files(spec: InstanceSpec) -> None:
    """Gives gemel's own files the mode and owner that they have inside."""
    for file in spec.files:
        os.chown(file.source, file.uid, file.gid)
        os.chmod(file.source, file.mode)


def device_nodes(spec: InstanceSpec) -> list[DeviceNode]:
    """The host's devices that the container is given; all of them if privileged."""
    found: list[DeviceNode] = []
    for device in spec.devices:
        source = Path(os.path.realpath(device.source))
        if source.is_dir():
            for path in _devices_below(source):
                target = device.target.rstrip("/") + str(path)[len(str(source)) :]
                found += _node(path, target, device.permissions)
        elif not (nodes := _node(source, device.target, device.permissions)):
            raise InvalidInput(
                f"error gathering device information: no such device {device.source}",
                resolution="devices: takes nodes under /dev of the host",
            )
        else:
            found += nodes
    if spec.security.privileged:
        taken = {node.path for node in found} | _MADE_BY_RUNTIME
        for path in _devices_below(Path("/dev")):
            if str(path) not in taken:
                found += _node(path, str(path), "rwm")
    return found


_MADE_BY_RUNTIME = {
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
}
_LEFT_OUT = {"pts", "shm", "mqueue", "fd", "hugepages"}


def _devices_below(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _LEFT_OUT:
                yield from _devices_below(Path(entry.path))
        elif not entry.is_symlink():
            yield Path(entry.path)


def _node(path: Path, target: str, permissions: str) -> list[DeviceNode]:
    try:
        facts = os.lstat(path)
    except OSError:
        return []
    kind = "c" if stat.S_ISCHR(facts.st_mode) else "b" if stat.S_ISBLK(facts.st_mode) else ""
    if not kind:
        return []
    return [
        DeviceNode(
            path=target,
            kind=kind,
            major=os.major(facts.st_rdev),
            minor=os.minor(facts.st_rdev),
            mode=stat.S_IMODE(facts.st_mode),
            uid=facts.st_uid,
            gid=facts.st_gid,
            permissions=permissions,
        )
    ]
