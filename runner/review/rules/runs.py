"""What would make a run fail, or is refused, whatever the database holds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import BaseModel

from runner.playbook.yaml_reader import Mark
from runner.review.findings import Severity
from runner.review.rule import Hit, rule
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject
from runner.review.suppressions import texts_of_files
from steps.contract import NoText, Query, StaticallyChecked, Text, able
from steps.contract.dialect import Dialect
from steps.sql.scanner import BadSql, split
from steps.sql.templates import as_names


@rule("RB001", Severity.ERROR, allowable=False)
def step_cannot_run(subject: LintSubject) -> Iterator[Hit]:
    """A step can't run as it is written.

    The step's type refuses it, on every database that the playbook is for, and the run would stop there: after the steps before
    it have made their changes.

    Found in::

        steps:
          - {id: empty, type: sql, text: DELETE FROM sessions}

    Instead::

        steps:
          - {id: empty, type: sql, text: DELETE FROM sessions WHERE ended_at < :before, params: {before: "2026-01-01T00:00:00Z"}}
    """
    for path, entry, _written in subject.steps:
        step = entry.step
        if not able(step, StaticallyChecked) or _elsewhere(entry.step.only, subject):
            continue
        reasons = {dialect: _misfits(step, dialect) for dialect in subject.dialects if entry.step.only in ("", dialect)}
        if subject.declared or all(reasons.values()):
            for why in dict.fromkeys(one for each in reasons.values() for one in each):
                yield Hit(subject.mark(*path), f"step {entry.id}: {why}", step=entry.id)


def _misfits(step: StaticallyChecked, dialect: Dialect) -> list[str]:
    """Also what can't be read as this database's SQL: a text without a dialect may be meant for the other one."""
    try:
        return step.misfits(dialect)
    except (NoText, BadSql) as error:
        return [str(error)]


def _elsewhere(only: str, subject: LintSubject) -> bool:
    return bool(only) and only not in subject.dialects


@rule("RB002", Severity.ERROR, allowable=False)
def not_on_this_database(subject: LintSubject) -> Iterator[Hit]:
    """A step or check has nothing for a database that `target:` names.

    A step type exists on one kind of database only, or its SQL has no text for the other: a run there stops at it. Where a step
    of one database only finds its change made already, a run on the other goes on; so this is about playbooks whose `target:`
    names a database on which nothing of the step could run.

    Found in::

        target: {sqlite: ">=3.38"}
        steps:
          - {id: positive, type: add_constraint, table: sessions, name: positive, check: events >= 0}

    Instead::

        target: {postgresql: ">=15"}
        steps:
          - {id: positive, type: add_constraint, table: sessions, name: positive, check: events >= 0}
    """
    if not subject.declared:
        return
    for path, entry, _written in subject.steps:
        if entry.step.only and entry.step.only not in subject.declared:
            why = f"step {entry.id}: {entry.step.kind} exists on {entry.step.only} only, and `target:` names {subject.declared[0]}"
            yield Hit(subject.mark(*path, "type"), why, step=entry.id)
        if not entry.step.only and not able(entry.step, StaticallyChecked):  # RB001 says it of those
            for dialect in _missing(entry.step, subject):
                yield Hit(subject.mark(*path), f"step {entry.id} has no SQL for {dialect}", step=entry.id)
    for check in subject.checks:
        for dialect in _missing(check.probe, subject) if check.probe is not None and not check.probe.only else ():
            yield Hit(check.mark, f"check {check.id} has no SQL for {dialect}", step=check.id)


def _missing(model: BaseModel, subject: LintSubject) -> list[Dialect]:
    """The databases that `target:` names and for which a step or probe lacks a text."""
    values = [getattr(model, name) for name in type(model).model_fields]
    texts = [one.texts for one in values if isinstance(one, Query | Text)]
    return [one for one in subject.declared if any("" not in text and one not in text for text in texts)]


@rule("RB003", Severity.ERROR, parsed=True)
def not_postgresql(subject: LintSubject) -> Iterator[Hit]:
    """PostgreSQL's grammar can't read the SQL.

    It is read as PostgreSQL 18 reads it. A text that is meant for SQLite alone belongs under `sqlite:`, or into a playbook whose
    `target:` names SQLite alone.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WERE id = 1}

    Instead::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    for text, fault in subject.unreadable:
        if Dialect.POSTGRESQL in subject.declared or text.dialect or _sqlite_fault(text.text, text.role):
            yield Hit(text.mark(fault.position), f"cannot read the SQL: {fault.message}", step=text.step)


