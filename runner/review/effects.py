"""What a statement does to others on PostgreSQL: its lock, what that blocks, for how long, and whether it can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from runner.review.parse_tree import Parsed, TreeNode

INSTANT, SCAN, REWRITE, ROWS = "instant", "one scan", "one rewrite", "as long as its rows take"
_BLOCKS = {
    "ACCESS EXCLUSIVE": "reads and writes",
    "EXCLUSIVE": "writes",
    "SHARE ROW EXCLUSIVE": "writes",
    "SHARE": "writes",
    "SHARE UPDATE EXCLUSIVE": "changes of the table's definition",
    "ROW EXCLUSIVE": "writes to the same rows",
    "ROW SHARE": "writes to the same rows",
    "ACCESS SHARE": "",
}
_ORDER: tuple[str, ...] = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
)
_ORDER += ("EXCLUSIVE", "ACCESS EXCLUSIVE")
_LENGTHS = ("", INSTANT, ROWS, SCAN, REWRITE)


class StatementEffect(NamedTuple):
    """lock: in PostgreSQL's words, "" for none worth naming; length: in kind; one_way: what is gone for good, "" for nothing."""

    lock: str = ""
    length: str = ""
    one_way: str = ""

    @property
    def blocks(self) -> str:
        """What waits while the lock is held: "reads and writes", "writes", …"""
        return _BLOCKS.get(self.lock, "")

    @property
    def hurts(self) -> bool:
        """Whether all writes to a table wait for longer than an instant."""
        return self.blocks in ("reads and writes", "writes") and self.length in (SCAN, REWRITE)

    @property
    def strength(self) -> tuple[int, int]:
        """For comparison: the stronger lock, then the longer one."""
        return (_ORDER.index(self.lock) if self.lock else -1, _LENGTHS.index(self.length))

    def __str__(self) -> str:
        held = f"{self.lock}, {self.length}: blocks {self.blocks or 'nothing'}" if self.lock else "no lock"
        return held + (f"; can't be taken back: {self.one_way}" if self.one_way else "")


def effect_of(statement: Parsed) -> StatementEffect:
    """The effect of a statement, the strongest part of it."""
    root = statement.root
    if root.kind == "ExplainStmt":
        explained = (one for kind in _OF for one in statement.find(kind) if one.up is root)
        return _of(next(explained, root), statement) if has_option(statement, "analyze") else StatementEffect()
    return _of(root, statement)


def _of(root: TreeNode, statement: Parsed) -> StatementEffect:
    found = _OF.get(root.kind, _nothing)(root, statement)
    if root.kind == "SelectStmt":  # WITH x AS (UPDATE …) SELECT …
        inner = [_OF[node.kind](node, statement) for node in statement.find("UpdateStmt", "DeleteStmt", "InsertStmt")]
        found = max([found, *inner], key=lambda one: one.strength)
    return found


def name_of(relation: Any) -> str:
    """A table's name as it is written, with its schema."""
    return ".".join(part for part in (relation.schemaname, relation.relname) if part)


# ─── by kind of statement ───────────────────────────────────────────────────────────────────────────────────────────────
def _nothing(_root: TreeNode, _statement: Parsed) -> StatementEffect:
    return StatementEffect()


def _fixed(lock: str, length: str, one_way: str = "") -> Callable[[TreeNode, Parsed], StatementEffect]:
    return lambda _root, _statement: StatementEffect(lock, length, one_way)


def _select(root: TreeNode, _statement: Parsed) -> StatementEffect:
    return StatementEffect("ROW SHARE", ROWS) if root.message.locking_clause else StatementEffect("ACCESS SHARE", ROWS)


def _alter(_root: TreeNode, statement: Parsed) -> StatementEffect:
    parts = [_altered(one, statement) for one in statement.find("AlterTableCmd")]
    return max(parts, key=lambda one: one.strength, default=StatementEffect("ACCESS EXCLUSIVE", INSTANT))


