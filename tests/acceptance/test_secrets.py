"""Secrets: a role's password and a secret input, looked for wherever anybody could read them; F: K01, T: 4."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import psycopg
import pytest
from command import Cli, Done
from databases import SETTINGS, Databases
from inside import InProcessCli

from runner.sandbox.binaries import find_binaries
from runner.sandbox.server import Server

PASSWORD = "Swörd fish/42+&'x"
TOKEN = 'tok"en/7%\\ é+&=9'
PLAYBOOK = """runbook: 1
name: tokens
title: Give the account its token
inputs:
  token: {secret: true, required: true, pattern: ".{8,}"}
steps:
  - id: give
    type: sql
    why: the account {{ token }} needs it
    text: UPDATE accounts SET token = :token FROM pg_sleep(0.8) WHERE id = 1
    params: {token: "{{ token }}"}
    if_stopped_here: safe; {{ token }} is not in use
  - id: program
    type: command
    argv: [sh, -c, 'echo "$RUNBOOK_INPUT_TOKEN and $PGPASSWORD"; echo "$RUNBOOK_INPUT_TOKEN" >&2']
    env_from: [RUNBOOK_INPUT_TOKEN]
    database: true
  - id: twice
    type: sql
    text: INSERT INTO accounts VALUES (2, :token)
    params: {token: "{{ inputs.token }}"}
success_criteria:
  - {id: same, check: query, query: SELECT token FROM accounts WHERE id = 1, record_only: the record shows how it is masked}
  - {id: there, check: rows, table: accounts, exactly: 2}
"""


def forms(secret: str) -> set[bytes]:
    """What a secret looks like on its way through shells, URLs, JSON and base64."""
    plain = secret.encode()
    coded = base64.b64encode(plain).decode()
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), coded, coded.rstrip("=")[:-1]}
    once = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    found |= (
        once | {json.dumps(one, ensure_ascii=False)[1:-1] for one in once} | {repr(secret)[1:-1], ascii(secret)[1:-1]}
    )
    return {one.encode() for one in found}


def assert_hidden(data: bytes | str, where: str) -> None:
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    for secret in (PASSWORD, TOKEN):
        for form in forms(secret):
            assert form not in raw, (where, form, raw[max(0, raw.find(form) - 200) : raw.find(form) + 80])


def processes() -> bytes:
    """What `ps` shows of every process: its arguments, its title and its name."""
    seen = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "comm"):
            with contextlib.suppress(OSError):
                seen.append((process / name).read_bytes())
    return b"\n".join(seen)


@pytest.fixture(scope="module")
def server(databases: Databases) -> Iterator[Server]:
    """A server that asks the role `app` for its password."""
    if not find_binaries(18):
        pytest.skip("PostgreSQL 18 is not on this machine")
    one = Server(databases.directory / "locked", major=18, settings=SETTINGS)
    one.start()
    with psycopg.connect(one.url(), autocommit=True) as owner:
        owner.execute(psycopg.sql.SQL("CREATE ROLE app LOGIN PASSWORD {}").format(PASSWORD))
        owner.execute("GRANT pg_read_all_stats, pg_read_all_settings TO app")
        owner.execute("CREATE DATABASE app OWNER app")
        hba = one.data / "pg_hba.conf"
        hba.write_text("local all app scram-sha-256\n" + hba.read_text())
        owner.execute("SELECT pg_reload_conf()")
    yield one
    one.discard()


@pytest.fixture
def desk(server: Server, tmp_path: Path) -> InProcessCli:
    """A desk at that database, the table as before."""
    with psycopg.connect(server.url("app"), autocommit=True) as owner:
        owner.execute("DROP TABLE IF EXISTS accounts; DROP SCHEMA IF EXISTS runbook CASCADE; SET ROLE app")
        owner.execute(
            "CREATE TABLE accounts (id int PRIMARY KEY, token text CHECK (id <> 2)); INSERT INTO accounts VALUES (1, NULL)"
        )
    made = InProcessCli(tmp_path, f"postgresql://app@/app?host={quote(str(server.socket), safe='/')}")
    made.playbook("tokens", PLAYBOOK)
    return made


def watched(server: Server, desk: Cli, *words: str, **env: str) -> tuple[Done, set[str]]:
    """Run the command as a process; look at all processes and at the server's view of it while it runs."""
    names: set[str] = set()
    with psycopg.connect(server.url("app"), autocommit=True) as owner, desk.start(*words, **env) as running:
        while running.poll() is None:
            assert_hidden(processes(), "the process list")
            for name, query in owner.execute(
                "SELECT application_name, query FROM pg_stat_activity WHERE usename = 'app'"
            ).fetchall():
                assert_hidden(name + query, "pg_stat_activity")
                names.add(name)
            time.sleep(0.02)
        out = running.stdout.read() if running.stdout else ""
    return Done(running.returncode, out, ""), names


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def test_no_secret_is_written_or_shown(server: Server, desk: InProcessCli):
    """A whole life with both secrets: run, failure with the row in the server's words, status, report, rollback."""
    env = {"PGPASSWORD": PASSWORD, "RUNBOOK_INPUT_TOKEN": TOKEN}
    done, names = watched(server, desk, "exec", "tokens.yaml", "--verbose", **env)
    assert done.code == 1, done.text
    assert "Failing row contains (2, ***)" in done.text
    assert_hidden(done.text, "the terminal")
    assert any(name.startswith("runbook:tokens-") and name.endswith(":give") for name in names), names
    for words in (
        ("status", "latest"), ("status", "latest", "--json"), ("report", "latest"), ("report", "latest", "--json"), ("runs", "--json"),
        ("trail", "show", "latest"), ("trail", "verify", "latest", "--against-target"), ("target", "check"),
        ("exec", "tokens.yaml", "--dry-run"), ("exec", "tokens.yaml", "--dry-run", "--json"), ("plan", "tokens.yaml", "--sql"),
        ("exec", "tokens.yaml", "--json"), ("resume", "latest"), ("rollback", "latest"),
    ):  # fmt: skip
        told = desk.runbook(*words, **env)
        assert_hidden(told.text, " ".join(words))
        assert "internal error" not in told.text, (words, told.text)
    for name, data in files(desk.directory):
        assert_hidden(data, name)
    assert b"***" in desk.newest.read_bytes()
    with psycopg.connect(server.url("app"), autocommit=True) as owner:
        [(given,)] = owner.execute("SELECT token FROM accounts WHERE id = 1").fetchall()
        assert given == TOKEN, "the value itself arrives whole"
        tables = (
            "run",
            "step",
            "step_commit",
            "control",
            "backfill_pass",
            "batch",
            "undo",
            "skipped_row",
            "lease",
            "heartbeat",
        )
        ledger = "\n".join(
            row for name in tables for (row,) in owner.execute(f"SELECT to_json(t)::text FROM runbook.{name} t")
        )
    assert_hidden(ledger, "the ledger")


