"""What lies in a run's folder: for user and group alone, signed by who writes it, and without anybody's secrets."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from databases import Database
from inside import InProcessCli, meanwhile, session, until, written

from runner.common import private_files
from runner.trail.trail import read

BUMP = "- {id: bump, type: sql, text: UPDATE t SET n = n + 1 WHERE id = 1, revert: UPDATE t SET n = n - 1 WHERE id = 1}"
SECRET = "Wq7-hidden/Zx9"
on_18 = pytest.mark.parametrize("empty_database", ["pg18"], indirect=True)
on_one = pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    empty_database.script("CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL DEFAULT 0)")
    empty_database.script("INSERT INTO t (id) VALUES (1)")
    return InProcessCli(tmp_path, empty_database.url)


# ─── rights ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@on_one
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("setgid", [True, False])
def test_run_is_its_groups_whatever_the_umask(desk: InProcessCli, umask: int, setgid: bool):
    runs = desk.directory / "runs"
    runs.mkdir()
    runs.chmod(0o2775 if setgid else 0o775)
    before = os.umask(umask)
    try:
        written(desk, f"{BUMP}\n- {{id: gate, type: checkpoint, approval: {{need: 1}}}}")
        assert desk.runbook("exec", "change.yaml").code == 5
        assert desk.runbook("approve", "latest", "--as", "ines", "--reason", "good").code == 0
        assert desk.runbook("resume", "latest").code == 0
    finally:
        os.umask(before)
    folder = desk.newest.parent
    assert stat.S_IMODE(folder.stat().st_mode) == (0o2770 if setgid else 0o770)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("trail.jsonl", "playbook.yaml", "status.json"), 0o660)


@on_one
def test_folder_that_shuts_a_colleague_out_is_described(desk: InProcessCli):
    """Owner, group and mode of what is in the way, and who one is oneself."""
    if os.getuid():
        pytest.skip("another user's rights need root")
    written(desk, BUMP)
    assert desk.runbook("exec", "change.yaml").code == 0
    desk.newest.parent.chmod(0o700)
    code = (
        "from pathlib import Path\nfrom runner.trail.trail import Trail, load\nfrom runner.common.secrets import Masks\n"
        "from runner.common.errors import RunbookError\nimport grp, pwd\n"
        f"path = Path({str(desk.newest)!r})\nimport os\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for act in (lambda: load(path), lambda: Trail(path, masks=Masks())):\n"
        "    try:\n        act()\n    except RunbookError as shut:\n        print(shut.why, '|', shut.then)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    shown, written_to = done.stdout.splitlines()
    for line in (shown, written_to):
        assert "belongs to root:root with " in line and "you are nobody in nogroup" in line, done.stdout
    assert "chmod -R g+rwX" in written_to
    assert private_files.rights(desk.newest, OSError(28, "no space")) == ""


# ─── status.json ────────────────────────────────────────────────────────────────────────────────────────────────────
@on_18
def test_killed_run_is_told_from_a_living_one(desk: InProcessCli):
    """Whoever polls sees who wrote the file and until when to believe it; while it runs that moves on, also in a long statement."""
    written(desk, "- {id: slow, type: sql, text: SELECT pg_sleep(60), expect_rows: any, revert: SELECT 1}")
    with desk.start("exec", "change.yaml") as run:
        desk.reached("step_started")
        path = desk.newest.with_name("status.json")
        first = json.loads(path.read_text())
        assert first["writer"]["pid"] == run.pid
        assert first["writer"]["boot_id"] and first["writer"]["pid_ns"]
        until(lambda: json.loads(path.read_text())["beat"] > first["beat"] + 1)
        run.kill()
    last = json.loads(path.read_text())
    assert last["state"] == "running"
    seconds = datetime.fromisoformat(last["valid_until"]) - datetime.fromisoformat(last["written_at"])
    assert seconds.total_seconds() == 15
    told = json.loads(desk.runbook("status", "latest", "--json").out)
    assert told["alive"] is False
    assert desk.runbook("rollback", "latest").code in {0, 6}


@on_one
def test_ended_run_is_not_waited_for(desk: InProcessCli):
    written(desk, BUMP)
    assert desk.runbook("exec", "change.yaml").code == 0
    told = json.loads(desk.newest.with_name("status.json").read_text())
    assert told["valid_until"] == told["written_at"]


# ─── secrets, and what is others' ───────────────────────────────────────────────────────────────────────────────────
SECRETIVE = """runbook: 1
name: change
title: Change one
inputs:
  token: {secret: true, required: true}
steps:
  - {id: go, type: checkpoint, approval: {roles: [dba]}, evidence: {backup: required}}
  - {id: put, type: sql, text: "UPDATE t SET n = length(:p) WHERE id = 1", params: {p: "{{ token }}"}, revert: SELECT 1}
