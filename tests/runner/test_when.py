"""`when:`: a step's one condition is asked once, and its recorded answer decides, whatever the database comes to say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from command import KILLED
from databases import Database
from inside import InProcessCli, written

from runner.plan.plan import plan
from runner.playbook.load import load_file
from runner.playbook.yaml_reader import parse
from runner.report import plan_cards
from runner.trail import trail
from runner.trail.status import fold
from steps import registry

on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)

EXAMPLES = Path(__file__).parents[2] / "playbooks/examples"
COUNT = "SELECT count(*) AS n FROM t WHERE id > 10"
WHEN = f"when: {{check: query, query: '{COUNT}', that: n > 0}}"
FIRST = (
    "- {id: first, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
)
MAYBE = f"- {{id: maybe, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 2, revert: UPDATE t SET n = n - 1 WHERE id = 2, {WHEN}}}"
MADE_TRUE = "INSERT INTO t VALUES (11, 0)"
MADE_FALSE = "DELETE FROM t WHERE id > 10"


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def counters(database: Database) -> list[int]:
    return [row[0] for row in database.rows("SELECT n FROM t WHERE id < 10 ORDER BY id")]


def answers(desk: InProcessCli, step: str = "maybe") -> list[str]:
    return [one.answer for one in desk.events("check_answered") if one.role == "condition" and one.step == step]


# ─── the answer ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_condition_that_fails_skips_the_step(empty_database: Database, tmp_path: Path) -> None:
    desk = _table(empty_database, tmp_path)
    done = desk.runbook("exec", written(desk, f"{FIRST}\n{MAYBE}"))
    assert done.code == 0 and "maybe skipped" in done.text, done.text
    assert counters(empty_database) == [1, 0] and answers(desk) == ["fail"]
    told = desk.runbook("status", "latest").out
    assert "1 of 2 steps done, 1 skipped" in told and "skipped" in told and "n=0" in told
    step = {one["id"]: one for one in json.loads(desk.runbook("status", "latest", "--json").out)["steps"]}["maybe"]
    assert (step["outcome"], step["condition"]["answer"]) == ("skipped", "fail")
    report = desk.runbook("report", "latest").out
    assert "only when" in report and "condition of `maybe`" in report and "1 failed" not in report
    assert desk.runbook("trail", "verify", "latest", "--against-target").code == 0


def test_skipped_step_says_nothing_of_how_things_stand(desk: InProcessCli) -> None:
    """Its `if_stopped_here` tells of a change that was never begun."""
    maybe = f"{MAYBE[:-1]}, if_stopped_here: half of it is gone}}"
    gate = (
        "- {id: gate, type: checkpoint, success_criteria: [{id: no, check: query, query: SELECT 1 AS n, that: n > 1}]}"
    )
    done = desk.runbook("exec", written(desk, f"{maybe}\n{gate}"))
    assert done.code == 3 and "maybe skipped" in done.text, done.text
    assert "nothing was changed" in done.text and "half of it is gone" not in done.text


def test_condition_that_holds_changes_nothing_else(empty_database: Database, tmp_path: Path) -> None:
    desk = _table(empty_database, tmp_path)
    empty_database.script(MADE_TRUE)
    done = desk.runbook("exec", written(desk, f"{FIRST}\n{MAYBE}"))
    assert done.code == 0 and counters(empty_database) == [1, 1], done.text
    assert desk.runbook("rollback", "latest").code == 0
    assert counters(empty_database) == [0, 0]


def _table(database: Database, directory: Path) -> InProcessCli:
    database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(directory, database.url)


@on_both
@pytest.mark.parametrize(
    ("query", "answer"), [("SELECT max(id) AS n FROM nobody", "unknown"), ("SELECT max(x) AS n FROM nobody", "error")]
)
def test_condition_without_an_answer_stops_the_run(
    desk: InProcessCli, empty_database: Database, query: str, answer: str
) -> None:
    """Nothing was decided, so a resume asks again."""
    empty_database.script("CREATE TABLE nobody (id integer)")
    step = MAYBE.replace(COUNT, query)
    made = f"- {{id: opaque, type: sql, text: UPDATE t SET n = 7 WHERE id = 1, revert: UPDATE t SET n = 0 WHERE id = 1}}\n{step}"
    done = desk.runbook("exec", written(desk, made))
    assert done.code == 3 and f"its condition answered {answer}" in done.err, done.text
    assert counters(empty_database) == [7, 0] and answers(desk) == [answer]
    empty_database.script("INSERT INTO nobody VALUES (5)")
    empty_database.script("ALTER TABLE nobody ADD COLUMN x integer DEFAULT 5" if answer == "error" else "SELECT 1")
    done = desk.runbook("resume", "latest")
    assert done.code == 0 and answers(desk) == [answer, "pass"], done.text
    assert counters(empty_database) == [7, 1]


POINTS = [f"{name}:{n}" for name in ("trail.after", "commit.before", "commit.after") for n in range(1, 14)]


@pytest.mark.soak
@on_both
def test_answer_is_a_record_wherever_it_is_killed(desk: InProcessCli, empty_database: Database) -> None:
    """At each record and commit."""
    _killed(desk, empty_database, POINTS)


@on_both
def test_answer_is_a_record(desk: InProcessCli, empty_database: Database) -> None:
    """At some points around the answer: what the condition is about changes meanwhile, and a recorded answer holds."""
    server = empty_database.dialect != "sqlite"
    _killed(
        desk, empty_database, ["trail.after:7", *(f"trail.after:{n}" for n in range(9, 12)), "commit.before:5"][server:]
    )


def _killed(desk: InProcessCli, database: Database, points: list[str]) -> None:
    kept = 0
    for number, (point, held) in enumerate((point, held) for point in points for held in (False, True)):
        place = InProcessCli(desk.directory / str(number), desk.target)
        place.directory.mkdir()
        database.script(f"UPDATE t SET n = 0; {MADE_FALSE}; {MADE_TRUE if held else MADE_FALSE}")
        if place.kill("exec", written(place, f"{FIRST}\n{MAYBE}"), fault=point).code != KILLED:
            continue
        if not place.newest.stat().st_size:
            continue
        known = answers(place)
        database.script(MADE_FALSE if held else MADE_TRUE)
        done = place.runbook("resume", "latest")
        assert done.code == 0 or "it has ended (succeeded)" in done.text, (point, done.text)
        assert not known or answers(place) == known == ["pass" if held else "fail"], point
        assert len(answers(place)) == 1, point
        assert counters(database) == [1, int(answers(place) == ["pass"])], point
        kept += bool(known)
    assert kept


@on_both
def test_skipped_step_is_not_taken_back(desk: InProcessCli, empty_database: Database) -> None:
    """Its way back is not sent, even where the condition would hold by then."""
    assert desk.runbook("exec", written(desk, f"{FIRST}\n{MAYBE}")).code == 0
    empty_database.script(MADE_TRUE)
    done = desk.runbook("rollback", "latest")
    assert done.code == 0 and counters(empty_database) == [0, 0], done.text
    assert [one.step for one in desk.events("step_started") if one.action == "revert"] == ["first"]


@on_both
def test_one_way_step_that_was_skipped_bars_no_rollback(desk: InProcessCli, empty_database: Database) -> None:
    one_way = MAYBE.replace(", revert: UPDATE t SET n = n - 1 WHERE id = 2", "")
    assert desk.runbook("exec", written(desk, f"{FIRST}\n{one_way}")).code == 0
    assert desk.runbook("rollback", "latest").code == 0
    assert counters(empty_database) == [0, 0]


# ─── what depends on a skipped step ─────────────────────────────────────────────────────────────────────────────────
FILL = f"""- id: fill
  type: backfill
  table: t
  key: id
  source: SELECT id AS k, id AS extra FROM t
  match: source.k = target.id
  fill: [extra]
  {WHEN}
  success_criteria: [{{id: all_of_it, that: left == 0}}]
