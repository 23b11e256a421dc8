"""`runbook diff`: a reviewer sees what a change of playbooks weakens, and nothing where the meaning is the same."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from command import Cli
from markdown_it import MarkdownIt

from runner.review.diff import show
from runner.review.diff.sides import sides
from runner.review.diff.verdict import judge

PLAYBOOK = """runbook: 1
name: fill
title: Fill it
include: common.yaml
window: 2 h
requires: [prepare, {playbook: trial, within: 7 days}]
preconditions:
  - {id: quiet, check: transactions, older_than: 5 min, that: count == 0}
steps:
  - id: go
    type: checkpoint
    approval: {roles: [dba, lead], need: 2, not: operator, valid_for: 12 h}
    evidence: {backup: required}
  - id: add
    type: add_column
    column: t.note
    of_type: text
  - id: fill
    type: sql
    statements:
      - {run: UPDATE t SET note = 'x' WHERE note IS NULL, revert: UPDATE t SET note = NULL WHERE note = 'x'}
    guards:
      - {id: lag, check: replication, that: lag_s <= limits.lag_s, critical: lag_s > 300, last: 2 of 3}
    success_criteria:
      - {id: filled, check: query, query: left, that: n == 0}
success_criteria:
  - {id: enough, check: rows, table: t, at_least: 5}
  - {id: coverage, check: query, query: left, that: pct >= limits.coverage_pct and n < 100}
monitors:
  - {id: daily, check: rows, table: t, that: rows >= 5, alert: rows < 3, every: 1 day}
rollback: reverse
"""
COMMON = """limits: {lag_s: 10, coverage_pct: 95, unused: 3}
queries:
  left: SELECT count(*) AS n, 100 AS pct FROM t WHERE note IS NULL
lock: {wait: 200 ms, retry_for: 5 min}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Cli:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fill.yaml").write_text(PLAYBOOK)
        (tmp_path / name / "common.yaml").write_text(COMMON)
    return Cli(tmp_path, "")


def edited(desk: Cli, *replaced: tuple[str, str], file: str = "fill.yaml") -> None:
    path = desk.directory / "new" / file
    text = path.read_text()
    for old, new in replaced:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)


def diff(desk: Cli, code: int | None = None) -> list[dict]:
    """The changes as `--json` gives them, without a process for each; code: what the command would end with."""
    with sides(str(desk.directory / "old"), str(desk.directory / "new"), ()) as (old, new):
        verdict = judge(old, new)
        assert code is None or code == (15 if verdict.direction.counts else 0), verdict.words
        return json.loads(json.dumps(verdict.document()))["changes"]