@rule("RB004", Severity.ERROR, allowable=False)
def not_sqlite(subject: LintSubject) -> Iterator[Hit]:
    """SQLite can't read the SQL.

    SQLite's own parser refuses a text that is meant for it alone.

    Found in::

        target: {sqlite: ">=3.38"}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WERE id = 1}

    Instead::

        target: {sqlite: ">=3.38"}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    only = subject.declared == (Dialect.SQLITE,)
    for text in subject.texts_for(Dialect.SQLITE) if only or _has_sqlite(subject) else ():
        if (only or text.dialect) and (fault := _sqlite_fault(text.text, text.role)):
            yield Hit(text.mark(), f"cannot read the SQL: {fault}", step=text.step)


def _has_sqlite(subject: LintSubject) -> bool:
    return any("sqlite:" in text for text in subject.written.sources.texts.values())


def _sqlite_fault(sql: str, role: Role) -> str:
    """What SQLite's parser says of the text; "" where it can read it (it may still miss a table)."""
    import sqlite3

    from steps.catalog import scratch

    framed = {Role.CONDITION: f"SELECT 1 WHERE ({sql}\n)", Role.VALUE: f"SELECT ({sql}\n)"}.get(role, sql)
    try:
        pieces = [one.text for one in split(as_names(framed), Dialect.SQLITE)]
    except BadSql as fault:
        return str(fault)
    with scratch.nothing() as empty:
        for piece in pieces:
            try:
                empty.connection.execute(f"EXPLAIN {piece}")  # a parameter without value is a fault of another kind
            except sqlite3.Error as error:
                if re.search(r"syntax error|unrecognized token|incomplete input", str(error)):
                    return str(error)
    return ""


_SECRETS = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}]+:([^\s/@'\"{}]+)@"), "the password of an address"),
    (
        re.compile(
            r"(?i)(?<![\w-])--?(?:password|passwd|token|secret|api[-_]?key)(?:=|\s+|['\"]?,\s*)['\"]?([^\s'\"{}\],$]{4,})"
        ),
        "a password among arguments",
    ),
    (re.compile(r"(?i)\bPGPASSWORD\s*=\s*([^\s'\"{}$]+)"), "PGPASSWORD"),
    (re.compile(r"(?i)\bpassword\s+'([^']+)'"), "the password of a role"),
    (re.compile(r"(?i)\b(?:password|passwd|pwd)\s*=\s*'([^']{4,})'"), "a password"),
    (re.compile(r"(?i)(?:^|[\s'\"])(?:password|passwd|pwd)=([^\s'\";,{}$:()]{4,})"), "a password"),
    (re.compile(r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b"), "an access key"),
    (re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}|xox[abp]-[\w-]{10,})"), "a token"),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)"), "a private key"),
)
_SUSPECT: tuple[str, ...] = ("://", "pass", "pwd", "token", "secret", "api", "akia", "asia", "ghp_", "gho_", "ghu_")
_SUSPECT += ("ghs_", "ghr_", "glpat", "xox", "private key")
_NO_SECRET = re.compile(r"^[*x.…]+$|^[$<%:]|^(?:user|pass|password|secret|redacted|null)$", re.IGNORECASE)


def _suspect(text: str) -> bool:
    """Whether a pattern of a secret could match at all."""
    lower = text.lower()
    return any(one in lower for one in _SUSPECT)


@rule("RB005", Severity.ERROR)
def secret_in_the_file(subject: LintSubject) -> Iterator[Hit]:
    """A secret stands in the file.

    Whoever can read the file or its history has it, and so do the trail, process lists and reports. Change it, and give it as an
    input with `secret: true`, or in targets.yaml by password_env, passfile or keyring.

    Found in::

        steps:
          - {id: fill, type: command, argv: [fill, --db, "postgresql://fill:hunter2hunter2@db/store"]}

    Instead::

        steps:
          - {id: fill, type: command, argv: [fill], database: true}
    """
    for file, text in texts_of_files(subject.written).items():
        for number, line in enumerate(text.splitlines() if _suspect(text) else (), 1):
            for pattern, what in _SECRETS if _suspect(line) else ():
                found = pattern.search(line)
                if found and not _NO_SECRET.match(found[1]):
                    why = f"{what} stands in the file: whoever can read it, its history or the trail has it"
                    instead = (
                        "change it, and give it as an input with `secret: true` or in targets.yaml by password_env"
                    )
                    yield Hit(Mark(file, number, found.start(1) + 1), why, instead)
                    break