"""


@on_both
def test_figures_of_a_skipped_step_are_not_available(desk: InProcessCli, empty_database: Database) -> None:
    """Its own criteria aren't asked; another check that wants a figure of it can't be answered."""
    empty_database.script("ALTER TABLE t ADD COLUMN extra integer")
    head = "success_criteria:\n  - {id: written, check: query, query: SELECT 1 AS one, that: fill.written > 0}\n"
    done = desk.runbook("exec", written(desk, FILL, head))
    assert done.code == 3 and "fill.written is not available: step fill was skipped" in done.err, done.text
    assert not [one for one in desk.events("check_answered") if one.id == "all_of_it"]
    plan = desk.runbook("plan", "change.yaml").out
    assert "written asks for fill.written: where fill is skipped, it can't be answered" in " ".join(plan.split())


@on_both
def test_parameter_from_a_skipped_step_stops_the_run(desk: InProcessCli, empty_database: Database) -> None:
    empty_database.script("ALTER TABLE t ADD COLUMN extra integer")
    use = "- {id: use, type: sql, text: UPDATE t SET n = :n WHERE id = 1, params: {n: '{{ fill.written }}'}}"
    done = desk.runbook("exec", written(desk, f"{FILL}{use}"))
    assert done.code == 1 and "step fill was skipped" in done.err, done.text
    assert counters(empty_database) == [0, 0]


@on_both
def test_run_that_asked_no_criterion_is_unproven(desk: InProcessCli) -> None:
    """The only criterion belongs to the skipped step."""
    step = MAYBE.replace("{id: maybe", "{id: maybe, success_criteria: [{id: two, check: rows, table: t, at_least: 2}]")
    done = desk.runbook("exec", written(desk, step))
    assert done.code == 0 and desk.status().state == "ended_unproven", done.text
    assert "nothing proves a run that skips maybe" in " ".join(desk.runbook("plan", "change.yaml").out.split())


# ─── edits between exec and resume ──────────────────────────────────────────────────────────────────────────────────
GATE = "- {id: gate, type: checkpoint, approval: {need: 1, roles: [dba]}}"
AGREE = ("approve", "latest", "--step", "gate", "--as", "ines", "--role", "dba", "--reason", "read")


@on_both
def test_changed_condition_of_a_skipped_step_is_refused(desk: InProcessCli) -> None:
    written(desk, f"{MAYBE}\n{GATE}\n{FIRST}")
    assert desk.runbook("exec", "change.yaml").code == 5
    written(desk, f"{MAYBE.replace('n > 0', 'n >= 0')}\n{GATE}\n{FIRST}")
    done = desk.runbook("resume", "latest", "--accept-changes", "--reason", "x")
    assert done.code == 6 and "changed in a step that ran: maybe" in done.err, done.text


def _killed_at_its_answer(desk: InProcessCli, name: str) -> None:
    """Killed when the answer is on disk and nothing after it; the runs before it made the ledger, and tell which record it is."""
    for _ in range(2):
        assert desk.runbook("exec", name).code == 0
    records = [one.event for one in trail.read(desk.newest)]
    number = next(n for n, one in enumerate(records, 1) if one.event == "check_answered" and one.role == "condition")
    assert desk.kill("exec", name, fault=f"trail.after:{number}").code == KILLED
    assert answers(desk) == ["fail"] and desk.status().step("maybe").outcome is None


@on_both
def test_changed_condition_ahead_is_asked_anew(desk: InProcessCli, empty_database: Database) -> None:
    """Also where the query under `queries:` is what changed, and where the old one was answered already."""
    head = f"queries:\n  some: {COUNT}\n"
    step = MAYBE.replace(f"'{COUNT}'", "some")
    _killed_at_its_answer(desk, written(desk, f"{FIRST}\n{step}", head))
    written(desk, f"{FIRST}\n{step}", head.replace("id > 10", "id > 1"))
    assert desk.runbook("resume", "latest").code == 6
    done = desk.runbook("resume", "latest", "--accept-changes", "--reason", "looked at")
    assert done.code == 0 and answers(desk) == ["fail", "pass"], done.text
    assert counters(empty_database) == [3, 1]


@on_both
def test_edit_adds_no_condition_to_a_gate(desk: InProcessCli, empty_database: Database) -> None:
    """A gate that is skipped asks nobody: it stays in force as it stood when the run began."""
    first = FIRST.replace("first", "early")
    written(desk, f"{first}\n{MAYBE}\n{GATE}\n{FIRST}")
    assert desk.runbook("exec", "change.yaml").code == 5
    written(desk, f"{first}\n{MAYBE}\n{GATE[:-1]}, {WHEN}}}\n{FIRST}")
    done = desk.runbook("resume", "latest", "--accept-changes", "--reason", "hurry")
    assert done.code == 5 and counters(empty_database) == [1, 0], done.text
    assert desk.runbook(*AGREE).code == 0
    assert desk.runbook("resume", "latest").code == 0
    assert counters(empty_database) == [2, 0]


@on_both
def test_gate_with_a_condition_of_its_own(desk: InProcessCli, empty_database: Database) -> None:
    """Skipped where there is nothing to decide; waited for where there is, also by a run that begins behind it."""
    second = "- {id: second, type: checkpoint, success_criteria: [{id: there, check: rows, table: t, at_least: 2}]}"
    name = written(desk, f"{GATE[:-1]}, {WHEN}}}\n{second}\n{FIRST}")
    assert desk.runbook("exec", name).code == 0
    assert counters(empty_database) == [1, 0]
    assert desk.runbook("exec", name, "--from", "second").code == 0
    empty_database.script(MADE_TRUE)
    late = desk.runbook("exec", name, "--from", "second")
    assert late.code == 6 and "gate gate" in late.err and counters(empty_database) == [2, 0], late.text
    assert desk.runbook("close", "latest", "--reason", "done with it").code == 0
    assert desk.runbook("exec", name).code == 5


@on_18
@pytest.mark.parametrize("point", ["commit.after:3", "commit.before:5", "commit.after:6"])
def test_recovered_run_keeps_its_answer(desk: InProcessCli, empty_database: Database, point: str) -> None:
    """Of a lost folder the ledger has what each step committed, and how it ended."""
    empty_database.script(MADE_TRUE)
    name = written(desk, f"{MAYBE}\n{FIRST}\n{MAYBE.replace('maybe', 'other').replace('n > 0', 'n > 5')}")
    if desk.kill("exec", name, fault=point).code != KILLED:
        pytest.fail("it was not killed")
    run = desk.newest.parent.name
    empty_database.script(MADE_FALSE)
    had = {one.id: one.outcome for one in fold(trail.read(desk.newest)).steps.values()}
    stood = counters(empty_database)
    shutil.rmtree(desk.newest.parent)
    assert desk.runbook("recover", run).code == 0
    done = desk.runbook("resume", run)
    assert done.code == 0, done.text
    assert counters(empty_database) == [1, stood[1]], (had, point)


# ─── the plan ───────────────────────────────────────────────────────────────────────────────────────────────────────
def cards(desk: InProcessCli, name: str, *, code: int = 0) -> dict:
    done = desk.runbook("plan", name, "--json")
    assert done.code == code, done.text
    return {card["id"]: card for card in json.JSONDecoder().raw_decode(done.out)[0]["steps"]}


@on_both
def test_plan_names_a_shape_as_its_author_does(desk: InProcessCli, empty_database: Database) -> None:
    """By its name, or by what it declares in place."""
    head = "shapes: {now: {tables: {t: {columns: {x: {type: integer}}}}}}\n"
    for shape, words in (
        ("now", "shape (shape: now), that: state == 'absent'"),
        (
            "{tables: {t: {columns: {x: text}}}}",
            "shape (shape: in place: table t, column t.x), that: state == 'absent'",
        ),
    ):
        step = MAYBE.replace(WHEN, f"when: {{check: shape, shape: {shape}, that: state == 'absent'}}")
        card = cards(desk, written(desk, step, head))["maybe"]
        assert card["when"] == words


@on_both
def test_plan_says_whether_the_step_would_run(desk: InProcessCli, empty_database: Database) -> None:
    name = written(desk, MAYBE)
    card = cards(desk, name)["maybe"]
    assert card["when"].endswith("that: n > 0") and card["when_now"].startswith("now it would be skipped: n=0")
    empty_database.script(MADE_TRUE)
    assert cards(desk, name)["maybe"]["when_now"].startswith("now it would run: n=1")
    plain = desk.runbook("plan", name).out
    assert re.search(r"only when +query", plain) and "now it would run" in plain
    assert "| only when |" in plan_cards.markdown(plan(load_file(desk.directory / name)))
    assert "only when" in desk.runbook("plan", name, RUNBOOK_TARGET="").out


@on_both
def test_plan_is_stopped_only_by_what_would_stop_the_run(desk: InProcessCli, empty_database: Database) -> None:
    """A fault of a step that would be skipped is none; a condition that can't be answered is one."""
    index = "- {id: by_x, type: create_index, table: t, columns: [x], %s}"
    card = cards(desk, written(desk, index % WHEN))["by_x"]
    assert card["faults"] == [] and "only if it runs" in " ".join(card["later"])
    assert desk.runbook("exec", "change.yaml").code == 0
    empty_database.script(MADE_TRUE)
    assert cards(desk, "change.yaml", code=6)["by_x"]["faults"]
    assert desk.runbook("exec", "change.yaml").code == 6
    broken = cards(desk, written(desk, MAYBE.replace(COUNT, "SELECT n FROM nowhere")), code=6)["maybe"]
    assert "its condition answers error" in broken["faults"][0]
    assert desk.runbook("exec", "change.yaml").code == 6 and counters(empty_database) == [0, 0]


