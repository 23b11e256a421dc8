"""Runs of ledger version 2 (tests/support/version2): `target init` brings the ledger to today's form, and they go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import KILLED
from databases import Database
from filling import ledger as named
from inside import InProcessCli, session
from transplant import transplant

from runner.trail import old_words, run_process, trail
from steps.ledger import tables as ledger

pytestmark = pytest.mark.newest

VERSION_2 = Path(__file__).parents[1] / "support" / "version2"
WRITTEN = "SELECT count(*) FROM t WHERE v IS NOT NULL"
OLD = [*ledger.FORMER.values()]


@pytest.fixture
def desk(empty_database: Database, tmp_path: Path) -> InProcessCli:
    return InProcessCli(tmp_path, empty_database.url)


@pytest.fixture(params=[1, 2], ids=["version 1", "version 2"])
def put(request: pytest.FixtureRequest, desk: InProcessCli, empty_database: Database) -> Callable[[str], str]:
    """Puts one of the kept runs into this test's database and folder, brings the ledger to today's form; its name."""

    def putting(name: str) -> str:
        run = old(desk, empty_database, name)
        if request.param == 1:
            to_version_1(empty_database)
        assert "brought the ledger" in done(desk, "target", "init")
        return run

    return putting


def old(desk: InProcessCli, database: Database, name: str = "at_gate") -> str:
    return transplant(VERSION_2 / database.dialect / name, database, desk)


def to_version_1(database: Database) -> None:
    """It had neither of these tables."""
    for table in ("anchor", "meta"):
        database.script(f"DROP TABLE {named(database, table)}")


def done(desk: InProcessCli, *words: str, code: int = 0) -> str:
    found = desk.runbook(*words)
    assert found.code == code, found.text
    return found.out


def kept(database: Database) -> dict[str, list[tuple]]:
    """The rows of all tables that are renamed, by today's names, without the column that they have only now."""
    there = tables(database)
    columns = {"step_commit": "seq, run, step, action, label, epoch, before, at"}
    return {
        name: sorted(
            database.rows(f"SELECT {columns.get(name, '*')} FROM {named(database, was if was in there else name)}"),
            key=repr,
        )
        for name, was in ledger.FORMER.items()
    }


def tables(database: Database) -> set[str]:
    if database.dialect == "sqlite":
        rows = database.rows("SELECT substr(name, 9) FROM sqlite_master WHERE type = 'table' AND name LIKE 'runbook_%'")
    else:
        rows = database.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'runbook'")
    return {row[0] for row in rows}


# ─── going on ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_waiting_run_goes_on(put: Callable[[str], str], desk: InProcessCli, empty_database: Database):
    run = put("at_gate")
    done(desk, "approve", run, "--as", "ines", "--role", "dba", "--reason", "read it")
    done(desk, "resume", run)
    assert empty_database.value(WRITTEN) == 19
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_killed_run_goes_on_where_it_was(put: Callable[[str], str], desk: InProcessCli, empty_database: Database):
    """Also on the way back: what was written before the kill is taken back with what was written after it."""
    run = put("killed")
    assert 0 < empty_database.value(WRITTEN) < 19
    done(desk, "resume", run)
    assert empty_database.value(WRITTEN) == 19
    status = desk.status().steps["fill"].results
    assert (status["visited"], status["written"], status["dead"]) == (20, 19, 1)
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_killed_run_is_taken_back(put: Callable[[str], str], desk: InProcessCli, empty_database: Database):
    run = put("killed")
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_run_that_succeeded_is_told_of_and_taken_back(
    put: Callable[[str], str], desk: InProcessCli, empty_database: Database
):
    run = put("succeeded")
    done(desk, "trail", "verify", run, "--against-target")
    assert "already applied" in done(desk, "status", run)
    told = done(desk, "report", run)
    assert "already applied" in told and "already_so" not in told
    assert "13" in done(desk, "report", run, "--rows", "dead")
    done(desk, "resume", run, "--dead", "--reason", "once more")
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_way_back_goes_on(put: Callable[[str], str], desk: InProcessCli, empty_database: Database):
    run = put("half_taken_back")
    assert 0 < empty_database.value(WRITTEN) < 19
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


def test_run_is_made_again_from_an_old_ledger(put: Callable[[str], str], desk: InProcessCli, empty_database: Database):
    """Its folder is lost: the states of its steps are read in today's words."""
    run = put("succeeded")
    (desk.directory / "runs" / run / "trail.jsonl").unlink()
    (desk.directory / "runs" / run).rmdir()
    done(desk, "recover", run)
    assert desk.status().steps["add"].word == "already applied"
    done(desk, "rollback", run)
    assert empty_database.value(WRITTEN) == 0


