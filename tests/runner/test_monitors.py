"""Monitors: what is due is looked at once, an alert reopens the change and ends when it is mended, and nobody looks twice."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from pathlib import Path

import pytest
from command import KILLED
from databases import Database
from inside import InProcessCli, until
from passing import let_pass

from steps.ledger import tables

DAY = 86400
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)  # where the ledger's SQL differs
on_one = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)  # the same on every database
on_file = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
HEAD = """\
runbook: 1
name: {name}
title: Fill t
limits: {{low: 90}}
queries: {{covered: "SELECT count(*) AS total, round(100.0 * count(c) / count(*), 1) AS pct FROM t"}}
{more}
steps:
  - id: fill
    type: sql
    text: UPDATE t SET c = 'x' WHERE c IS NULL
    expect_rows: any
    revert: UPDATE t SET c = NULL WHERE id > 0
  - {{id: proof, type: checkpoint, success_criteria: [{{id: full, check: query, query: covered, that: pct >= 95}}]}}
monitors:
"""
COVERAGE = "  - {id: coverage, check: query, query: covered, that: pct >= 95, alert: pct < limits.low, every: 1 day}\n"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    values = ", ".join(f"({n})" for n in range(1, 101))
    empty_database.script(f"CREATE TABLE t (id int PRIMARY KEY, c text); INSERT INTO t (id) VALUES {values}")
    return InProcessCli(tmp_path, empty_database.url)


def watched(desk: InProcessCli, monitors: str = COVERAGE, *, name: str = "fill", more: str = "") -> str:
    """Run a playbook with these monitors; the run's name."""
    desk.playbook(name, HEAD.format(name=name, more=more) + monitors)
    done = desk.runbook("exec", f"{name}.yaml")
    assert done.code == 0, done.text
    return re.search(rf"succeeded: ({name}-\S+)", done.text)[1]


def once(desk: InProcessCli, *words: str) -> dict:
    done = desk.runbook("monitor", "once", "--json", *words)
    assert done.code in {0, 14}, done.text
    return {one["monitor"]: one for one in json.loads(done.out)["monitors"]} | {"code": done.code}


def empty_out(database: Database, rows: int) -> None:
    database.script(f"UPDATE t SET c = 'x'; UPDATE t SET c = NULL WHERE id <= {rows}")


# ─── one alert ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_alert_reopens_the_change_and_ends_when_it_is_mended(desk: InProcessCli, empty_database: Database):
    run = watched(desk)
    assert "nothing is due" in desk.runbook("monitor", "once").out
    let_pass(empty_database, DAY)
    assert once(desk)["coverage"]["state"] == "ok"
    assert once(desk)["coverage"]["fresh"] is False, "once a day"

    empty_out(empty_database, 8)  # under the target, above the alert
    let_pass(empty_database, DAY)
    assert once(desk)["coverage"]["state"] == "fail"
    assert desk.runbook("status", run).text.count("succeeded;") == 1

    empty_out(empty_database, 20)
    let_pass(empty_database, DAY)
    done = desk.runbook("monitor", "once")
    assert done.code == 14, done.text
    assert "alert: coverage of" in done.err
    assert "pct=80" in done.err
    for words in (("runs",), ("status", run), ("report", run)):
        assert re.search(r"[Ss]ucceeded, alert since \d{4}-", desk.runbook(*words).out), words
    status = desk.runbook("status", run)
    assert f"runbook monitor history {run} coverage" in status.out
    document = json.loads(desk.runbook("status", run, "--json").out)
    assert [one["monitor"] for one in document["alerts"]] == ["coverage"]

    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 14, "it goes on"
    empty_out(empty_database, 0)
    let_pass(empty_database, DAY)
    mended = once(desk)
    assert (mended["code"], mended["coverage"]["state"]) == (0, "ok")
    assert {one.monitor for one in desk.events("alert_ended")} == {"coverage"}
    assert "alert" not in desk.runbook("runs").out
    assert desk.runbook("trail", "verify", run, "--against-target").code == 0
    history = desk.runbook("monitor", "history", run).out
    assert re.search(r"pct  █.*▁.*█  80 to 100", history), history