@on_both
def test_plan_does_not_guess_what_earlier_steps_decide(desk: InProcessCli, empty_database: Database) -> None:
    head = "preconditions:\n  - {id: found, check: query, query: 'SELECT count(*) AS c FROM t', record_only: counted}\n"
    later = MAYBE.replace("n > 0", "n > found.c").replace("maybe", "counted")
    told = cards(desk, written(desk, f"{later}\n{FIRST}\n{MAYBE}", head))
    assert told["counted"]["when_now"] == "not knowable before the run has found found.c"
    assert told["maybe"]["when_now"] == "not knowable before counted"
    made = "- {id: add, type: add_column, column: t.x, of_type: integer}"
    none_yet = "when: {check: query, query: 'SELECT count(x) AS n FROM t', that: n == 0}"
    new = f"- {{id: by_x, type: create_index, table: t, columns: [x], {none_yet}}}"
    card = cards(desk, written(desk, f"{made}\n{new}"))["by_x"]
    assert card["faults"] == [] and "not knowable before t.x is there" in card["when_now"]
    done = desk.runbook("exec", "change.yaml")
    assert done.code == 0 and answers(desk, "by_x") == ["pass"], done.text


# ─── every step type ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.store("enriched")
@pytest.mark.parametrize("honeypot", ["sqlite", "pg18"], indirect=True)
def test_every_step_type_can_be_skipped(honeypot: Database, tmp_path: Path) -> None:
    """All steps of the examples, with a condition that does not hold: nothing is sent, and nothing is there to take back."""
    desk = InProcessCli(tmp_path, honeypot.url)
    steps, kinds, shared = [], set(), {"queries": {}, "inputs": {}, "limits": {}}
    for path in sorted(EXAMPLES.glob("*.yaml")):
        book: dict = parse(path.read_text(), path.name).data  # type: ignore[assignment]
        for key in shared:
            shared[key] |= book.get(key, {})
        for step in book["steps"]:
            plain = {
                key: value for key, value in step.items() if key not in {"success_criteria", "preconditions", "guards"}
            }
            never = {"check": "query", "query": "SELECT 1 AS one", "that": "one == 2"}
            steps.append({**plain, "id": f"{path.stem}_{step['id']}", "when": never})
            kinds.add(step["type"])
    head = {
        "runbook": 1,
        "name": "all-skipped",
        "title": "Nothing",
        "success_criteria": {"none": "all of it is skipped"},
    }
    done = desk.runbook("exec", desk.playbook("all", json.dumps({**head, **shared, "steps": steps})))
    assert done.code == 0, done.text
    assert {one.outcome for one in desk.status().steps.values()} == {"skipped"}
    assert not desk.events("step_started") and kinds >= set(registry.step_types())
    back = desk.runbook("rollback", "latest")
    assert back.code == 0 and not desk.events("step_started"), back.text