WEAKER = [
    ("window: 2 h", "window: 8 h"),
    ("window: 2 h\n", ""),
    ("requires: [prepare, ", "requires: ["),
    ("within: 7 days", "within: 30 days"),
    ("older_than: 5 min", "older_than: 1 h"),
    (
        "  - {id: quiet, check: transactions, older_than: 5 min, that: count == 0}\n",
        "  - {id: other, check: server, that: in_recovery == False}\n",
    ),
    ("that: count == 0", "that: count <= 3"),
    ("need: 2", "need: 1"),
    (", not: operator", ""),
    ("roles: [dba, lead]", "roles: [dba, lead, intern]"),
    ("valid_for: 12 h", "valid_for: 3 days"),
    ("backup: required", "backup: optional"),
    ("    evidence: {backup: required}\n", ""),
    ("lag_s > 300", "lag_s > 900"),
    (", critical: lag_s > 300", ""),
    ("last: 2 of 3", "last: 3 of 3"),
    ("last: 2 of 3", "last: 2 of 3, else: warn"),
    ("last: 2 of 3", "last: 2 of 3, for: 5 min"),
    ("at_least: 5", "at_least: 4"),
    ("n < 100", "n <= 100"),
    ("pct >= limits.coverage_pct and ", ""),
    ("pct >= limits.coverage_pct and n < 100", "pct >= limits.coverage_pct or n < 100"),
    ("that: n == 0}", "that: n == 0, record_only: for now}"),
    ("that: n == 0}", "that: n == 0, judge: dba}"),
    ("at_least: 5}", "at_least: 5, due: other}"),
    ("alert: rows < 3", "alert: rows < 2"),
    ("that: rows >= 5, alert: rows < 3", "that: rows >= 5, alert: rows < 3, for: 2 days"),
    ("that: rows >= 5, ", "that: rows >= 5, record_only: for now, "),
    ("every: 1 day", "every: 7 days"),
    ("  - {id: daily, check: rows, table: t, that: rows >= 5, alert: rows < 3, every: 1 day}\n", "  []\n"),
    ("rollback: reverse", "rollback: [add]"),
    ("rollback: reverse", "rollback: {none: never}"),
    ("of_type: text", "of_type: text\n    on_failure: {continue: never mind}"),
    ("of_type: text", "of_type: text\n    lock: {wait: 10 s}"),
    ("every: 1 day}", "every: 1 day, missed: {skip_after: 5 min}}"),
    ("lag_s > 300", "lag_s > 300 and lag_s < 400"),
]
STRICTER = [(new, old) for old, new in WEAKER]
SAME = [
    ("title: Fill it", "title: Fill the table"),
    ("window: 2 h", "window: 120 min     # as long as ever"),
    ("window: 2 h\n", "window: 2 h\nowner: me\ncontacts: {on_call: you}\n"),
    ("n < 100", "100 > n"),
    ("pct >= limits.coverage_pct and n < 100", "n < 100 and limits.coverage_pct <= pct"),
    ("pct >= limits.coverage_pct and n < 100", "not (pct < limits.coverage_pct or n >= 100)"),
    ("alert: rows < 3", "alert: not (rows >= 3)"),
    ("roles: [dba, lead]", "roles: [lead, dba]"),
    ("that: count == 0", "that: 0 == count"),
    ("UPDATE t SET note = 'x' WHERE", "update t  set note = 'x' /* all of them */ where"),
    (
        "  - id: add\n    type: add_column\n    column: t.note\n",
        "  - id: add\n    column: t.note\n    why: because\n    type: add_column\n",
    ),
]
OTHER = [
    ("SET note = 'x' WHERE", "SET note = 'y' WHERE"),
    ("that: rows >= 5, alert: rows < 3", "that: rows >= 5, alert: not (rows < 3)"),
    ("column: t.note", "column: t.remark"),
    ("of_type: text", "of_type: varchar"),
    ("that: n == 0}", "that: abs(n) <= 0}"),
    ("  - id: add\n    type: add_column\n    column: t.note\n    of_type: text\n", ""),
    # what was not written before is no stricter for being written: it says what is looked at, and what is done
    ("table: t, at_least: 5", "table: t, where: id > 7, at_least: 5"),
    ("window: 2 h", "search_path: [other, public]\nwindow: 2 h"),
    ("window: 2 h", "removes: [prepare]\nwindow: 2 h"),
    (
        "window: 2 h",
        "open: {from: '22:00', to: '23:00', zone: UTC}\ninputs: {a: {type: text, default: x}}\nwindow: 2 h",
    ),
    ("    of_type: text\n", "    of_type: text\n    collation: C\n"),
    ("note = 'x'}\n    guards", "note = 'x'}\n    applied_if: left\n    guards"),
    ("    of_type: text\n", "    of_type: text\n    when: {check: query, query: left, that: n > 5}\n"),
]


@pytest.mark.parametrize(("old", "new"), WEAKER, ids=lambda text: re.sub(r"\W+", "-", text)[:40])
def test_what_weakens_is_said(desk: Cli, old: str, new: str):
    edited(desk, (old, new))
    found = [one for one in diff(desk, 15) if one["direction"] != "neutral"]
    assert any(one["direction"] == "weakens" for one in found), found


@pytest.mark.parametrize(("old", "new"), STRICTER, ids=lambda text: re.sub(r"\W+", "-", text)[:40])
def test_what_strengthens_is_no_weakening(desk: Cli, old: str, new: str):
    """The same edits the other way round."""
    path = desk.directory / "old" / "fill.yaml"
    path.write_text(PLAYBOOK.replace(new, old))
    found = diff(desk)
    assert any(one["direction"] == "strengthens" for one in found), found
    if "server" not in old:  # a check in place of another is gone, too
        assert not any(one["direction"] == "weakens" for one in found), found


