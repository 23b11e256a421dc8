"""Guards of a running step: sampled beside it, obeyed at its safe points or by cancelling, and told in the trail."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import proven
from databases import Database
from guarding import (
    LEVEL,
    LONG,
    MANY,
    ONE,
    QUERIES,
    SLEEPING,
    answers,
    at_desk,
    bumped,
    guarded,
    holds,
    level,
)
from inside import InProcessCli, meanwhile, session, until, written

from runner.plan import window
from runner.playbook.load import load
from runner.report import checks_table
from runner.run import guards
from runner.trail.events import CheckAnswered, Record
from runner.trail.status import RunStatus, StepStatus
from steps.contract import Answer

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    return at_desk(empty_database, tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Safe points are waited for only shortly, so that a test of cancelling is short."""
    monkeypatch.setattr(guards, "PATIENCE_S", 0.3)


# ─── ending a long statement ────────────────────────────────────────────────────────────────────────────────────────
@on_18
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("action", "code", "then"), [("abort", 7, [1, 0]), ("rollback", 8, [0, 0])])
def test_long_statement_is_cancelled(
    desk: InProcessCli, empty_database: Database, action: str, code: int, then: list[int]
) -> None:
    """No safe point comes: it is cancelled, the run is stopped by that guard and has not failed; it goes on where it stood."""
    empty_database.script("UPDATE pause SET s = 60")

    def rise() -> None:
        until(lambda: empty_database.rows(SLEEPING))
        empty_database.script("UPDATE pause SET s = 0")
        level(empty_database, 9)

    name = guarded(desk, LONG, f"id: calm, {LEVEL}, that: n <= 5, else: {action}")
    with meanwhile(rise):
        found = desk.runbook("exec", name)
    assert found.code == code, found.text
    (stop,), ended = desk.events("stop_requested"), desk.events("step_ended")[0]
    assert (stop.by, stop.reason) == ("guard calm", "calm answered fail: n=9")
    assert (ended.outcome, ended.error) == ("stopped", "cancelled by guard calm: calm answered fail: n=9")
    assert bumped(empty_database) == then
    assert answers(desk, "calm")[:2] == ["pass", "fail"]
    if action == "abort":
        assert "cancelled by guard calm" in found.err and "runbook resume" in found.err
        level(empty_database, 0)
        assert desk.runbook("resume", "latest").code == 0
        assert bumped(empty_database) == [1, 1]


@on_18
@pytest.mark.usefixtures("impatient")
def test_concurrent_index_is_cancelled(desk: InProcessCli, empty_database: Database) -> None:
    """While it waits for another's transaction; what it left is repaired when the run is resumed."""
    brief = "{id: brief, that: elapsed_s <= limits.s, every: 50 ms, else: abort}"
    step = f"- {{id: index, type: create_index, table: t, columns: [n], name: t_n, guards: [{brief}]}}"
    name = written(desk, step, "limits: {s: 1}\n")
    with session(empty_database, "INSERT INTO t (id) VALUES (3)"):
        found = desk.runbook("exec", name)
    assert found.code == 7 and "cancelled by guard brief" in found.err, found.text
    assert desk.runbook("resume", "latest").code == 0
    assert empty_database.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_n'::regclass")


@on_sqlite
@pytest.mark.usefixtures("impatient")
def test_long_statement_is_cancelled_on_sqlite(desk: InProcessCli, empty_database: Database) -> None:
    endless = "UPDATE t SET n = (WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT max(i) FROM c)"
    name = guarded(
        desk, f"whole_table: true, text: '{endless}'", "id: brief, that: elapsed_s < 0.5, every: 50 ms, else: abort"
    )
    found = desk.runbook("exec", name)
    assert found.code == 7 and "cancelled by guard brief" in found.err, found.text
    assert bumped(empty_database) == [0, 0]


