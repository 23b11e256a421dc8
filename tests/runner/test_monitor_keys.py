"""What a monitor may say, and what is a fault of the playbook: its names, its times, its probe."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Cli

from runner.playbook.load import load
from runner.playbook.yaml_reader import Faulty

TEXT = """\
runbook: 1
name: watched
title: t
limits: {{low: 90}}
steps:
  - {{id: go, type: checkpoint, success_criteria: [{{id: many, check: rows, table: t, that: rows >= 95}}]}}
monitors:
  - {{id: again, {keys}}}
"""
ROWS = "check: rows, table: t"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (f"{ROWS}, at_least: 1", "cannot do without `every:`"),
        (f"{ROWS}, every: 1 day", "cannot decide anything"),
        ("every: 1 day, that: rows > 1", "cannot do without `check:` here"),
        (f"{ROWS}, every: 1 day, that: rows > many.rows", "unknown name 'many.rows'"),
        (f"{ROWS}, every: 1 day, that: rows > run.go.many.row", "did you mean 'run.go.many.rows'"),
        (f"{ROWS}, every: 1 day, that: change_pct.rows > 1", "unknown name 'change_pct.rows'"),
        (f"{ROWS}, every: 1 day, alert: rows > 'many'", "text is never ordered"),
        (f"{ROWS}, every: 1 day, at_least: 1, against: run", "no check of it asks the same"),
        (f"{ROWS}, every: 1 day, at_least: 1, against: many", "write run, or run.ID"),
        (f"{ROWS}, every: 1 day, at_least: 1, against: run.few", "write run, or run.ID"),
        (f"{ROWS}, every: 1 day, at_least: 1, due: other", "cannot use `due` here"),
        (f"{ROWS}, every: 1 day, at_least: 1, still: true", "cannot use `still` here"),
        (f"{ROWS}, every: 1 day, at_least: 1, judge: dba", "a monitor is asked again and again by itself"),
        (f"{ROWS}, every: 1 day, at_least: 1, last: 3 of 2", "how many of the last"),
        (f"{ROWS}, every: 1 day, at_least: 1, missed: never", "missed"),
        (f"{ROWS}, every: 1 day, at_least: 1, more: 1", "unknown key 'more'"),
        (f"{ROWS}, every: 1 min, at_least: 1", "it would still look when it is due again"),
        (f"{ROWS}, every: {{cron: '* * * * *', zone: UTC}}, at_least: 1, takes_at_most: 60 s", "it would still look when it is due again"),
        ("check: command, argv: ['true'], that: exit_code == 0, every: 1 day", "it runs a program"),
    ],
)  # fmt: skip
def test_fault_is_named(keys: str, words: str):
    with pytest.raises(Faulty) as faulty:
        load("watched.yaml", lambda _name: TEXT.format(keys=keys))
    assert words in str(faulty.value), faulty.value
    assert "watched.yaml:8:" in str(faulty.value)


@pytest.mark.parametrize(
    "keys",
    [
        "check: rows, table: t, that: rows >= run.many.rows and rows >= run.go.many.rows, every: 1 day",
        "check: rows, table: t, against: run.many, alert: change_pct.rows < -5 or rows < limits.low, every: 7 days, last: 2 of 3",
        "check: rows, table: t, against: run.go.many, alert: change_pct.rows < -5, every: {cron: 0 5 * * MON, zone: America/New_York}",
        "check: rows, table: t, record_only: to be seen, every: 1 h, for: 2 h, missed: {skip_after: 10 min}, why: w, warn: rows > 1",
    ],
)
def test_good_keys_are_read(keys: str):
    assert load("watched.yaml", lambda _name: TEXT.format(keys=keys)).monitors


def test_id_of_a_monitor_is_one_of_the_playbook():
    with pytest.raises(Faulty) as faulty:
        load(
            "watched.yaml",
            lambda _name: TEXT.format(keys=f"{ROWS}, at_least: 1, every: 1 day").replace("id: again", "id: many"),
        )
    assert "cannot use the id 'many' twice" in str(faulty.value)


def test_why_of_a_monitor_is_no_part_of_the_digest():
    def digest(more: str) -> str:
        return load("watched.yaml", lambda _name: TEXT.format(keys=f"{ROWS}, at_least: 1, every: 1 day{more}")).digest

    assert digest("") == digest(", why: it matters")
    assert digest("") != digest(", last: 2 of 3")


def test_validate_and_plan_say_how_often_and_how_long(tmp_path: Path):
    desk = Cli(tmp_path, "")
    desk.playbook("watched", TEXT.format(keys=f"{ROWS}, at_least: 1, every: {{cron: 0 6 * * *, zone: Europe/Berlin}}"))
    done = desk.runbook("validate", "watched.yaml")
    assert "monitor again: takes at most 5 min of 23 h 00 min (0.36 %)" in done.out
    plan = " ".join(desk.runbook("plan", "watched.yaml", RUNBOOK_TARGET="").out.split())
    assert "cron 0 6 * * * (Europe/Berlin), again: rows" in plan
