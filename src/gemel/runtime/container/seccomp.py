"""The seccomp filter of a container: a profile in Docker's format made into OCI's (pure).

The default profile is that of containers-common (``/usr/share/containers/seccomp.json``,
Debian's golang-github-containers-common), which is kept up with the kernel's system
calls by the people of podman and Moby; it is read at run time, so an update of the
package is an update of the filter.
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