def test_secret_is_asked_for_again_on_resume(desk: InProcessCli):
    """The trail has no secret: resume says how to give it, and takes no other way than the safe ones."""
    env = {"PGPASSWORD": PASSWORD}
    assert desk.runbook("exec", "tokens.yaml", **env, RUNBOOK_INPUT_TOKEN=TOKEN).code == 1
    without = desk.runbook("resume", "latest", **env)
    assert (without.code, "token" in without.err) == (6, True), without.text
    seen = desk.runbook("resume", "latest", "--input", f"token={TOKEN}", **env)
    assert (seen.code, "RUNBOOK_INPUT_TOKEN" in seen.err) == (6, True), seen.text
    assert_hidden(seen.text, "the refusal")
    back = desk.runbook("rollback", "latest", **env)
    assert "internal error" not in back.text, back.text
    assert back.code in {6, 9}, "a step that has no way back is said, not crashed on"


@pytest.mark.parametrize("way", ["password_env", "passfile", "PGPASSWORD"])
def test_password_by_each_way(desk: InProcessCli, way: str):
    url = desk.target
    passfile = desk.directory / "pass"
    passfile.write_text(f"*:*:app:app:{PASSWORD}\n")
    passfile.chmod(0o600)
    how = {
        "password_env": "password_env: APP_PASSWORD",
        "passfile": "passfile: pass",
        "PGPASSWORD": "environment: test",
    }[way]
    (desk.directory / "targets.yaml").write_text(f'default: app\ntargets:\n  app:\n    url: "{url}"\n    {how}\n')
    env = {} if way == "passfile" else {"PGPASSWORD" if way == "PGPASSWORD" else "APP_PASSWORD": PASSWORD}
    for words in (("target", "check", "-t", "app"), ("plan", "tokens.yaml", "-t", "app")):
        done = desk.runbook(*words, **env, RUNBOOK_INPUT_TOKEN=TOKEN)
        assert done.code == 0, done.text
        assert_hidden(done.text, " ".join(words))


def test_wrong_password_is_not_repeated(desk: InProcessCli):
    for wrong in ("Wr0ng-Passw0rd", PASSWORD + "x"):
        for more in ({}, {"RUNBOOK_TRACEBACK": "1"}):
            done = desk.runbook("exec", "tokens.yaml", PGPASSWORD=wrong, RUNBOOK_INPUT_TOKEN=TOKEN, **more)
            assert (done.code, wrong in done.text) == (12, False), done.text
            assert "password authentication failed" in done.err
            assert_hidden(done.text, "the terminal")
    assert not list(desk.directory.glob("runs/*")), "nothing ran, so nothing is recorded"


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "tokens.yaml", "--target", "postgresql://app:{}@localhost/app"),
        ("exec", "tokens.yaml", "--target", "postgresql://app@localhost/app?password={}"),
        ("target", "check", "-t", "postgres://app:{}@localhost"),
        ("exec", "tokens.yaml", "-i", "token={}"),
    ],
)
def test_secret_in_argv_is_refused(desk: InProcessCli, words: tuple[str, ...]):
    """F: K01 - exit 6, and the message doesn't say it once more."""
    argv = [word.format(quote("Open-Sesame")) for word in words]
    token = {} if "-i" in words else {"RUNBOOK_INPUT_TOKEN": TOKEN}
    done = desk.runbook(*argv, PGPASSWORD=PASSWORD, **token)
    assert (done.code, "Open-Sesame" in done.text) == (6, False), done.text
    assert "seen" in done.err
    assert not list(desk.directory.glob("runs/*"))


