"""YAML events to a tree of nodes: what PyYAML's composer does, with every fault located and nothing executed.

The parser is libyaml where PyYAML was built with it; the tree is built without recursion over its events. Aliases share
nodes, so that an explosion of them costs nothing before it is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from eulerstack.dsl.limits import MAX_DEPTH, MAX_NODES
from eulerstack.dsl.paths import key_text, show
from eulerstack.dsl.scalars import SCALAR_TAGS, TAG_PREFIX, ScalarError, plain, tagged
from eulerstack.dsl.suggest import MANY, nearest
from eulerstack.errors import Collector, Location, Message, msg

try:
    from yaml._yaml import CParser as _Parser
except ImportError:  # PyYAML without libyaml: the same events, only slower.
    from yaml.parser import Parser
    from yaml.reader import Reader
    from yaml.scanner import Scanner

    class _Parser(Reader, Scanner, Parser):  # type: ignore[no-redef]
        def __init__(self, text: str):
            Reader.__init__(self, text)
            Scanner.__init__(self)
            Parser.__init__(self)


class Node:
    """A value and where it stands (line and column from 1); `size` and `depth` are those of its expansion.

    `value` is a scalar's value, a list of nodes, or a dict from key to `Entry`; `empty` says that nothing was typed for
    it, `merges` that it is the merge key.
    """

    __slots__ = ("column", "depth", "done", "empty", "kind", "line", "merges", "size", "value")

    def __init__(self, kind: str, value: Any, mark: Any):
        self.kind, self.value = kind, value
        self.line, self.column = mark.line + 1, mark.column + 1
        self.size, self.depth, self.done = 1, 1, kind == "scalar"
        self.empty = self.merges = False


class Entry:
    """A key of a mapping, where it stands, and its node."""

    __slots__ = ("column", "line", "node")

    def __init__(self, line: int, column: int, node: Node):
        self.line, self.column, self.node = line, column, node


class TooMuch(Exception):
    """Composition was given up; the reason has been recorded."""


class Composer:
    """Composes one document; problems go to `problems`, and only those that leave no sense raise `TooMuch`."""

    def __init__(self, text: str, file: str, problems: Collector):
        self._parser = _Parser(text)
        self._file = file
        self._problems = problems
        self._anchors: dict[str, Node] = {}
        self._events = 0
        self._merged = 0

    def root(self) -> Node | None:
        """The document's node, None when the file holds none. Raises yaml.YAMLError for what isn't YAML."""
        root: Node | None = None
        documents = 0
        events: Iterator[Any] = iter(self._parser.get_event, None)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 2:
                    self._add(
                        event.start_mark,
                        msg("a second document begins here; a spec is one document"),
                        msg("Delete the line '---', or move what follows it to a file of its own"),
                        "reference/errors.md#one-document",
                    )
                    return root
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event)
            elif isinstance(event, yaml.StreamEndEvent):
                break
        return root

    def _node(self, first: Any) -> Node:
        """The node that begins with the event `first`, with all that is in it."""
        root = self._begin(first)
        stack: list[tuple[Node, list[Node]]] = []
        if not root.done:
            stack.append((root, []))
        while stack:
            event: Any = self._parser.get_event()
            node, children = stack[-1]
            if isinstance(event, yaml.CollectionEndEvent):
                self._close(node, children)
                stack.pop()
                continue
            child = self._begin(event)
            children.append(child)
            if child.kind != "scalar" and not child.done and not isinstance(event, yaml.AliasEvent):
                stack.append((child, []))
                if len(stack) > MAX_DEPTH:
                    self._too_deep(event.start_mark)
        return root

    def _begin(self, event: Any) -> Node:
        self._events += 1
        if self._events > MAX_NODES:
            self._too_many(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.ScalarEvent):
            node = Node("scalar", self._scalar(event), event.start_mark)
            node.merges = event.value == "<<" and event.implicit[0]
            node.empty = event.value == "" and event.implicit[0]
        else:
            mapping = isinstance(event, yaml.MappingStartEvent)
            node = Node("mapping" if mapping else "sequence", None, event.start_mark)
            if event.tag not in (None, "!", TAG_PREFIX + ("map" if mapping else "seq")):
                self._bad_tag(event)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any) -> Any:
        try:
            if event.tag is None:
                return plain(event.value) if event.implicit[0] else event.value
            if event.tag in SCALAR_TAGS:
                return tagged(event.value, event.tag)
        except ScalarError as error:
            self._add(event.start_mark, error.what, error.fix, error.see)
            return 1
        if event.tag != "!":
            self._bad_tag(event)
        return event.value

    def _alias(self, event: Any) -> Node:
        name = event.anchor
        node = self._anchors.get(name)
        if node is None:
            known = nearest(name, self._anchors) if len(self._problems.diagnostics) < MANY else None
            self._add(
                event.start_mark,
                msg("the alias *{name} has no anchor before it", name=name),
                msg("Type *{known}", known=known) if known else msg("Put &{name} before the value meant", name=name),
                "reference/errors.md#alias",
            )
            return Node("scalar", 1, event.start_mark)
        if not node.done:
            self._stop(
                event.start_mark,
                msg("the alias *{name} stands inside the value that it names", name=name),
                msg("Write the value out instead of *{name}", name=name),
                "reference/errors.md#alias",
            )
        return node

    def _close(self, node: Node, children: list[Node]) -> None:
        node.done = True
        node.value = children if node.kind == "sequence" else self._entries(children)
        if node.kind == "mapping":
            children = [entry.node for entry in node.value.values()]
        node.size = 1 + len(children) + sum(child.size for child in children)
        node.depth = 1 + max((child.depth for child in children), default=0)
        if node.size > MAX_NODES:
            self._too_many(node)
        if node.depth > MAX_DEPTH:
            self._too_deep(node)

    def _entries(self, children: list[Node]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        merges: list[Node] = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            name = key.value
            if key.kind != "scalar" or not isinstance(name, str):
                self._bad_key(key)
                continue
            if name in entries or (key.merges and merges):
                self._duplicate(name, key, entries[name].line if name in entries else merges[0].line)
            elif key.merges:
                merges.append(value)
            else:
                entries[name] = Entry(key.line, key.column, value)
        for value in merges:
            self._merge(entries, value)
        return entries

    def _merge(self, entries: dict[str, Entry], value: Node) -> None:
        sources = value.value if value.kind == "sequence" else [value]
        for source in sources:
            if source.kind != "mapping":
                self._add(
                    source,
                    msg("the merge key << needs a mapping, or a list of mappings"),
                    msg("Type <<: *name, where &name stands before a mapping"),
                    "reference/errors.md#alias",
                )
                continue
            self._merged += len(source.value)
            if self._merged > MAX_NODES:
                self._too_many(source)
            for name, entry in source.value.items():
                entries.setdefault(name, entry)

    def _bad_key(self, key: Node) -> None:
        if key.kind != "scalar":
            what, fix = msg("a key must be text, not a list or mapping"), msg("Type a plain word before the colon")
        else:
            shown = show(key.value)
            what = msg("a key must be text, not {value}", value=shown)
            fix = msg('Put it in quotes: "{value}"', value=shown)
        self._add(key, what, fix, "reference/errors.md#key-type")

    def _duplicate(self, name: str, key: Node, first_line: int) -> None:
        fix = msg("Delete one of the two: line {first} or line {second}", first=first_line, second=key.line)
        if first_line == key.line:
            fix = msg("Delete one of the two")
        self._add(
            key,
            msg("the key {key} stands here again; it is on line {line} already", key=key_text(name), line=first_line),
            fix,
            "reference/errors.md#duplicate-key",
        )

    def _bad_tag(self, event: Any) -> None:
        tag = event.tag.replace(TAG_PREFIX, "!!")
        self._add(
            event.start_mark,
            msg("the tag {tag} is not allowed; a spec is plain data", tag=show(tag)[1:-1]),
            msg("Delete the tag {tag}", tag=show(tag)[1:-1]),
            "reference/errors.md#tag",
        )

    def _too_many(self, place: Any) -> None:
        self._stop(
            place,
            msg("the spec holds more than {limit} values once its aliases are expanded", limit=MAX_NODES),
            msg("Use repeat and layer_templates instead of writing layers out"),
        )

    def _too_deep(self, place: Any) -> None:
        self._stop(
            place,
            msg("values are nested more than {limit} deep", limit=MAX_DEPTH),
            msg("Nest at most {limit} levels", limit=MAX_DEPTH),
        )

    def _stop(self, place: Any, what: Message, fix: Message, see: str = "reference/errors.md#too-large") -> None:
        self._add(place, what, fix, see)
        raise TooMuch

    def _add(self, place: Any, what: Message, fix: Message, see: str) -> None:
        """Records a problem at a node, or at a parser's mark."""
        line, column = (place.line, place.column) if isinstance(place, Node) else (place.line + 1, place.column + 1)
        self._problems.add("", what, fix, see, location=Location(self._file, line, column))
