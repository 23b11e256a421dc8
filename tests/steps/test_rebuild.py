"""rebuild_table on SQLite: nothing of the table or of what refers to it is lost, there and back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from databases import Database
from plain_context import Trial

from steps.contract import Refused, State, StepError
from steps.types.rebuild.step import RebuildTable

TABLES = """
    CREATE TABLE authors (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT COLLATE NOCASE, born INTEGER, code TEXT UNIQUE);
    CREATE TABLE books (id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors (id) ON DELETE CASCADE, title TEXT);
    CREATE TABLE loans (id INTEGER PRIMARY KEY, book_id INTEGER REFERENCES books (id) ON DELETE SET NULL);
    INSERT INTO authors VALUES (1, 'a', 1900, 'x'), (2, NULL, 1910, 'y'), (9, 'gone', 1, 'z');
    INSERT INTO books VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z'); INSERT INTO loans VALUES (1, 1), (2, 3);
    DELETE FROM authors WHERE id = 9;
    CREATE INDEX authors_name ON authors (name DESC) WHERE name IS NOT NULL;
    CREATE VIEW names AS SELECT id, name FROM authors;
    CREATE TABLE told (what TEXT);
    CREATE TRIGGER born_told AFTER UPDATE OF born ON authors BEGIN INSERT INTO told VALUES (NEW.name); END;
    CREATE TRIGGER book_told AFTER INSERT ON books BEGIN UPDATE authors SET born = born WHERE id = NEW.author_id; END;"""
WANTED = "(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL CHECK (name <> ''), born INTEGER, code TEXT UNIQUE)"


@pytest.fixture
def library(tmp_path: Path) -> Database:
    path = tmp_path / "library.sqlite"
    database = Database(str(path), "sqlite", f"sqlite:///{path}")
    database.script(TABLES)
    return database


def _step(**fields: object) -> RebuildTable:
    base = {"table": "authors", "definition": WANTED, "values": {"name": "coalesce(name, 'unknown')"}}
    return RebuildTable.model_validate({**base, **fields})


def _rows(database: Database, table: str) -> list[tuple[object, ...]]:
    return database.rows(f"SELECT * FROM {table} ORDER BY 1")


def test_rebuild_whole_life(library: Database) -> None:
    before = {name: _rows(library, name) for name in ("authors", "books", "loans", "told", "names")}
    step = _step()
    trial = Trial(library, step)
    schema = sorted(library.rows("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'runbook%'"))
    trial.apply()
    assert trial.state() is State.DONE
    assert _rows(library, "authors") == [(1, "a", 1900, "x"), (2, "unknown", 1910, "y")]
    assert {name: _rows(library, name) for name in ("books", "loans", "told")} == {
        n: before[n] for n in ("books", "loans", "told")
    }
    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
        library.script("INSERT INTO authors (name) VALUES (NULL)")
    library.script("INSERT INTO authors (name, code) VALUES ('new', 'n')")
    assert library.value("SELECT max(id) FROM authors") == 10  # AUTOINCREMENT goes on after 9
    library.script("DELETE FROM authors WHERE id = 10")
    trial.revert()
    assert trial.state("revert") is State.NOT_DONE
    assert {name: _rows(library, name) for name in before} == before
    assert sorted(library.rows("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'runbook%'")) == schema
    library.script("INSERT INTO authors (name) VALUES ('next')")
    assert library.value("SELECT max(id) FROM authors") == 11


def test_rebuild_catalogue_as_before(library: Database) -> None:
    Trial(library, _step()).whole_life("authors")


def test_rebuild_taken_back_keeps_what_others_wrote(library: Database) -> None:
    trial = Trial(library, _step())
    trial.apply()
    library.script(
        "UPDATE authors SET name = 'A' WHERE id = 1; INSERT INTO authors VALUES (20, 'twenty', 1920, 't');"
        "UPDATE authors SET born = 5 WHERE id = 2; CREATE INDEX since ON authors (born)"
    )
    trial.revert()
    assert _rows(library, "authors") == [(1, "A", 1900, "x"), (2, None, 5, "y"), (20, "twenty", 1920, "t")]
    assert library.rows("SELECT name FROM sqlite_master WHERE name = 'since'")
    assert not library.rows("SELECT name FROM sqlite_master WHERE name LIKE 'runbook_kept%'")


def test_rebuild_back_refused_with_values_that_have_no_place(library: Database) -> None:
    wider = WANTED[:-1] + ", country TEXT)"
    trial = Trial(library, _step(definition=wider))
    trial.apply()
    library.script("UPDATE authors SET country = 'DE' WHERE id = 1")
    with pytest.raises(StepError, match=r"1 rows hold values .* in country"):
        trial.revert()
    assert trial.state("revert") is State.DONE
    mended = Trial(library, _step(definition=wider, taken_back="drop"), run=trial.run)
    assert mended.step.only_way_back_differs(trial.step)
    mended.revert()
    assert mended.state("revert") is State.NOT_DONE


def test_rebuild_back_refused_without_its_copy(library: Database) -> None:
    trial = Trial(library, _step())
    result = trial.apply()
    library.script(f'DROP TABLE "{result.kept}"')  # type: ignore[attr-defined]
    with pytest.raises(StepError, match="which had its old rows, is gone"):
        trial.revert()
    assert trial.state("revert") is State.DONE


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"values": {}}, "1 rows would have NULL in name"),
        ({"definition": "(id INTEGER PRIMARY KEY, name TEXT)"}, "the new definition has no born"),
        (
            {"definition": "(id INTEGER PRIMARY KEY, name TEXT, code TEXT)", "drops": ["born"]},
            "born",
        ),  # a trigger names it
        ({"definition": "(id INTEGER PRIMARY KEY, born INTEGER, code TEXT)", "drops": ["name"], "values": {}}, "name"),
        ({"definition": WANTED + "; DROP TABLE books"}, "has no place"),
        ({"definition": "(id INTEGER PRIMARY KEY, name TEXT NOT"}, "parenthesis stays open"),
        ({"definition": WANTED.replace("CHECK", "CHEK")}, "syntax error"),
        ({"values": {"absent": "1", "name": "'x'"}}, "values names absent"),
        ({"definition": WANTED.replace("PRIMARY KEY AUTOINCREMENT", "")}, "primary key"),
        ({"table": "names"}, "names is a view"),
        ({"table": "nowhere"}, "there is no table"),
    ],
)
def test_rebuild_refused_before_it_begins(library: Database, fields: dict[str, object], said: str) -> None:
    before = library.rows("SELECT name, sql FROM sqlite_master ORDER BY 1")
    trial = Trial(library, _step(**fields))
    assert said in "; ".join(trial.preflight())
    with pytest.raises(Refused):
        trial.apply()
    kept = [one for one in library.rows("SELECT name, sql FROM sqlite_master ORDER BY 1") if "runbook" not in one[0]]
    assert kept == [one for one in before if "runbook" not in one[0]]


def test_rebuild_rows_against_it_change_nothing(library: Database) -> None:
    """A CHECK that a row doesn't meet, and a key to which a child refers no more: rolled back as a whole"""
    before = {name: _rows(library, name) for name in ("authors", "books", "loans")}
    for fields in (
        {"definition": WANTED.replace("<> ''", "<> 'a'")},
        {"table": "books", "definition": "(id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors (id), title TEXT)",
         "values": {"author_id": "77"}},
    ):  # fmt: skip
        trial = Trial(library, _step(**fields))
        with pytest.raises(StepError, match=r"CHECK|refer to no row of authors"):
            trial.apply()
        assert trial.state() is State.NOT_DONE
        assert {name: _rows(library, name) for name in before} == before