def _altered(node: TreeNode, statement: Parsed) -> StatementEffect:
    pb = _enum()
    kind = pb.AlterTableType.Name(node.message.subtype)
    if kind == "AT_AddColumn":
        return _added(node, statement)
    if kind == "AT_AddConstraint":
        return _constrained(getattr(node.message, "def").constraint)
    return _ALTERED.get(kind, StatementEffect("ACCESS EXCLUSIVE", INSTANT))


_EXCLUSIVE = "ACCESS EXCLUSIVE"
_OWN = "SHARE UPDATE EXCLUSIVE"
_ALTERED = {
    "AT_DropColumn": StatementEffect(_EXCLUSIVE, INSTANT, "the column's values"),
    "AT_AlterColumnType": StatementEffect(_EXCLUSIVE, REWRITE, "what the new type doesn't hold"),
    "AT_SetNotNull": StatementEffect(_EXCLUSIVE, SCAN),
    "AT_ValidateConstraint": StatementEffect(_OWN, SCAN),
    "AT_SetLogged": StatementEffect(_EXCLUSIVE, REWRITE),
    "AT_SetUnLogged": StatementEffect(_EXCLUSIVE, REWRITE),
    "AT_SetTableSpace": StatementEffect(_EXCLUSIVE, REWRITE),
    "AT_SetAccessMethod": StatementEffect(_EXCLUSIVE, REWRITE),
    "AT_SetExpression": StatementEffect(_EXCLUSIVE, REWRITE),
    "AT_SetStatistics": StatementEffect(_OWN, INSTANT),
    "AT_SetOptions": StatementEffect(_OWN, INSTANT),
    "AT_SetRelOptions": StatementEffect(_OWN, INSTANT),
    "AT_ClusterOn": StatementEffect(_OWN, INSTANT),
    "AT_AttachPartition": StatementEffect(_OWN, SCAN),
    "AT_EnableTrig": StatementEffect("SHARE ROW EXCLUSIVE", INSTANT),
    "AT_DisableTrig": StatementEffect("SHARE ROW EXCLUSIVE", INSTANT),
}
_STEADY = frozenset({"now", "current_timestamp", "statement_timestamp", "transaction_timestamp", "to_timestamp"})
_COUNTED = frozenset({"serial", "bigserial", "smallserial", "serial4", "serial8", "serial2"})


def _added(node: TreeNode, statement: Parsed) -> StatementEffect:
    """ADD COLUMN: instant, unless each row gets a value of its own, or a constraint has to be proven."""
    below = [one for one in statement.find("Constraint", "FuncCall", "TypeName") if _is_below(one, node)]
    pb = _enum()
    kinds = {pb.ConstrType.Name(one.message.contype) for one in below if one.kind == "Constraint"}
    calls = {one.message.funcname[-1].string.sval for one in below if one.kind == "FuncCall"}
    types = {one.message.names[-1].string.sval for one in below if one.kind == "TypeName" and one.message.names}
    own_value = bool(calls - _STEADY) or bool(types & _COUNTED) or bool({"CONSTR_IDENTITY", "CONSTR_GENERATED"} & kinds)
    proven = {"CONSTR_CHECK", "CONSTR_UNIQUE", "CONSTR_PRIMARY"} & kinds
    return StatementEffect(_EXCLUSIVE, REWRITE if own_value else SCAN if proven else INSTANT)


def _is_below(node: TreeNode, top: TreeNode) -> bool:
    above = node.up
    while above is not None and above is not top:
        above = above.up
    return above is top


def _constrained(constraint: Any) -> StatementEffect:
    kind = _enum().ConstrType.Name(constraint.contype)
    length = INSTANT if constraint.skip_validation or constraint.indexname else SCAN
    return StatementEffect("SHARE ROW EXCLUSIVE" if kind == "CONSTR_FOREIGN" else _EXCLUSIVE, length)