# ─── holding ────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_broken_guard_holds_the_step_before_it_begins(desk: InProcessCli, empty_database: Database) -> None:
    """Also a step without safe points; between its two levels it stays held, and the trail has who, why and how long."""
    level(empty_database, 9)

    def fall() -> None:
        desk.reached("held")
        assert desk.status().held.startswith("lag answered fail: n=9 (guard lag, since ")
        level(empty_database, 4)
        until(lambda: answers(desk, "lag") == ["fail", "pass"])
        assert bumped(empty_database) == [0, 0] and not desk.events("released")
        level(empty_database, 2)

    name = guarded(desk, ONE, f"id: lag, {LEVEL}, that: n <= 5, resume: n <= 2")
    with meanwhile(fall):
        found = desk.runbook("exec", name)
    assert found.code == 0, found.text
    (held,), (released,) = desk.events("held"), desk.events("released")
    assert (held.by, released.by, released.held_by) == ("guard lag", "guard lag", "guard lag")
    assert released.reason == "lag answered pass: n=2"
    assert bumped(empty_database) == [1, 0]
    assert "held" not in desk.runbook("status", "latest").out


@on_18
def test_spike_hibernates_and_goes_on(desk: InProcessCli, empty_database: Database) -> None:
    """A critical load is confirmed, waited out, and kills nothing; `else: warn` holds for it too. F: D04"""

    def spike() -> None:
        until(lambda: empty_database.rows(SLEEPING))
        level(empty_database, 99)
        desk.reached("held")
        empty_database.script("UPDATE pause SET s = 0; UPDATE level SET n = 0")

    name = guarded(desk, MANY, f"id: load, {LEVEL}, that: n <= 5, critical: n > 50, hibernate: 1 s, else: warn")
    with meanwhile(spike):
        found = desk.runbook("exec", name)
    assert found.code == 0, found.text
    (held,), (released,) = desk.events("held"), desk.events("released")
    assert held.reason == "load is critical (n > 50), asked twice: n=99; hibernates for at least 1 s"
    assert released.seconds >= 0.7, "from the reading on, which the run obeys at its next safe point"
    assert not desk.events("stop_requested")


@on_18
def test_unknown_holds_no_longer_than_its_longest_hold(desk: InProcessCli, empty_database: Database) -> None:
    """The source of a figure is gone: held, then ended with who, how long and why, and resumed. F: D03"""

    def cut() -> None:
        until(lambda: empty_database.rows(SLEEPING))
        empty_database.script("DELETE FROM level")

    name = guarded(desk, MANY, f"id: lag, {LEVEL}, that: n <= 5, longest_hold: 1 s")
    with meanwhile(cut):
        found = desk.runbook("exec", name)
    assert found.code == 7, found.text
    why = "it held the run for 1 s, its longest_hold, because lag answered unknown: n is NULL"
    assert f"stopped by guard lag: {why}" in found.err and "runbook resume" in found.err
    assert desk.events("stop_requested")[0].reason == why
    empty_database.script("INSERT INTO level VALUES (0); UPDATE pause SET s = 0")
    assert desk.runbook("resume", "latest").code == 0


@on_18
def test_hold_on_own_figures_says_that_waiting_is_vain(desk: InProcessCli, empty_database: Database) -> None:
    """While the run stands still its figures do too: a person goes on, and is not asked again for the same."""
    with desk.start("exec", guarded(desk, MANY, "id: short, that: done <= 3, every: 50 ms")) as run:
        desk.reached("held")
        assert "waiting changes nothing here: runbook tune RUN go" in desk.events("held")[0].reason
        empty_database.script("UPDATE pause SET s = 0")
        assert desk.runbook("tune", "latest", "go", "--reason", "so be it").code == 0
        assert run.wait(300) == 0, run.stdout.read()
    assert len(desk.events("held")) == 1