@on_both
def test_alert_is_seen_from_the_ledger_where_the_folder_is_not(
    desk: InProcessCli, empty_database: Database, tmp_path_factory: pytest.TempPathFactory
):
    """Another machine looked and noted nothing here; a third one has no folder at all: both show the alert, and its end."""
    run = watched(desk)
    other = InProcessCli(tmp_path_factory.mktemp("other"), empty_database.url)
    target = ("--target", empty_database.url)
    empty_out(empty_database, 20)
    let_pass(empty_database, DAY)
    assert once(other)["code"] == 14
    assert "alert" not in desk.runbook("runs").out, "nobody who gives no --target waits for the database"
    for place in (desk, other):
        for words in (("runs",), ("status", run), ("status", "fill")):
            done = place.runbook(*words, *target)
            assert (done.code, len(re.findall(r"succeeded, alert since \d{4}-", done.out))) == (0, 1), done.text
        status = place.runbook("status", run, *target).out
        assert f"runbook monitor history {run} coverage" in status
        assert "pct=80" in status
        document = json.loads(place.runbook("status", run, "--json", *target).out)
        [listed] = json.loads(place.runbook("runs", "--json", *target).out)
        assert [one["monitor"] for one in document["alerts"]] == ["coverage"]
        assert {key: listed[key] for key in ("run", "state", "alerts", "trail")} == {
            key: document[key] for key in ("run", "state", "alerts", "trail")
        }
    assert "Succeeded, alert since" in desk.runbook("report", run, *target).out
    assert f"folder not here: it was begun on {socket.gethostname()}" in other.runbook("runs", *target).out

    empty_out(empty_database, 0)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 0
    for place in (desk, other):
        assert "alert" not in place.runbook("runs", *target).out
        assert "alert" not in place.runbook("status", run, *target).out
    assert f"runbook recover {run}" in other.runbook("status", run, *target).out
    assert desk.runbook("rollback", run).code == 0
    assert "rolled back · folder not here" in other.runbook("runs", *target).out
    assert other.runbook("status", "nothing", *target).code == 6


@on_file
def test_lost_observations_end_no_alert(desk: InProcessCli, empty_database: Database):
    """A ledger that was restored to before the alert is silent about it; silence proves nothing."""
    watched(desk)
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 14
    empty_database.script("DELETE FROM runbook_observation")
    let_pass(empty_database, -DAY)  # not due again
    desk.runbook("monitor", "once")
    for words in (("runs",), ("runs", "--target", empty_database.url)):
        assert "succeeded, alert since" in desk.runbook(*words).out
    let_pass(empty_database, DAY)
    empty_out(empty_database, 0)
    assert once(desk)["code"] == 0
    assert "alert" not in desk.runbook("runs").out


@on_file
def test_ledger_that_is_away_keeps_nobody_from_seeing_the_folder(desk: InProcessCli):
    run = watched(desk)
    done = desk.runbook("runs", "--target", "postgresql://nobody@127.0.0.1:1/nothing", "--runs", "runs")
    assert (done.code, run in done.out) == (0, True), done.text
    assert "shown without the ledger of postgresql://nobody@127.0.0.1:1/nothing: cannot reach" in done.err


@on_file
def test_quiet_says_only_what_is_new(desk: InProcessCli, empty_database: Database):
    watched(desk)
    let_pass(empty_database, DAY)
    assert desk.runbook("monitor", "once", "--quiet").text == ""
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    assert "pct=50" in desk.runbook("monitor", "once", "--quiet").text
    again = desk.runbook("monitor", "once", "--quiet")
    assert (again.code, again.text) == (14, ""), "cron would mail it again"


@on_both
def test_missed_times_are_caught_up_once_or_skipped(desk: InProcessCli, empty_database: Database):
    skipped = "  - {id: nightly, check: rows, table: t, at_least: 1, every: 1 day, missed: {skip_after: 2 h}}\n"
    run = watched(desk, COVERAGE + skipped)
    let_pass(empty_database, 3.5 * DAY)
    seen = once(desk)
    assert seen["coverage"]["fresh"] is True
    assert seen["nightly"]["fresh"] is False
    assert seen["nightly"]["skipped"]
    let_pass(empty_database, 0.5 * DAY + 60)
    assert once(desk)["nightly"]["fresh"] is True
    history = json.loads(desk.runbook("monitor", "history", run, "--json").out)
    missed = {name: [one["missed"] for one in told["observations"]] for name, told in history.items()}
    assert missed == {"coverage": [2, 0], "nightly": [3]}


