"""Applies the rules of lint to playbooks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import JsonValue

from runner.common.errors import BadInput, PlaybookFaulty
from runner.playbook.load import WrittenPlaybook
from runner.playbook.yaml_reader import Fault, Faulty, Mark
from runner.review import parse_tree, rules, squawk, suppressions
from runner.review.effects import effect_of
from runner.review.findings import INSTALL, Finding, LintResult, Reviewed, RuleSummary, Severity, in_order
from runner.review.rule import RULES, Rule, apply_rules
from runner.review.sql_texts import Role
from runner.review.subject import LintSubject

UNREADABLE, UNUSED, WITHOUT_REASON = "RB000", "RB901", "RB902"
OF_FILES = (
    RuleSummary(UNREADABLE, Severity.ERROR, "The playbook can't be read"),
    RuleSummary(UNUSED, Severity.WARNING, "A comment allows what isn't found"),
    RuleSummary(WITHOUT_REASON, Severity.WARNING, "A comment allows something without a reason or a code"),
)


def load_rules() -> dict[str, Rule]:
    """All rules by code; imports their modules."""
    for module in pkgutil.iter_modules(rules.__path__):
        importlib.import_module(f"{rules.__name__}.{module.name}")
    return RULES


def today() -> date:
    return datetime.now(UTC).date()


def lint(
    playbooks: Iterable[WrittenPlaybook],
    *,
    unreadable: Iterable[Finding] = (),
    environment: str = "",
    day: date | None = None,
) -> LintResult:
    """Apply all rules that can be applied here. environment: of the target, as targets.yaml has it.

    unreadable: the faults of playbooks that can't be loaded (see `faults_of`).
    """
    written = list(playbooks)
    subjects = [LintSubject(one, day or today(), environment) for one in written]
    known = load_rules()
    able = parse_tree.available()
    applied = [one for one in known.values() if able or not one.parsed]
    found = [finding for subject in subjects for finding in apply_rules(subject, applied)]
    foreign = squawk.available() if able else False
    if foreign:
        found += squawk.findings(subjects, instead_of=found)
    comments = [one for subject in subjects for one in suppressions.of_playbook(subject.written)]
    never = frozenset(one.code for one in known.values() if not one.allowable)
    judged = suppressions.apply(found, comments, never=never)
    summaries = [one.summary for one in known.values()] + list(squawk.SUMMARIES)
    usable = {one.code for one in applied} | ({one.code for one in squawk.SUMMARIES} if foreign else set())
    judged += _of_comments(dict.fromkeys(comments), judged, usable, {one.code for one in summaries})
    return LintResult(
        playbooks=tuple(Reviewed(one.sources.main.file, one.playbook.name, one.playbook.digest) for one in written),
        findings=in_order([*unreadable, *judged]),
        rules=tuple(sorted([*(one for one in summaries if one.code in usable), *OF_FILES], key=lambda one: one.code)),
        skipped=tuple(sorted((one for one in summaries if one.code not in usable), key=lambda one: one.code)),
        versions=_versions(foreign=foreign, able=able),
    )


def faults_of(error: PlaybookFaulty, file: Path) -> list[Finding]:
    """The faults for which a playbook can't be loaded, as findings."""
    cause = error.__cause__
    faults = cause.faults if isinstance(cause, Faulty) else (Fault(Mark(str(file), 1, 1), error.what),)
    return [Finding(UNREADABLE, Severity.ERROR, one.mark, one.message) for one in faults]


def effects(playbooks: Iterable[WrittenPlaybook]) -> list[dict[str, JsonValue]]:
    """What each statement for PostgreSQL does to others: its lock, what that blocks, for how long, and what is gone for good."""
    if not parse_tree.available():
        raise BadInput(f"cannot tell the effects of statements without PostgreSQL's grammar: {INSTALL}")
    found: list[dict[str, JsonValue]] = []
    for written in playbooks:
        subject = LintSubject(written, today())
        for statement in subject.parsed_as(Role.STATEMENT, Role.REVERT):
            effect, mark = effect_of(statement), statement.mark()
            found.append(
                {
                    "file": mark.file,
                    "line": mark.line,
                    "column": mark.column,
                    "step": statement.text.step,
                    "statement": " ".join(statement.sql.split()),
                    "lock": effect.lock,
                    "blocks": effect.blocks,
                    "length": effect.length,
                    "one_way": effect.one_way,
                    "effect": str(effect),
                }
            )
    return found


def _of_comments(
    comments: Iterable[suppressions.Allowance], judged: list[Finding], usable: set[str], known: set[str]
) -> Iterator[Finding]:
    """What is wrong with the comments themselves. usable: rules that were applied."""
    for comment in comments:
        if not comment.reason or not comment.codes:
            why = "cannot allow this: the comment gives no " + ("reason" if comment.codes else "code")
            yield Finding(
                WITHOUT_REASON, Severity.WARNING, comment.mark, why, "write `# runbook: allow CODE: the reason`"
            )
            continue
        for code in comment.codes:
            used = any(one.code == code and one.allowed and comment.covers(one) for one in judged)
            if not used and (code in usable or code not in known):
                why = f"{code} is allowed here, and isn't found here" if code in known else f"there is no rule {code}"
                yield Finding(UNUSED, Severity.WARNING, comment.mark, why, "remove the comment")


def _versions(*, foreign: bool, able: bool) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    names = ["runbook-engine", *(["postgast"] if able else []), *(["squawk-cli"] if foreign else [])]
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