def test_password_in_a_file_of_targets_is_refused(desk: InProcessCli):
    for line in ("password: Open-Sesame", "url: postgresql://app:Open-Sesame@localhost/app"):
        (desk.directory / "targets.yaml").write_text(f"targets:\n  app:\n    {line}\n")
        done = desk.runbook("target", "check", "-t", "app")
        assert (done.code, "Open-Sesame" in done.text) == (6, False), done.text
    done = desk.runbook("target", "check", RUNBOOK_TARGET="postgresql://app:Open-Sesame@localhost/app")
    assert (done.code, "Open-Sesame" in done.text) == (6, False), done.text


def test_short_secret_is_refused(desk: InProcessCli):
    """A secret of a few letters would mask half of every line; it is refused before anything begins."""
    short = desk.runbook("exec", "tokens.yaml", PGPASSWORD="abc")
    assert short.code in {4, 6}, short.text
    desk.playbook("short", PLAYBOOK.replace(', pattern: ".{8,}"', ""))
    done = desk.runbook("exec", "short.yaml", PGPASSWORD=PASSWORD, RUNBOOK_INPUT_TOKEN="xyzzy")
    assert (done.code, "xyzzy" in done.text) == (6, False), done.text
    assert not list(desk.directory.glob("runs/*"))


def test_password_that_is_a_common_word_harms_nothing(server: Server, desk: InProcessCli):
    """A role's password may be the name of the product: the run, its status and its way back still work."""
    with psycopg.connect(server.url("app"), autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'runbook'; GRANT app TO plain")
        owner.execute("GRANT CREATE ON DATABASE app TO plain; UPDATE accounts SET token = NULL")
    hba = server.data / "pg_hba.conf"
    if "plain" not in hba.read_text():
        hba.write_text("local all plain scram-sha-256\n" + hba.read_text())
        with psycopg.connect(server.url(), autocommit=True) as owner:
            owner.execute("SELECT pg_reload_conf()")
    step = "{id: runbook_marks, type: sql, text: UPDATE accounts SET token = 'runbook' WHERE id = 1,"
    step += " revert: UPDATE accounts SET token = NULL WHERE id = 1}"
    desk.playbook("plain", f"runbook: 1\nname: runbook-plain\ntitle: A runbook\nsteps:\n  - {step}\n")
    plain = InProcessCli(desk.directory, desk.target.replace("app@", "plain@"))
    assert plain.runbook("target", "check", PGPASSWORD="Runbook").code == 12, "the role has a password"
    for words, code in (
        (("exec", "plain.yaml"), 0), (("status", "latest"), 0), (("report", "latest"), 0), (("runs",), 0),
        (("trail", "verify", "latest", "--against-target"), 0), (("rollback", "latest"), 0),
    ):  # fmt: skip
        done = plain.runbook(*words, PGPASSWORD="runbook")
        assert done.code == code, (words, done.text)


def test_child_gets_the_password_by_its_environment_only(desk: InProcessCli):
    """The command step's child reaches the same database; what it prints of the password is masked."""
    psql = "import os,subprocess,sys; print(os.environ['PGUSER'], os.environ['RUNBOOK_URL'], os.environ['PGPASSWORD'])"
    step = f'{{id: child, type: command, database: true, argv: [python3, -c, "{psql}"]}}'
    desk.playbook("child", f"runbook: 1\nname: child\ntitle: A child\nsteps:\n  - {step}\n")
    done = desk.runbook("exec", "child.yaml", PGPASSWORD=PASSWORD)
    assert done.code == 0, done.text
    assert "***" in desk.newest.read_text()
    for name, data in files(desk.directory / "runs"):
        assert_hidden(data, name)


def test_look_for_secrets_finds_them():
    """The tests above would see one."""
    for secret in (PASSWORD, TOKEN):
        with pytest.raises(AssertionError):
            assert_hidden(f"x{quote(secret)}x", "a URL")
        with pytest.raises(AssertionError):
            assert_hidden(base64.b64encode(secret.encode()), "base64")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", PASSWORD])
    try:
        until = time.monotonic() + 120
        while PASSWORD.encode() not in processes() and time.monotonic() < until:
            time.sleep(0.05)  # the process list is a moment behind on a busy machine
        with pytest.raises(AssertionError):
            assert_hidden(processes(), "the process list")
    finally:
        child.kill()
        child.wait()