@on_one
def test_expressions_name_the_figures_of_the_run(desk: InProcessCli, empty_database: Database):
    monitors = (
        "  - {id: as_many, check: query, query: covered, that: total >= run.proof.full.total and total >= run.full.total, every: 1 day}\n"
        "  - {id: less, check: query, query: covered, against: run, alert: change_pct.pct < -10, every: 1 day}\n"
        "  - {id: other, check: rows, table: t, against: run.full, alert: change_pct.rows > 5, every: 1 day}\n"
    )
    run = watched(desk, monitors)
    let_pass(empty_database, DAY)
    seen = once(desk)
    assert [seen[name]["state"] for name in ("as_many", "less")] == ["ok", "ok"], seen
    assert seen["other"]["state"] == "alert", "the run has no figure `rows` there: nobody knows"
    empty_database.script("UPDATE t SET c = NULL WHERE id <= 15; DELETE FROM t WHERE id = 100")
    let_pass(empty_database, DAY)
    seen = once(desk)
    assert "total=99, run.proof.full.total=100" in seen["as_many"]["text"]
    assert "change_pct.pct=-15.2" in seen["less"]["text"], seen["less"]
    assert desk.runbook("monitor", "list").out.count("alert since") == 3, run


@on_file
def test_error_alerts_and_is_no_figure(desk: InProcessCli, empty_database: Database):
    run = watched(desk)
    empty_database.script("ALTER TABLE t RENAME COLUMN c TO d")
    let_pass(empty_database, DAY)
    seen = once(desk)
    assert (seen["code"], seen["coverage"]["answer"]) == (14, "error")
    empty_database.script("ALTER TABLE t RENAME COLUMN d TO c")
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 0
    assert "·" in desk.runbook("monitor", "history", run).out.splitlines()[1]


# ─── people ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_one
def test_approved_alert_calls_nobody_until_the_next_one(desk: InProcessCli, empty_database: Database):
    run = watched(desk)
    refused = desk.runbook("monitor", "approve", run, "coverage", "--reason", "known")
    assert refused.code == 6, "nothing to approve yet"
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 14
    done = desk.runbook(
        "monitor", "approve", run, "coverage", "--as", "ines", "--reason", "the load is late", "--for", "3 days"
    )
    assert done.code == 0, done.text
    assert once(desk)["code"] == 0
    assert "alert" not in desk.runbook("runs").out
    [ended] = desk.events("alert_ended")
    assert ended.by == "ines"
    assert "the load is late" in desk.runbook("report", run).out
    let_pass(empty_database, 3 * DAY + 60)
    assert once(desk)["code"] == 14, "three days are over"
    assert len(desk.events("alert_raised")) == 2


@on_one
def test_silenced_alert_is_not_mailed_and_comes_again_when_the_silence_ends(
    desk: InProcessCli, empty_database: Database
):
    """A look each day; cron mails what --quiet prints. The end of a silence is told once, and at once."""
    run = watched(desk, COVERAGE + COVERAGE.replace("coverage", "slow", 1).replace("every", "for: 9 days, every"))
    for name in ("coverage", "slow"):
        done = desk.runbook("monitor", "mute", run, name, "--for", "36 h", "--reason", "moved")
        assert done.code == 0, done.text
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY + 60)
    done = desk.runbook("monitor", "once", "--quiet")
    assert (done.code, done.text) == (0, "")
    let_pass(empty_database, DAY / 2)
    done = desk.runbook("monitor", "once", "--quiet")
    assert (done.code, "pct=50" in done.out, run in done.out) == (14, True, True), done.text
    done = desk.runbook("monitor", "once", "--quiet")
    assert (done.code, done.text) == (14, "")
    done = desk.runbook("monitor", "approve", run, "coverage", "--for", "36 h", "--reason", "known")
    assert done.code == 0, done.text
    let_pass(empty_database, DAY)
    assert "coverage" not in desk.runbook("monitor", "once", "--quiet").text
    let_pass(empty_database, DAY / 2 + 60)
    assert "pct=50" in desk.runbook("monitor", "once", "--quiet").text
    assert len(desk.events("alert_raised")) == 2


