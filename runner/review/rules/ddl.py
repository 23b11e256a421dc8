"""Statements that change the schema, or act on others: what they block, and what they take away."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from runner.review.effects import effect_of, name_of
from runner.review.findings import Severity
from runner.review.parse_tree import Parsed, TreeNode
from runner.review.rule import Hit, rule
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject
from steps.contract import Declared, Dialect, Foretold, able
from steps.sql.scanner import BadSql, scan

_SENT = (Role.STATEMENT, Role.REVERT)


@rule("RB201", Severity.WARNING, parsed=True)
def blocks_others(subject: LintSubject) -> Iterator[Hit]:
    """A statement blocks all writes, or reads too, for as long as a scan or a rewrite of the table takes.

    The engine's lock timeout bounds how long it waits for its lock, not how long it keeps it. The step types do the same work with
    locks of an instant: NOT VALID and VALIDATE, CONCURRENTLY, a new column that is filled in batches.

    Found in::

        steps:
          - {id: index, type: sql, text: CREATE INDEX by_country ON sessions (country)}

    Instead::

        steps:
          - {id: index, type: create_index, table: sessions, name: by_country, columns: [country]}
    """
    for statement in subject.parsed_as(*_SENT):
        effect = effect_of(statement)
        if effect.hurts and not _own_table(statement, subject):
            table = _table(statement)
            why = f"{effect.lock} on {table or 'the table'} for {effect.length}: {effect.blocks} wait until it is done"
            yield Hit(statement.mark(), why, _without_lock(statement, table), statement.text.step)


def _own_table(statement: Parsed, subject: LintSubject) -> bool:
    """Whether the playbook itself has made all tables of the statement before, or they are temporary: nobody else waits for them."""
    made = set()
    for earlier in itertools.takewhile(lambda one: one is not statement, subject.parsed):
        made |= {name_of(one) for one in _made_by(earlier)}
    return all(name in made or name.startswith("pg_temp.") for name in _tables(statement))


def _made_by(statement: Parsed) -> Iterator[Any]:
    for node in statement.find("CreateStmt"):
        if not node.message.if_not_exists:
            yield node.message.relation
    for node in statement.find("IntoClause"):  # CREATE TABLE … AS, SELECT … INTO
        yield node.message.rel


def _tables(statement: Parsed) -> list[str]:
    """The tables that a statement names; what it drops, where it drops something."""
    dropped = [".".join(_parts(one)) for node in statement.find("DropStmt") for one in node.message.objects]
    return dropped or [name_of(node.message) for node in statement.find("RangeVar")] or [""]


def _table(statement: Parsed) -> str:
    for node in statement.find("RangeVar"):
        return name_of(node.message)
    return ""


def _without_lock(statement: Parsed, table: str) -> str:
    root = statement.root
    match root.kind:
        case "IndexStmt":
            columns = [one.index_elem.name or "…" for one in root.message.index_params]
            unique = ", unique: true" if root.message.unique else ""
            name = root.message.idxname or "…"
            return f"use {{type: create_index, table: {table}, name: {name}, columns: [{', '.join(columns)}]{unique}}}"
        case "ReindexStmt":
            return f"use {{type: reindex, index: {table}}}, which rebuilds it CONCURRENTLY"
        case "VacuumStmt" | "ClusterStmt":
            return f"use {{type: vacuum, table: {table}}}, or pg_repack in a window"
        case "RefreshMatViewStmt":
            return f"write REFRESH MATERIALIZED VIEW CONCURRENTLY {table}, which readers don't wait for"
        case _:
            return _altered_otherwise(statement, table)


def _altered_otherwise(statement: Parsed, table: str) -> str:
    kinds = {_name("AlterTableType", one.message.subtype): one for one in statement.find("AlterTableCmd")}
    if "AT_AlterColumnType" in kinds:
        return f"use {{type: change_column_type, column: {table}.{kinds['AT_AlterColumnType'].message.name}, …}}"
    if "AT_SetNotNull" in kinds:
        return f"use {{type: add_constraint, table: {table}, not_null: [{kinds['AT_SetNotNull'].message.name}], …}}"
    if "AT_AddConstraint" in kinds:
        return f"use {{type: add_constraint, table: {table}, …}}: NOT VALID first, then VALIDATE"
    if "AT_AddColumn" in kinds:
        return f"add the column to {table} without a value for each row, then use {{type: backfill, table: {table}, …}}"
    return "do it in a window, and say so in `why:`"


@rule("RB206", Severity.WARNING, parsed=True)
def values_are_lost(subject: LintSubject) -> Iterator[Hit]:
    """A statement takes away values that nothing brings back.

    DROP TABLE, DROP COLUMN and TRUNCATE take effect at once and leave nothing to take back. The steps `drop_table` and `drop_column`
    keep what they drop aside and put it back; `keep` copies a table before it is emptied.

    Found in::

        steps:
          - {id: drop, type: sql, text: DROP TABLE public.ip_inventory}

    Instead::

        steps:
          - {id: drop, type: drop_table, table: public.ip_inventory}
    """
    for statement in subject.parsed_as(Role.STATEMENT):
        lost = effect_of(statement).one_way
        takes = statement.root.kind in _TAKES_AWAY and "doesn't hold" not in lost
        if lost and takes and not _own_table(statement, subject):
            names = ", ".join(_dropped(statement) or _tables(statement))
            why = f"{names + ': ' if names else ''}no rollback brings back {lost}"
            yield Hit(statement.mark(), why, _kept_aside(statement), statement.text.step)


_TAKES_AWAY = frozenset({"DropStmt", "TruncateStmt", "AlterTableStmt", "DropOwnedStmt"})


def _kept_aside(statement: Parsed) -> str:
    """The steps that keep what is dropped, with the names of the statement."""
    message, table = statement.root.message, _table(statement)
    match statement.root.kind, _name("ObjectType", getattr(message, "remove_type", getattr(message, "objtype", 0))):
        case "DropStmt", "OBJECT_TABLE":
            absent = ", absent: fine" if message.missing_ok else ""
            steps = [f"{{type: drop_table, table: {one}{absent}}}" for one in _tables(statement)]
        case "AlterTableStmt", "OBJECT_TABLE":
            steps = [f"{{type: drop_column, column: {one}}}" for one in _dropped(statement)]
        case "TruncateStmt", _:
            into = table.rpartition(".")[2] + "_kept"
            return f"copy it first: {{type: keep, what: SELECT * FROM {table}, into: {into}, because: …}}"
        case _:
            return "leave it to a playbook of its own, behind a gate that proves that nobody has missed it"
    return f"use {' and '.join(steps)}, which keeps it aside for the way back"


@rule("RB207", Severity.WARNING, parsed=True)
def cascades(subject: LintSubject) -> Iterator[Hit]:
    """CASCADE takes away things that the text doesn't name.

    Views, foreign keys and columns of other tables go with it, and nobody has reviewed which. Without it the database says what
    depends on the thing; drop that by name.

    Found in::

        steps:
          - {id: drop, type: sql, text: DROP TABLE IF EXISTS public.ip_inventory CASCADE}

    Instead::

        steps:
          - {id: drop, type: sql, text: "ALTER TABLE public.sessions DROP CONSTRAINT sessions_ip_fkey"}
    """
    for statement, node in subject.find(
        "DropStmt", "TruncateStmt", "AlterTableCmd", "DropRoleStmt", "DropOwnedStmt", roles=_SENT
    ):
        if _name("DropBehavior", getattr(node.message, "behavior", 0)) == "DROP_CASCADE":
            names = ", ".join(_dropped(statement)) or _table(statement)
            why = f"CASCADE takes away what depends on {names}, which the text doesn't name"
            instead = f"leave CASCADE out: the database then names what depends on {names}; drop that by name first"
            yield Hit(statement.mark(node), why, instead, statement.text.step)


def _dropped(statement: Parsed) -> list[str]:
    """The names of what a statement drops."""
    found = []
    for node in statement.find("DropStmt"):
        found += [".".join(_parts(one)) for one in node.message.objects]
    found += [
        f"{_table(statement)}.{node.message.name}"
        for node in statement.find("AlterTableCmd")
        if _name("AlterTableType", node.message.subtype) == "AT_DropColumn"
    ]
    return [one for one in found if one]


def _parts(named: Any) -> list[str]:
    """The parts of a name: schema and table."""
    parts = named.list.items if named.WhichOneof("node") == "list" else [named]
    return [part.string.sval for part in parts if part.WhichOneof("node") == "string"]


@rule("RB208", Severity.WARNING, parsed=True)
def never_validated(subject: LintSubject) -> Iterator[Hit]:
    """A constraint is added NOT VALID, and never validated.

    It then holds for new rows only. The planner doesn't use it, and what the old rows hold remains unknown.

    Found in::

        steps:
          - id: key
            type: sql
            text: ALTER TABLE sessions ADD CONSTRAINT ip_key FOREIGN KEY (ip) REFERENCES inventory (ip) NOT VALID

    Instead::

        steps:
          - id: key
            type: sql
            statements:
              - ALTER TABLE sessions ADD CONSTRAINT ip_key FOREIGN KEY (ip) REFERENCES inventory (ip) NOT VALID
              - ALTER TABLE sessions VALIDATE CONSTRAINT ip_key
    """
    commands = [(one, each) for each in subject.parsed_as(Role.STATEMENT) for one in each.find("AlterTableCmd")]
    validated = {
        (_table(each), one.message.name)
        for one, each in commands
        if _name("AlterTableType", one.message.subtype) == "AT_ValidateConstraint"
    }
    for node, statement in commands:
        constraint: Any = getattr(node.message, "def").constraint
        name, table = constraint.conname, _table(statement)
        if constraint.skip_validation and (table, name) not in validated:
            why = f"the constraint {name or 'without a name'} of {table} is NOT VALID, and nothing validates it"
            instead = (
                f"use {{type: add_constraint, table: {table}, …}}, or ALTER TABLE {table} VALIDATE CONSTRAINT {name}"
            )
            yield Hit(statement.mark(node), why, instead, statement.text.step)


@rule("RB209", Severity.WARNING, parsed=True)
def readers_break(subject: LintSubject) -> Iterator[Hit]:
    """A rename breaks programs that know the old name.

    Prepared statements fail at once (0A000 for a prepared SELECT *), functions at their next call. `rename_column` does it with a
    short wait for the lock, checks what depends on the column, and takes it back.

    Found in::

        steps:
          - {id: name, type: sql, text: ALTER TABLE sessions RENAME COLUMN ip_types TO ip_type}

    Instead::

        steps:
          - {id: name, type: rename_column, column: sessions.ip_types, to: ip_type}
    """
    for statement, node in subject.find("RenameStmt", roles=(Role.STATEMENT,)):
        if _name("ObjectType", node.message.rename_type) == "OBJECT_COLUMN":
            table, old, new = name_of(node.message.relation), node.message.subname, node.message.newname
            why = f"programs that know {table}.{old} fail as soon as it is named {new}"
            instead = f"use {{type: rename_column, column: {table}.{old}, to: {new}}}, and tell its readers first"
            yield Hit(statement.mark(node), why, instead, statement.text.step)


_ON_OTHERS = {
    "pg_terminate_backend": "ends another session",
    "pg_cancel_backend": "cancels another session's statement",
    "pg_reload_conf": "reloads the server's configuration",
    "pg_promote": "promotes a standby",
    "pg_switch_wal": "switches the server's WAL",
    "pg_drop_replication_slot": "drops a replication slot",
    "pg_stat_reset": "resets statistics that others watch",
}


@rule("RB210", Severity.WARNING, parsed=True)
def acts_on_others(subject: LintSubject) -> Iterator[Hit]:
    """A statement acts on other sessions, or on the whole server.

    Which sessions it meets is decided when it runs, and no rollback brings them back. `lock: {blockers: {end: [name]}}` ends only
    sessions of a named program, and only where they stand in the way.

    Found in::

        steps:
          - id: make_room
            type: sql
            text: SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction'

    Instead::

        lock: {blockers: {end: [nightly_report]}}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    for statement, node in subject.find("FuncCall"):
        name = node.message.funcname[-1].string.sval
        if name in _ON_OTHERS:
            instead = (
                "use lock: {blockers: {end: [application_name]}}" if "backend" in name else "do it by hand, and note it"
            )
            yield Hit(statement.mark(node), f"{name}() {_ON_OTHERS[name]}", instead, statement.text.step)
    for statement, node in subject.find("AlterSystemStmt", "AlterDatabaseSetStmt", "AlterRoleSetStmt"):
        why = "a setting of the server, database or role changes for everybody else too"
        yield Hit(statement.mark(node), why, "write set: {…} at the step", statement.text.step)
    for statement, node in subject.find("CopyStmt"):
        if node.message.filename:
            what = "runs a program" if node.message.is_program else "reads or writes a file"
            why = f"COPY {what} on the database's host, with the rights of its server"
            yield Hit(
                statement.mark(node),
                why,
                "use {type: command, …}, which runs here and is recorded",
                statement.text.step,
            )