# ─── what the loader refuses ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ("when: [one]", "cannot read `when`: it must be one check"),
        ("when: {check: rows, table: t, at_least: 1}", "cannot make a step depend on rows: `when` takes query"),
        (f"when: {{check: query, query: '{COUNT}'}}", "cannot decide anything"),
        (
            f"when: {{check: query, query: '{COUNT}', that: n > 0, within: 5 s}}",
            "cannot use `within` here: a condition is asked once",
        ),
        (f"when: {{check: query, query: '{COUNT}', that: n > 0, judge: dba}}", "cannot use `judge` here"),
        ("when: {that: n > 0}", "cannot do without `check:` here"),
        (f"when: {{check: query, query: '{COUNT}', that: later.n > 0}}", "unknown name 'later.n'"),
        (f"when: {{check: query, query: '{COUNT}', that: n > 0, id: first}}", "cannot use the id 'first' twice"),
    ],
)
@on_sqlite
def test_condition_written_wrong_is_refused(desk: InProcessCli, when: str, fault: str) -> None:
    name = written(desk, f"{FIRST}\n- {{id: maybe, type: sql, text: UPDATE t SET n = 1 WHERE id = 2, {when}}}")
    done = desk.runbook("validate", name)
    assert done.code == 4 and fault in done.err and f"{name}:6:" in done.err, done.text