def test_rebuild_killed_before_its_commit(library: Database) -> None:
    trial = Trial(library, _step())
    with pytest.raises(KeyboardInterrupt):
        trial.dying_before("rebuild").apply()
    assert trial.state() is State.NOT_DONE
    trial.apply()
    trial.apply()
    assert trial.state() is State.DONE


@pytest.mark.parametrize(
    ("create", "definition"),
    [
        ("(k TEXT PRIMARY KEY, v) WITHOUT ROWID", "(k TEXT PRIMARY KEY, v INTEGER) WITHOUT ROWID"),
        ("(k TEXT, n INTEGER, v, PRIMARY KEY (k, n))", "(k TEXT, n INTEGER, v INTEGER, PRIMARY KEY (k, n))"),
        ("(k TEXT PRIMARY KEY, v, w AS (v || 'w'))", "(k TEXT PRIMARY KEY, v TEXT NOT NULL, w AS (v || 'v') STORED)"),
        ('("A Key" TEXT PRIMARY KEY, "order" REAL)', '("A Key" TEXT PRIMARY KEY, "order" REAL NOT NULL) STRICT'),
    ],
)
def test_rebuild_of_odd_tables(tmp_path: Path, create: str, definition: str) -> None:
    path = tmp_path / "odd.sqlite"
    database = Database(str(path), "sqlite", f"sqlite:///{path}")
    names = (
        ["k", "n", "v"]
        if "n INTEGER" in create
        else ["A Key", "order"]
        if "Key" in create.split("TEXT", maxsplit=1)[0]
        else ["k", "v"]
    )
    listed = ", ".join(f'"{one}"' for one in names)
    values = ", ".join(
        f"({', '.join(str(v) for v in row)})" for row in (["'a'", 1, 2][: len(names)], ["'b'", 2, 3][: len(names)])
    )
    database.script(f'CREATE TABLE "odd one" {create}; INSERT INTO "odd one" ({listed}) VALUES {values}')
    before = database.rows('SELECT * FROM "odd one" ORDER BY 1')
    Trial(database, RebuildTable.model_validate({"table": "odd one", "definition": definition})).whole_life("odd one")
    again = Trial(database, RebuildTable.model_validate({"table": "odd one", "definition": definition}))
    assert again.state() is State.DONE
    assert len(database.rows('SELECT * FROM "odd one"')) == len(before)


