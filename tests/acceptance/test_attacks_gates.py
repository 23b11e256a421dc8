"""What somebody tries in order to get past a gate, and what stops them; the table of it is in docs/gates.md."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from databases import Database
from inside import InProcessCli, written

from runner.common.errors import RunRefused
from runner.plan import approvals
from runner.run import opened_run
from runner.trail import trail
from runner.trail.events import Approved, EvidenceGiven
from runner.trail.status import Given, RunStatus
from steps.contract import ApprovalNeed, EvidenceNeed, GateNeeds

on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
on_both = pytest.mark.parametrize("empty_database", ["sqlite", "pg18"], indirect=True)

GATE = "- {id: go, type: checkpoint, approval: {roles: [dba], not: operator}}"
ADD = "- {id: add, type: add_column, column: t.note, of_type: text}"
RAISE = (
    "- {id: raise, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
)
FAILS = "- {id: fails, type: sql, text: UPDATE nowhere SET n = 1 WHERE id = 1, revert: SELECT 1}"
LATER = "- {id: later, type: sql, text: UPDATE t SET n = 7 WHERE id = 2, revert: SELECT 1}"
ACCEPT = ("--accept-changes", "--reason", "mended")


@pytest.fixture
def desk(empty_database: Database, tmp_path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def approve(desk: InProcessCli, name: str, *more: str, role: str = "dba") -> int:
    return desk.runbook("approve", "latest", "--as", name, "--role", role, "--reason", "looked", *more).code


def untouched(database: Database) -> bool:
    return database.rows("SELECT id, n FROM t ORDER BY id") == [(1, 0), (2, 0)]


# ─── beginning behind a gate ────────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_from_needs_gates_that_were_passed(desk: InProcessCli, empty_database: Database) -> None:
    """Never passed; passed for other inputs; by whoever operates now; in a run that was taken back. Otherwise it is recorded."""
    look = "- {id: look, type: checkpoint}"
    written(desk, f"{GATE}\n{ADD}\n{look}\n{RAISE}", "inputs: {m: {type: integer, default: 1}}\nlimits: {m: 1}\n")
    begin = ("exec", "change.yaml", "--from", "look", "--operator")
    empty_database.script("ALTER TABLE t ADD COLUMN note text")
    never = desk.runbook(*begin, "dana")
    assert never.code == 6 and "gate go" in never.err and "never passed" in never.err, never.text
    empty_database.script("ALTER TABLE t DROP COLUMN note")
    assert desk.runbook("exec", "change.yaml", "--to", "look", "--operator", "dana").code == 5
    assert (approve(desk, "ines"), desk.runbook("resume", "latest", "--operator", "dana").code) == (0, 0)
    first = desk.newest.parent.name
    empty_database.script("UPDATE t SET n = 0")
    other = desk.runbook(*begin, "dana", "--input", "m=2")
    assert other.code == 6 and "other inputs" in other.err
    theirs = desk.runbook(*begin, "Ines ")
    assert theirs.code == 6 and "operates now" in theirs.err
    assert untouched(empty_database)
    found = desk.runbook(*begin, "dana")
    assert found.code == 0, found.text
    (started,) = desk.events("run_started")
    assert (started.from_checkpoint, started.passed_in) == ("look", {"go": first})
    assert [(one.step, one.outcome) for one in desk.events("step_ended")][:2] == [
        ("go", "passed_earlier"), ("add", "already_applied"),
    ]  # fmt: skip
    assert f"`look` (--from); passed before: `go` in `{first}`" in desk.runbook("report", "latest").out
    assert desk.runbook("rollback", first).code == 0
    empty_database.script("ALTER TABLE t ADD COLUMN note text")
    gone = desk.runbook(*begin, "dana")
    assert gone.code == 6 and "never passed" in gone.err


@on_sqlite
def test_from_is_kept_over_a_kill(desk: InProcessCli) -> None:
    """A run that began behind a gate and was killed at once goes on behind it; a change of the playbook asks the gate."""
    steps = f"{GATE}\n{ADD}\n- {{id: look, type: checkpoint}}\n{RAISE}"
    written(desk, steps)
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert (approve(desk, "ines"), desk.runbook("resume", "latest").code) == (0, 0)
    desk.kill("exec", "change.yaml", "--from", "look", fault="trail.after:4")
    written(desk, steps.replace("n + 1", "n + 2"))
    changed = desk.runbook("resume", "latest", *ACCEPT)
    assert changed.code == 5 and "1 approval" in changed.err, changed.text


# ─── names ──────────────────────────────────────────────────────────────────────────────────────────────────────────
NOBODY = ["", "   ", "\u200b", "da\u200bna", "d\u0430na", "-", "guard lag"]
THE_SAME = ["dana", "Dana", " dana ", "DANA", "\uff44\uff41\uff4e\uff41"]


@on_sqlite
def test_names_that_name_nobody_or_the_operator(desk: InProcessCli, empty_database: Database) -> None:
    written(desk, f"{GATE}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml", "--operator", " ").code == 6
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert [approve(desk, name) for name in NOBODY] == [6] * len(NOBODY)
    assert [approve(desk, name) for name in THE_SAME] == [6] * len(THE_SAME)
    assert desk.events("approved") == [] and desk.runbook("resume", "latest", "--operator", "dana").code == 5
    assert untouched(empty_database)
    said = desk.runbook("approve", "latest", "--as", "ines", "--role", "dba", "--reason", "looked")
    assert said.code == 0 and "same system user as the operator" in said.out
    assert "same system user as the operator" in desk.runbook("report", "latest").out


@on_sqlite
def test_one_person_counts_once(desk: InProcessCli) -> None:
    written(desk, f"{GATE.replace('roles: [dba]', 'need: 2')}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert [approve(desk, name) for name in ("ines", "Ines", "ines ", "\uff49\uff4e\uff45\uff53")] == [0] * 4
    waiting = desk.runbook("resume", "latest", "--operator", "dana")
    assert waiting.code == 5 and "1 approval" in waiting.err


@on_sqlite
@pytest.mark.parametrize(
    "act",
    [
        ("resume", "latest", "--operator", "Ines"),
        ("sql", "latest", "-c", "SELECT 1", "--as", "INES", "--reason", "a look"),
    ],
    ids=["resume", "sql"],
)
def test_whoever_operates_cannot_approve(desk: InProcessCli, empty_database: Database, act: tuple[str, ...]) -> None:
    """Before the act or after it: approval by somebody who has operated is worth nothing at this gate."""
    written(desk, f"{GATE}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert approve(desk, "ines") == 0
    desk.runbook(*act)
    assert approve(desk, "ines") == 6
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 5
    assert untouched(empty_database)


# ─── changing what was approved ─────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_step_behind_a_passed_gate_is_changed(desk: InProcessCli, empty_database: Database) -> None:
    """The gate is asked again; who approved may then operate, but not with what nobody approved."""
    written(desk, f"{GATE}\n{FAILS}\n{LATER}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert approve(desk, "ines") == 0
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 1
    empty_database.script("CREATE TABLE nowhere (id integer, n integer); INSERT INTO nowhere VALUES (1, 0)")
    written(desk, f"{GATE}\n{FAILS}\n{LATER.replace('WHERE id = 2', 'WHERE id > 0')}")
    for words in (ACCEPT, ()):
        waiting = desk.runbook("resume", "latest", "--operator", "dana", *words)
        assert waiting.code == 5 and "waiting: at go for" in waiting.err, waiting.text
    assert untouched(empty_database)
    assert approve(desk, "ines") == 0
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 0
    assert empty_database.rows("SELECT n FROM t") == [(7,), (7,)]


REMOVED = {
    "approval": (GATE, "", "1 approval as dba"),
    "need": (GATE.replace("roles: [dba]", "need: 2"), GATE.replace("roles: [dba], ", ""), "2 approvals"),
    "operator": (GATE, GATE.replace(", not: operator", ""), "not by the operator"),
    "evidence": ("- {id: go, type: checkpoint, evidence: [backup]}", "", "evidence 'backup'"),
    "optional": (
        "- {id: go, type: checkpoint, evidence: [backup]}",
        "- {id: go, type: checkpoint, evidence: {backup: optional}}",
        "evidence 'backup'",
    ),
    "window": ("- {id: go, type: checkpoint, not_before: '2990-01-01T00:00:00+00:00'}", "", "2990"),
    "criterion": (
        "- {id: go, type: checkpoint, success_criteria: [{id: many, check: rows, table: t, at_least: 9}]}",
        "",
        "many",
    ),
    "limit": (
        "- {id: go, type: checkpoint, success_criteria: [{id: many, check: rows, table: t, that: rows >= limits.many}]}",
        "limits: {many: 1}",
        "many",
    ),
}  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("kind", REMOVED)
def test_gate_is_removed_or_weakened_by_an_edit(desk: InProcessCli, empty_database: Database, kind: str) -> None:
    """It stays in force as it stood when the run began."""
    gate, edited, still = REMOVED[kind]
    steps, head = f"{gate}\n{RAISE}", "limits: {many: 9}\n"
    written(desk, steps, head)
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code in {3, 5}
    if kind == "limit":
        written(desk, steps, f"{edited}\n")
    else:
        written(desk, f"{edited}\n{RAISE}", head)
    for words in (ACCEPT, (), ACCEPT):
        found = desk.runbook("resume", "latest", "--operator", "dana", *words)
        assert found.code in {3, 5} and still in found.err, found.text
    assert untouched(empty_database)


NEVER = "success_criteria: [{id: never, check: rows, table: t, exactly: 99}]"
GOES_ON = f"on_failure: {{continue: because}}, {NEVER}"
ONLY_CRITERIA = f"- {{id: go, type: checkpoint, {NEVER}}}"
JUMPED = {
    "moved behind what it guards": (f"{GATE}\n{RAISE}", f"{RAISE}\n{GATE}", 5),
    "moved, and what it guards renamed": (f"{GATE}\n{RAISE}", f"{RAISE}\n{GATE}".replace("id: raise", "id: other"), 5),
    "a new step before it": (f"{GATE}\n{LATER}", f"{RAISE}\n{GATE}\n{LATER}", 5),
    "may fail": (f"{GATE}\n{RAISE}", f"{GATE[:-1]}, {GOES_ON}}}\n{RAISE}", 5),
    "of criteria, may fail": (f"{ONLY_CRITERIA}\n{RAISE}", f"- {{id: go, type: checkpoint, {GOES_ON}}}\n{RAISE}", 3),
    "of criteria, moved": (f"{ONLY_CRITERIA}\n{RAISE}", f"{RAISE}\n{ONLY_CRITERIA}", 3),
    "another step has its name": (f"{GATE}\n{RAISE}", f"{LATER}\n{RAISE}".replace("id: later", "id: go"), 6),
}  # fmt: skip


@on_sqlite
@pytest.mark.parametrize("way", JUMPED)
def test_gate_is_jumped_by_an_edit(desk: InProcessCli, empty_database: Database, way: str) -> None:
    """It stands in front of what it stood in front of, and opens for nothing else than before."""
    steps, edited, code = JUMPED[way]
    written(desk, steps)
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code in {3, 5}
    written(desk, edited)
    for words in (ACCEPT, ACCEPT, () if code != 6 else ACCEPT):
        found = desk.runbook("resume", "latest", "--operator", "dana", *words)
        assert found.code == code, found.text
    assert untouched(empty_database)


@on_sqlite
def test_gate_that_may_fail_waits_for_people(desk: InProcessCli, empty_database: Database) -> None:
    """And is asked again, as any other, when what was approved has changed."""
    written(desk, f"{GATE[:-1]}, {GOES_ON}}}\n{FAILS}\n{LATER}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert approve(desk, "ines") == 0
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 1
    written(desk, f"{GATE[:-1]}, {GOES_ON}}}\n{FAILS}\n{LATER.replace('n = 7', 'n = 8')}")
    assert desk.runbook("resume", "latest", "--operator", "dana", *ACCEPT).code == 5
    assert untouched(empty_database)


@on_sqlite
def test_step_that_mends_is_put_before_a_gate_of_criteria(desk: InProcessCli) -> None:
    written(desk, f"{ONLY_CRITERIA.replace('exactly: 99', 'where: n = 1, at_least: 1')}\n{LATER}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 3
    written(desk, f"{RAISE}\n{ONLY_CRITERIA.replace('exactly: 99', 'where: n = 1, at_least: 1')}\n{LATER}")
    assert desk.runbook("resume", "latest", "--operator", "dana", *ACCEPT).code == 0


@on_sqlite
def test_removal_of_a_gate_is_approved(desk: InProcessCli, empty_database: Database) -> None:
    """By the role that it names, for the playbook without it."""
    written(desk, f"{GATE}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert approve(desk, "ines") == 0
    written(desk, RAISE)
    assert desk.runbook("resume", "latest", "--operator", "dana", *ACCEPT).code == 5, "approved was the other playbook"
    assert (approve(desk, "ines", role="clerk"), approve(desk, "dana"), approve(desk, "ines")) == (6, 6, 0)
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 0
    assert not untouched(empty_database)


@on_sqlite
def test_evidence_is_for_what_it_was_brought_for(desk: InProcessCli, empty_database: Database) -> None:
    gate = "- {id: go, type: checkpoint, evidence: [backup]}"
    bring = ("approve", "latest", "--evidence", "backup", "--as", "ines", "--reason", "restored")
    written(desk, f"{gate}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml").code == 5
    assert desk.runbook(*bring).code == 0
    written(desk, f"{gate}\n{RAISE.replace('n + 1', 'n + 2')}")
    waiting = desk.runbook("resume", "latest", *ACCEPT)
    assert waiting.code == 5 and "evidence 'backup'" in waiting.err
    assert untouched(empty_database)
    assert (desk.runbook(*bring).code, desk.runbook("resume", "latest").code) == (0, 0)


NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("hours", [1, 23, -24])
def test_validity_is_read_from_the_playbook(hours: int) -> None:
    """What the record says of its own end can only shorten it: `expires` is empty here, as a forged one might be."""
    yes = Approved(
        step="go", name="ines", role="dba", reason="", approval_digest="d", chain_head="", expires="", user="", host=""
    )
    file = EvidenceGiven(step="go", name="backup", by="ines", reason="", approval_digest="d")
    status = RunStatus(approval_digest="d", given=[Given(one, NOON, "d") for one in (yes, file)])
    needs = GateNeeds(
        approval=ApprovalNeed(valid_for="12 h"),  # type: ignore[arg-type] # as it is written
        evidence=(EvidenceNeed(name="backup", valid_for="12 h"),),  # type: ignore[arg-type]
    )
    found = approvals.open_needs(needs, status, step="go", now=NOON + timedelta(hours=hours))
    assert found == ([] if 0 < hours < 12 else ["1 approval", "evidence 'backup'"])


@pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
def test_approval_of_a_machine_whose_clock_is_ahead(desk: InProcessCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock says when it was given, and so when it runs out."""
    written(desk, f"{GATE.replace('not: operator', 'not: operator, valid_for: 1 s')}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    with monkeypatch.context() as wrong:
        wrong.setattr(opened_run, "utc_now", lambda: datetime.now(UTC) + timedelta(days=10))
        wrong.setattr(
            trail.Trail.__init__,
            "__kwdefaults__",
            {**trail.Trail.__init__.__kwdefaults__, "now": opened_run.utc_now},
        )
        assert approve(desk, "ines") == 0
    time.sleep(1.1)
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 5


@on_sqlite
def test_from_with_an_approval_that_has_run_out(desk: InProcessCli, empty_database: Database) -> None:
    """By what was said when it was given, too."""
    written(desk, f"{GATE}\n- {{id: look, type: checkpoint}}\n{RAISE}")
    assert desk.runbook("exec", "change.yaml", "--to", "look", "--operator", "dana").code == 5
    assert approve(desk, "ines", "--valid-for", "2 s") == 0
    assert desk.runbook("resume", "latest", "--operator", "dana").code == 0
    empty_database.script("UPDATE t SET n = 0")
    time.sleep(2)
    late = desk.runbook("exec", "change.yaml", "--from", "look", "--operator", "dana")
    assert late.code == 6 and "has run out" in late.err, late.text


@on_sqlite
def test_passed_gate_runs_out(desk: InProcessCli, empty_database: Database) -> None:
    """An approval that held when the gate was passed, and has expired before the next step begins."""
    written(desk, f"{GATE}\n{FAILS}")
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert approve(desk, "ines", "--valid-for", "3 s") == 0
    if desk.runbook("resume", "latest", "--operator", "dana").code == 5:
        pytest.skip("a slow machine: it expired before the gate was reached")
    empty_database.script("CREATE TABLE nowhere (id integer, n integer); INSERT INTO nowhere VALUES (1, 0)")
    status = desk.status()
    given = status.given[0]
    late = datetime.fromisoformat(given.event.expires) + timedelta(seconds=1)
    needs = GateNeeds(approval=ApprovalNeed(roles=("dba",)))
    assert approvals.lapsed(needs, status, step="go", now=given.at) == []
    assert approvals.lapsed(needs, status, step="go", now=late) == ["1 approval as dba"]
    window = GateNeeds(not_after=late.isoformat())
    assert approvals.lapsed(window, status, step="go", now=late + timedelta(seconds=1)) != []
    opened = GateNeeds(not_before=late.isoformat())
    assert approvals.lapsed(opened, status, step="go", now=given.at) == [], "it was passed: that it opened is behind it"


@on_both
def test_criterion_that_must_still_hold(desk: InProcessCli, empty_database: Database) -> None:
    """Asked at the gate and again before each step behind it; another criterion of the gate is not."""
    checks = (
        "{id: two, check: rows, table: t, exactly: 2}, {id: quiet, check: rows, table: busy, exactly: 0, still: true}"
    )
    written(desk, f"- {{id: go, type: checkpoint, success_criteria: [{checks}]}}\n{FAILS}\n{LATER}")
    empty_database.script("CREATE TABLE busy (id integer)")
    assert desk.runbook("exec", "change.yaml").code == 1
    empty_database.script("CREATE TABLE nowhere (id integer, n integer); INSERT INTO nowhere VALUES (1, 0)")
    empty_database.script("INSERT INTO busy VALUES (1); INSERT INTO t VALUES (3, 0)")
    for _ in range(2):
        found = desk.runbook("resume", "latest")
        assert found.code == 3 and "quiet" in found.err and "two" not in found.err, found.text
    empty_database.script("DELETE FROM busy")
    assert desk.runbook("resume", "latest").code == 0


# ─── what the playbook requires ─────────────────────────────────────────────────────────────────────────────────────
@on_both
def test_requirement_no_longer_stands(desk: InProcessCli, empty_database: Database) -> None:
    """Taken back while the run waits: asked at resume, and at the gate."""
    written(desk, ADD, name="first")
    written(desk, f"{GATE}\n{RAISE}", "requires: [first]\n")
    assert desk.runbook("exec", "first.yaml").code == 0
    assert desk.runbook("exec", "change.yaml", "--operator", "dana").code == 5
    assert desk.runbook("rollback", "first").code == 0
    assert desk.runbook("approve", "change", "--as", "ines", "--role", "dba", "--reason", "yes").code == 0
    refused = desk.runbook("resume", "change")
    assert refused.code == 6 and "was rolled back" in refused.err
    assert untouched(empty_database)
    assert desk.runbook("exec", "first.yaml").code == 0
    assert desk.runbook("resume", "change").code == 0


@on_sqlite
def test_requirement_by_its_name_or_with_other_inputs(desk: InProcessCli) -> None:
    inputs = "inputs: {{who: {{default: {}}}}}\n"
    written(desk, ADD, inputs.format("a"), name="first")
    assert desk.runbook("exec", "first.yaml", "--input", "who=b").code == 0
    written(desk, RAISE, "requires: [first]\n" + inputs.format("a"))
    refused = desk.runbook("exec", "change.yaml")
    assert refused.code == 6 and "who='b', not 'a'" in refused.err
    assert desk.runbook("exec", "change.yaml", "--input", "who=b").code == 0
    (desk.directory / "first.yaml").rename(desk.directory / "elsewhere.yaml")
    written(desk, RAISE, "requires: [first]\n", name="again")
    assert desk.runbook("exec", "again.yaml").code == 0
    assert "found by its name alone" in next(
        one.text for one in desk.events("check_answered") if one.role == "requirement"
    )
    written(desk, ADD, name="other")
    (desk.directory / "other.yaml").rename(desk.directory / "first.yaml")
    refused = desk.runbook("exec", "again.yaml")
    assert refused.code == 6 and "is called other" in refused.err


def test_names_that_look_alike_are_one_persons() -> None:
    from runner.common import person_names

    assert all(person_names.same("dana", name) for name in THE_SAME)
    assert person_names.same("sasa", "\u0455\u0430\u0455\u0430") and person_names.same("Stra\u00dfe", "STRASSE")
    for unseen in ("\u034f", "\u2800", "\u17b4", "\u180b", "\ufe0f", "\U000e0100"):
        with pytest.raises(RunRefused):
            person_names.named(f"dana{unseen}")
    assert person_names.same("dana", "dan\u0251")
    assert not person_names.same("", " ") and not person_names.same("dana", "dina")
    for name in (
        "Zo\u00eb M\u00fcller",
        "\u5c71\u7530\u30bf\u30ed\u30a6",
        "\u0414\u0430\u043d\u0430",
        "o'neil-2",
        "dana@example.org",
    ):
        assert person_names.named(f" {name} ") == name


@on_sqlite
def test_requirement_is_removed_by_an_edit(desk: InProcessCli, empty_database: Database) -> None:
    """With no gate ahead that anybody could approve it at: what was required when the run began still is."""
    written(desk, ADD, name="first")
    written(desk, f"{FAILS}\n{RAISE}", "requires: [first]\n")
    assert desk.runbook("exec", "first.yaml").code == 0
    assert desk.runbook("exec", "change.yaml").code == 1
    assert desk.runbook("rollback", "first").code == 0
    empty_database.script("CREATE TABLE nowhere (id integer, n integer); INSERT INTO nowhere VALUES (1, 0)")
    for head in ("", "requires: [{playbook: first, within: 9000 d}]\n", "requires: []\n"):
        written(desk, f"{FAILS}\n{RAISE.replace('n + 1', 'n + 2')}", head)
        refused = desk.runbook("resume", "change", *ACCEPT)
        assert refused.code in (4, 6), refused.text
        assert refused.code == 4 or "first must have succeeded" in refused.err
    assert untouched(empty_database)
    written(desk, f"{FAILS}\n{RAISE}")
    assert desk.runbook("exec", "first.yaml").code == 0
    assert desk.runbook("resume", "change", *ACCEPT).code == 0