# ─── before target init ─────────────────────────────────────────────────────────────────────────────────────────────
def test_old_ledger_is_refused_with_the_next_command(desk: InProcessCli, empty_database: Database):
    """Whatever would read or write it; what asks the trail alone answers. No word of it is taken for an empty ledger."""
    run = old(desk, empty_database)
    before, rows = desk.newest.read_bytes(), kept(empty_database)
    for words in (
        ["exec", "fill.yaml"], ["plan", "fill.yaml"], ["resume", run], ["rollback", run], ["close", run, "--reason", "r"],
        ["approve", run, "--as", "ines", "--role", "dba", "--reason", "r"], ["trail", "verify", run, "--against-target"],
        ["report", run, "--rows", "dead"], ["sql", run, "-c", "SELECT 1", "--as", "kim", "--reason", "r"],
    ):  # fmt: skip
        refused = desk.runbook(*words)
        assert (refused.code, "runbook target init" in refused.err) == (6, True), (words, refused.text)
    for words in (["status", run], ["report", run], ["runs"], ["trail", "verify", run], ["trail", "show", run]):
        done(desk, *words)
    assert (desk.newest.read_bytes(), kept(empty_database)) == (before, rows)
    assert [path.name for path in (desk.directory / "runs").iterdir()] == [run]


# ─── the migration itself ───────────────────────────────────────────────────────────────────────────────────────────
FORM = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid),
       a.attstorage
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
WHERE c.relnamespace = 'runbook'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
UNION ALL
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), true, '', '', '' FROM pg_constraint
WHERE connamespace = 'runbook'::regnamespace
UNION ALL
SELECT relname, relkind::text, '', true, '', '', '' FROM pg_class WHERE relnamespace = 'runbook'::regnamespace
ORDER BY 1, 2, 3"""


def form(database: Database) -> list[tuple]:
    if database.dialect == "sqlite":
        sql = "SELECT replace(sql, '\"', '') FROM sqlite_master WHERE name LIKE 'runbook_%' ORDER BY 1"
        return [(" ".join(row[0].split()),) for row in database.rows(sql)]
    return database.rows(FORM)


def test_migrated_ledger_is_a_new_one_with_the_rows(desk: InProcessCli, empty_database: Database):
    """Of tables, columns, keys and whatever is named after them; and once more there is nothing to do."""
    old(desk, empty_database, "succeeded")
    rows = kept(empty_database)
    assert all(rows.values())
    told = done(desk, "target", "init")
    assert all(f"renamed {named(empty_database, was)} to" in told for was in OLD)
    assert kept(empty_database) == rows and not tables(empty_database) & set(OLD)
    migrated = form(empty_database)
    assert "there already" in done(desk, "target", "init")
    for table in tables(empty_database):
        empty_database.script(f"DROP TABLE {named(empty_database, table)}")
    assert "made the ledger" in done(desk, "target", "init")
    assert migrated == form(empty_database)


@pytest.mark.parametrize("point", ["commit.before:1", "commit.after:1"])
def test_migration_that_is_killed(desk: InProcessCli, empty_database: Database, point: str):
    """All of it is there, or nothing."""
    old(desk, empty_database, "killed")
    rows = kept(empty_database)
    assert desk.kill("target", "init", fault=point).code in {KILLED, 0}
    assert tables(empty_database) & set(OLD) in (set(), set(OLD))
    done(desk, "target", "init")
    assert kept(empty_database) == rows and "there already" in done(desk, "target", "init")


def test_two_at_once(desk: InProcessCli, empty_database: Database):
    """One of them brings it to today's form, and the other finds that done."""
    old(desk, empty_database, "succeeded")
    rows = kept(empty_database)
    with ThreadPoolExecutor(2) as pool:
        started = [desk.start("target", "init") for _ in range(2)]
        told = list(pool.map(lambda one: one.communicate(timeout=300)[0], started))
    assert [one.returncode for one in started] == [0, 0], told
    assert sorted("brought the ledger" in one for one in told) == [False, True], told
    assert kept(empty_database) == rows


def test_living_run_keeps_the_migration_away(desk: InProcessCli, empty_database: Database):
    """A process of the version before would lose the tables under its hands; refused until it has ended."""
    run = old(desk, empty_database, "killed")
    lease, beat = named(empty_database, "lease"), named(empty_database, "heartbeat")
    dead = empty_database.value(f"SELECT holder FROM {lease}")
    hold = f"UPDATE {lease} SET holder = {'?' if empty_database.dialect == 'sqlite' else '%s'}"
    empty_database.rows(hold, [run_process.this_process("kim").model_dump_json()])  # this one, which lives
    empty_database.script(f"UPDATE {beat} SET beat_at = {now(empty_database)}")
    refused = desk.runbook("target", "init")
    assert (refused.code, f"run {run} (kim" in refused.err) == (6, True), refused.text
    assert tables(empty_database) >= set(OLD)
    empty_database.rows(hold, [dead])
    empty_database.script(f"UPDATE {beat} SET beat_at = '2026-01-01T00:00:00.000Z'")  # it was another machine's: silent
    done(desk, "target", "init")