_CHANGES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY", "CREATE", "ALTER", "DROP", "LOCK"})
_CHANGES |= {"EXECUTE", "CALL", "REFRESH", "REINDEX", "GRANT", "REVOKE"}


@rule("RB212", Severity.WARNING, parsed=True)
def changes_in_a_block(subject: LintSubject) -> Iterator[Hit]:
    """A DO block hides the statements that it runs.

    Plan, lint and diff see one statement: no locks, no tables, no rows, and nothing of it can be taken back. What another rule says of
    a DELETE without WHERE isn't said of one in a block.

    Found in::

        steps:
          - {id: mark, type: sql, text: "DO $$ BEGIN UPDATE sessions SET seen = true WHERE id = 1; END $$"}

    Instead::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    for statement, node in subject.find("DoStmt", roles=_SENT):
        bodies = [one.def_elem.arg.string.sval for one in node.message.args if one.def_elem.defname == "as"]
        if verbs := sorted({verb for body in bodies for verb in _verbs(body)}):
            why = f"the block runs {', '.join(verbs)}, of which plan, lint and diff show nothing"
            instead = "write its statements as steps; a loop over rows is `type: backfill` or `type: fill_table`"
            yield Hit(statement.mark(node), why, instead, statement.text.step)


def _verbs(body: str) -> set[str]:
    """The words in a body that begin statements that change something, outside of texts and comments."""
    try:
        return {token.keyword for token in scan(body, Dialect.POSTGRESQL)} & _CHANGES
    except BadSql:
        return {"what can't be read"}


@rule("RB211", Severity.ERROR, parsed=True)
def uses_what_is_gone(subject: LintSubject) -> Iterator[Hit]:
    """A step uses a table that an earlier step has dropped.

    The run would stop there, with the drop done.

    Found in::

        steps:
          - {id: drop, type: sql, text: DROP TABLE public.inventory}
          - {id: mark, type: sql, text: UPDATE public.inventory SET seen = true WHERE id = 1}

    Instead::

        steps:
          - {id: mark, type: sql, text: UPDATE public.inventory SET seen = true WHERE id = 1}
          - {id: drop, type: sql, text: DROP TABLE public.inventory}
    """
    gone: dict[str, str] = {}
    statements: dict[int, list[Parsed]] = {}
    for one in subject.parsed_as(Role.STATEMENT):
        if one.text.path[0] == "steps" and isinstance(index := one.text.path[1], int):
            statements.setdefault(index, []).append(one)
    for index, entry in enumerate(subject.playbook.entries):
        if not able(entry.step, Declared) or (index not in statements and not able(entry.step, Foretold)):
            gone.clear()  # a program, say, which may make it again
        for statement in statements.get(index, ()):
            yield from _uses(statement, gone)


def _uses(statement: Parsed, gone: dict[str, str]) -> Iterator[Hit]:
    """The uses of tables that are gone; what the statement itself makes or drops is taken into account for the next."""
    if any(statement.find("DoStmt", "CallStmt", "FuncCall", "CreateFunctionStmt")):
        gone.clear()  # what a function does can't be known
    for node in statement.find("CreateStmt", "CreateTableAsStmt", "RenameStmt", "ViewStmt"):
        for name in _made(node):
            gone.pop(name, None)
    for node in statement.find("RangeVar"):
        name = name_of(node.message)
        if name in gone and not _may_be_absent(node):
            why = f"{name} is used after step {gone[name]} has dropped it: the run would stop here"
            yield Hit(statement.mark(node), why, f"move it before {gone[name]}", statement.text.step)
    if statement.root.kind == "DropStmt" and _name("ObjectType", statement.root.message.remove_type) == "OBJECT_TABLE":
        gone |= dict.fromkeys(_dropped(statement), statement.text.step)


def _made(node: TreeNode) -> list[str]:
    message = node.message
    relation = (
        message.into.rel
        if node.kind == "CreateTableAsStmt"
        else message.view
        if node.kind == "ViewStmt"
        else message.relation
    )
    return [name_of(relation), getattr(message, "newname", "")]


def _may_be_absent(node: TreeNode) -> bool:
    above = node.above("AlterTableStmt", "CreateStmt", "RenameStmt", "CommonTableExpr")
    return above is not None and bool(getattr(above.message, "missing_ok", above.kind == "CreateStmt"))


def _name(enum: str, value: int) -> str:
    from postgast import pg_query_pb2

    try:
        return str(getattr(pg_query_pb2, enum).Name(value))
    except ValueError:
        return ""