@pytest.mark.parametrize(("old", "new"), SAME, ids=lambda text: re.sub(r"\W+", "-", text)[:40])
def test_same_meaning_is_no_change(desk: Cli, old: str, new: str):
    edited(desk, (old, new))
    assert [one for one in diff(desk, 0) if one["direction"] != "neutral"] == []


@pytest.mark.parametrize(("old", "new"), OTHER, ids=lambda text: re.sub(r"\W+", "-", text)[:40])
def test_what_cannot_be_decided_changes_the_effect(desk: Cli, old: str, new: str):
    edited(desk, (old, new))
    found = diff(desk, 15)
    assert {"changes effect"} <= {one["direction"] for one in found}, found


CONDITION = "    of_type: text\n    when: {{check: query, query: left, that: n > {bound}}}\n"


@pytest.mark.parametrize("bound", ["5", "limits.unused"])
@pytest.mark.parametrize("other", ["0", "9"])
def test_condition_of_a_step_is_never_harmless(desk: Cli, bound: str, other: str):
    """Neither a step that is carried out more often, nor one that is skipped more often; also by a limit."""
    for name in ("old", "new"):
        path = desk.directory / name / "fill.yaml"
        path.write_text(PLAYBOOK.replace("    of_type: text\n", CONDITION.format(bound=bound)))
    if bound == "5":
        edited(desk, ("that: n > 5", f"that: n > {other}"))
    else:
        edited(desk, ("unused: 3", f"unused: {other}"), file="common.yaml")
    assert {one["direction"] for one in diff(desk, 15)} == {"changes effect"}


def test_limit_that_is_raised_while_its_check_takes_another(desk: Cli):
    """What an expression meant before is decided by what its limits were before."""
    edited(desk, ("lag_s <= limits.lag_s", "lag_s <= limits.unused"))
    edited(desk, ("lag_s: 10", "lag_s: 60"), ("unused: 3", "unused: 50"), file="common.yaml")
    assert [one["direction"] for one in diff(desk, 15)] == ["weakens"]


@pytest.mark.parametrize(
    ("alert", "direction"),
    [
        ("rows < 5", "neutral"),
        ("not (rows >= 5)", "neutral"),
        ("rows < 3", "weakens"),
        ("rows < 7", "strengthens"),
        ("rows > 9", "changes effect"),
    ],
)
def test_alert_where_there_was_none(desk: Cli, alert: str, direction: str):
    """Without one it alerts where the check does not pass: an alert by itself is neither stricter nor weaker. Both ways."""
    bare = PLAYBOOK.replace(", alert: rows < 3", "")
    given = PLAYBOOK.replace("alert: rows < 3", f"alert: {alert}")
    turned = {"weakens": "strengthens", "strengthens": "weakens"}
    for old, new, expected in ((bare, given, direction), (given, bare, turned.get(direction, direction))):
        (desk.directory / "old" / "fill.yaml").write_text(old)
        (desk.directory / "new" / "fill.yaml").write_text(new)
        (found,) = diff(desk)
        assert (found["subject"], found["direction"]) == ("monitor daily alert", expected), alert


def test_alert_where_typed_fields_decide_the_check(desk: Cli):
    edited(desk, ("table: t, that: rows >= 5, alert: rows < 3", "table: t, at_least: 5, alert: rows < 3"))
    (desk.directory / "old" / "fill.yaml").write_text(
        PLAYBOOK.replace("table: t, that: rows >= 5, alert: rows < 3", "table: t, at_least: 5")
    )
    assert [one["direction"] for one in diff(desk, 15)] == ["changes effect"]


def test_second_file_of_the_same_name(desk: Cli):
    """Either may be run, so each is compared with what had the name before; nothing hides behind a copy."""
    (desk.directory / "new" / "zz.yaml").write_text(PLAYBOOK)
    edited(desk, ("need: 2", "need: 1"))
    assert [one["direction"] for one in diff(desk, 15)] == ["weakens"]
    (desk.directory / "new" / "fill.yaml").write_text(PLAYBOOK)
    assert diff(desk, 0) == []
    edited(desk, ("need: 2", "need: 1"), file="zz.yaml")
    assert [one["direction"] for one in diff(desk, 15)] == ["weakens"]