def now(database: Database) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')" if database.dialect == "sqlite" else "clock_timestamp()"


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_migration_does_not_wait_long_for_others(desk: InProcessCli, empty_database: Database):
    """Somebody is at work on one of the tables: nobody queues behind us for long, and nothing is changed."""
    old(desk, empty_database, "succeeded")
    with session(empty_database, "SELECT count(*) FROM runbook.dead"):
        refused = desk.runbook("target", "init")
    assert (refused.code, "somebody is at work on its tables" in refused.err) == (6, True), refused.text
    assert tables(empty_database) >= set(OLD)
    done(desk, "target", "init")
    assert not tables(empty_database) & set(OLD)


def test_printed_statements_beside_an_old_ledger(desk: InProcessCli, empty_database: Database):
    """Who ran them made empty tables under today's names: they give way to the old ones with their rows."""
    old(desk, empty_database, "succeeded")
    rows = kept(empty_database)
    empty_database.script(done(desk, "target", "init", "--print", "--dialect", empty_database.dialect))
    assert desk.runbook("exec", "fill.yaml").code == 6
    done(desk, "target", "init")
    assert kept(empty_database) == rows and not tables(empty_database) & set(OLD)


def test_rows_under_both_names_are_never_thrown_away(desk: InProcessCli, empty_database: Database):
    old(desk, empty_database, "succeeded")
    empty_database.script(done(desk, "target", "init", "--print", "--dialect", empty_database.dialect))
    now_, was = (named(empty_database, name) for name in ("skipped_row", "dead"))
    empty_database.script(f"INSERT INTO {now_} SELECT * FROM {was}")
    refused = desk.runbook("target", "init")
    assert (refused.code, "rows stand there" in refused.err) == (6, True), refused.text
    assert (
        empty_database.value(f"SELECT count(*) FROM {was}") == empty_database.value(f"SELECT count(*) FROM {now_}") == 1
    )


@pytest.mark.parametrize("table", OLD)
def test_what_is_planted_on_an_old_table_is_found(desk: InProcessCli, empty_database: Database, table: str):
    old(desk, empty_database)
    if empty_database.dialect == "sqlite":
        plant = f"CREATE TRIGGER p AFTER INSERT ON runbook_{table} BEGIN UPDATE t SET k = 9; END"
    else:
        plant = f"CREATE RULE p AS ON INSERT TO runbook.{table} DO ALSO SELECT 1"
    empty_database.script(plant)
    refused = desk.runbook("target", "init")
    assert (refused.code, "cannot trust the ledger" in refused.err) == (6, True), refused.text


# ─── the reader ─────────────────────────────────────────────────────────────────────────────────────────────────────
KEPT = sorted(VERSION_2.glob("*/*/trail.jsonl"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parts[-3]} {path.parts[-2]}")
def test_old_words_are_read_as_today_s(path: Path):
    """The chain holds over the bytes as they are; each record has today's words, and the hash that stands in its line."""
    assert trail.verify(path).fault == ""
    lines, records = path.read_bytes().splitlines(), trail.read(path)
    assert [one.hash for one in records] == list(trail.verify(path).hashes)
    told = " ".join(one.model_dump_json() for one in records)
    for words in (*old_words.VALUES.values(), *old_words.FIELDS.values()):
        assert not [was for was in words if f'"{was}"' in told]
    assert len(lines) == len(records)


def test_every_old_word_is_among_the_kept_trails():
    """Or nothing would show that it is read: all but what no run of these had to say."""
    text = "".join(path.read_text() for path in KEPT)
    words = [was for each in (*old_words.VALUES.values(), *old_words.FIELDS.values()) for was in each]
    assert [was for was in words if f'"{was}"' not in text] == ["stop_asked", "order"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ('{"n":1,"event":{"event":"stop_asked","by":"SIGINT","reason":"order"}}', ("event", "stop_requested")),
        ('{"n":1,"event":{"event":"tuned","by":"a","reason":"","order":{"order":1}}}', ("settings", {"order": 1})),
        ('{"n":1,"event":{"event":"noted","by":"a","text":"\\"order\\":","order":{}}}', ("order", {})),
    ],
    ids=["event", "field", "another event's field"],
)
def test_words_that_no_kept_run_has(line: str, wanted: tuple[str, object]):
    found = json.loads(old_words.today(line.encode()))
    assert found["event"][wanted[0]] == wanted[1]


@pytest.mark.parametrize(
    "line", [b'{"n":1,"event":{"event":"redriven"', b'["event":"redriven"]', b"", b'{"event":"redriven"}']
)
def test_what_is_no_record_is_left_to_who_checks_it(line: bytes):
    assert old_words.today(line) == line
