"""Which runtime ``runtime: auto`` means, and why."""

from __future__ import annotations

import msgspec

from gemel.model.instance import RuntimeName

#: What a client says for "choose for me".
AUTO = "auto"
#: The label by which a service asks for a kernel of its own (x-gemel: {isolation: strong}).
ISOLATION_LABEL = "gemel.isolation"
STRONG = "strong"
#: A label of requests that only ask: block volumes that there are to be, with commas between.
BLOCK_VOLUMES_LABEL = "gemel.block-volumes"


class Fact(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One rule: what it asks, what is so here, which runtime that speaks for (or neither).

    decisive: the first rule that speaks for one decides; the others are told all the same.
    """

    rule: str
    fact: str
    speaks_for: RuntimeName | None = None
    decisive: bool = False


class Choice(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The runtime that the rules give, the reason in one sentence, and every rule's fact."""

    runtime: RuntimeName
    reason: str
    facts: tuple[Fact, ...] = ()
