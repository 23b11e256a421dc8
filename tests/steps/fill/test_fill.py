"""fill_table: which rows are written, skipped and refused, and what is left when they are taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from databases import Database
from filling import Watched
from plain_context import PlainContext, PlainDatabase, Trial

from steps.contract import Progress, State, StepError, Work
from steps.types.fill.step import FillResult, FillTable

VISITS = "SELECT source_ip AS address, count(*) AS visits, max(country) AS country FROM visit GROUP BY source_ip"


def fill(**words: Any) -> FillTable:
    own = {"table": "host", "source": VISITS, "columns": ["address", "visits", "country"], "key": "address"}
    small = {"batch": {"time": "250 ms", "rows": [1, 7]}, "dead_letters": {"max": 100, "pct": 100}}
    return FillTable.model_validate({**own, **small, **words}, context={"queries": {}})


@pytest.fixture
def hosts(empty_database: Database) -> Database:
    """60 visits of 20 hosts; one of them has a country that is too long, another none."""
    empty_database.script(
        "CREATE TABLE visit (id integer PRIMARY KEY, source_ip text, country text);"
        "CREATE TABLE host (address varchar(45) PRIMARY KEY, visits integer NOT NULL CHECK (visits > 0),"
        " country varchar(2) CHECK (length(country) <= 2), note text DEFAULT 'new')"
    )
    rows = ", ".join(f"({n}, 'h{n % 20:02}', '{'ABC' if n % 20 == 13 else 'DE'}')" for n in range(60))
    empty_database.script(f"INSERT INTO visit (id, source_ip, country) VALUES {rows}")
    return empty_database


def outcome(trial: Trial) -> FillResult:
    return FillResult.model_validate(trial.apply().model_dump())


def figures(found: FillResult) -> tuple[int, int, int, int, int]:
    return found.visited, found.written, found.already, found.dead, found.left


def addresses(database: Database) -> list[str]:
    return [row[0] for row in database.rows("SELECT address FROM host ORDER BY address")]


def test_rows_are_written_and_bad_ones_named(hosts: Database) -> None:
    hosts.script("INSERT INTO host (address, visits) VALUES ('h05', 1), ('other', 1)")
    trial = Trial(hosts, fill())
    assert trial.preflight() == []
    assert trial.state() is State.NOT_DONE
    found = outcome(trial)
    assert figures(found) == (20, 18, 1, 1, 0)
    assert trial.state() is State.DONE
    assert len(addresses(hosts)) == 20
    assert "h13" not in addresses(hosts)
    assert hosts.rows("SELECT visits, country, note FROM host WHERE address = 'h05'") == [(1, None, "new")]
    skipped = "runbook_skipped_row" if hosts.dialect == "sqlite" else "runbook.skipped_row"
    assert [row[0] for row in hosts.rows(f"SELECT key FROM {skipped} WHERE action = 'apply'")] == ['["h13"]']


def test_second_run_writes_nothing(hosts: Database) -> None:
    trial = Trial(hosts, fill())
    trial.apply()
    again = trial.again()
    assert figures(outcome(again)) == (20, 0, 19, 1, 0)


def test_undo_takes_exactly_own_unchanged_rows(hosts: Database) -> None:
    hosts.script("INSERT INTO host (address, visits) VALUES ('h05', 1), ('other', 1)")
    trial = Trial(hosts, fill())
    trial.apply()
    hosts.script("UPDATE host SET note = 'mine' WHERE address = 'h07'")
    hosts.script("DELETE FROM host WHERE address = 'h08'")
    trial.revert()
    assert addresses(hosts) == ["h05", "h07", "other"]
    assert trial.state("revert") is State.NOT_DONE
    skipped = "runbook_skipped_row" if hosts.dialect == "sqlite" else "runbook.skipped_row"
    rows = hosts.rows(f"SELECT key, message FROM {skipped} WHERE action = 'revert' ORDER BY key")
    assert rows == [('["h07"]', "changed since"), ('["h08"]', "deleted since")]


def test_undo_leaves_rows_that_others_refer_to(hosts: Database) -> None:
    hosts.script("CREATE TABLE seen (id integer PRIMARY KEY, address varchar(45) REFERENCES host ON DELETE CASCADE)")
    trial = Trial(hosts, fill())
    trial.apply()
    hosts.script("INSERT INTO seen (id, address) VALUES (1, 'h02')")
    trial.revert()
    assert addresses(hosts) == ["h02"]
    assert hosts.rows("SELECT count(*) FROM seen") == [(1,)]


def test_conflict_refused_before_anything_is_written(hosts: Database) -> None:
    hosts.script("INSERT INTO host (address, visits) VALUES ('h05', 1)")
    trial = Trial(hosts, fill(on_conflict="refuse"))
    with pytest.raises(StepError, match=r"has 1 of the source's 20 rows already, as \[\"h05\"\]"):
        trial.apply()
    assert addresses(hosts) == ["h05"]


def test_refusing_fill_writes_all_where_none_is_there(hosts: Database) -> None:
    assert figures(outcome(Trial(hosts, fill(on_conflict="refuse")))) == (20, 19, 0, 1, 0)


def test_key_that_source_has_twice_refused(hosts: Database) -> None:
    trial = Trial(hosts, fill(source="SELECT source_ip AS address, 1 AS visits, country FROM visit"))
    with pytest.raises(StepError, match="cannot choose a row: the source has 3 rows with the key"):
        trial.apply()


def test_null_keys_counted_apart(hosts: Database) -> None:
    hosts.script("INSERT INTO visit (id, source_ip, country) VALUES (100, NULL, 'DE')")
    found = outcome(Trial(hosts, fill()))
    assert (found.visited, found.written, found.no_key, found.dead) == (21, 19, 1, 1)


def test_dead_rows_beyond_budget_stop_the_step(hosts: Database) -> None:
    trial = Trial(hosts, fill(dead_letters={"max": 0}))
    with pytest.raises(StepError, match="1 rows could not be written"):
        trial.apply()
    assert trial.state() is State.PARTLY
    trial.revert()
    assert addresses(hosts) == []


def test_dead_row_tried_again_after_it_was_mended(hosts: Database) -> None:
    trial = Trial(hosts, fill())
    trial.apply()
    hosts.script("UPDATE visit SET country = 'FR' WHERE source_ip = 'h13'")
    step = trial.step
    assert isinstance(step, FillTable)
    with trial.look() as look:
        assert step.aside(look) == 1
    step.reopen(PlainContext(trial.database("apply")))
    assert trial.state() is State.PARTLY
    assert figures(outcome(trial)) == (20, 20, 0, 0, 0)
    trial.revert()
    assert addresses(hosts) == []


def test_rows_that_come_meanwhile_are_written_too(hosts: Database) -> None:
    came = []

    def act(progress: Progress) -> None:
        if progress.done > 5 and not came:
            came.append(1)
            hosts.script("INSERT INTO visit (id, source_ip, country) VALUES (200, 'new', 'DE')")

    trial = Trial(hosts, fill())
    found = FillResult.model_validate(trial.step.apply(Watched(trial.database("apply"), act)).model_dump())
    assert (found.visited, found.written, found.late, found.left) == (21, 20, 1, 0)


def test_nothing_to_do_is_an_error_unless_declared(hosts: Database) -> None:
    hosts.script("DELETE FROM visit")
    with pytest.raises(StepError, match="the source gives no row"):
        Trial(hosts, fill()).apply()
    assert figures(outcome(Trial(hosts, fill(expect_work=False)))) == (0, 0, 0, 0, 0)


@dataclass
class Mortal(PlainDatabase):
    """Dies at its second commit, as a process that gets one commit further each time."""

    lives: int = 2

    @contextlib.contextmanager
    def commit(self, label: str, *, durable: bool = True, off: Sequence[str] = ()) -> Iterator[Work]:
        with super().commit(label, durable=durable, off=off) as work:
            yield work
            self.lives -= 1
            if self.lives == 0:
                raise KeyboardInterrupt(label)


def to_the_end(trial: Trial, act: Callable[[PlainContext], object], action: str) -> int:
    """Let processes do it that die at their second commit, until one comes to the end; how many died."""
    for deaths in range(100):
        try:
            act(PlainContext(Mortal(trial.target, trial.database(action).place)))
        except KeyboardInterrupt:
            continue
        return deaths
    raise AssertionError("never ends")


def test_killed_at_each_commit_ends_the_same(hosts: Database) -> None:
    trial = Trial(hosts, fill())
    assert to_the_end(trial, trial.step.apply, "apply") > 3
    assert figures(outcome(trial)) == (20, 19, 0, 1, 0)
    work = "SELECT name FROM sqlite_master WHERE name LIKE 'runbook_fill%'"
    if hosts.dialect != "sqlite":
        work = "SELECT relname FROM pg_class WHERE relname LIKE 'fill_%'"
    assert hosts.rows(work) == []
    assert to_the_end(trial, trial.revert, "revert") > 3
    assert addresses(hosts) == []


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_rows_of_a_tree_come_and_go_whatever_their_order(empty_database: Database) -> None:
    empty_database.script(
        "CREATE TABLE node (id integer PRIMARY KEY, parent integer REFERENCES node);"
        "CREATE TABLE old (id integer, parent integer)"
    )
    rows = ", ".join(f"({n}, {n + 1 if n < 12 else 'NULL'})" for n in range(1, 13))
    empty_database.script(f"INSERT INTO old VALUES {rows}")
    step = fill(table="node", source="SELECT id, parent FROM old", columns=["id", "parent"], key="id")
    trial = Trial(empty_database, step)
    assert figures(outcome(trial)) == (12, 12, 0, 0, 0)
    trial.revert()
    assert empty_database.rows("SELECT count(*) FROM node") == [(0,)]


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_texts_read_row_by_row_as_the_columns_type(empty_database: Database) -> None:
    empty_database.script(
        "CREATE TABLE asn (number integer PRIMARY KEY CHECK (number > 0), country varchar(2), facts jsonb,"
        " double_it bigint GENERATED ALWAYS AS (number * 2) STORED, seq bigint GENERATED ALWAYS AS IDENTITY);"
        "CREATE TABLE raw (number text, country text, facts json);"
        """INSERT INTO raw VALUES ('1', 'DE', '{}'), ('0', 'DE', '{}'), ('AS3', 'DE', '{}'), ('4', 'DEU', '{}'),
           ('5', 'FR', '{"a": "\\u0000"}'), ('6', 'FR', '{"a": 1}')""".replace("\\\\", "\\")
    )
    words = {"table": "asn", "source": "SELECT * FROM raw", "columns": ["number", "country", "facts"], "key": "number"}
    trial = Trial(empty_database, fill(**words))
    assert trial.preflight() == []
    assert figures(outcome(trial)) == (6, 2, 0, 4, 0)
    dead = "SELECT key, sqlstate FROM runbook.skipped_row WHERE action = 'apply' ORDER BY key"
    assert dict(empty_database.rows(dead)) == {'["0"]': "23514", '["4"]': "22001", '["5"]': "22P05", '["AS3"]': "22P02"}
    assert empty_database.rows("SELECT number, double_it FROM asn ORDER BY 1") == [(1, 2), (6, 12)]
    trial.revert()
    assert empty_database.rows("SELECT count(*) FROM asn") == [(0,)]
    generated = fill(**{**words, "source": "SELECT *, 1 AS seq FROM raw", "columns": ["number", "seq"]})
    assert any("the database generates it" in one for one in Trial(empty_database, generated).preflight())


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_triggers_named_first_and_their_doing_counted(empty_database: Database) -> None:
    empty_database.script(
        "CREATE TABLE thing (id integer PRIMARY KEY, name text, seen text);"
        """CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.id = 3 THEN RETURN NULL; END IF; new.name := upper(new.name); RETURN new; END $$;
           CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE thing SET seen = 'yes' WHERE id = new.id; RETURN NULL; END $$;
           CREATE TRIGGER judge BEFORE INSERT ON thing FOR EACH ROW EXECUTE FUNCTION judge();
           CREATE TRIGGER mark AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION mark()"""
    )
    words = {"table": "thing", "columns": ["id", "name"], "key": "id"}
    source = "SELECT n AS id, 'x' || n AS name FROM generate_series(1, 5) AS n"
    assert any("judge, mark" in one for one in Trial(empty_database, fill(**words, source=source)).preflight())
    trial = Trial(empty_database, fill(**words, source=source, triggers="acknowledged"))
    assert figures(outcome(trial)) == (5, 4, 0, 1, 0)
    trial.revert()
    assert empty_database.rows("SELECT count(*) FROM thing") == [(0,)]


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
def test_row_held_by_another_is_returned_to(empty_database: Database) -> None:
    empty_database.script("CREATE TABLE thing (id integer PRIMARY KEY)")
    source = "SELECT n AS id FROM generate_series(1, 20) AS n"
    trial = Trial(empty_database, fill(table="thing", source=source, columns=["id"], key="id"))
    trial.lock_timeout = "20ms"
    with empty_database.session() as other:
        other.execute("BEGIN; INSERT INTO thing VALUES (7)")
        found = outcome(trial)
        assert (found.written, found.deferred) == (19, 1)
        assert trial.state() is State.PARTLY
        other.execute("ROLLBACK")
    assert figures(outcome(trial)) == (20, 20, 0, 0, 0)
    assert trial.state() is State.DONE


FAULTS = {
    "no_table": ({"table": "nothing"}, "cannot find the table nothing"),
    "no_column": ({"columns": ["address", "visits", "weight"]}, "cannot find"),
    "key_not_written": ({"key": "note"}, "isn't among the columns"),
    "not_unique": ({"key": "country"}, "no unique index is on exactly country"),
    "required_left_out": ({"columns": ["address"]}, "cannot leave host.visits out"),
    "not_in_source": ({"source": "SELECT source_ip AS address, 1 AS visits FROM visit"}, "cannot find country among"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault_told_before_the_start(hosts: Database, case: str) -> None:
    words, said = FAULTS[case]
    found = Trial(hosts, fill(**words)).preflight()
    assert any(said in one for one in found), found


@pytest.mark.parametrize("empty_database", ["pg15", "pg18"], indirect=True)
@pytest.mark.parametrize("when", ["DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])
def test_key_that_is_checked_later_skips_nothing(empty_database: Database, when: str) -> None:
    empty_database.script(f"CREATE TABLE thing (id integer, up integer, CONSTRAINT late PRIMARY KEY (id) {when})")
    words = {
        "table": "thing",
        "source": "SELECT n AS id FROM generate_series(1, 9) AS n",
        "columns": ["id"],
        "key": "id",
    }
    [fault] = Trial(empty_database, fill(**words)).preflight()
    assert "its key late is deferrable" in fault
    trial = Trial(empty_database, fill(**words, on_conflict="refuse"))
    assert trial.preflight() == []
    assert figures(outcome(trial)) == (9, 9, 0, 0, 0)
    trial.revert()
    assert empty_database.rows("SELECT count(*) FROM thing") == [(0,)]


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "form", ["PRIMARY KEY (k, n)", "PRIMARY KEY (k, n)) WITHOUT ROWID", "PRIMARY KEY (N, K)) STRICT, WITHOUT ROWID"]
)
def test_each_form_of_a_primary_key_tells_rows_apart(empty_database: Database, form: str) -> None:
    """Also one without an index of its own: there, and back."""
    end = "" if form.endswith("ROWID") else ")"
    empty_database.script(f"""CREATE TABLE w (k text NOT NULL, n int NOT NULL, v int, {form}{end};
        INSERT INTO w VALUES ('a', 1, 7); CREATE TABLE s (k text, n int, v int);
        INSERT INTO s VALUES ('a', 1, 8), ('a', 2, 9), ('b', 1, NULL)""")
    step = fill(table="w", source="SELECT k, n, v FROM s", columns=["k", "n", "v"], key=())
    trial = Trial(empty_database, step)
    assert trial.preflight() == []
    assert figures(outcome(trial)) == (3, 2, 1, 0, 0)
    assert empty_database.rows("SELECT * FROM w ORDER BY 1, 2") == [("a", 1, 7), ("a", 2, 9), ("b", 1, None)]
    trial.revert()
    assert empty_database.rows("SELECT * FROM w") == [("a", 1, 7)]


@pytest.fixture
def texts(empty_database: Database) -> Database:
    """40 rows; the source of `doubled` can't compute the third and the 30th."""
    empty_database.script(
        "CREATE TABLE raw (id integer PRIMARY KEY, facts text); CREATE TABLE doubled (id integer PRIMARY KEY, n integer)"
    )
    rows = ", ".join(f"({n}, '{'no json' if n in (3, 30) else '[1]'}')" for n in range(1, 41))
    empty_database.script(f"INSERT INTO raw VALUES {rows}; INSERT INTO doubled VALUES (4, 0)")
    return empty_database


def _doubled(database: Database, where: str = "", **words: Any) -> FillTable:
    length = "json_array_length(CAST(facts AS json))" if database.server else "json_array_length(facts)"
    source = f"SELECT id, 2 * {length} AS n FROM raw {where}"
    return fill(**{"table": "doubled", "source": source, "columns": ["id", "n"], "key": "id", **words})


def _dead(database: Database) -> list[str]:
    skipped = "runbook_skipped_row" if database.dialect == "sqlite" else "runbook.skipped_row"
    rows = database.rows(f"SELECT key, message FROM {skipped} WHERE action = 'apply' ORDER BY key")
    assert all("the source can't compute it" in message for _, message in rows), rows
    return [key for key, _ in rows]


def test_rows_that_the_source_cannot_compute_stop_no_others(texts: Database) -> None:
    trial = Trial(texts, _doubled(texts))
    assert trial.preflight() == []
    assert figures(outcome(trial)) == (40, 37, 1, 2, 0)
    assert trial.state() is State.DONE
    assert len(_dead(texts)) == 2
    assert texts.value("SELECT count(*) FROM doubled") == 38
    texts.script("UPDATE raw SET facts = '[1, 2]' WHERE id = 3")
    assert isinstance(trial.step, FillTable)
    trial.step.reopen(PlainContext(trial.database("apply")))
    assert figures(outcome(trial)) == (40, 38, 1, 1, 0)
    assert len(_dead(texts)) == 1
    assert texts.value("SELECT n FROM doubled WHERE id = 3") == 4
    trial.revert()
    assert texts.rows("SELECT id, n FROM doubled") == [(4, 0)]


def test_more_unreadable_rows_than_allowed_stop_the_step(texts: Database) -> None:
    trial = Trial(texts, _doubled(texts, dead_letters={"max": 1, "pct": 100}))
    with pytest.raises(StepError, match="can't be read, and dead_letters allows 1"):
        trial.apply()
    assert texts.value("SELECT count(*) FROM doubled") == 1


def test_unreadable_row_that_comes_meanwhile_is_named_too(texts: Database) -> None:
    came = []

    def act(progress: Progress) -> None:
        if progress.done > 5 and not came:
            came.append(1)
            texts.script("INSERT INTO raw VALUES (50, '[1]'), (51, 'no json')")

    trial = Trial(texts, _doubled(texts))
    found = FillResult.model_validate(trial.step.apply(Watched(trial.database("apply"), act)).model_dump())
    assert (found.visited, found.written, found.dead, found.late, found.left) == (42, 38, 3, 2, 0)


def test_source_that_fails_whatever_is_asked_of_it_says_so(texts: Database) -> None:
    """One value for all rows: none of them is at fault."""
    total = "(SELECT sum(json_array_length(CAST(r.facts AS json))) FROM raw r)"
    total = total if texts.server else "(SELECT sum(json_array_length(r.facts)) FROM raw r)"
    trial = Trial(texts, _doubled(texts, source=f"SELECT id, {total} AS n FROM raw LIMIT 50"))
    with pytest.raises(StepError) as failed:
        trial.apply()
    assert "dead_letters" not in str(failed.value)
    assert "json" in str(failed.value).lower()