@pytest.mark.parametrize(
    ("name", "text"), [("fill.yml", PLAYBOOK), ("fill.yaml", PLAYBOOK.replace("runbook: 1", '"runbook": 1'))]
)
def test_playbook_is_known_however_it_is_written(desk: Cli, name: str, text: str):
    for side in ("old", "new"):
        (desk.directory / side / "fill.yaml").unlink()
        (desk.directory / side / name).write_text(text)
    edited(desk, ("need: 2", "need: 1"), file=name)
    assert [one["subject"] for one in diff(desk, 15)] == ["step go approval.need"]


def test_new_text_that_is_no_yaml_is_a_fault_and_not_a_playbook_that_is_gone(desk: Cli):
    edited(desk, ("need: 2", "need: [2"))
    done = desk.runbook("diff", "old", "new")
    assert done.code == 4 and "fill.yaml" in done.err


def test_limit_is_told_once_with_every_check_that_it_loosens(desk: Cli):
    (desk.directory / "old" / "more.yaml").write_text(PLAYBOOK.replace("name: fill", "name: more"))
    (desk.directory / "new" / "more.yaml").write_text(PLAYBOOK.replace("name: fill", "name: more"))
    edited(
        desk,
        ("coverage_pct: 95", "coverage_pct: 90"),
        ("lag_s: 10", "lag_s: 5"),
        ("unused: 3", "unused: 4"),
        file="common.yaml",
    )
    found = {one["subject"]: one for one in diff(desk, 15)}
    assert set(found) == {"limit coverage_pct", "limit lag_s"}
    assert found["limit coverage_pct"]["direction"] == "weakens"
    assert [(one["playbook"], one["where"]) for one in found["limit coverage_pct"]["reaches"]] == [
        ("fill", "criterion coverage"),
        ("more", "criterion coverage"),
    ]
    assert found["limit lag_s"]["direction"] == "strengthens"


def test_query_is_told_once_with_its_diff_and_all_that_it_reaches(desk: Cli):
    edited(desk, ("WHERE note IS NULL", "WHERE note IS NULL AND id > 5"), file="common.yaml")
    (found,) = diff(desk, 15)
    assert found["subject"] == "query left" and found["direction"] == "changes effect"
    assert any("id > 5" in line for line in found["diff"])
    assert [one["where"] for one in found["reaches"]] == ["step fill, criterion filled", "criterion coverage"]


def test_shape_is_told_once_with_all_that_it_reaches(desk: Cli):
    """Also where it is a step's condition; a shape that nothing uses is none of this playbook's."""
    shapes = "shapes:\n  whole: {tables: {t: {columns: {id: integer, note: text}}}}\n  other: {tables: {x: {}}}\n"
    criterion = "success_criteria:\n  - {id: is_whole, check: shape, shape: whole}\n  - {id: enough"
    condition = "    of_type: text\n    when: {check: shape, shape: whole, that: state != 'whole'}\n"
    for name in ("old", "new"):
        (desk.directory / name / "common.yaml").write_text(COMMON + shapes)
        text = PLAYBOOK.replace("success_criteria:\n  - {id: enough", criterion)
        (desk.directory / name / "fill.yaml").write_text(text.replace("    of_type: text\n", condition))
    assert diff(desk, 0) == []
    edited(desk, ("note: text}", "note: varchar}"), ("x: {}", "y: {}"), file="common.yaml")
    (found,) = diff(desk, 15)
    assert (found["subject"], found["direction"]) == ("shape whole", "changes effect")
    assert [one["where"] for one in found["reaches"]] == ["step add, condition", "criterion is_whole"]
    assert any("varchar" in line for line in found["diff"])


def test_step_that_leaves_its_gate_behind(desk: Cli):
    lines = "  - id: add\n    type: add_column\n    column: t.note\n    of_type: text\n"
    edited(desk, (lines, ""), ("steps:\n", f"steps:\n{lines}"))
    (found,) = diff(desk, 15)
    assert (found["direction"], found["old"], found["new"]) == ("weakens", "after go", "before go")