@on_both
def test_muted_monitor_goes_on_looking(desk: InProcessCli, empty_database: Database):
    run = watched(desk)
    assert desk.runbook("monitor", "mute", run, "coverage", "--for", "2 days", "--reason", "moved").code == 0
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    seen = once(desk)
    assert (seen["code"], seen["coverage"]["state"]) == (0, "muted")
    assert desk.runbook("monitor", "mute", run, "coverage", "--for", "0 s", "--reason", "done").code == 0
    assert once(desk)["code"] == 14
    assert "moved" in desk.runbook("monitor", "history", run, "coverage").out


# ─── what is watched ────────────────────────────────────────────────────────────────────────────────────────────────
@on_file
def test_what_was_rolled_back_has_no_monitors_any_more(desk: InProcessCli, empty_database: Database):
    first = watched(desk)
    second = watched(desk, COVERAGE.replace("coverage", "later"), name="second", more="requires: [fill]")
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 14
    assert desk.runbook("rollback", first, "--despite-later-runs", "--reason", "wrong").code == 0
    done = desk.runbook("monitor", "once")
    assert done.code == 0, done.text
    assert f"{first}: not watched: it was rolled back" in done.out
    assert f"{second}: not watched: {first}, which it requires, was rolled back" in done.out
    assert "alert" not in desk.runbook("runs").out, "the second run's alert is over too"
    assert desk.runbook("monitor", "mute", first, "coverage", "--for", "1 h", "--reason", "moved").code == 6
    assert "pct=50" in desk.runbook("monitor", "history", first).out, "what was seen stays"


@on_file
def test_newer_run_of_the_playbook_takes_over(desk: InProcessCli, empty_database: Database):
    first = watched(desk)
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 14
    second = watched(desk)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 0
    listed = desk.runbook("monitor", "list").out
    assert listed.startswith(second)
    assert f"{first}: not watched: its playbook has run again since" in listed
    assert "alert" not in desk.runbook("runs").out


@on_file
def test_settled_holds_and_breaks(desk: InProcessCli, empty_database: Database):
    watched(desk)
    desk.playbook(
        "next", HEAD.format(name="next", more="requires: [{playbook: fill, settled: 24 h}]").removesuffix("monitors:\n")
    )

    def refusal() -> str:
        done = desk.runbook("exec", "next.yaml")
        assert done.code in {0, 6}, done.text
        return " ".join(done.text.split()) if done.code else ""

    assert "and must have stood for 24 h" in refusal()
    let_pass(empty_database, 25 * 3600)
    assert "and nobody looked: runbook monitor once" in refusal()
    empty_out(empty_database, 50)
    assert once(desk)["code"] == 14
    assert "coverage of its run" in refusal()
    empty_out(empty_database, 0)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 0
    assert "alerted within" not in refusal(), "the day since is over"


@on_one
def test_settled_breaks_by_an_alert_that_is_mended(desk: InProcessCli, empty_database: Database):
    watched(desk, COVERAGE.replace("1 day", "1 h"))
    desk.playbook(
        "next", HEAD.format(name="next", more="requires: [{playbook: fill, settled: 24 h}]").removesuffix("monitors:\n")
    )
    let_pass(empty_database, 30 * 3600)
    empty_out(empty_database, 50)
    assert once(desk)["code"] == 14
    empty_out(empty_database, 0)
    let_pass(empty_database, 3600)
    assert once(desk)["code"] == 0
    done = desk.runbook("exec", "next.yaml")
    assert (done.code, "alerted within 24 h" in done.err) == (6, True), done.text
    let_pass(empty_database, 24 * 3600)
    assert once(desk)["code"] == 0
    assert desk.runbook("exec", "next.yaml").code == 0


# ─── bounds, and two at once ────────────────────────────────────────────────────────────────────────────────────────
_SLOW = {
    "postgresql": "SELECT count(*) AS n FROM t, pg_sleep(30)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000000) SELECT count(*) AS n FROM n",
}


def _slow(database: Database, **keys: str) -> str:
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    return f'  - {{id: slow, check: query, query: "{_SLOW[database.dialect]}", that: n > 0, every: 1 day{more}}}\n'


