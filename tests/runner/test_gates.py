"""What people and time bring to a gate, and what a check's answer means when the database has a bad moment."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, written

from runner.plan import approvals, ask
from runner.playbook import digest
from runner.playbook.load import load_file
from runner.target.workplace import Workplace, connected
from runner.trail.events import Approved
from runner.trail.status import Given, RunStatus
from steps.contract import ApprovalNeed, DatabaseFault, GateNeeds, Look
from steps.types.checkpoint import Checkpoint

on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_sqlite = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)

BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1), (2)")
    return InProcessCli(tmp_path, empty_database.url)


def approve(desk: InProcessCli, name: str, role: str, *more: str) -> int:
    return desk.runbook("approve", "latest", "--as", name, "--role", role, "--reason", "looked", *more).code


# ─── people ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_sqlite
def test_gate_opens_when_all_is_there(desk: InProcessCli, empty_database: Database) -> None:
    """Two people in the right roles, none of them the operator, and a file whose hash is kept; each is a record. F: F12"""
    gate = (
        "- {id: gate, type: checkpoint, approval: {roles: [dba, stakeholder], need: 2, not: operator}, "
        "evidence: {backup: required, video: optional}, if_stopped_here: safe for days}"
    )
    written(desk, f"{BUMP}\n{gate}\n{BUMP.replace('id: bump', 'id: again')}")
    waiting = desk.runbook("exec", "change.yaml", "--operator", "dana")
    assert waiting.code == 5 and "2 approvals as dba and stakeholder, not by the operator (dana)" in waiting.err
    told = desk.runbook("status", "latest").out
    assert "safe for days" in told and "doubt" not in told and "evidence 'backup'" in told
    assert (approve(desk, "dana", "dba"), approve(desk, "ines", "intern"), approve(desk, "ines", "dba")) == (6, 6, 0)
    assert approve(desk, "ines", "stakeholder") == 0
    still = desk.runbook("resume", "latest").err
    assert "1 approval as" in still, "one person in two roles is one person"
    assert approve(desk, "kim", "stakeholder") == 0
    assert "evidence 'backup'" in desk.runbook("resume", "latest").err
    (desk.directory / "backup.log").write_text("restored")
    brought = ("--evidence", "backup", "--file", "backup.log", "--as", "ines", "--reason", "restored and counted")
    assert desk.runbook("approve", "latest", *brought).code == 0
    assert desk.runbook("resume", "latest", "--operator", "erik").code == 0
    assert empty_database.value("SELECT n FROM t WHERE id = 1") == 2
    assert desk.events("evidence_given")[0].sha256 == hashlib.sha256(b"restored").hexdigest()
    assert [(one.name, one.signed) for one in desk.events("approved")] == [
        ("ines", False),
        ("ines", False),
        ("kim", False),
    ]


@on_sqlite
def test_approval_that_has_expired(desk: InProcessCli) -> None:
    """The shorter of what the approver said and what the playbook allows."""
    written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, approval: {{need: 1, valid_for: 12 h}}}}")
    assert desk.runbook("exec", "change.yaml").code == 5
    assert approve(desk, "ines", "", "--valid-for", "1 ms") == 0
    assert desk.runbook("resume", "latest").code == 5
    assert approve(desk, "ines", "", "--valid-for", "90 days") == 0
    until = datetime.fromisoformat(desk.events("approved")[-1].expires)
    assert until < datetime.now(UTC) + timedelta(hours=12)
    assert desk.runbook("resume", "latest").code == 0


@on_sqlite
def test_approval_by_name(desk: InProcessCli) -> None:
    written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, approval: {{by: Ada}}}}")
    assert "1 approval by Ada" in desk.runbook("exec", "change.yaml").err
    assert (approve(desk, "kim", ""), approve(desk, "Ada", "")) == (6, 0)
    assert desk.runbook("resume", "latest").code == 0


@on_sqlite
def test_approval_by_one_of_several_names(desk: InProcessCli) -> None:
    """Only these may; as many of them as are needed."""
    written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, approval: {{by: [Ada, Grace, Mary], need: 2}}}}")
    assert "2 approvals by Ada or Grace or Mary" in desk.runbook("exec", "change.yaml").err
    assert (approve(desk, "kim", ""), approve(desk, "grace", ""), approve(desk, "Grace", "")) == (6, 0, 0)
    assert desk.runbook("resume", "latest").code == 5
    assert approve(desk, "Mary", "") == 0
    assert desk.runbook("resume", "latest").code == 0


@on_sqlite
def test_approval_of_something_else_does_not_count(desk: InProcessCli) -> None:
    """Given for another target, or at another gate."""
    written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, approval: {{need: 1}}}}")
    assert desk.runbook("exec", "change.yaml").code == 5
    status = desk.status()
    needs = GateNeeds(approval=ApprovalNeed())
    elsewhere = digest.for_approval(status.digest, inputs={}, identity={**status.started.identity, "inode": 1})
    assert elsewhere != status.approval_digest

    def given(step: str, bound_to: str) -> list[str]:
        one = Approved(
            step=step,
            name="ines",
            role="",
            reason="",
            approval_digest=bound_to,
            chain_head="",
            expires="",
            user="",
            host="",
        )
        status.given = [Given(one, NOON, bound_to)]
        return approvals.open_needs(needs, status, step="gate", now=NOON)

    assert given("gate", elsewhere) == given("other", status.approval_digest) == ["1 approval"]
    assert given("gate", status.approval_digest) == []


# ─── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("window", "hour", "text"),
    [
        (("22:00", ""), 21, "opens at 2026-01-05 22:00"),
        (("22:00", ""), 23, ""),
        (("", "04:00"), 3, ""),
        (("", "04:00"), 5, "closed at 2026-01-05 04:00"),
        (("09:00", "17:00"), 18, "opens again at 09:00"),
        (("22:00", "04:00"), 23, ""),
        (("22:00", "04:00"), 3, ""),
        (("22:00", "04:00"), 12, "opens at 2026-01-05 22:00"),
        (("2026-01-05T20:00:00+01:00", "2026-01-05T22:00:00+01:00"), 18, "opens at"),
        (("2026-01-05T20:00:00+01:00", "2026-01-05T22:00:00+01:00"), 20, ""),
        (("2026-01-05T20:00:00+01:00", "2026-01-05T22:00:00+01:00"), 22, "closed at"),
    ],
)
def test_window(monkeypatch: pytest.MonkeyPatch, window: tuple[str, str], hour: int, text: str) -> None:
    """A time of day is this machine's, a moment has its offset; a window may go over midnight."""
    monkeypatch.setenv("TZ", "UTC")
    needs = Checkpoint.model_validate({"not_before": window[0], "not_after": window[1]}).needs()
    now = NOON.replace(hour=hour).astimezone(timezone(timedelta(hours=5)))
    found = approvals.open_needs(needs, RunStatus(), step="gate", now=now)
    assert text in "".join(found) and bool(found) is bool(text)