@on_18
def test_hold_of_a_killed_run_is_gone(desk: InProcessCli, empty_database: Database) -> None:
    """What is resumed samples anew."""
    level(empty_database, 9)
    with desk.start("exec", guarded(desk, ONE, f"id: lag, {LEVEL}, that: n <= 5")) as run:
        desk.reached("held")
        run.send_signal(signal.SIGKILL)
    level(empty_database, 0)
    found = desk.runbook("resume", "latest")
    assert found.code == 0, found.text
    assert [(one.answer, one.sampled) for one in desk.events("check_answered")][:2] == [("fail", 1), ("pass", 1)]
    assert len(desk.events("held")) == 1 and not holds(desk)


# ─── sampling ───────────────────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_guard_that_cannot_be_answered_is_a_fault_before_the_start(
    desk: InProcessCli, empty_database: Database
) -> None:
    empty_database.script("DELETE FROM level")
    found = desk.runbook("exec", guarded(desk, ONE, f"id: lag, {LEVEL}, that: n <= 5"))
    assert found.code == 1 and "cannot begin: guard lag can't be answered here: n is NULL" in found.err, found.text
    assert bumped(empty_database) == [0, 0]
    empty_database.script("INSERT INTO level VALUES (0)")
    assert desk.runbook("resume", "latest").code == 0


@on_18
def test_costly_probe_is_asked_seldom(desk: InProcessCli, empty_database: Database) -> None:
    """A probe takes at most 1 % of the time, and the trail keeps its first answer, its changes and its last. F: D07"""
    empty_database.script("UPDATE pause SET s = 1.5")
    costly = "id: costly, check: query, query: slow, that: n == 1, every: 50 ms"
    found = desk.runbook("exec", guarded(desk, LONG, costly, f"id: cheap, {LEVEL}, that: n <= 5"))
    assert found.code == 0, found.text
    asked = {name: [one for one in desk.events("check_answered") if one.id == name] for name in ("costly", "cheap")}
    assert [one.sampled for one in asked["costly"]] == [1]
    assert len(asked["cheap"]) == 2 and asked["cheap"][-1].sampled > 1


@on_both
def test_growth_and_rate_are_figures(desk: InProcessCli, empty_database: Database) -> None:
    """Since the first sample in this step; a rate needs two, so that its first answer is unknown and no fault."""
    level(empty_database, 100)
    grown = f"id: growth, {LEVEL}, that: grown.n <= 3, else: hold"
    rate = f"id: rate, {LEVEL}, that: per_min.n <= limits.most, else: hold"
    start = f"id: start, {LEVEL}, that: n <= 99"  # holds the step, so that the others have time

    def grow() -> None:
        until(lambda: "pass" in answers(desk, "rate"))
        level(empty_database, 104)
        until(lambda: answers(desk, "growth") == ["pass", "fail"])
        level(empty_database, 99)

    with meanwhile(grow):
        found = desk.runbook("exec", guarded(desk, ONE, grown, rate, start, head="limits: {most: 1000000}\n"))
    assert found.code == 0, found.text
    assert [one.operands for one in desk.events("check_answered") if one.id == "growth"][:2] == [
        {"grown.n": 0},
        {"grown.n": 4},
    ]
    assert answers(desk, "rate")[:2] == ["unknown", "pass"]


@on_18
@pytest.mark.parametrize(("window", "answer"), [("1 h", "pass"), ("2 s", "fail")])
def test_forecast_end_against_the_windows_end(
    desk: InProcessCli, empty_database: Database, window: str, answer: str
) -> None:
    """Decided from the second safe point on, by the rate so far; it only warns."""
    in_time = "id: in_time, that: eta_s <= window_left_s, every: 50 ms, else: warn"

    def enough() -> None:
        until(lambda: answers(desk, "in_time"))
        empty_database.script("UPDATE pause SET s = 0")

    with meanwhile(enough):
        found = desk.runbook("exec", guarded(desk, MANY, in_time, head=f"window: {window}\n"))
    assert found.code in {0, 7}, found.text  # 7: a window that is over lets nothing more begin
    first = desk.events("check_answered")[0]
    assert first.answer == answer and first.operands["eta_s"] > 2 and first.operands["window_left_s"] is not None


