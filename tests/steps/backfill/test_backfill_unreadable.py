"""Rows at which the playbook's SQL fails: they are dead, named and counted; all others are filled, whatever is counted on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from databases import Database, Databases, kind_or_skip
from plain_context import Trial

from steps.contract import DatabaseFault, State, StepError
from steps.probes.preview import Preview
from steps.probes.sample import Sample
from steps.sql.unreadable import sift
from steps.types.backfill.step import Backfill, BackfillResult

GOOD = '{"ip": "10.0.0.1"}'
NUL = '{"ip": "10.0.0.1", "name": "a\\u0000b"}'  # valid as text; on PostgreSQL every -> of a json fails (22P05)
BROKEN = '{"ip": "10.0.0'  # SQLite checks nothing before it reads
FIFTY = {"time": "250 ms", "rows": [50, 50]}
PLACES = {
    "none": set[int](),
    "first": {1},
    "last": {3000},
    "neighbours": {1500, 1501, 1502},
    "many": {n for n in range(1, 3001) if n % 300 == 7},
}


@pytest.fixture(params=["sqlite", "pg15", "pg18"])
def database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    with kind_or_skip(databases, request.param).database() as found:
        yield found


def _tables(database: Database, bad: set[int], *, rows: int = 3000) -> None:
    database.script(f"""CREATE TABLE t (k integer PRIMARY KEY, doc json, place text);
        CREATE TABLE places (ip varchar(45) PRIMARY KEY, place text);
        INSERT INTO places VALUES ('10.0.0.1', 'here');
        INSERT INTO t (k, doc) WITH RECURSIVE n (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < {rows})
        SELECT k, '{GOOD}' FROM n""")
    _spoil(database, bad)


def _spoil(database: Database, bad: set[int]) -> None:
    if bad:
        unreadable = BROKEN if database.dialect == "sqlite" else NUL
        database.script(f"UPDATE t SET doc = '{unreadable}' WHERE k IN ({', '.join(map(str, bad))})")


def _fields(**fields: object) -> dict[str, object]:
    base = {
        "table": "t",
        "source": "SELECT ip, place FROM places",
        "match": "source.ip = target.doc ->> 'ip'",
        "fill": ["place"],
    }
    return {**base, **fields}


def _step(**fields: object) -> Backfill:
    letters = {"max": 100, "pct": 100}
    return Backfill.model_validate({**_fields(), "dead_letters": letters, "throttle": "none", **fields})


def _filled(trial: Trial) -> BackfillResult:
    assert trial.preflight() == []
    result = trial.apply()
    assert isinstance(result, BackfillResult)
    assert trial.state() is State.DONE, trial.verify()
    return result


def _dead(trial: Trial) -> list[tuple[int, str]]:
    rows = trial.target.rows(
        f"SELECT key, message FROM {'runbook_' if trial.target.dialect == 'sqlite' else 'runbook.'}skipped_row "
        f"WHERE run = '{trial.run}' AND action = 'apply'"
    )
    return sorted((int(json.loads(key)[0]), message) for key, message in rows)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("order", ["auto", "key"])
def test_all_others_are_filled(database: Database, place: str, order: str) -> None:
    bad = PLACES[place]
    _tables(database, bad)
    trial = Trial(database, _step(order=order))
    result = _filled(trial)
    assert (result.written, result.dead, result.unreadable, result.left) == (3000 - len(bad), len(bad), len(bad), 0)
    assert result.visited == result.in_range == 3000
    assert [key for key, _ in _dead(trial)] == sorted(bad)
    assert all(message.startswith("cannot be read: ") for _, message in _dead(trial))
    assert database.value("SELECT count(place) FROM t") == 3000 - len(bad)
    again = _filled(trial.again())  # they are met again by another run, and by no loop
    assert (again.written, again.unreadable, again.visited) == (0, len(bad), 3000)


def test_where_that_fails(database: Database) -> None:
    """`where` is evaluated by everything that counts: the beginning, each batch, the sweep, and a row that is full already"""
    bad = PLACES["many"]
    _tables(database, bad)
    database.script("UPDATE t SET place = 'there' WHERE k IN (7, 8)")
    trial = Trial(database, _step(where="target.doc ->> 'ip' <> '10.0.0.2'"))
    result = _filled(trial)
    assert (result.written, result.already) == (3000 - len(bad) - 1, 1)
    assert (result.at_start, result.unreadable, result.left) == (3000, len(bad), 0)


def test_one_that_comes_before_the_sweep(database: Database) -> None:
    """No batch has met it: the sweep does, and it is dead like the others"""
    _tables(database, set(), rows=400)
    trial = Trial(database, _step())
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("sweep 2").apply()
    database.script(f"INSERT INTO t (k, doc) VALUES (401, '{GOOD}'), (402, '{GOOD}')")
    _spoil(database, {401})
    result = _filled(trial)
    assert (result.written, result.unreadable, result.left, result.visited) == (401, 1, 0, 402)


def test_left_behind_by_a_canary(database: Database) -> None:
    """What can't be read is counted with what it leaves: nobody has gone over it"""
    _tables(database, {399}, rows=400)
    result = Trial(database, _step(batch=FIFTY, stop_after={"batches": 1})).apply()
    assert isinstance(result, BackfillResult)
    assert result.unreadable == 0
    assert result.left > 0
    assert result.left + result.visited == 400


