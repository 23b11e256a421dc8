"""Reports of real runs: the verdict, what happened, what was proved, and people's acts, from the trail alone."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from command import proven

from runner.common.errors import RunbookError
from runner.report import checks_table, report
from runner.report.timeline import timeline
from runner.run import interventions, opened_run
from runner.run.execute import RunOptions, execute
from runner.run.resume import resume
from runner.run.way_back import Asked, rollback
from runner.target.runs import Found, find_run
from runner.target.workplace import Workplace, connected
from runner.trail.events import (
    CheckAnswered,
    Held,
    LockWaited,
    Record,
    Released,
    RunKind,
    Settled,
    StopRequested,
    Tuned,
)
from steps.contract import Answer

FILL = """
runbook: 1
name: fill
title: Fill | the networks
contacts: {owner: DBA, on_call: DevOps}
limits: {coverage_pct: 90}
queries:
  coverage: SELECT count(*) AS total, count(snapshot_asn) AS covered FROM session_summaries
preconditions:
  - {id: work, check: query, query: coverage, that: total > covered, why: else there is nothing to do}
  - {id: size, check: size, record_only: the DBA wants to know}
steps:
  - {id: go, type: checkpoint, approval: {roles: [dba]}, evidence: {backup: required}}
  - id: fill
    type: backfill
    table: session_summaries
    key: session_id
    source: SELECT ip_address, current_asn AS snapshot_asn FROM ip_inventory
    match: >-
      source.ip_address = coalesce(target.enrichment -> 'session_metadata' ->> 'source_ip',
      target.enrichment -> 'dshield' -> 'ip' ->> 'number')
    fill: [snapshot_asn]
    if_stopped_here: safe until morning
    success_criteria:
      - {id: nothing_left, that: visited == in_range and left == 0 and deferred == 0}
      - {id: later, check: size, due: phase4}
success_criteria:
  - {id: filled, check: rows, table: session_summaries, where: snapshot_asn IS NOT NULL, at_least: 1}
"""
FAILS = """
runbook: 1
name: fails
title: Fails
contacts: {owner: DBA}
preconditions:
  - {id: quiet, check: transactions, older_than: 5 min, that: count == 0}
steps:
  - {id: one, type: create_index, table: session_summaries, columns: [risk_score], if_stopped_here: an index more does no harm}
  - {id: two, type: sql, text: DELETE FROM nowhere WHERE a = 'x|y'}
  - {id: three, type: analyze, table: session_summaries}
