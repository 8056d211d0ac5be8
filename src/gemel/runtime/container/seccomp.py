"""The seccomp filter of a container: a profile in Docker's format made into OCI's (pure).

The default profile is that of containers-common (``/usr/share/containers/seccomp.json``,
Debian's golang-github-containers-common), which is kept up with the kernel's system
calls by the people of podman and Moby; it is read at run time, so an update of the
package is an update of the filter. It lets a container make namespaces and mounts of
its own (for podman in podman), and use the kernel's keyrings and io_uring; Docker's does
not, and so ``narrowed`` takes that away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

#: Where Debian, Fedora, Arch and others have the profile.
DEFAULT_PROFILE = Path("/usr/share/containers/seccomp.json")

#: Names of machines as ``uname -m`` tells them: the profile's and libseccomp's.
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}

#: What Docker allows with CAP_SYS_ADMIN only.
_ADMINISTRATION = (
    *("fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount"),
    *("open_tree", "quotactl_fd", "sethostname", "setns", "umount", "umount2", "unshare"),
)

#: What Docker allows nobody: keyrings know no namespaces, io_uring goes past the filter.
_NEVER = (
    *("add_key", "keyctl", "request_key"),
    *("io_uring_enter", "io_uring_register", "io_uring_setup"),
)

#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NAMESPACE_FLAGS = 0x7E020000
_EPERM, _ENOSYS = 1, 38


def narrowed(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The profile without what Docker refuses (both in Docker's format)."""
    taken = {*_ADMINISTRATION, *_NEVER, "clone", "clone3"}
    rules: list[dict[str, Any]] = []
    for entry in profile.get("syscalls") or []:
        plain = not any((entry.get("includes") or {}).values())
        if entry["action"] == "SCMP_ACT_ALLOW" and plain:
            entry = {**entry, "names": [n for n in entry["names"] if n not in taken]}
        if entry["names"]:
            rules.append(entry)
    admin = {"caps": ["CAP_SYS_ADMIN"]}
    s390 = {"arches": ["s390", "s390x"]}
    refuse = {"action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
    allow = {"action": "SCMP_ACT_ALLOW"}

    def no_namespaces(argument: int) -> dict[str, Any]:
        test = {"index": argument, "value": _NAMESPACE_FLAGS, "valueTwo": 0}
        return {"names": ["clone"], **allow, "args": [{**test, "op": "SCMP_CMP_MASKED_EQ"}]}

    rules += [
        {"names": [*_ADMINISTRATION, "clone", "clone3"], **allow, "includes": admin},
        {"names": list(_ADMINISTRATION), **refuse, "excludes": admin},
        {"names": list(_NEVER), **refuse},
        # its flags are in memory, where a filter cannot look: libc falls back to clone
        {"names": ["clone3"], **refuse, "errnoRet": _ENOSYS, "excludes": admin},
        {**no_namespaces(0), "excludes": {**admin, **s390}},
        {**no_namespaces(1), "includes": s390, "excludes": admin},
    ]
    return {**profile, "syscalls": rules}


def oci(
    profile: Mapping[str, Any], caps: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """``linux.seccomp`` of a container that has ``caps`` (``CAP_…``) in its bounding set."""
    short, native = _MACHINES.get(machine, (machine, ""))
    filter: dict[str, Any] = {"defaultAction": profile.get("defaultAction", "SCMP_ACT_ERRNO")}
    if "defaultErrnoRet" in profile:
        filter["defaultErrnoRet"] = profile["defaultErrnoRet"]
    filter["architectures"] = _architectures(profile, native)
    if profile.get("flags"):
        filter["flags"] = profile["flags"]
    filter["syscalls"] = [
        _rule(entry)
        for entry in profile.get("syscalls") or []
        if _applies(entry, caps, short, kernel)
    ]
    return filter


def _architectures(profile: Mapping[str, Any], native: str) -> list[str]:
    for entry in profile.get("archMap") or []:
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or [])]
    return list(profile.get("architectures") or ([native] if native else []))


def _applies(
    entry: Mapping[str, Any], caps: Collection[str], machine: str, kernel: tuple[int, int]
) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if machine in (excludes.get("arches") or []):
        return False
    if any(cap not in caps for cap in includes.get("caps") or []):
        return False
    if any(cap in caps for cap in excludes.get("caps") or []):
        return False
    least, most = includes.get("minKernel"), excludes.get("minKernel")
    return not (least and kernel < _version(least)) and not (most and kernel >= _version(most))


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "names": entry.get("names") or [entry["name"]],
        "action": entry["action"],
    }
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        rule["args"] = [dict(arg) for arg in entry["args"]]
    return rule
