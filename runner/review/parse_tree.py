"""SQL parsed by PostgreSQL's own grammar (postgast): one flat list of nodes for each statement, with places in the file."""

from __future__ import annotations

import functools
import importlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runner.playbook.yaml_reader import Mark
from runner.review.sql_texts import Role, SqlText
from steps.contract.dialect import Dialect
from steps.sql.scanner import BadSql, TokenKind, scan
from steps.sql.templates import as_names


@functools.cache
def available() -> bool:
    """Whether the parser is installed (the extra `lint`)."""
    try:
        importlib.import_module("postgast")
    except ImportError:
        return False
    return True


class TreeNode:
    """A node of a parse tree: its type's name in PostgreSQL ("SelectStmt"), the message, the node above it and the field."""

    __slots__ = ("field", "kind", "message", "up")

    def __init__(self, kind: str, message: Any, up: TreeNode | None, name: str) -> None:
        self.kind, self.message, self.up, self.field = kind, message, up, name

    def above(self, *kinds: str) -> TreeNode | None:
        """The nearest node above that is of one of these kinds."""
        node = self.up
        while node is not None and node.kind not in kinds:
            node = node.up
        return node

    def within(self, name: str, stop: TreeNode | None = None) -> bool:
        """Whether it, or a node above it, below `stop`, stands in this field."""
        node: TreeNode | None = self
        while node is not None and node is not stop:
            if node.field == name:
                return True
            node = node.up
        return False


class ParseTree(NamedTuple):
    """One parsed statement: where it begins and ends in the text, its first node, and all nodes by kind, in order."""

    start: int
    end: int
    root: TreeNode
    by_kind: Mapping[str, list[TreeNode]]


class SyntaxFault(NamedTuple):
    """What PostgreSQL's grammar says of a text that it can't read."""

    message: str
    position: int


@dataclass(frozen=True)
class Parsed:
    """A statement of a playbook with its parse tree."""

    text: SqlText
    tree: ParseTree
    shift: int = field(repr=False)  # characters that were put in front of the text to make a statement of it

    @property
    def root(self) -> TreeNode:
        """The statement itself, as "UpdateStmt"."""
        return self.tree.root

    @property
    def sql(self) -> str:
        """The statement as it is written."""
        return self.text.text[max(self.tree.start - self.shift, 0) : max(self.tree.end - self.shift, 0)].strip()

    def find(self, *kinds: str) -> Iterator[TreeNode]:
        """All nodes of these kinds."""
        for kind in kinds:
            yield from self.tree.by_kind.get(kind, ())

    def mark(self, node: TreeNode | None = None) -> Mark:
        """The place of a node in the file; of the statement where the node has none."""
        return self.text.mark(self._position(node))

    def _position(self, node: TreeNode | None) -> int:
        while node is not None:
            at = getattr(node.message, "location", -1)
            if at > 0 or (at == 0 and self.tree.start == 0 and self.shift == 0 and node.kind != "RawStmt"):
                return max(at - self.shift, 0)
            node = node.up
        begin = max(self.tree.start - self.shift, 0)
        return begin + len(self.text.text[begin:]) - len(self.text.text[begin:].lstrip())


_FRAME = {Role.CONDITION: ("SELECT 1 WHERE (", "\n)"), Role.VALUE: ("SELECT (", "\n)")}


def parse(text: SqlText) -> list[Parsed] | SyntaxFault:
    """The statements of a text that is meant for PostgreSQL."""
    before, behind = _FRAME.get(text.role, ("", ""))
    found = _trees(before + plain(text.text) + behind)
    if isinstance(found, SyntaxFault):
        return found._replace(position=max(found.position - len(before), 0))
    return [Parsed(text, tree, len(before)) for tree in found]


def plain(sql: str) -> str:
    """Parameters as $n, templates as quoted names; of the same length, so that positions stay."""
    sql = as_names(sql)
    if ":" not in sql:
        return sql
    try:
        tokens = list(scan(sql, Dialect.POSTGRESQL))
    except BadSql:
        return sql
    numbers: dict[str, int] = {}
    pieces = []
    for token in tokens:
        if token.kind is TokenKind.PARAMETER:
            number = min(numbers.setdefault(token.text, len(numbers) + 1), 9)
            pieces.append(f"${number}".ljust(len(token.text)))
        else:
            pieces.append(token.text)
    return "".join(pieces)


@functools.lru_cache(maxsize=4096)
def _trees(sql: str) -> tuple[ParseTree, ...] | SyntaxFault:
    import postgast

    characters = _characters(sql)
    try:
        found = postgast.parse(sql)
    except postgast.PgQueryError as error:
        return SyntaxFault(error.message, characters(max((error.cursorpos or 1) - 1, 0)))
    trees = []
    for raw in found.stmts:
        start = characters(raw.stmt_location)
        end = characters(raw.stmt_location + raw.stmt_len) if raw.stmt_len else len(sql)
        nodes = nodes_below(raw, characters)
        trees.append(ParseTree(start, end, next(iter(nodes.values()))[0], nodes))
    return tuple(trees)


def _characters(sql: str) -> Any:
    """Positions in bytes, as the parser gives them, as positions in characters."""
    if sql.isascii():
        return int
    raw = sql.encode()
    return lambda position: len(raw[:position].decode(errors="ignore"))


def nodes_below(message: Any, characters: Any = int) -> Mapping[str, list[TreeNode]]:
    """All nodes below a message by kind, in order. characters: maps the parser's positions, see `_characters`."""
    nodes: dict[str, list[TreeNode]] = defaultdict(list)
    _collect(message, None, nodes, characters)
    return dict(nodes)


def _collect(message: Any, up: TreeNode | None, nodes: dict[str, list[TreeNode]], characters: Any) -> None:
    """Add all nodes below a message by kind; wrappers (RawStmt, Node, List) and plain values (String, Integer) are left out."""
    for descriptor, value in message.ListFields():
        name, repeated = _FIELDS.get(descriptor) or _field(descriptor)
        if not name:
            continue
        for one in value if repeated else (value,):
            inner = _unwrapped(one) if type(one).__name__ == "Node" else one
            kind = type(inner).__name__
            if kind == "List":
                _collect(inner, up, nodes, characters)
            if kind in {"List", "NoneType"}:
                continue
            if characters is not int and getattr(inner, "location", 0) > 0:
                inner.location = characters(inner.location)
            node = TreeNode(kind, inner, up, name)
            nodes[kind].append(node)
            if kind != "A_Const":
                _collect(inner, node, nodes, characters)


def _unwrapped(node: Any) -> Any:
    """What a Node holds; None for a plain value."""
    which = node.WhichOneof("node")
    return None if which is None or which in _PLAIN else getattr(node, which)


_PLAIN = frozenset({"string", "integer", "float", "boolean", "bit_string"})
_FIELDS: dict[Any, tuple[str, bool]] = {}
"""Field of a message → its name ("" for one that holds a plain value), and whether it is a list."""


def _field(descriptor: Any) -> tuple[str, bool]:
    _FIELDS[descriptor] = "" if descriptor.message_type is None else descriptor.name, descriptor.is_repeated
    return _FIELDS[descriptor]
