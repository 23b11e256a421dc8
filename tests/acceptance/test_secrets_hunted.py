"""A marked secret in every place where one can be given; then every output, file and ledger row is searched for it; F: K01."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from databases import Database
from inside import InProcessCli

pytestmark = pytest.mark.newest

SECRETS = {
    "quoted": "Zq'7\"x\\Wk\tv9 %2F+=",
    "lines": "-----BEGIN QXZ KEY-----\nMIIZqxv7Wkd0\nqXw8/Zkv+3==\n\n  indented Zq7xW line\n-----END QXZ KEY-----",
    "digits": "7390184625",
    "short": "zq7xwk",
    "long": "Zq7xWkvP" * 25,
    "letters": "żółćQxŽůβ漢字🔑w",
}
SUITE = """
import os
def test_it():
    token = os.environ["RUNBOOK_INPUT_TOKEN"]
    print("printed", token)
    assert [token] == ["other"], {"of": token, "repr": repr(token), "in": token * 3}
"""
PROGRAM = """
import base64, json, os, sys, urllib.parse
token = os.environ["RUNBOOK_INPUT_TOKEN"]
for form in (token, json.dumps(token), json.dumps(json.dumps({"a": token})), repr(token), urllib.parse.quote(token, safe=""),
             base64.b64encode(token.encode()).decode(), base64.encodebytes(token.encode()).decode(), token.encode().hex(),
             token.replace("'", "''"), "\\n".join(f"E   {line}" for line in token.splitlines())):
    print("out", form)
    print("err", form, file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


MADE = """runbook: 1
name: hunt
title: Hunt
inputs: {token: {secret: true, required: true}}
steps:
  - {id: make, type: sql, text: 'CREATE TABLE a (id int PRIMARY KEY, token text, n int CHECK (n < 9))', if_stopped_here: safe}
  - id: put
    type: sql
    text: INSERT INTO a VALUES (1, :token, 1), (2, :token, 2)
    params: {token: "{{ inputs.token }}"}
    revert: DELETE FROM a
    if_stopped_here: safe
  - {id: says, type: command, argv: [PYTHON, program.py, '0'], env_from: [RUNBOOK_INPUT_TOKEN], if_stopped_here: safe}
""".replace("PYTHON", sys.executable)
NOTICE = """  - id: notice
    type: sql
    text: "DO $$ BEGIN RAISE NOTICE 'see %', (SELECT token FROM a WHERE id = 1); END $$"
    if_stopped_here: safe
"""
CHECKS = """success_criteria:
  - {id: shown, check: query, query: SELECT token FROM a WHERE id = 1, record_only: it is shown}
  - {id: program, check: command, argv: [PYTHON, program.py, '3'], env_from: [RUNBOOK_INPUT_TOKEN]}
  - {id: suite, check: pytest, path: test_suite.py, env_from: [RUNBOOK_INPUT_TOKEN]}
  - {id: named, check: query, query: SELECT token AS found FROM a WHERE id = 1, that: found == 'other'}
  - {id: rows, check: query, query: SELECT id AS n FROM a, that: n == 4}
""".replace("PYTHON", sys.executable)
FAILS = {
    "detail": "{id: bad, type: sql, text: UPDATE a SET n = 9 WHERE id = 1}",
    "key": "{id: bad, type: sql, text: 'CREATE UNIQUE INDEX twice ON a (token)'}",
    "raise": "{id: bad, type: sql, text: \"DO $$ BEGIN RAISE EXCEPTION 'no %', (SELECT token FROM a WHERE id = 1) USING "
             'DETAIL = (SELECT quote_literal(token) FROM a WHERE id = 1), HINT = (SELECT token FROM a WHERE id = 2); END $$"}',
    "cast": "{id: bad, type: sql, text: UPDATE a SET n = CAST(token AS int) WHERE id = 1}",
    "json": "{id: bad, type: sql, text: UPDATE a SET n = CAST(CAST(token AS json) AS text)::int WHERE id = 1}",
    "regclass": "{id: bad, type: sql, text: UPDATE a SET n = CAST(CAST(quote_ident(token) AS regclass) AS oid)::int WHERE id = 1}",
    "program": "{id: bad, type: command, argv: [PY, program.py, '1'], env_from: [RUNBOOK_INPUT_TOKEN]}".replace("PY", sys.executable),
}  # fmt: skip


def pieces(secret: str) -> Iterator[str]:
    """What must nowhere be found: the secret, its lines and its first 12 signs, in ten encodings."""
    lines = [line.strip() for line in secret.splitlines() if len(line.strip()) >= 8]
    for text in dict.fromkeys([secret, *lines, secret[:12] if len(secret) > 12 else secret]):
        raw = text.encode()
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
        yield from (quote(text, safe=""), raw.hex(), text.replace("'", "''"), json.dumps(json.dumps(text))[3:-3])
        yield base64.b64encode(raw).decode().rstrip("=")[:-1]
        yield base64.b32encode(raw).decode().rstrip("=")


def assert_nowhere(text: str, secret: str, where: str) -> None:
    for piece in pieces(secret):
        at = text.find(piece)
        assert at < 0, (where, piece, text[max(0, at - 200) : at + 100])


def ledger_of(database: Database) -> str:
    if database.dialect == "sqlite":
        with sqlite3.connect(database.name) as made:
            tables = [
                name
                for (name,) in made.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'runbook%'"
                )
            ]
            return "\n".join(repr(made.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables)
    with psycopg.connect(database.url) as made:
        tables = [name for (name,) in made.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'runbook'")]
        rows = [
            made.execute(f'SELECT t::text, to_json(t)::text FROM runbook."{name}" AS t').fetchall() for name in tables
        ]
        return "\n".join(f"{one}\n{other}" for found in rows for one, other in found)


def hunted(desk: InProcessCli, database: Database, secret: str, *words: str) -> str:
    env = {"RUNBOOK_INPUT_TOKEN": secret}
    done = desk.runbook(*words, **env)
    assert "internal error" not in done.text, done.text
    assert_nowhere(done.text, secret, " ".join(words))
    for path in desk.directory.rglob("*"):
        if path.is_file() and path.suffix not in {".py", ".pyc", ".sqlite"}:
            assert_nowhere(path.read_text(errors="replace"), secret, str(path))
    assert_nowhere(ledger_of(database), secret, "the ledger")
    return done.text


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    made = InProcessCli(tmp_path, empty_database.url)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "test_suite.py").write_text(SUITE)
    return made


@pytest.mark.parametrize("name", list(SECRETS))
def test_secret_is_found_nowhere(desk: InProcessCli, empty_database: Database, name: str):
    secret = SECRETS[name]
    desk.playbook("hunt", MADE + (NOTICE if empty_database.dialect == "postgresql" else "") + CHECKS)
    doubled = secret.replace("'", "''")
    # a name of several scripts is refused as one
    mine = ["--as", "ann" if name == "letters" else f"ann {secret}"]
    operator = ["--operator", f"olga {secret}"] if name in {"digits", "short"} else []
    for words in (
        ("validate", "hunt.yaml"), ("plan", "hunt.yaml", "--sql"), ("exec", "hunt.yaml", "--dry-run", "--json"),
        ("exec", "hunt.yaml", "--verbose", *operator),
        ("note", "latest", f"it is {secret}"), ("status", "latest"), ("report", "latest"), ("report", "latest", "--json"),
        ("trail", "show", "latest"),
        ("sql", "latest", "-c", "SELECT token FROM a", "--as", "ann", "--reason", f"see {secret}"),
("sql", "latest", "-c", f"SELECT '{doubled}' FROM nowhere", "--as", "ann", "--reason", "x"),
        ("rollback", "latest", "--reason", f"because {secret}"), ("close", "latest", "--reason", f"because {secret}", *mine),
        ("report", "latest"), ("runs",),
    ):  # fmt: skip
        hunted(desk, empty_database, secret, *words)


@pytest.mark.parametrize("fails", list(FAILS))
@pytest.mark.parametrize("name", ["long", "lines"])
def test_secret_in_a_refusal_is_found_nowhere(desk: InProcessCli, empty_database: Database, name: str, fails: str):
    """In the server's message, its DETAIL, its HINT; where it cut the value itself; in a name."""
    if empty_database.dialect == "sqlite" and fails in {"raise", "json", "regclass"}:
        pytest.skip("PostgreSQL's own")
    secret = SECRETS[name]
    desk.playbook("hunt", f"{MADE}  - {FAILS[fails]}\n{CHECKS}")
    told = hunted(desk, empty_database, secret, "exec", "hunt.yaml", "--verbose")
    assert re.search("failed", told), told
    for words in (("status", "latest"), ("report", "latest"), ("trail", "show", "latest"), ("resume", "latest")):
        hunted(desk, empty_database, secret, *words)
