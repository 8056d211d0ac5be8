"""YAML as Go's yaml.v3 reads it, with the place of every node.

PyYAML's C parser composes the nodes; their tags are resolved here, because its
own resolvers read ``22:22`` as a number and ``yes`` as true.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import yaml
from yaml._yaml import CParser
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gemel.compose import yamlmend
from gemel.compose.problems import Path, Place, Problems
from gemel.compose.yamlwords import Explained, explained

LARGEST = 500_000
"""Nodes of a document once its aliases are expanded: more is a bomb, not a file."""
DEEPEST = 100
MISTAKES = 10
"""Places of a file that are not YAML and are told of, with the rest read all the same."""

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".nan": float("nan"),
    ".NaN": float("nan"),
    ".NAN": float("nan"),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NUMBER_STARTS = frozenset("+-.0123456789")
_STR = "tag:yaml.org,2002:str"
_PLAIN = "?"


def plain(text: str) -> Any:
    """The value of a plain scalar: None, bool, int, float or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    digits = text.replace("_", "")
    if _INT.fullmatch(digits):
        return _integer(digits)
    if _FLOAT.fullmatch(digits):
        return float(digits)
    return text


def _integer(digits: str) -> int:
    sign = -1 if digits[0] == "-" else 1
    body = digits.lstrip("+-").lower()
    if len(body) > 1 and body[0] == "0" and body[1] not in "xbo":
        return sign * int(body, 8)
    return sign * int(body, 0)


class _Composer(CParser):
    """PyYAML's C parser with a resolver that only tells plain from quoted."""

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else _STR
        return "seq" if kind is SequenceNode else "map"

    def descend_resolver(self, parent: Any, index: Any) -> None: ...

    def ascend_resolver(self) -> None: ...


class Document(msgspec.Struct, frozen=True):
    """One YAML document of a file. file: the name shown; path: where it is."""

    file: str
    path: str
    text: str
    node: Node
    value: Any
    """dicts with text keys, lists, str, int, float, bool, None. Not to be changed."""
    resets: tuple[Path, ...] = ()
    """Where ``!reset`` or ``!override`` stands: what lay there before is dropped."""
    broken: tuple[Path, ...] = ()
    """Keys that were told of already; what they say is not in ``value``."""
    removed: dict[Path, list[int]] = msgspec.field(default_factory=dict)
    """Entries of lists that were wrong: they are not in the model that is made of it."""

    def place(self, path: Path, key: bool = False) -> Place:
        """Where ``path`` stands (its key or its value), or the nearest thing above it."""
        node, mark_of = self.node, self.node
        for index, part in enumerate(path):
            found = _child(node, part)
            if found is None:
                break
            name, node = found
            mark_of = name if key and index == len(path) - 1 else node
        mark = mark_of.start_mark
        return self.at(mark.line, mark.column)

    def key_of(self, path: Path) -> Place:
        """Where the key stands that ``path`` ends with."""
        return self.place(path, key=True)

    def at(self, line: int, column: int) -> Place:
        """The place at a line and column counted from 0."""
        lines = _lines(self.text)
        text = lines[line].rstrip("\r") if 0 <= line < len(lines) else ""
        return Place(self.file, line + 1, column + 1, text)

    def item(self, path: Path, text: str) -> Place | None:
        """Where, in the list at ``path``, an entry stands that says ``text``."""
        node = self.find(path)
        for child in node.value if isinstance(node, SequenceNode) else ():
            values = [child] if isinstance(child, ScalarNode) else [v for _, v in child.value]
            for value in values:
                if isinstance(value.value, str) and text in (value.value, *_parts(value.value)):
                    return self.at(child.start_mark.line, child.start_mark.column)
        return None

    def has(self, path: Path) -> bool:
        """Whether the document itself says something at ``path``."""
        return self.find(path) is not None

    def find(self, path: Path) -> Node | None:
        """The node at ``path``; None if the document says nothing there."""
        node = self.node
        for part in path:
            found = _child(node, part)
            if found is None:
                return None
            node = found[1]
        return node


@functools.lru_cache(maxsize=4)
def _lines(text: str) -> list[str]:
    return text.split("\n")


def _parts(text: str) -> list[str]:
    return re.split("[:=/]", text) + re.split("[:=]", text)


def _child(node: Node, part: str | int) -> tuple[Node, Node] | None:
    """The nodes of key and value below ``node``; merge keys are looked through."""
    if isinstance(node, SequenceNode):
        if isinstance(part, int) and part < len(node.value):
            return node.value[part], node.value[part]
        return None
    if not isinstance(node, MappingNode):
        return None
    for key, value in node.value:
        if key.value == part:
            return key, value
    for key, value in node.value:
        if _merges(key):
            sources = value.value if isinstance(value, SequenceNode) else [value]
            for source in sources:
                found = _child(source, part)
                if found is not None:
                    return found
    return None