@on_sqlite
def test_waiting_run_keeps_nobody_out(desk: InProcessCli, empty_database: Database) -> None:
    """At a gate there is no process, no lease and no lock: another playbook runs meanwhile."""
    written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, not_before: '2990-01-01T00:00:00+00:00'}}")
    waiting = desk.runbook("exec", "change.yaml")
    assert waiting.code == 5 and "2990-01-01" in waiting.err
    assert empty_database.value("SELECT run FROM runbook_lease") == ""
    written(desk, BUMP, name="other")
    assert desk.runbook("exec", "other.yaml").code == 0


# ─── where to begin and to stop ─────────────────────────────────────────────────────────────────────────────────────
@on_sqlite
def test_stop_before_a_checkpoint_and_begin_at_it(desk: InProcessCli) -> None:
    column = "- {{id: {0}, type: add_column, column: t.{0}, of_type: integer}}"
    written(desk, f"{column.format('a')}\n- {{id: gate, type: checkpoint}}\n{column.format('b')}")
    for option in ("--to", "--from"):
        refused = desk.runbook("exec", "change.yaml", option, "a")
        assert refused.code == 6 and "its checkpoints: gate" in refused.err
    early = desk.runbook("exec", "change.yaml", "--from", "gate")
    assert early.code == 6 and "step a" in early.err and "is not done here" in early.err
    assert desk.runbook("exec", "change.yaml", "--to", "gate").code == 5
    assert [one.step for one in desk.events("step_ended")] == ["a"]
    late = desk.runbook("exec", "change.yaml", "--from", "gate")
    assert late.code == 0, late.text
    assert [(one.step, one.outcome) for one in desk.events("step_ended")] == [
        ("a", "already_applied"), ("gate", "passed"), ("b", "done"),
    ]  # fmt: skip


