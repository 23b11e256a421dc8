"""What the fields of steps, probes and their parts mean, for editors: where a type says nothing itself (`Field(description=…)`).

Most names mean the same wherever they stand. Where one doesn't, the line with the definition's name in front decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from steps.contract.written import Schema

_EVERYWHERE: Mapping[str, str] = {
    "a": "The first query.",
    "absent": "`fine` where it may be gone already.",
    "agree": "How far the results of both may differ: exact, or a share such as 1 %.",
    "analyze": "Whether the planner's statistics are renewed too.",
    "applied_if": "A query whose single value is true where the change is there.",
    "argv": "The program and its arguments; no shell.",
    "at_least": "The least number that passes.",
    "at_most": "The greatest number that passes.",
    "attempts": "How often it is tried in all.",
    "b": "The second query.",
    "batch": "How long a batch may take, and how many rows it may have.",
    "batches": "After so many batches.",
    "because": "Why it is kept.",
    "before": "Another form of the same shape, which it replaces.",
    "by": "Who alone may approve: one name, or several.",
    "cascade": "What may be dropped along with it, by name; anything else refuses the step.",
    "changing": "The tables whose changers are ended.",
    "check": "A condition that each row must fulfil.",
    "checks": "CHECK constraints, by name.",
    "collation": "The collation by which its text is sorted and compared.",
    "column": "The column, as table.column.",
    "columns": "The columns, in this order.",
    "command": "A program (argv) that prints the figure.",
    "comment": "A comment in the database.",
    "constraints": "Constraints by name, as behind ADD CONSTRAINT.",
    "continue": "Why the run may go on without it.",
    "counted": "What plan and report say of the rows that are kept; {rows} is their number.",
    "create_in_schema": "Whether the role must be able to create things in the schema.",
    "cwd": "The working directory, relative to the playbook.",
    "database": "Whether the program is given the database's address in its environment.",
    "dead_letters": "How many rows may be skipped as dead before the step stops.",
    "default": "The value where none is given.",
    "deferrable": "Whether it is checked only at the end of a transaction.",
    "definition": "The new definition, in parentheses, as behind CREATE TABLE.",
    "descending": "Those of the columns that are sorted in descending order.",
    "drops": "Columns that the new definition leaves out on purpose.",
    "enabled": "When it fires, in PostgreSQL's letters.",
    "end": "Names (application_name) of sessions that may be ended where they stand in the way.",
    "env_from": "Names of environment variables that the program is given.",
    "evidence": "Files or statements that a person must give.",
    "exact": "Whether there may be nothing else.",
    "exactly": "The exact number that passes.",
    "exit_codes": "The exit codes that count as success.",
    "expect_rows": "How many rows each statement must touch: some (the default), any, or a number.",
    "expect_run": "Whether it is a fault that there is nothing to take back.",
    "expect_work": "Whether it is a fault that there is nothing to do.",
    "figure": "The figure of an earlier step or check, as count.rows.",
    "file": "The file whose text stands for it.",
    "fill": "The columns that are filled where they are NULL.",
    "filled": "Columns that must have values.",
    "foreign_key": "A foreign key.",
    "foreign_keys": "Foreign keys, by name.",
    "from": "The shape that it adds to.",
    "generated": "The expression that the column is always computed from.",
    "has": "What must be there.",
    "help": "What the input is for.",
    "host": "Which host is measured: the database's, or the one that runs the playbook.",
    "identity": "Whether the database numbers the rows.",
    "index": "The index.",
    "indexes": "Whether indexes count too.",
    "into": "The table that is made for the copy.",
    "keep": "Whether what is dropped is kept aside for the way back.",
    "keep_old": "Whether the old table stays, under another name.",
    "keep_values": "Whether values are converted; without it the type changes only where that loses nothing.",
    "key": "The columns that tell one row from another.",
    "lacks": "What must not be there.",
    "limit": "How many rows are looked at.",
    "marker": "The pytest marker of the tests that run.",
    "match": "The condition that joins target and source.",
    "max": "The greatest number that is allowed.",
    "max_rows": "The most rows that are shown.",
    "message": "What is asked of the people who decide.",
    "method": "The index's method, such as btree or gin.",
    "min": "The least number that is allowed.",
    "must_hold": "What the data must be like for a migration to pass.",
    "name": "Its name in the database.",
    "names": "The tests that must run and pass; one that is missing or skipped is a failure.",
    "need": "How many approvals are needed.",
    "needs": "The privileges that the role must have.",
    "next": "The playbook to run next, for each state.",
    "none": "The reason why there is none.",
    "not_null": "Whether NULL is refused.",
    "of": "The playbook whose latest run is taken back.",
    "of_type": "The column's type.",
    "on": "SQLSTATEs, or their first two characters, after which it is tried again.",
    "on_conflict": "What happens to a row whose key the table has already.",
    "on_delete": "What happens to the rows when the row that they refer to is deleted.",
    "on_update": "What happens to the rows when the key that they refer to is changed.",
    "one_of": "The values that are allowed.",
    "operator_class": "The operator class of the index's columns.",
    "optional": "Whether the gate opens without it.",
    "order": "In which order the rows are visited: auto, heap, or an indexed column.",
    "params": "Values that are bound as :name.",
    "path": "The file or folder.",
    "pattern": "A regular expression that the value must match.",
    "pause_after": "When the step pauses once for a person.",
    "pct": "The greatest share that is allowed, in percent.",
    "playbook": "The name of a playbook.",
    "postgresql": "For PostgreSQL.",
    "prepared": "Whether prepared transactions count too.",
    "primary_key": "The columns of the primary key.",
    "python": "The Python that runs the suite; default: this one.",
    "query": "The query.",
    "references": "The column that is referred to, as table.column.",
    "required": "Whether a run must be given a value.",
    "required_in": "Environments in which its default won't do.",
    "rest": "How long it rests after a batch, as a multiple of the time that it worked.",
    "revert": "What takes it back.",
    "roles": "Roles of which the approvals must come.",
    "rows": "The number of rows.",
    "run": "The statement.",
    "runs": "How often each query is measured.",
    "secret": "Whether the value is masked everywhere, and left out of every digest.",
    "seed": "The same seed gives the same sample.",
    "set": "Settings for each of the transactions, by name.",
    "show": "Columns whose values are shown, and kept in the trail.",
    "size": "How many rows are taken.",
    "source": "The query that the values come from.",
    "sqlite": "For SQLite.",
    "standbys": "How many standbys there must be.",
    "statements": "Statements, in this order; each may have its own revert.",
    "stdout_matches": "A regular expression that standard output must match.",
    "steps": "The ids of the steps; default: all.",
    "stop_after": "Where the pass ends, after so many rows or batches.",
    "table": "The table.",
    "tables": "Tables by name.",
    "taken_back": "What taking it back does to values that were written since.",
    "text": "The SQL.",
    "throttle": "How it gives way to others.",
    "to": "The new name.",
    "traffic": "From how many transactions of others a second it gives way.",
    "transaction": "Whether each statement has a transaction of its own, or all share one.",
    "treat_as_null": "Values that mean nothing, as SQL; they become NULL and come back with the undo.",
    "triggers": "Whether the table may have triggers that fire for each row.",
    "type": "The type of its value.",
    "undo": "Whether it is recorded what it wrote, so that it can be taken back.",
    "unique": "Whether no two rows may have the same values.",
    "unique_index": "An index that becomes the constraint.",
    "url": "The address of a node exporter's metrics page.",
    "uses": "The index that the plan must use.",
    "using": "The expression that makes the new value from the old one.",
    "valid": "Whether the index must be valid.",
    "validate": "Whether the rows that are there are checked too.",
    "validated": "Whether all rows must have been checked.",
    "values": "Column → the expression that its new value is.",
    "warm_up": "How often each query is run before it is measured.",
    "where": "A condition for the rows.",
    "while_all_null": "Whether the column is replaced by a new one where all of its values are NULL.",
    "whole_table": "Whether a statement without WHERE is meant.",
    "workers": "How many connections work at once.",
    "written": "After so many rows written.",
    "zone": "The time zone of the times, such as Europe/Berlin.",
}
_HERE: Mapping[str, str] = {
    "step.create_trigger.constraint": "Whether it is a constraint trigger.",
    "declared_shape.absent": "What must not be there: tables, or columns as table.column.",
    "check.pytest.env": "Variables for the suite's environment; PG* and RUNBOOK_URL are the run's.",
    "ShapePart.wanted": "What is declared of it.",
    "ResolvedShape.parts": "Its parts, one by one.",
    "ResolvedShape.base": "The shape that it adds to.",
    "ResolvedShape.absent": "What must not be there: tables, or columns as table.column.",
    "MustHold.why": "What happens to rows of which it doesn't hold.",
    "FillSpec.all": "Whether every row must have a value.",
    "BatchSize.rows": "The least and the most rows of a batch.",
    "DeadLetters.max": "The greatest number of dead rows.",
    "DeadLetters.pct": "The greatest share of dead rows, in percent of the rows in range.",
    "EvidenceNeed.name": "What it is called when it is given.",
    "Item.revert": "What takes this statement back; sent only where it was committed.",
    "Throttle.batch": "How long a batch may take while others work.",
    "check.plan.has": "Nodes that the plan must have, such as Index Scan.",
    "check.plan.lacks": "Nodes that the plan must not have, such as Seq Scan.",
    "check.columns.has": "Columns that must be there, with their types or without.",
    "check.columns.lacks": "Columns that must not be there.",
    "check.preview.limit": "How many of the first rows are looked at.",
    "input.default": "The value where a run is given none.",
    "input.type": "The type of its value; default: text.",
    "step.change_column_type.to": "The new type.",
    "step.add_constraint.not_null": "Columns that must not be NULL.",
    "step.backfill.undo": "Whether each row that is written is remembered, so that exactly those can be taken back.",
    "step.command.revert": "The program and arguments that take it back.",
    "step.sql.revert": "Statements that take the whole step back.",
}


def describe_fields(defs: dict[str, Schema]) -> dict[str, Schema]:
    """The definitions, with a description of each field that has none yet."""
    return {name: _described(one, name.replace("guard.", "check.", 1), defs) for name, one in defs.items()}


def _described(node: Schema, name: str, defs: Mapping[str, Schema]) -> Schema:
    found = dict(node)
    for key, value in node.items():
        if key == "properties":
            found[key] = {field: _field(field, one, name, defs) for field, one in value.items()}
        elif isinstance(value, dict):
            found[key] = _described(value, name, defs)
        elif isinstance(value, list):
            found[key] = [_described(one, name, defs) if isinstance(one, dict) else one for one in value]
    return found


def _field(field: str, node: Schema, name: str, defs: Mapping[str, Schema]) -> Schema:
    whole = _described(node, name, defs)
    words = _HERE.get(f"{name}.{field}") or _EVERYWHERE.get(field, "")
    return whole if _has_one(whole, defs) or not words else {**whole, "description": words}


def _has_one(node: Schema, defs: Mapping[str, Schema]) -> bool:
    referred = defs.get(str(node.get("$ref", "")).removeprefix("#/$defs/"), {})
    return "const" in node or "description" in node or "description" in referred


def undescribed(schema: Schema) -> Iterator[str]:
    """The fields without a description, for the test that refuses them: "step.sql.statements"."""
    defs = schema["$defs"]
    for name, one in [("playbook", schema), *defs.items()]:
        yield from _undescribed(one, name, defs)


def _undescribed(node: Schema, name: str, defs: Mapping[str, Schema]) -> Iterator[str]:
    for key, value in node.items():
        if key == "$defs":
            continue
        if key == "properties":
            yield from (f"{name}.{field}" for field, one in value.items() if not _has_one(one, defs))
        parts = value.values() if key == "properties" else value if isinstance(value, list) else [value]
        for one in parts:
            if isinstance(one, dict):
                yield from _undescribed(one, name, defs)
