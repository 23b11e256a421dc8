"""What a playbook leaves undecided: its proof, its people, its times, and work that isn't there."""

from __future__ import annotations

from collections.abc import Iterator

from runner.review.findings import Severity
from runner.review.rule import Hit, rule
from runner.review.subject import LintSubject
from steps.contract import Gate, HalfDone, Resting, able, running_figures


@rule("RB101", Severity.NOTE)
def no_criterion(subject: LintSubject) -> Iterator[Hit]:
    """Nothing proves that the playbook did what it is for.

    `success_criteria: {none: …}` is a decision, and the run ends as unproven: with exit code 0, and without a statement about the
    database.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
        success_criteria: {none: nobody has asked}

    Instead::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
        success_criteria:
          - {id: seen, check: rows, table: sessions, where: seen AND id = 1, exactly: 1}
    """
    if subject.playbook.unproven:
        why = f"nothing proves that the playbook did what it is for ({subject.playbook.unproven}): it ends as unproven"
        yield Hit(subject.mark("success_criteria"), why, "write a check of what must hold afterwards")


@rule("RB106", Severity.WARNING)
def nobody_to_call(subject: LintSubject) -> Iterator[Hit]:
    """Nobody stands in the playbook to be called.

    Each stop of a run prints `contacts:`; without them an operator at night has a failure and no name.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        contacts: {on_call: "#data-on-call"}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    if subject.playbook.changes and not subject.playbook.contacts:
        mark = subject.mark("name", key=True)
        yield Hit(mark, "no `contacts:`: whoever sees it stop has nobody to call", "write contacts: {on_call: …}")


@rule("RB107", Severity.WARNING)
def review_is_due(subject: LintSubject) -> Iterator[Hit]:
    """The day in `review_after` has passed.

    What the playbook says of tables, sizes and people was true when it was reviewed.

    Found in::

        review_after: "2020-01-01"
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        review_after: "2999-01-01"
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    due = subject.playbook.review_after
    if due and due < f"{subject.today:%Y-%m-%d}":
        last = subject.playbook.reviewed or "never"
        why = f"its review was due after {due}; last reviewed: {last}"
        yield Hit(subject.mark("review_after"), why, "review it, and set reviewed and review_after")


@rule("RB108", Severity.WARNING)
def long_step_without_guard(subject: LintSubject) -> Iterator[Hit]:
    """A long step has no guard.

    A step in batches goes on for minutes or hours. Without guards nothing watches what it does to others meanwhile: the lag of
    standbys, waiting sessions, the growth of the table.

    Found in::

        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT id, country FROM addresses
            match: source.id = target.address_id
            fill: [country]

    Instead::

        steps:
          - id: fill
            type: backfill
            table: sessions
            source: SELECT id, country FROM addresses
            match: source.id = target.address_id
            fill: [country]
            guards:
              - {id: queue, check: waiters, that: longest_s <= 1, else: smaller_batches}
    """
    for path, entry, _written in subject.steps:
        long = running_figures(entry.step).batch_ms or able(entry.step, Resting)
        if long and not entry.guards:
            instead = "write e.g. guards: [{id: queue, check: waiters, that: longest_s <= 1, else: smaller_batches}]"
            yield Hit(subject.mark(*path), f"step {entry.id} may take long, and no guard watches it", instead, entry.id)


@rule("RB109", Severity.WARNING)
def no_time_on_production(subject: LintSubject) -> Iterator[Hit]:
    """A target of production asks for a window and for approvals that end.

    `runbook lint --target NAME` knows from targets.yaml that the target's environment is production. There changes need a bound:
    `window:` or `open:`, and `valid_for:` on each approval, so that last month's yes opens nothing today.

    Found in::

        # environment: production
        steps:
          - {id: go, type: checkpoint, approval: {roles: dba}}
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        # environment: production
        window: 2 h
        steps:
          - {id: go, type: checkpoint, approval: {roles: dba, valid_for: 12 h}}
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    if not subject.environment.lower().startswith("prod"):
        return
    playbook = subject.playbook
    if playbook.changes and playbook.window is None and playbook.open is None:
        yield Hit(
            subject.mark("name", key=True), "no `window:` or `open:`, on a target of production", "write window: 2 h"
        )
    for path, entry, _written in subject.steps:
        need = entry.step.needs().approval if able(entry.step, Gate) else None
        if need is not None and need.valid_for is None:
            why = f"the approval at {entry.id} never ends, on a target of production"
            yield Hit(subject.mark(*path, "approval"), why, "write valid_for: 12 h", entry.id)


@rule("RB110", Severity.WARNING)
def no_work_is_no_fault(subject: LintSubject) -> Iterator[Hit]:
    """A step that finds no work succeeds, and nothing asks why.

    Zero rows prove nothing: a wrong name, a wrong database or an earlier half of the work look the same. `expect_work: false` and
    `expect_rows: any` say that none is fine; then a criterion must say what shall hold.

    Found in::

        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1, expect_rows: any}

    Instead::

        steps:
          - id: mark
            type: sql
            text: UPDATE sessions SET seen = true WHERE id = 1
            expect_rows: any
            success_criteria:
              - {id: seen, check: rows, table: sessions, where: seen AND id = 1, exactly: 1}
    """
    asks = any(not one.record_only and not one.due for one in subject.playbook.success_criteria)
    for path, entry, written in subject.steps:
        key = next((key for key, none in _NO_WORK if written.get(key) == none), "")
        proven = asks or any(not one.record_only for one in entry.success_criteria)
        condition = isinstance(written.get("applied_if"), str)
        if key and not proven and not condition:
            why = f"step {entry.id} succeeds where it finds no work ({key}), and no criterion asks what holds then"
            yield Hit(subject.mark(*path, key), why, "write success_criteria of the step, or applied_if", entry.id)


_NO_WORK = (("expect_rows", "any"), ("expect_rows", 0), ("expect_work", False))


@rule("RB114", Severity.WARNING)
def half_done(subject: LintSubject) -> Iterator[Hit]:
    """A step that ends half done can't be taken back by itself.

    Its statements commit one by one, and its one `revert` is for all of them. After a failure in the middle a person must decide.

    Found in::

        steps:
          - id: mark
            type: sql
            statements: [UPDATE sessions SET seen = true WHERE id = 1, UPDATE sessions SET seen = true WHERE id = 2]
            revert: UPDATE sessions SET seen = false WHERE id IN (1, 2)

    Instead::

        steps:
          - id: mark
            type: sql
            transaction: one
            statements: [UPDATE sessions SET seen = true WHERE id = 1, UPDATE sessions SET seen = true WHERE id = 2]
            revert: UPDATE sessions SET seen = false WHERE id IN (1, 2)
    """
    for path, entry, _written in subject.steps:
        why = entry.step.half_way_back() if able(entry.step, HalfDone) else ""
        if why:
            said = f"step {entry.id} can't be taken back by itself where it ends half done: {why}"
            yield Hit(subject.mark(*path), said, step=entry.id)