def test_gate_that_is_gone_and_one_that_is_new(desk: Cli):
    gate = PLAYBOOK[PLAYBOOK.index("  - id: go") : PLAYBOOK.index("  - id: add")]
    edited(desk, (gate, ""))
    (found,) = diff(desk, 15)
    assert found["direction"] == "weakens" and found["subject"] == "gate go"
    done = desk.runbook("diff", "new", "old", "--json")
    assert done.code == 0
    (back,) = json.loads(done.out)["changes"]
    assert back["direction"] == "strengthens"


def test_way_back_that_is_lost(desk: Cli):
    edited(
        desk,
        (
            "- {run: UPDATE t SET note = 'x' WHERE note IS NULL, revert: UPDATE t SET note = NULL WHERE note = 'x'}",
            "- UPDATE t SET note = 'x' WHERE note IS NULL",
        ),
    )
    found = {one["subject"]: one["direction"] for one in diff(desk, 15)}
    assert found["step fill taking back"] == "weakens"


@pytest.mark.parametrize(
    ("new", "direction"),
    [
        ("UPDATE t SET note = 'y'", "changes effect"),
        ("DELETE FROM t", "changes effect"),
        ("ALTER TABLE t ALTER COLUMN note TYPE varchar(3)", "weakens"),
    ],
)
def test_statement_with_its_diff_and_its_lock(desk: Cli, new: str, direction: str):
    edited(desk, ("run: UPDATE t SET note = 'x' WHERE note IS NULL", f"run: {new}"))
    (found,) = (one for one in diff(desk, 15) if "statements" in one["subject"])
    assert found["direction"] == direction, found
    assert any(line.startswith("+") and new in line for line in found["diff"])
    assert direction != "weakens" or "ROW EXCLUSIVE" in found["why"]


def test_recorded_only_on_both_sides_decides_nothing(desk: Cli):
    for name in ("old", "new"):
        path = desk.directory / name / "fill.yaml"
        path.write_text(
            PLAYBOOK.replace("at_least: 5}", f"at_least: {5 if name == 'old' else 1}, record_only: for the record}}")
        )
    assert {one["direction"] for one in diff(desk, 0)} == {"neutral"}


def test_program_beside_the_playbook_belongs_to_it(desk: Cli):
    step = "  - {id: run, type: command, argv: [./x.sh], env: {}}\nsuccess_criteria:\n  - {id: enough"
    for name in ("old", "new"):
        path = desk.directory / name / "fill.yaml"
        path.write_text(PLAYBOOK.replace("success_criteria:\n  - {id: enough", step.replace(", env: {}", "")))
        program = desk.directory / name / "x.sh"
        program.write_text(f"#!/bin/sh\necho {name}\n")
        program.chmod(0o755)
    (found,) = diff(desk, 15)
    assert found["subject"].startswith("programs") and found["direction"] == "changes effect"


def test_two_files_are_one_playbook_whatever_it_is_called(desk: Cli):
    edited(desk, ("name: fill", "name: fill-again"), ("need: 2", "need: 1"))
    found = {one["subject"]: one["direction"] for one in diff(desk, 15)}
    assert found == {"name": "changes effect", "step go approval.need": "weakens"}


def test_invalid_sides(desk: Cli):
    edited(desk, ("window: 2 h", "windoe: 2 h"))
    new = desk.runbook("diff", "old", "new")
    assert new.code == 4 and "windoe" in new.err
    assert desk.runbook("diff", "new", "old").code == 0, "an invalid one is mended: there is nothing to compare with"