@on_sqlite
def test_criteria_of_a_gate_have_their_policy(desk: InProcessCli, empty_database: Database) -> None:
    """A gate that stays shut stops the run, or takes it back where the playbook says so; mended, it opens."""
    gate = "- {id: gate, type: checkpoint, success_criteria: [{id: two, check: query, query: n, that: n == 2}]}"
    query = "queries: {n: SELECT n FROM t WHERE id = 1}\n"
    written(desk, f"{BUMP}\n{gate}", query)
    shut = desk.runbook("exec", "change.yaml")
    assert shut.code == 3 and "gate gate" in shut.err, shut.text
    empty_database.script("UPDATE t SET n = 2 WHERE id = 1")
    assert desk.runbook("resume", "latest").code == 0
    written(desk, f"{BUMP}\n{gate.replace('type: checkpoint', 'type: checkpoint, on_failure: rollback')}", query)
    assert desk.runbook("exec", "change.yaml").code == 8
    assert empty_database.value("SELECT n FROM t WHERE id = 1") == 2


# ─── a bad moment ───────────────────────────────────────────────────────────────────────────────────────────────────
MOODY = """CREATE TABLE mood (angry boolean); INSERT INTO mood VALUES (true);
CREATE FUNCTION moody() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
IF (SELECT angry FROM mood) THEN {} END IF; RETURN 1; END $$"""
CONFLICT = "RAISE SQLSTATE '40001' USING message = 'canceling statement due to conflict with recovery';"
CUT = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(9);"


@on_18
@pytest.mark.parametrize("moment", [CONFLICT, CUT], ids=["conflict", "cut"])
@pytest.mark.parametrize("lasting", [False, True], ids=["passing", "lasting"])
def test_check_is_asked_again(desk: InProcessCli, empty_database: Database, moment: str, lasting: bool) -> None:
    """A conflict with recovery or a cut connection is no answer: looked at again, in a snapshot of its own.

    Where it lasts, a conflict is an error; a database that is away says nothing about a criterion. F: C15 F: E11
    """
    empty_database.script(MOODY.format(moment))
    checks = "preconditions: [{id: first, check: rows, table: t, exactly: 2}, {id: moody, check: query, query: q, that: n == 1}]\n"
    path = desk.directory / written(desk, BUMP, f"{checks}queries: {{q: SELECT public.moody() AS n}}\n")
    looks = 0
    with connected(Workplace(desk.target, cwd=desk.directory, environ={})) as target:

        @contextlib.contextmanager
        def look() -> Iterator[Look]:
            nonlocal looks
            looks += 1
            if looks == 2 and not lasting:
                empty_database.script("UPDATE mood SET angry = false")
            with target.database.look() as eyes:
                yield eyes

        def asked() -> list[tuple[str, str]]:
            playbook = load_file(path)
            found = ask.ask(playbook.preconditions, step="", role="precondition", look=look, scope={})
            return [(one.id, one.answer) for one in found]

        if not lasting:
            assert asked() == [("first", "pass"), ("moody", "pass")] and looks == 2
        elif moment is CONFLICT:
            assert asked() == [("first", "pass"), ("moody", "error")] and looks == ask.TRIES
        else:
            with pytest.raises(DatabaseFault) as fault:
                asked()
            assert fault.value.lost


@on_18
def test_lost_database_is_no_failed_criterion(desk: InProcessCli, empty_database: Database) -> None:
    """With on_failure: rollback a cut connection must not take back what is right: exit 12, and resume asks again."""
    empty_database.script(MOODY.format(CUT))
    step = BUMP.replace(
        "type: sql",
        "type: sql, on_failure: rollback, success_criteria: [{id: ok, check: query, query: q, that: n == 1}]",
    )
    written(desk, step, "queries: {q: SELECT public.moody() AS n}\n")
    found = desk.runbook("exec", "change.yaml")
    assert found.code == 12, found.text
    empty_database.script("UPDATE mood SET angry = false")
    assert desk.runbook("resume", "latest").code == 0
    assert empty_database.value("SELECT n FROM t WHERE id = 1") == 1