def parse(
    text: str, file: str, path: str, problems: Problems, unread: list[str] | None = None
) -> list[Document]:
    """The documents of a file. What is wrong goes to ``problems``.

    unread: takes the file's name if something of it could not be read.
    """
    documents = []
    told = len(problems)
    unread = [] if unread is None else unread
    try:
        nodes, cut = _readable(text, file, problems)
        for node in nodes:
            build = _Builder(text, file, path, problems)
            if not build.fits(node):
                unread.append(file)
                continue
            value = build.value(node)
            for top in [one[0] for one in cut if isinstance(value, dict) and one]:
                if value.get(str(top), "") is None:
                    del value[str(top)]  # nothing is left of it
            resets = tuple(build.resets(node)) if "!" in text else ()
            broken = (*build.broken(node), *cut) if build.bad or cut else ()
            documents.append(Document(file, path, text, node, value, resets, broken))
        unread += [file] * bool(cut or (not nodes and len(problems) > told))
    except (UnicodeError, ValueError, OverflowError) as error:
        problems.add(Place(file), f"not YAML: {' '.join(str(error).split())}")
        unread.append(file)
    return documents


def _readable(text: str, file: str, problems: Problems) -> tuple[list[Node], list[Path]]:
    """The nodes of a file, and of what they say nothing as it is not YAML.

    Where a mistake is that of one place, its service is left out and the rest is read.
    """
    told: list[Explained] = []
    cut: list[Path] = []
    nodes: list[Node] = []
    lines: set[int] = set()
    rest = text
    for _ in range(MISTAKES):
        try:
            nodes = _nodes(rest)
        except yaml.YAMLError as error:
            one = explained(error, rest, file)
            if not (cut and _left_out(error, text)):
                told.append(one)
            if not one.local or one.place.line in lines:
                del told[1:]  # what was told since may follow from this
                break
            lines.add(one.place.line)
            rest, path = yamlmend.without(rest, one.place.line - 1)
            cut.append(path)
        else:
            break
    for one in told:
        problems.add(one.place, one.words)
    return nodes, cut


def _left_out(error: yaml.YAMLError, text: str) -> bool:
    """Whether it is an alias of what stands in a part that was left out."""
    mark = getattr(error, "problem_mark", None)
    if mark is None or "undefined alias" not in str(error):
        return False
    name = re.split(r"[\s,\]}]", _lines(text)[mark.line][mark.column + 1 :], maxsplit=1)[0]
    return f"&{name}" in text


def _nodes(text: str) -> list[Node]:
    composer = _Composer(text)
    found: list[Node] = []
    try:
        while composer.check_node():
            found.append(cast(Node, composer.get_node()))
        return found
    except ComposerError as error:
        if "duplicate anchor" not in str(error):
            raise
        # YAML allows to define an anchor anew; PyYAML's own composer does not
        return list(_Slow(text).nodes())
    finally:
        composer.dispose()


class _Slow:
    """Composes nodes from events, an anchor meaning its latest definition."""

    def __init__(self, text: str) -> None:
        self._parser = _Composer(text)
        self._anchors: dict[str, Node] = {}

    def nodes(self) -> Iterator[Node]:
        """The nodes of all documents."""
        try:
            while self._parser.check_event():
                event = self._parser.get_event()
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors = {}
                    yield self._node(self._parser.get_event(), 0)
        finally:
            self._parser.dispose()

    def _node(self, event: Any, depth: int) -> Node:
        if depth > DEEPEST:
            raise ComposerError(None, None, "nested too deeply", cast(Any, event.start_mark))
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise ComposerError(None, None, "found undefined alias", mark)
            return self._anchors[event.anchor]
        if isinstance(event, yaml.ScalarEvent):
            tag = event.tag or (_PLAIN if event.implicit[0] else _STR)
            return self._named(event, ScalarNode(tag, event.value, mark))
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._named(event, SequenceNode(event.tag or "seq", [], mark))
            while not isinstance(one := self._parser.get_event(), yaml.SequenceEndEvent):
                node.value.append(self._node(one, depth + 1))
            return node
        node = self._named(event, MappingNode(event.tag or "map", [], mark))
        while not isinstance(one := self._parser.get_event(), yaml.MappingEndEvent):
            key = self._node(one, depth + 1)
            node.value.append((key, self._node(self._parser.get_event(), depth + 1)))
        return node

    def _named(self, event: Any, node: Node) -> Node:
        if event.anchor:
            self._anchors[event.anchor] = node
        return node