def test_rebuild_keeps_rowids(tmp_path: Path) -> None:
    path = tmp_path / "rowids.sqlite"
    database = Database(str(path), "sqlite", f"sqlite:///{path}")
    database.script("CREATE TABLE t (k TEXT PRIMARY KEY); INSERT INTO t (rowid, k) VALUES (7, 'a'), (3, 'b')")
    trial = Trial(database, RebuildTable.model_validate({"table": "t", "definition": "(k TEXT NOT NULL PRIMARY KEY)"}))
    trial.apply()
    assert database.rows("SELECT rowid, k FROM t ORDER BY 1") == [(3, "b"), (7, "a")]
    trial.revert()
    assert database.rows("SELECT rowid, k FROM t ORDER BY 1") == [(3, "b"), (7, "a")]


def test_rebuild_without_a_copy_is_one_way(library: Database) -> None:
    step = _step(keep_old=False)
    assert "keep_old: false" in step.one_way()
    trial = Trial(library, step)
    trial.apply()
    assert trial.state() is State.DONE
    assert not library.rows("SELECT name FROM sqlite_master WHERE name LIKE 'runbook_kept%'")


def test_rebuild_copy_holds_nobody_up(library: Database) -> None:
    """The kept rows have no foreign key of their own"""
    step = RebuildTable.model_validate(
        {
            "table": "books",
            "definition": "(id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors (id), title TEXT NOT NULL)",
        }
    )
    Trial(library, step).apply()
    library.script("PRAGMA foreign_keys = ON; DELETE FROM loans; DELETE FROM books; DELETE FROM authors")


def test_rebuild_definition_begins_with_a_parenthesis(library: Database) -> None:
    [fault, *_] = Trial(library, _step(definition=f"CREATE TABLE authors {WANTED}")).preflight()
    assert "what stands behind CREATE TABLE" in fault
