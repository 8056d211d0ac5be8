"""The rules of `runtime: auto`: the first that speaks for a runtime decides, all are told."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemel.engine.choosing.rules import SPARE, Facts, Measured, choose
from gemel.errors import InvalidInput
from gemel.model.choice import STRONG
from gemel.model.instance import RuntimeName

C, M = RuntimeName.CONTAINER, RuntimeName.MICROVM
PLAIN = Facts(memory_left=8 << 30, memory_needed=256 << 20)
BETTER_VM = Measured(runtime=M, reason="it does 90 % of the work", when="2026-01-01", current=True)
BETTER_BOX = Measured(runtime=C, reason="3 % of the work", when="2026-01-01", current=True)


@pytest.mark.parametrize(
    ("changes", "runtime", "rule"),
    [
        ({}, C, "else"),
        ({"isolation": STRONG}, M, "isolation asked for"),
        ({"needs": ("privileged mode",)}, C, "needs of the host"),
        ({"missing": "QEMU is not installed"}, C, "micro VMs here"),
        ({"blocks": ("data",)}, M, "block volumes"),
        ({"blocks": ("data",), "memory_left": SPARE, "measured": BETTER_BOX}, M, "block volumes"),
        ({"memory_left": SPARE}, C, "memory left"),
        ({"measured": BETTER_VM}, M, "measured"),
        ({"measured": BETTER_BOX, "kvm": True, "exposed": ("0.0.0.0:80→80/tcp",)}, C, "measured"),
        ({"measured": msgspec.structs.replace(BETTER_VM, current=False)}, C, "else"),
        ({"kvm": True, "exposed": ("0.0.0.0:80→80/tcp",)}, M, "acceleration and exposure"),
        ({"kvm": True, "local": ("127.0.0.1:80→80/tcp",)}, C, "else"),
        ({"exposed": ("0.0.0.0:80→80/tcp",)}, C, "else"),
        ({"memory_left": SPARE, "measured": BETTER_VM}, C, "memory left"),
    ],
)
def test_rules(changes: dict[str, object], runtime: RuntimeName, rule: str) -> None:
    choice = choose(msgspec.structs.replace(PLAIN, **changes))
    assert choice.runtime is runtime
    decisive = [fact for fact in choice.facts if fact.decisive]
    assert [fact.rule for fact in decisive] == [rule]
    assert decisive[0].fact == choice.reason
    assert len(choice.facts) == 8  # those that do not decide are told too


@pytest.mark.parametrize("against", [{"needs": ("the device /dev/dri",)}, {"missing": "no QEMU"}])
def test_isolation_that_cannot_be_had_is_refused(against: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="isolation: strong") as told:
        choose(msgspec.structs.replace(PLAIN, isolation=STRONG, **against))
    assert told.value.details


@pytest.mark.parametrize("against", [{"needs": ("the device /dev/dri",)}, {"missing": "no QEMU"}])
def test_a_block_volume_without_a_micro_vm_is_refused(against: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="the block volumes a, b can only be") as told:
        choose(msgspec.structs.replace(PLAIN, blocks=("a", "b"), **against))
    assert told.value.details and told.value.resolution


facts = st.builds(
    Facts,
    needs=st.sampled_from([(), ("privileged mode",)]),
    missing=st.sampled_from(["", "no QEMU"]),
    kvm=st.booleans(),
    exposed=st.sampled_from([(), ("0.0.0.0:1→1/tcp",)]),
    local=st.sampled_from([(), ("127.0.0.1:1→1/tcp",)]),
    memory_left=st.integers(0, 1 << 36),
    memory_needed=st.integers(0, 1 << 34),
    measured=st.sampled_from([None, BETTER_BOX, BETTER_VM]),
)


@given(facts)
def test_the_same_facts_give_the_same_choice(given: Facts) -> None:
    first = choose(given)
    assert choose(given) == first
    assert sum(fact.decisive for fact in first.facts) == 1
    if given.needs or given.missing:
        assert first.runtime is C


@given(facts, st.integers(0, 1 << 36))
def test_words_do_not_change_with_the_memory_of_the_moment(given: Facts, left: int) -> None:
    """As long as it suffices: else `explain` would say something else at every call."""
    enough = max(left, given.memory_needed + SPARE)
    one = msgspec.structs.replace(given, memory_left=enough)
    other = msgspec.structs.replace(given, memory_left=enough + (1 << 30))
    assert choose(one) == choose(other)
