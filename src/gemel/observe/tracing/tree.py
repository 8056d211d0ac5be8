"""Nodes of the trees that traces are: calls and spans alike. Pure."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right

from gemel.observe.tracing.records import Call, Peer, Span

_VARIABLE = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|\d+|[0-9a-fA-F]{16,}")


def label(peer: Peer) -> str:
    """How an end of a call is called."""
    return peer.service or peer.name or peer.address


def key_of(peer: Peer) -> str:
    """What tells instances apart; empty for the host and what is not known."""
    return peer.instance


class Node:
    """A call or a span with its place in a tree."""

    __slots__ = (
        "call", "calls", "children", "connection", "end", "free", "id", "inferred", "inner",
        "kind_of_work", "parent", "request", "service", "span", "start", "trace", "up",
    )  # fmt: skip

    def __init__(self, id: str, start: float, end: float, service: str) -> None:
        self.id = id
        self.start = start
        self.end = max(start, end)
        self.service = service
        self.call: Call | None = None
        self.span: Span | None = None
        self.parent: Node | None = None
        self.up = self
        """On the way to the root; see ``tree``."""
        self.children: list[Node] = []
        self.inferred = False
        self.trace = ""
        """Named by ids; read that of the ``tree()``."""
        self.request = ""
        self.connection = 0
        self.kind_of_work = ""
        self.free = start
        """When the last call that was made for it ended."""
        self.calls = 0
        self.inner: Node | None = None
        """The span of the service that answers this call."""

    @classmethod
    def of_call(cls, call: Call, epoch: str) -> Node:
        """A node for an observed call; its id stays the same."""
        digest = hashlib.blake2b(f"{epoch} {call.id}".encode(), digest_size=8).hexdigest()
        node = cls(digest, call.start, call.end, label(call.target))
        node.call, node.trace, node.request = call, call.trace, call.request
        node.connection = call.connection
        node.kind_of_work = f"{call.method} {_VARIABLE.sub('*', call.path.partition('?')[0][:80])}"
        return node

    @classmethod
    def of_span(cls, span: Span) -> Node:
        """A node for a span."""
        node = cls(span.id, span.start, span.end, span.service)
        node.span, node.trace = span, span.trace
        return node

    def tree(self) -> Node:
        """The root of the tree that it is in. Quick, however deep it is: ways get shorter."""
        root = self
        while root.up is not root:
            root = root.up
        node = self
        while node.up is not root:
            node.up, node = root, node.up
        return root

    def attach(self, parent: Node, inferred: bool) -> bool:
        """Hangs this tree's root (itself) below ``parent``; False where that makes a ring, or
        joins two traces whose ids differ."""
        root = parent.tree()
        if self.parent is not None or root is self:
            return False
        if root.trace and self.trace and root.trace != self.trace:
            return False
        root.trace = root.trace or self.trace
        self.parent, self.inferred, self.up = parent, inferred, root
        parent.children.append(self)
        return True


class Timeline:
    """Nodes by the time at which they began."""

    #: How many of those before a moment are looked at.
    MOST = 256

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._starts: list[float] = []

    def add(self, node: Node) -> None:
        """Before the first question."""
        self._nodes.append(node)

    def before(self, moment: float) -> list[Node]:
        """The latest ones that had begun then."""
        if len(self._starts) != len(self._nodes):
            self._nodes.sort(key=lambda node: node.start)
            self._starts = [node.start for node in self._nodes]
        last = bisect_right(self._starts, moment)
        return self._nodes[max(0, last - self.MOST) : last]