def test_dead_letters_still_limit_them(database: Database) -> None:
    _tables(database, PLACES["many"])
    with pytest.raises(StepError, match="dead_letters allows 5"):
        Trial(database, _step(dead_letters={"max": 5, "pct": 100})).apply()


def test_killed_between_them_and_their_batch(database: Database) -> None:
    """A process that dies when they are recorded and their batch isn't: the next one counts none of them twice"""
    _tables(database, PLACES["neighbours"])
    trial = Trial(database, _step(batch={"time": "250 ms", "rows": [3000, 3000]}))
    for n in range(2, 7):
        with pytest.raises(KeyboardInterrupt):
            trial.dying_before(f"batch {n}").apply()
    result = _filled(trial)
    assert (result.written, result.unreadable, result.visited) == (2997, 3, 3000)


def test_retried_when_they_are_mended(database: Database) -> None:
    _tables(database, {5, 6})
    trial = Trial(database, _step())
    assert _filled(trial).unreadable == 2
    database.script(f"UPDATE t SET doc = '{GOOD}' WHERE k = 5")
    from plain_context import PlainContext

    trial.step.reopen(PlainContext(trial.database("apply")))  # type: ignore[attr-defined]
    result = trial.apply()
    assert isinstance(result, BackfillResult)
    assert (result.written, result.dead, result.unreadable) == (2999, 1, 1)


def test_source_that_fails_is_no_row_of_the_table(database: Database) -> None:
    _tables(database, set(), rows=50)
    unreadable = BROKEN if database.dialect == "sqlite" else NUL
    database.script(f"""CREATE TABLE raw (ip text, doc json); INSERT INTO raw VALUES ('10.0.0.1', '{GOOD}');
        INSERT INTO raw VALUES ('10.0.0.9', '{unreadable}')""")
    harmless = Trial(database, _step(source="SELECT ip, doc ->> 'ip' AS place FROM raw"))
    assert _filled(harmless).written == 50  # it is the source row of none
    database.script("UPDATE t SET place = NULL")
    trial = Trial(database, _step(source="SELECT doc ->> 'ip' AS ip, 'x' AS place FROM raw"))
    assert len(trial.preflight()) == 1
    with pytest.raises(StepError, match="cannot read the source"):
        trial.apply()
    assert _dead(trial) == []


def test_second_run_over_a_few_among_many(database: Database) -> None:
    """0.03 %: with a constant number of statements for each of them"""
    bad = {n for n in range(1, 10_001) if n % 3333 == 0}
    _tables(database, bad, rows=10_000)
    assert _filled(Trial(database, _step())).unreadable == 3
    second = Trial(database, _step())
    result = _filled(second)
    assert (result.written, result.unreadable) == (0, 3)
    assert result.batches < 20


# ─── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("place", PLACES)
def test_preview_goes_on(database: Database, place: str) -> None:
    bad = PLACES[place]
    _tables(database, bad)
    with Trial(database, None).look() as look:
        for where in (None, "target.doc ->> 'ip' <> ''"):
            found = Preview.model_validate(_fields(limit=3000, where=where)).observe(look)
            assert (found.seen, found.would_write, found.unreadable) == (3000, 3000 - len(bad), len(bad))
            assert sorted(int(json.loads(one.key)[0]) for one in found.unreadable_rows) == sorted(bad)


@pytest.mark.parametrize("place", PLACES)
def test_sample_goes_on(database: Database, place: str) -> None:
    bad = PLACES[place]
    _tables(database, bad)
    database.script("UPDATE t SET place = 'here' WHERE k <> 9")
    fields = {
        "table": "t",
        "key": "k",
        "columns": ["place"],
        "source": "SELECT ip, place FROM places",
        "match": "source.ip = target.doc ->> 'ip'",
        "size": 3000,
    }
    with Trial(database, None).look() as look:
        for where in (None, "target.doc ->> 'ip' <> ''"):
            found = Sample.model_validate({**fields, "where": where}).observe(look)
            assert (found.sampled, found.unreadable, found.mismatched) == (3000, len(bad), 1)
            assert found.matched == 3000 - len(bad) - 1
            assert sorted(int(json.loads(one.key)[0]) for one in found.unreadable_rows) == sorted(bad)


def test_other_faults_are_not_taken_for_rows(database: Database) -> None:
    _tables(database, set(), rows=5)
    preview = Preview.model_validate(_fields(match="source.ip = target.absent"))
    with Trial(database, None).look() as look, pytest.raises(DatabaseFault, match="absent"):
        preview.observe(look)


def test_sift_asks_few_times(database: Database) -> None:
    _tables(database, {500}, rows=1000)
    asked: list[int] = []

    def ask(keys: object) -> None:
        listed = ", ".join(keys)  # type: ignore[arg-type]
        asked.append(1)
        look.rows(f"SELECT count(doc ->> 'ip') AS n FROM t WHERE k IN ({listed})")

    with Trial(database, None).look() as look:
        [found] = sift(look, [str(n) for n in range(1, 1001)], ask)
        assert found.key == "500"
        assert len(asked) < 25
        assert look.row("SELECT count(*) AS n FROM t").integer("n") == 1000