@on_both
def test_observation_is_bounded_in_time(desk: InProcessCli, empty_database: Database):
    watched(desk, _slow(empty_database, takes_at_most="500 ms"))
    let_pass(empty_database, DAY)
    began = time.monotonic()
    seen = once(desk)
    assert time.monotonic() - began < 20
    assert seen["slow"]["answer"] == "error"
    assert "takes_at_most" in seen["slow"]["text"]


@on_both
def test_two_at_once_look_once(desk: InProcessCli, empty_database: Database):
    """While one process looks, another one says who does; killed, the first leaves nothing in the way."""
    run = watched(desk, _slow(empty_database))
    let_pass(empty_database, DAY)
    first = desk.start("monitor", "once")
    until(lambda: _claims(empty_database) == 1)
    done = desk.runbook("monitor", "once")
    assert done.code == 0
    assert re.search(rf"pid {first.pid} is looking at it now", done.out), done.out
    first.kill()
    first.wait()
    assert _observations(empty_database) == 0
    second = desk.start("monitor", "once")
    until(lambda: _holder(empty_database) == second.pid)  # a dead one's claim is void at once on its own host
    second.kill()
    second.wait()
    assert json.loads(desk.runbook("monitor", "history", run, "--json").out)["slow"]["observations"] == []


def _claims(database: Database) -> int:
    with contextlib.suppress(Exception):
        return database.value(f"SELECT count(*) FROM {_name(database, 'monitor_claim')}")
    return 0


def _holder(database: Database) -> int:
    with contextlib.suppress(Exception):
        return json.loads(database.value(f"SELECT holder FROM {_name(database, 'monitor_claim')}"))["pid"]
    return 0


def _observations(database: Database) -> int:
    return database.value(f"SELECT count(*) FROM {_name(database, 'observation')}")


def _name(database: Database, table: str) -> str:
    return f"runbook.{table}" if database.server else f"runbook_{table}"


@pytest.mark.parametrize("fault", ["commit.after:1", "commit.before:2", "commit.after:2", "trail.after:1"])
@on_both
def test_killed_within_an_observation_loses_nothing(desk: InProcessCli, empty_database: Database, fault: str):
    """Killed before or after the claim, the record, and the note in the trail: the next call brings it to its end, once."""
    run = watched(desk)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 0  # the tables are there
    empty_out(empty_database, 50)
    let_pass(empty_database, DAY)
    died = desk.kill("monitor", "once", fault=fault)
    assert died.code == KILLED, died.text
    assert once(desk)["code"] == 14
    assert _observations(empty_database) == 2
    assert _claims(empty_database) == 0
    assert len(desk.events("alert_raised")) == 1
    assert desk.runbook("trail", "verify", run, "--against-target").code == 0


@on_one
def test_many_at_once_record_one_observation(desk: InProcessCli, empty_database: Database):
    watched(desk)
    let_pass(empty_database, DAY)
    processes = [desk.start("monitor", "once") for _ in range(3)]
    assert {process.wait(300) for process in processes} == {0}
    assert _observations(empty_database) == 1


@on_both
def test_claim_of_another_machine_runs_out(desk: InProcessCli, empty_database: Database):
    """Whether a process on another machine lives can't be seen from here: its claim holds for takes_at_most and a minute."""
    watched(desk)
    let_pass(empty_database, DAY)
    assert once(desk)["code"] == 0
    let_pass(empty_database, DAY)
    _claimed_elsewhere(empty_database)
    assert once(desk)["coverage"]["busy"] == "a at elsewhere, pid 1"
    let_pass(empty_database, 301)
    assert once(desk)["coverage"]["fresh"] is True


def _claimed_elsewhere(empty_database: Database) -> None:
    """A claim for the default of takes_at_most and a minute, by a process of which nobody here knows whether it lives."""
    holder = '{"operator": "a", "user": "a", "host": "elsewhere", "pid": 1, "started": 1.0, "versions": {}, "boot_id": "another"}'
    until_ = (
        "clock_timestamp() + interval '5 min'"
        if empty_database.server
        else "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+300 seconds')"
    )
    empty_database.script(
        f"INSERT INTO {_name(empty_database, 'monitor_claim')} SELECT DISTINCT run, monitor, '{holder}', {until_} "
        f"FROM {_name(empty_database, 'observation')}"
    )