"""


def forms(secret: str) -> list[str]:
    data = secret.encode()
    return [secret, data.hex(), data.hex().upper(), base64.b64encode(data).decode(), json.dumps(secret)[1:-1]]


def test_secret_in_people_s_words_is_masked(desk: InProcessCli, empty_database: Database):
    """Whatever a person writes about a run, in whatever form the secret stands there."""
    desk.playbook("change", SECRETIVE)
    env = {"RUNBOOK_INPUT_TOKEN": SECRET}
    out = [desk.runbook("exec", "change.yaml", **env)]
    for form in forms(SECRET):
        words = f"it is {form}, they say"
        out += [
            desk.runbook("note", "latest", words, "--as", words, **env),
            desk.runbook(
                "approve", "latest", "--step", "go", "--as", "ines", "--role", "dba", "--reason", words, **env
            ),
            desk.runbook(
                "approve", "latest", "--step", "go", "--evidence", "backup", "--as", "ines", "--reason", words, **env
            ),
            desk.runbook("sql", "latest", "-c", f"SELECT '{form}'", "--reason", words, "--as", words, **env),
            desk.runbook("settle", "latest", "put", "done", "--reason", words, **env),
            desk.runbook("tune", "latest", "hold", "--reason", words, **env),
        ]
    out.append(desk.runbook("resume", "latest", **env))
    assert out[-1].code == 0, out[-1].text
    out.append(desk.runbook("report", "latest", **env))
    tables = ["run", "step", "step_commit", "control", "anchor"]
    name = "runbook_{}" if empty_database.dialect == "sqlite" else "runbook.{}"
    kept = [path.read_text() for path in desk.newest.parent.iterdir()]
    kept += [str(empty_database.rows(f"SELECT * FROM {name.format(table)}")) for table in tables]
    for form in forms(SECRET):
        assert not [text for text in kept if form in text], form
        assert form not in "".join(done.text for done in out), form
    assert len([one for one in read(desk.newest) if "***" in one.event.model_dump_json()]) > 4 * len(forms(SECRET))


@pytest.mark.parametrize("lost", ["", "folder", "ledger"])
def test_secret_in_the_words_that_end_a_run_is_masked(desk: InProcessCli, empty_database: Database, lost: str):
    """`rollback --leave` and `close` write them into the ledger too; close also where the folder or the ledger's row is lost."""
    steps = SECRETIVE.replace("approval: {roles: [dba]}, evidence: {backup: required}", "approval: {roles: [dba]}")
    put = steps[steps.index("  - {id: put") :]
    desk.playbook("change", steps.replace("  - {id: go", f"{put.replace('id: put', 'id: early')}  - {{id: go"))
    env = {"RUNBOOK_INPUT_TOKEN": SECRET}
    name = "runbook_{}" if empty_database.dialect == "sqlite" else "runbook.{}"
    words = f"it is {SECRET}, they say"
    assert desk.runbook("exec", "change.yaml", **env).code == 5
    run = desk.newest.parent.name
    if lost == "folder":
        desk.newest.parent.rename(desk.directory / "gone")
    if lost == "ledger":
        empty_database.script(f"DELETE FROM {name.format('run')}")
    if not lost:
        assert desk.runbook("rollback", run, "--leave", "early", "--reason", words, **env).code == 9
    else:
        assert desk.runbook("close", run, "--reason", words, "--as", words, **env).code == 0
    kept = [path.read_text() for path in desk.directory.glob("*/**/*.json*")]
    kept += [
        str(empty_database.rows(f"SELECT * FROM {name.format(one)}"))
        for one in ("run", "step", "step_commit", "control")
    ]
    assert not [text for text in kept if SECRET in text]


@on_18
def test_statements_of_others_are_never_kept(desk: InProcessCli, empty_database: Database):
    """A session that is in the way is named by all that isn't its statement, at the terminal and in every file."""
    number = "4111111111111111"
    written(
        desk,
        "- {id: look, type: checkpoint, success_criteria: [{check: transactions, id: open, older_than: 10 ms, record_only: to see},"
        " {check: waiters, id: waiters, record_only: to see}, {check: horizon, id: horizon, record_only: to see}]}\n"
        "- {id: rename, type: rename_column, column: t.n, to: m}",
        "lock: {wait: 100 ms, retry_for: 60 s}\nsuccess_criteria: {none: it is a test}\n",
    )
    with session(empty_database, f"SELECT id, 'card {number}' FROM t", application_name="shop") as reader:

        def release() -> None:
            try:
                desk.reached("lock_waited", seconds=8)
            finally:
                reader.rollback()

        with meanwhile(release):
            done = desk.runbook("exec", "change.yaml")
    assert done.code in {0, 3}, done.text
    waits = desk.events("lock_waited")
    assert any("shop, idle in transaction" in one and "last SELECT" in one and "holds t (AccessShareLock)" in one
               for wait in waits for one in wait.blockers), waits  # fmt: skip
    assert "SELECT query FROM pg_stat_activity WHERE pid = " in done.text
    for text in [
        done.text,
        desk.runbook("report", "latest").out,
        *(path.read_text() for path in desk.newest.parent.iterdir()),
    ]:
        assert number not in text