def test_window_ends_where_the_gate_before_closes() -> None:
    """The first end after the gate was passed, also over midnight, and the playbook's own window where that is earlier."""
    text = """
runbook: 1
name: one
title: One
window: 20 h
steps:
  - {id: go, type: checkpoint, not_before: '22:00', not_after: '04:00'}
  - {id: work, type: analyze, table: t}
"""
    playbook = load("one.yaml", lambda _name: proven(text))
    passed = datetime.now().astimezone().replace(hour=23, minute=0, second=0, microsecond=0)

    def ends(started: datetime, *steps: StepStatus) -> datetime | None:
        status = RunStatus(started_at=started.astimezone(UTC).isoformat(), steps={one.id: one for one in steps})
        return window.ends(playbook, status, step="work", now=passed)

    work = StepStatus("work", started_at=passed.astimezone(UTC).isoformat())
    assert ends(passed, work) == (passed + timedelta(days=1)).replace(hour=4)
    late = StepStatus("work", started_at=(passed - timedelta(hours=18)).astimezone(UTC).isoformat())
    assert ends(passed, late) == passed + timedelta(hours=2)
    assert ends(passed) is None  # nothing was changed yet: waiting costs no time


# ─── smaller batches ────────────────────────────────────────────────────────────────────────────────────────────────
FILL = """- id: fill
  type: backfill
  table: big
  key: id
  source: SELECT id AS k, 1 AS n FROM big
  match: source.k = target.id
  fill: [n]
  order: key
  batch: {time: 1 s, rows: [1, 2]}
  guards: [{id: calm, check: query, query: level, every: 50 ms, that: n <= 5, resume: n <= 2, else: smaller_batches}]
"""


@on_both
def test_batches_shrink_while_it_is_broken_and_come_back(desk: InProcessCli, empty_database: Database) -> None:
    series = "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000) SELECT i FROM c"
    empty_database.script("CREATE TABLE big (id integer PRIMARY KEY, n integer)")
    empty_database.script(f"INSERT INTO big (id) {series}")
    level(empty_database, 9)
    with desk.start("exec", written(desk, FILL, QUERIES)) as run:
        desk.reached("tuned", count=4)
        level(empty_database, 0)
        until(lambda: desk.events("tuned")[-1].settings == {"batch_seconds": "as before"})
        tuned = desk.events("tuned")
        assert desk.runbook("tune", "latest", "stop", "--reason", "seen enough").code == 0
        assert run.wait(300) == 7, run.stdout.read()
    assert {one.by for one in tuned} == {"guard calm"}
    down = [0.125, 0.0625, 0.0312, 0.02]
    assert [one.settings["batch_seconds"] for one in tuned] == [*down, *down[-2::-1], "as before"]
    assert tuned[0].reason == "calm answered fail: n=9" and not desk.events("held")


def test_report_counts_samples_and_not_records() -> None:
    """A guard's records say how often it was asked until then; a resume begins to count anew."""

    def asked(answer: Answer, sampled: int, broke: int) -> CheckAnswered:
        return CheckAnswered(
            step="work", role="guard", id="lag", probe="query", answer=answer, text="n=9", sampled=sampled, broke=broke
        )

    counts = [(Answer.PASS, 1, 0), (Answer.FAIL, 7, 1), (Answer.PASS, 20, 4), (Answer.PASS, 1, 0), (Answer.PASS, 9, 0)]
    told = [asked(*one) for one in counts]
    records = [Record(n=n, at="2026-06-01T12:00:00+00:00", prev="", event=one) for n, one in enumerate(told, 1)]
    step = "{id: work, type: analyze, table: t, guards: [{id: lag, check: rows, table: t, that: rows > 1}]}"
    text = f"runbook: 1\nname: one\ntitle: One\nsteps: [{step}]"
    rows = checks_table.checks(records, load("one.yaml", lambda _name: proven(text)))
    assert any("**fail** (asked 29 times, 4 of them no pass): n=9" in row for row in rows), rows
