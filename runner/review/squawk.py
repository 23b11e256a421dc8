"""Generic rules on DDL by squawk (squawk-cli), with codes and advice of ours, and places in the playbook."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from runner.common.errors import BadInput
from runner.review.findings import LINT, Finding, RuleSummary, Severity
from runner.review.parse_tree import Parsed, plain
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject
from steps.contract import cutting

TIMEOUT_S = 60


class Mapped(NamedTuple):
    """How a rule of squawk appears here."""

    code: str
    title: str
    instead: str


# Rules that say the same as one of ours (a lock, a lost value) are not here, nor those of style: the engine sets timeouts.
RULES = {
    "adding-required-field": Mapped(
        "RB501",
        "A NOT NULL column without a default fails on a table that has rows",
        "give it a default, or add it nullable, use `type: backfill`, then `type: add_constraint` with not_null",
    ),
    "ban-alter-domain-with-add-constraint": Mapped(
        "RB502",
        "A domain's new constraint scans every table that uses it",
        "add the constraint to the tables, by `type: add_constraint`",
    ),
    "ban-create-domain-with-constraint": Mapped(
        "RB503", "A domain with a constraint can't be changed without scans", "put the constraint on the tables"
    ),
    "ban-char-field": Mapped(
        "RB504", "A char(n) is filled up with spaces, which then count in comparisons", "use text or varchar"
    ),
    "identifier-too-long": Mapped(
        "RB505", "A name has more than 63 bytes, and PostgreSQL cuts it off", "shorten the name"
    ),
    "ban-drop-database": Mapped("RB506", "A database is dropped", "leave it out: no playbook can take it back"),
    "ban-drop-not-null": Mapped(
        "RB507", "Readers that count on NOT NULL may get NULL", "make sure first that all of them can read NULL"
    ),
    "renaming-table": Mapped(
        "RB508",
        "Programs that know the old name of the table fail at once",
        "keep a view under the old name until they are gone",
    ),
    "ban-set-schema": Mapped(
        "RB509",
        "Programs that look for it in the old schema fail at once",
        "keep a view there until they are gone",
    ),
    "ban-drop-function": Mapped(
        "RB510", "Programs that call the function fail", "make sure first that nothing calls it"
    ),
    "ban-drop-extension": Mapped(
        "RB511", "An extension's types, functions and indexes go with it", "make sure first that nothing uses them"
    ),
    "ban-drop-view": Mapped("RB512", "Programs that read the view fail", "make sure first that nothing reads it"),
    "ban-disable-trigger": Mapped(
        "RB513",
        "While triggers are disabled, what they keep true is not kept, for anybody",
        "do it in the transaction that needs it, and enable them there again",
    ),
    "ban-alter-row-level-security": Mapped(
        "RB514", "Row-level security changes who sees which rows", "have its owner approve it at a gate"
    ),
    "ban-revoke": Mapped("RB515", "Programs lose a privilege, and fail", "make sure first that none needs it"),
}
_OPT_IN = ("ban-disable-trigger", "ban-alter-row-level-security", "ban-revoke", "ban-drop-view")
SUMMARIES = tuple(RuleSummary(one.code, Severity.WARNING, one.title, LINT) for one in RULES.values())
_TARGET = re.compile(r"\d+")


@functools.cache
def program() -> str | None:
    """Squawk's program: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("squawk")
    return str(beside) if beside.is_file() else shutil.which("squawk")


def available() -> bool:
    return program() is not None


def findings(subjects: Iterable[LintSubject], *, instead_of: Iterable[Finding]) -> Iterator[Finding]:
    """What squawk finds in all statements of the playbooks, in one call. instead_of: our own, which say the same better."""
    said = {(one.mark.file, one.mark.line, one.mark.column) for one in instead_of}
    for version, statements in _by_version(subjects).items():
        sql = [plain(one.text.text)[one.tree.start : one.tree.end].strip() for one in statements]
        starts = _starts(sql)
        for problem in _asked(";\n".join(sql) + ";\n", version):
            mapped = RULES.get(str(problem["rule_name"]))
            line = int(str(problem["line"]))
            index = max((n for n, start in enumerate(starts) if start <= line), default=0)
            statement = statements[index] if statements else None
            if mapped is None or statement is None or _known(statement, said):
                continue
            yield Finding(
                mapped.code, Severity.WARNING, statement.mark(), _sentence(mapped, statement), mapped.instead,
                statement.text.step,
            )  # fmt: skip


def _known(statement: Parsed, said: set[tuple[str, int, int]]) -> bool:
    mark = statement.mark()
    return (mark.file, mark.line, mark.column) in said


def _sentence(mapped: Mapped, statement: Parsed) -> str:
    words = " ".join(statement.sql.split())
    return f"{mapped.title[0].lower()}{mapped.title[1:]}: {cutting.shortened(words, 80)}"


def _by_version(subjects: Iterable[LintSubject]) -> dict[str, list[Parsed]]:
    """Statements that may change something, by the oldest version of PostgreSQL that their playbook is for."""
    found: dict[str, list[Parsed]] = {}
    for subject in subjects:
        oldest = _TARGET.search(subject.playbook.target.postgresql)
        for one in subject.parsed_as(Role.STATEMENT):
            if one.root.kind not in {"SelectStmt", "UpdateStmt", "InsertStmt", "DeleteStmt"}:
                found.setdefault(oldest[0] if oldest else "", []).append(one)
    return found


def _starts(sql: list[str]) -> list[int]:
    """The line at which each statement begins in the joined text, counted from 0."""
    starts, line = [], 0
    for one in sql:
        starts.append(line)
        line += one.count("\n") + 1
    return starts


def _asked(sql: str, version: str) -> list[dict[str, object]]:
    words = [str(program()), "--reporter", "json", "--assume-in-transaction"]
    words += [f"--include={name}" for name in _OPT_IN]
    words += ["--pg-version", version] if version else []
    done = subprocess.run(words, input=sql, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        found = json.loads(done.stdout or "[]")
    except ValueError:
        raise BadInput(
            f"cannot use squawk: exit code {done.returncode}, {cutting.shortened(done.stderr.strip(), 300)}"
        ) from None
    return [one for one in found if isinstance(one, dict)]