# ─── a clock that goes back ─────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_clock_that_goes_back_blinds_nobody(desk: InProcessCli, empty_database: Database):
    """A good observation, a mute and a claim from ten days ahead keep no alert from coming at its time."""
    run = watched(desk)
    let_pass(empty_database, 20 * DAY)
    assert once(desk)["coverage"]["state"] == "ok"
    assert desk.runbook("monitor", "mute", run, "coverage", "--for", "1 h", "--reason", "moved").code == 0
    _claimed_elsewhere(empty_database)
    let_pass(empty_database, -10 * DAY)
    listed = json.loads(desk.runbook("monitor", "list", "--json").out)["monitors"]
    assert [one["state"] for one in listed] == ["not looked at yet"]
    empty_out(empty_database, 50)
    seen = once(desk)
    assert (seen["code"], seen["coverage"]["state"], seen["coverage"]["fresh"]) == (14, "alert", True)
    assert "the server's clock has gone back; forgotten are 1 later observation" in seen["coverage"]["text"]
    let_pass(empty_database, DAY)
    assert once(desk)["coverage"]["fresh"] is True, "each later time is looked at as it comes"
    assert _observations(empty_database) == 2


@on_both
def test_run_that_ended_later_than_now_is_an_alert(desk: InProcessCli, empty_database: Database):
    run = watched(desk)
    desk.playbook("next", HEAD.format(name="next", more="requires: [{playbook: fill, within: 1 day}]") + COVERAGE)
    let_pass(empty_database, -10 * DAY)
    done = desk.runbook("monitor", "once")
    assert (done.code, f"{run}: it ended later than the server's clock says" in done.err) == (14, True), done.text
    done = desk.runbook("exec", "next.yaml")
    assert (done.code, "nobody knows how old it is" in " ".join(done.text.split())) == (6, True), done.text
    let_pass(empty_database, 10 * DAY)
    assert once(desk)["code"] == 0


# ─── who may only read ──────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
def test_role_that_may_only_read_looks_and_alerts(desk: InProcessCli, empty_database: Database, kept: bool):
    watched(desk)
    let_pass(empty_database, DAY)
    if kept:
        assert once(desk)["code"] == 0
        let_pass(empty_database, DAY)
    empty_out(empty_database, 50)
    role = f"reader_{empty_database.name}"
    empty_database.script(
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA public, runbook TO {role}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public, runbook TO {role}"
    )
    reader = InProcessCli(desk.directory, empty_database.url.replace("owner@", f"{role}@"))
    try:
        done = reader.runbook("monitor", "once")
        assert done.code == 14, done.text
        assert "recorded nothing: this role may not write to the ledger" in done.err
        assert "pct=50" in done.text
        assert not desk.events("alert_raised"), "what isn't recorded isn't noted"
        refused = reader.runbook("monitor", "mute", "latest", "coverage", "--for", "1 h", "--reason", "moved")
        assert refused.code == 6, refused.text
    finally:
        empty_database.script(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert once(desk)["coverage"]["fresh"] is True, "due until somebody records it"


@on_both
def test_ledger_of_an_earlier_engine_is_read_and_kept(desk: InProcessCli, empty_database: Database):
    """The tables of monitors are no new version: a ledger without them is whole, and gets them when they are needed."""
    watched(desk)
    for name in tables.ON_DEMAND:
        empty_database.script(f"DROP TABLE {_name(empty_database, name)}")
    assert desk.runbook("target", "check").out.count("✗ ledger") == 0
    assert "made runbook" in desk.runbook("target", "init").out, "where the role of the runs may not make them"
    for name in tables.ON_DEMAND:
        empty_database.script(f"DROP TABLE {_name(empty_database, name)}")
    assert desk.runbook("monitor", "list").code == 0
    assert desk.runbook("monitor", "once").code == 0
    let_pass(empty_database, DAY)
    assert once(desk)["coverage"]["fresh"] is True
    assert empty_database.value(f"SELECT value FROM {_name(empty_database, 'meta')} WHERE name = 'version'") == "3"


@on_one
def test_planted_ledger_is_not_read(desk: InProcessCli, empty_database: Database):
    watched(desk)
    empty_database.script("CREATE RULE planted AS ON INSERT TO runbook.observation DO ALSO NOTHING")
    done = desk.runbook("monitor", "once")
    assert (done.code, "cannot trust the ledger" in done.err) == (6, True), done.text