class _Builder:
    """Turns nodes into plain values; aliased nodes become one shared value."""

    def __init__(self, text: str, file: str, path: str, problems: Problems) -> None:
        self._shape = Document(file, path, text, ScalarNode(_PLAIN, ""), None)
        self._problems = problems
        self.bad: set[int] = set()
        """Nodes of keys that were told of, and of what was to be merged and cannot be."""
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()
        self._sizes: dict[int, int] = {}

    def _tell(self, node: Node, words: str) -> None:
        mark = node.start_mark
        self._problems.add(self._shape.at(mark.line, mark.column), words)

    def fits(self, node: Node) -> bool:
        """Whether the expanded document is of a sane size and depth, and has no loop."""
        size = self._size(node, 0)
        if size is None:
            return False
        if size > LARGEST:
            self._tell(node, f"more than {LARGEST} values once aliases are expanded")
            return False
        return True

    def _size(self, node: Node, depth: int) -> int | None:
        if isinstance(node, ScalarNode):
            return 1
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            self._tell(node, "an anchor refers to itself")
            return None
        if depth > DEEPEST:
            self._tell(node, f"nested deeper than {DEEPEST} levels")
            return None
        self._open.add(id(node))
        total = 1
        for child in _children(node):
            size = self._size(child, depth + 1)
            if size is None:
                return None
            total = min(total + size, LARGEST + 1)
        self._open.discard(id(node))
        self._sizes[id(node)] = total
        return total

    def value(self, node: Node) -> Any:
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        known = self._done.get(id(node))
        if known is not None:
            return known
        if isinstance(node, SequenceNode):
            made: Any = [self.value(child) for child in node.value if child.tag != "!reset"]
        else:
            made = self._mapping(cast(MappingNode, node))
        self._done[id(node)] = made
        return made

    def _scalar(self, node: ScalarNode) -> Any:
        tag, text = node.tag, node.value
        if tag == _PLAIN:
            return plain(text)
        if tag.startswith("tag:yaml.org,2002:") and tag[18:] in ("int", "float", "bool", "null"):
            value = plain(text)
            return float(value) if tag[18:] == "float" and isinstance(value, int) else value
        return text

    def _mapping(self, node: MappingNode) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merges: list[tuple[Node, Node]] = []
        seen: dict[str, Node] = {}
        for key, child in node.value:
            name = self._key(key, seen)
            if name is None:
                continue
            seen[name] = key
            if _merges(key):
                merges.append((key, child))
            elif child.tag != "!reset":
                made[name] = self.value(child)
        for key, child in merges:
            self._merge(key, child, made, seen)
        return made

    def _key(self, key: Node, seen: dict[str, Node]) -> str | None:
        words = self._wrong(key, seen)
        if words:
            self._tell(key, words)
            self.bad.add(id(key))
            return None
        return str(key.value)

    def _wrong(self, key: Node, seen: dict[str, Node]) -> str:
        """What is wrong with a key, or nothing."""
        if not isinstance(key, ScalarNode):
            return "a key must be a text"
        name: str = key.value
        if name in seen:
            first = seen[name].start_mark.line + 1
            return f'key "{name}" stands here twice (first in line {first})'
        if key.tag == _PLAIN and not isinstance(plain(name), str):
            return f"the key {name or 'null'} must be a text: put it in quotes"
        return ""

    def _merge(self, key: Node, child: Node, made: dict[str, Any], seen: dict[str, Node]) -> None:
        for source in child.value if isinstance(child, SequenceNode) else [child]:
            if not isinstance(source, MappingNode):
                # an alias is its anchor's node, which may stand anywhere
                self._tell(key, "<< takes a mapping or a list of mappings")
                self.bad.add(id(source))
                continue
            for name, value in self.value(source).items():
                if name not in seen:
                    made.setdefault(name, value)

    def resets(self, node: Node, path: Path = ()) -> Iterator[Path]:
        if node.tag in ("!reset", "!override"):
            yield path
        elif isinstance(node, SequenceNode):
            for index, child in enumerate(node.value):
                yield from self.resets(child, (*path, index))
        elif isinstance(node, MappingNode):
            for key, child in node.value:
                merged = key.value == "<<"
                yield from self.resets(child, path if merged else (*path, key.value))

    def broken(self, node: Node, path: Path = ()) -> Iterator[Path]:
        """Where the bad nodes are; of what cannot be merged, where it was to be merged into."""
        if id(node) in self.bad:
            yield path
        if isinstance(node, SequenceNode):
            for index, child in enumerate(node.value):
                yield from self.broken(child, (*path, index))
        elif isinstance(node, MappingNode):
            for key, child in node.value:
                if id(key) in self.bad:
                    yield (*path, key.value) if isinstance(key, ScalarNode) else path
                else:
                    yield from self.broken(child, path if _merges(key) else (*path, key.value))


def _merges(key: Node) -> bool:
    """Whether a key is ``<<``, plain or with its tag."""
    return key.value == "<<" and key.tag in (_PLAIN, "tag:yaml.org,2002:merge")


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, SequenceNode):
        yield from node.value
    else:
        for key, value in node.value:
            yield key
            yield value