def test_approvals_of_open_runs_that_would_be_void_are_named(tmp_path: Path):
    """With --runs: only where the new text differs from what the open run began with, and somebody has approved it."""
    desk = Cli(tmp_path, "sqlite:///db.sqlite")
    (tmp_path / "db.sqlite").touch()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    text = (
        "runbook: 1\nname: gated\ntitle: T\nsteps:\n  - {id: go, type: checkpoint, approval: {roles: [dba], need: 2}}\n"
        "  - {id: make, type: sql, expect_rows: any, statements: [CREATE TABLE t (a int)], revert: [DROP TABLE t]}\n"
        "success_criteria:\n  - {id: there, check: columns, table: t, has: [a]}\n"
    )
    (tmp_path / "old" / "gated.yaml").write_text(text)
    (tmp_path / "new" / "gated.yaml").write_text(text.replace("title: T", "title: Another"))
    assert desk.runbook("exec", "old/gated.yaml").code == 5
    words = ("diff", "old", "new", "--runs", "runs")
    assert "voids" not in desk.runbook(*words).out
    assert desk.runbook("approve", "latest", "--as", "ann", "--role", "dba", "--reason", "read it").code == 0
    assert "voids" not in desk.runbook(*words).out, "text for people is no part of what was approved"
    (tmp_path / "new" / "gated.yaml").write_text(text.replace("a int", "a text"))
    done = desk.runbook(*words)
    assert done.code == 15 and "voids approvals of the open run gated-" in done.out and "go by ann as dba" in done.out
    voided = json.loads(desk.runbook(*words, "--json").out)["voided"]
    assert [one["approvals"] for one in voided] == [["go by ann as dba"]]


# ─── the comment ────────────────────────────────────────────────────────────────────────────────────────────────────
EVIL = "@org/all #12 <img src=x onerror=1> </details> ![p](//e.x/p.png) [l](//e.x) <!-- --> ``` `` ~~~ | https://e.x **b** &lt;"


def comment(desk: Cli) -> str:
    with sides(str(desk.directory / "old"), str(desk.directory / "new"), ()) as (old, new):
        return show.markdown(judge(old, new))


def test_comment_in_which_texts_do_nothing(desk: Cli):
    """Titles, reasons, names, values and SQL are shown, and are no link, picture, HTML or call for anybody's attention."""
    quoted = json.dumps(EVIL)
    edited(
        desk,
        ("title: Fill it", f"title: {quoted}"),
        ("roles: [dba, lead]", f"roles: [{quoted}]"),
        ("column: t.note\n", f"column: t.note\n    why: {quoted}\n    comment: {quoted}\n"),
        (
            "UPDATE t SET note = 'x' WHERE note IS NULL,",
            json.dumps(f"UPDATE t SET note = '{EVIL}' WHERE note IS NULL") + ",",
        ),
        ("older_than: 5 min", "older_than: 9 min"),
        ("table: t, at_least: 5", f"table: {json.dumps(EVIL[:60])}, at_least: 5"),
        ("{id: quiet, ", f"{{id: quiet, why: {quoted}, "),
    )
    text = comment(desk)
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    assert "org/all" in html and "onerror" in html, "it is shown"
    bare = re.sub(r"<(code|pre)\b.*?</\1>", "", html, flags=re.DOTALL).replace("<!-- runbook diff -->", "")
    assert not re.search(r"<(a|img|script)\b|<!--", bare), bare
    assert not re.search(r"(?<!\w)[@#]\w", unescape(bare)), bare
    assert bare.count("<details>") == bare.count("</details>") and html.rstrip().endswith("</details>")


def test_comment_is_cut_from_the_end(desk: Cli):
    """However much changes: the verdict and the weakenings stay, what is left out is said, and nothing is left open."""
    steps = "".join(
        f"  - {{id: s{n}, type: sql, expect_rows: any, why: {'w' * 200}, statements: [UPDATE t SET note = 'a{n}{'x' * 400}']}}\n"
        for n in range(300)
    )
    for name in ("old", "new"):
        text = PLAYBOOK.replace("success_criteria:\n  - {id: enough", f"{steps}success_criteria:\n  - {{id: enough")
        (desk.directory / name / "fill.yaml").write_text(text if name == "old" else text.replace("'a", "'b"))
    edited(desk, ("need: 2", "need: 1"))
    text = comment(desk)
    assert 40_000 < len(text) <= show.MOST_CHARACTERS + 200
    assert text.index("1 weakening") < text.index("step go approval.need") < 1_000
    assert "**Cut here**" in text[-200:] and text.count("<details>") == text.count("</details>")
    assert sum(line.lstrip().startswith("```") for line in text.splitlines()) % 2 == 0
