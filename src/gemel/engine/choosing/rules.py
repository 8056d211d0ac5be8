"""The rules of ``runtime: auto``. Pure: the same facts give the same choice, every time.

The first rule that speaks for a runtime decides:

1. needs of the host        what shares the host (its network, devices, namespaces, the engine's
                            socket) is only in a container
2. micro VMs here           without QEMU or a kernel for it there is only the container
3. block volumes            a volume that is a disk of its own can only be a micro VM's
4. isolation asked for      x-gemel: {isolation: strong} wants a kernel of its own
5. memory left              a micro VM needs memory for a kernel of its own
6. measured                 what `gemel compare` recommended for this service and image
7. acceleration, exposure   with KVM, what other machines can reach gets a kernel of its own
8. else                     a container
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gemel.errors import InvalidInput
from gemel.model.choice import STRONG, Choice, Fact
from gemel.model.instance import RuntimeName

CONTAINER, MICROVM = RuntimeName.CONTAINER, RuntimeName.MICROVM
#: Bytes that must stay free beside a micro VM's memory.
SPARE = 512 << 20


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison of this service said. when: its day. current: of this very image."""

    runtime: RuntimeName
    reason: str
    when: str
    current: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that the rules look at. Memory in bytes.

    needs: what of the service only a container can have. missing: why no micro VM can run
    here, or nothing. blocks: its block volumes. exposed: addresses and ports that other
    machines reach. local: ports that only this machine reaches.
    """

    needs: tuple[str, ...] = ()
    missing: str = ""
    blocks: tuple[str, ...] = ()
    kvm: bool = False
    kvm_reason: str = ""
    isolation: str = ""
    exposed: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    memory_left: int = 0
    memory_needed: int = 0
    measured: Measured | None = None


def choose(facts: Facts) -> Choice:
    """The choice. Raises InvalidInput where a micro VM is needed and cannot be had."""
    told = [rule(facts) for rule in _RULES]
    decisive = next(n for n, (_, _, runtime) in enumerate(told) if runtime is not None)
    _, reason, runtime = told[decisive]
    assert runtime is not None
    if facts.isolation == STRONG and runtime is CONTAINER:
        raise InvalidInput(
            "isolation: strong asks for a micro VM, and this cannot be one",
            details=reason,
            resolution="leave out what stands against it, or choose runtime: container",
        )
    if facts.blocks and runtime is CONTAINER:
        raise InvalidInput(
            f"{_volumes(facts.blocks)} can only be a micro VM's, and this cannot be one",
            details=reason,
            resolution="leave out what stands against it, or use a volume without that option",
        )
    return Choice(
        runtime=runtime,
        reason=reason,
        facts=tuple(
            Fact(rule=rule, fact=fact, speaks_for=speaks, decisive=n == decisive)
            for n, (rule, fact, speaks) in enumerate(told)
        ),
    )


_Told = tuple[str, str, RuntimeName | None]


def _needs(facts: Facts) -> _Told:
    rule = "needs of the host"
    if facts.needs:
        return rule, f"it needs {', '.join(facts.needs)}: only a container has that", CONTAINER
    return rule, "it needs nothing of the host", None


def _possible(facts: Facts) -> _Told:
    rule = "micro VMs here"
    if facts.missing:
        return rule, f"no micro VM can run here: {facts.missing}", CONTAINER
    return rule, "micro VMs can run here", None


def _blocks(facts: Facts) -> _Told:
    rule = "block volumes"
    if facts.blocks:
        return rule, f"{_volumes(facts.blocks)}: a disk that only a micro VM can have", MICROVM
    return rule, "it has none", None


def _volumes(names: tuple[str, ...]) -> str:
    return f"the block volume{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _isolation(facts: Facts) -> _Told:
    rule = "isolation asked for"
    if facts.isolation == STRONG:
        return rule, "x-gemel.isolation is strong: a kernel of its own", MICROVM
    return rule, "nothing (x-gemel: {isolation: strong} asks for a micro VM)", None


def _memory(facts: Facts) -> _Told:
    rule = "memory left"
    left, needed = _mib(facts.memory_left), _mib(facts.memory_needed)
    if facts.memory_left < facts.memory_needed + SPARE:
        words = f"{left} are left: too little for a micro VM of {needed} and {_mib(SPARE)} beside"
        return rule, words, CONTAINER
    # in words that do not change from one moment to the next: the choice does not either
    return rule, f"enough for a micro VM of {needed}", None


def _measured(facts: Facts) -> _Told:
    rule = "measured"
    found = facts.measured
    if found is None:
        return rule, "not yet (`gemel compare` does)", None
    if not found.current:
        return rule, f"on {found.when}, for another image: not counted", None
    return rule, f"on {found.when}: {found.reason}", found.runtime


def _accelerated(facts: Facts) -> _Told:
    rule = "acceleration and exposure"
    if facts.exposed:
        reach = f"other machines reach it ({', '.join(facts.exposed)})"
    elif facts.local:
        reach = f"only this machine reaches it ({', '.join(facts.local)})"
    else:
        reach = "only its own networks reach it"
    if not facts.kvm:
        words = f"{reach}; no KVM here, and under emulation a micro VM costs several times the CPU"
        return rule, words, None
    if facts.exposed:
        return rule, f"{reach}, and KVM is usable: a kernel of its own costs little", MICROVM
    return rule, f"{reach}; KVM is usable", None


def _default(facts: Facts) -> _Told:
    return (
        "else",
        "nothing speaks for a micro VM: a container starts first and costs least",
        (CONTAINER),
    )


_RULES: tuple[Callable[[Facts], _Told], ...] = (
    _needs, _possible, _blocks, _isolation, _memory, _measured, _accelerated, _default,
)  # fmt: skip


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