def _rename(root: TreeNode, _statement: Parsed) -> StatementEffect:
    kind = _enum().ObjectType.Name(root.message.rename_type)
    return StatementEffect(_OWN if kind == "OBJECT_INDEX" else _EXCLUSIVE, INSTANT)


def _index(root: TreeNode, _statement: Parsed) -> StatementEffect:
    return StatementEffect(_OWN if root.message.concurrent else "SHARE", SCAN)


_HOLDS_DATA = {"OBJECT_TABLE": "its rows", "OBJECT_SCHEMA": "all that is in it", "OBJECT_SEQUENCE": "where it stood"}


def _drop(root: TreeNode, _statement: Parsed) -> StatementEffect:
    kind = _enum().ObjectType.Name(root.message.remove_type)
    lock = _OWN if root.message.concurrent else _EXCLUSIVE
    return StatementEffect(lock, INSTANT, _HOLDS_DATA.get(kind, ""))


def _reindex(_root: TreeNode, statement: Parsed) -> StatementEffect:
    return StatementEffect(_OWN if has_option(statement, "concurrently") else _EXCLUSIVE, SCAN)


def _vacuum(_root: TreeNode, statement: Parsed) -> StatementEffect:
    return StatementEffect(_EXCLUSIVE, REWRITE) if has_option(statement, "full") else StatementEffect(_OWN, SCAN)


def has_option(statement: Parsed, name: str) -> bool:
    """Whether a statement switches this option on, as EXPLAIN (…), VACUUM (…) and REINDEX (…) have them."""
    return any(one.message.defname == name and not _is_off(one.message.arg) for one in statement.find("DefElem"))


def _is_off(value: Any) -> bool:
    """Whether an option's value is `false`, `off` or 0; without one it is on."""
    kind = value.WhichOneof("node")
    return (
        (kind == "integer" and not value.integer.ival)
        or (kind == "boolean" and not value.boolean.boolval)
        or (kind == "string" and value.string.sval.lower() in {"false", "off"})
    )


def _refresh(root: TreeNode, _statement: Parsed) -> StatementEffect:
    concurrent = StatementEffect("EXCLUSIVE", ROWS)  # writes wait, and nobody but another REFRESH writes to it
    return concurrent if root.message.concurrent else StatementEffect(_EXCLUSIVE, REWRITE)


def _lock(root: TreeNode, _statement: Parsed) -> StatementEffect:
    return StatementEffect(_ORDER[max(min(root.message.mode, len(_ORDER)), 1) - 1], ROWS)


def _enum() -> Any:
    from postgast import pg_query_pb2

    return pg_query_pb2


_OLD = "the values that it overwrites"
_OF: dict[str, Callable[[TreeNode, Parsed], StatementEffect]] = {
    "SelectStmt": _select,
    "UpdateStmt": _fixed("ROW EXCLUSIVE", ROWS, _OLD),
    "DeleteStmt": _fixed("ROW EXCLUSIVE", ROWS, "the rows that it deletes"),
    "MergeStmt": _fixed("ROW EXCLUSIVE", ROWS, _OLD),
    "InsertStmt": _fixed("ROW EXCLUSIVE", ROWS),
    "AlterTableStmt": _alter,
    "RenameStmt": _rename,
    "IndexStmt": _index,
    "DropStmt": _drop,
    "DropOwnedStmt": _fixed(_EXCLUSIVE, INSTANT, "all that the role owns"),
    "DropdbStmt": _fixed("", "", "all that is in it"),
    "TruncateStmt": _fixed(_EXCLUSIVE, INSTANT, "all rows"),
    "ReindexStmt": _reindex,
    "VacuumStmt": _vacuum,
    "ClusterStmt": _fixed(_EXCLUSIVE, REWRITE),
    "RefreshMatViewStmt": _refresh,
    "LockStmt": _lock,
    "CreateTrigStmt": _fixed("SHARE ROW EXCLUSIVE", INSTANT),
    "RuleStmt": _fixed(_EXCLUSIVE, INSTANT),
}