"""


class Runs:
    """Runs playbooks on one SQLite honeypot."""

    def __init__(self, directory: Path, database: Path) -> None:
        self.directory = directory
        self.place = Workplace(f"sqlite:///{database}", directory / "runs", cwd=directory, environ={})

    def orders(self, kind: RunKind = RunKind.REAL) -> RunOptions:
        return RunOptions(self.place, operator="olga", kind=kind)

    def execute(self, playbook: str, kind: RunKind = RunKind.REAL) -> Found:
        path = self.directory / "playbook.yaml"
        path.write_text(proven(playbook))
        with suppress(RunbookError):
            execute(path, self.orders(kind))
        return self.found()

    def found(self) -> Found:
        return find_run(self.directory / "runs", "latest")

    def report(self) -> str:
        return report.markdown(self.found(), opened_run.playbook_of(self.found()))


@pytest.fixture
def runs(tmp_path: Path, sqlite_path: Path) -> Runs:
    return Runs(tmp_path, sqlite_path)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def test_report_of_a_gated_run(runs: Runs) -> None:
    run = runs.execute(FILL).status.run
    waiting = runs.report()
    assert waiting.startswith("# Fill \\| the networks\n\n**Waiting at a gate.**")
    assert "1 approval as dba" in waiting
    assert "owner: DBA, on call: DevOps" in section(waiting, "How it stands")
    assert "*never asked*" in section(waiting, "Checks")

    file = runs.directory / "backup.txt"
    file.write_text("a backup")
    interventions.note(run, runs.orders(), text="the pager | is quiet", by="dana")
    interventions.approve(run, runs.orders(), step="go", by="dana", role="dba", reason="read it")
    interventions.submit_evidence(
        run, runs.orders(), step="go", evidence="backup", by="dana", reason="of tonight", file=file
    )
    interventions.sql(run, runs.orders(), text="UPDATE schema_state SET value = '17'", by="olga", reason="by hand")
    resume(run, runs.orders())
    text = runs.report()
    assert "**Succeeded.** 2 of 2 steps done; 3 checks passed, 1 recorded only, 1 not due here." in text
    assert "steps done" in section(text, "How it stands")
    checks = section(text, "Checks")
    assert (
        "`query (query: coverage), that: total > covered`<br>*else there is nothing to do* | total = 2,000, covered = 0 | pass"
        in checks
    )
    assert "*recorded only* (the DBA wants to know), pass" in checks
    assert "*not due here*: decided by `phase4`" in checks
    assert "never asked" not in checks
    assert "| visited | 2,000 |" in section(text, "Figures")
    assert "**unsigned**: a claim" in section(text, "Approvals")
    assert runs.found().status.evidence[0].sha256 in section(text, "Evidence")
    timeline = section(text, "Timeline")
    assert r"dana noted: the pager \| is quiet" in timeline
    assert "**SQL by hand** from olga (by hand): `UPDATE schema_state SET value = '17'`, 1 row" in timeline
    assert "approved by dana as dba, unsigned (read it)" in timeline
    trail = section(text, "Trail")
    assert runs.found().status.head in trail
    assert "the chain verifies" in trail


def test_report_names_operator_target_and_digests(runs: Runs) -> None:
    found = runs.execute(FAILS)
    facts = section(runs.report(), "Run")
    assert "olga (as claimed); system's user" in facts
    for text in (found.status.digest, found.status.approval_digest, "SQLite 3.", "runbook "):
        assert text in facts


def test_report_of_a_failed_run_says_how_it_stands(runs: Runs) -> None:
    runs.execute(FAILS)
    text = runs.report()
    assert text.startswith("# Fails\n\n**Failed.** 1 of 3 steps done")
    assert "no such table: nowhere" in text
    steps = section(text, "Steps")
    assert "*not begun*" in steps
    assert "an index more does no harm" in steps
    assert "runbook resume" in section(text, "How it stands")
    assert "transactions (older_than: 5 min), that: count == 0" in section(text, "Checks")


def test_report_tables_are_whole(runs: Runs) -> None:
    """A cell that holds | or a line break would shift or end its table."""
    runs.execute(FAILS)
    blocks = [block.splitlines() for block in runs.report().split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 5
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block}) == 1


def test_report_calls_a_demo_a_demo(runs: Runs) -> None:
    runs.execute(FAILS, RunKind.DEMO)
    assert runs.report().startswith("# Demo: Fails\n")
    assert "This was a **demo** run" in runs.report()


def test_report_of_a_changed_trail_says_so(runs: Runs) -> None:
    found = runs.execute(FAILS)
    found.trail.write_text(found.trail.read_text().replace('"operator":"olga"', '"operator":"otto"'))
    assert "**This trail does not verify: line 1 was changed" in runs.report()


def test_report_of_a_rollback(runs: Runs) -> None:
    run = runs.execute(
        FAILS.replace("  - {id: two, type: sql, text: DELETE FROM nowhere WHERE a = 'x|y'}\n", "")
    ).status.run
    rollback(run, runs.orders(), Asked(reason="a test"))
    text = runs.report()
    assert text.startswith("# Fails\n\n**Rolled back.** 1 of 2 steps done, 1 taken back;")
    assert "taken back in" in section(text, "Steps")
    assert "rollback of `one` begun by olga, " in section(text, "Timeline")
    assert "steps done" in section(text, "How it stands")


def test_timeline_tells_waits_for_one_lock_in_one_line() -> None:
    def waited(attempt: int, who: str) -> LockWaited:
        return LockWaited(step="fill", label="1", attempt=attempt, sqlstate="55P03", blockers=(who,), next_try_s=0.5)

    told = [waited(1, "pid 7 (psql)"), waited(2, "pid 7 (psql)"), waited(3, "pid 8 | idle"),
            Held(step="fill", by="guard disk", reason="free_pct=4"), Released(step="fill", by="dana", reason="made room", seconds=200.0),
            Tuned(by="dana", reason="too slow", settings={"workers": 4}), StopRequested(by="SIGINT", reason="at a safe point"),
            Settled(step="fill", done=False, by="dana", reason="looked"), waited(1, "")]  # fmt: skip
    records = [
        Record(n=n, at="2026-06-01T12:00:00+02:00", prev="", event=event) for n, event in enumerate(told, start=1)
    ]
    assert [line.split(" | ", maxsplit=1)[1].removesuffix(" |") for line in timeline(records)[2:]] == [
        r"`fill`: lock not free (tries 1 to 3); in the way: pid 7 (psql); pid 8 \| idle",
        "`fill` held by guard disk (free_pct=4)",
        "`fill` goes on after 3 min, by dana (made room)",
        "tuned by dana: `workers=4` (too slow)",
        "stop asked by SIGINT (at a safe point)",
        "dana settled that `fill` is not done (looked)",
        "`fill`: lock not free (try 1)",
    ]
    assert timeline(records)[2].startswith("| 2026-06-01 10:00:00 |")


def test_a_guard_asked_often_is_one_row(runs: Runs) -> None:
    playbook = opened_run.playbook_of(runs.execute(FAILS))
    asked = [CheckAnswered(step="one", role="guard", id="disk", probe="disk", answer=answer, text="free_pct=9", that="free_pct >= 10")
             for answer in (Answer.PASS, Answer.FAIL, Answer.PASS)]  # fmt: skip
    rows = checks_table.checks(
        [Record(n=1, at="2026-06-01T12:00:00+00:00", prev="", event=one) for one in asked], playbook
    )
    assert [row for row in rows if "disk" in row] == [
        "| 2026-06-01 12:00:00 | guard of `one` | `disk` | `disk` |  | **fail** (asked 3 times, 1 of them no pass): free_pct=9 |"
    ]


def test_rows_lists_the_dead_ones(runs: Runs) -> None:
    runs.execute(
        FILL.replace("  - {id: go, type: checkpoint, approval: {roles: [dba]}, evidence: {backup: required}}\n", "")
    )
    run = runs.found().status.run
    with connected(runs.place) as target:
        dead = list(csv.DictReader(io.StringIO(report.rows(target.database, run, kind="dead", as_json=False))))
        assert len(dead) == runs.found().status.figures["fill"]["dead"] > 0
        assert dead[0]["step"] == "fill"
        assert "malformed JSON" in dead[0]["message"]
        listed = json.loads(report.rows(target.database, run, kind="dead", as_json=True))
        assert [one["key"] for one in listed] == [one["key"] for one in dead]
        assert (
            report.rows(target.database, run, kind="refused", as_json=False) == "step,key,sqlstate,message,attempt,at\n"
        )


def test_rows_without_a_ledger_are_none(runs: Runs) -> None:
    with connected(runs.place) as target:
        assert json.loads(report.rows(target.database, "none", kind="dead", as_json=True)) == []
