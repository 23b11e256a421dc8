"""Odd schemas crossed with each other: a backfill does what one careful UPDATE does and goes back, or is refused before it begins."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import count

import psycopg
import pytest
from databases import Database
from filling import adds_up, backfill, ledger
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from plain_context import Trial

from steps.types.backfill.step import BackfillResult

COMMON = settings(
    max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
ROWS = 24
LONG = "Ä" * 31 + "x"  # 63 bytes
NAMES = [("t", "twin"), ('Mixed "Case', "Mixed 'Twin"), (LONG, LONG[:-1] + "y")]
# A type, and SQL that makes a value of it from the number i. Of a key they differ for each i.
PG_KEYS = {
    "integer": "i", "bigint": "9223372036854775000 + i", "numeric": "i / 7.0", "double precision": "i::float8 / 7",
    "uuid": "md5(i::text)::uuid", "text": "'k' || (i % 2) || E' \\'\"\\\\' || i", "char(6)": "'c' || i", "date": "DATE '2024-02-20' + i",
    "timestamptz": "TIMESTAMPTZ '2024-03-31' + i * interval '7 minutes'", "numbered": "i",
    "bytea": "decode(lpad(to_hex(i), 4, '0'), 'hex')",
    'text COLLATE "folded"': "'k' || i", "there.citext": "'K' || i",
}  # fmt: skip
PG_FILLS = {
    "integer": "i", "text": "'v' || i", "mood": "(ARRAY['sad', 'glad'])[1 + i % 2]::mood", "numbered": "i", "json": "to_json(i)",
    "json[]": "ARRAY[to_json(i)]", "integer[]": "ARRAY[i, NULL]", "pair": "ROW(i, NULL)::pair", "jsonb": "to_jsonb(i)",
    "numeric": "i + 0.10", "point": "point(i, 0.1)", "timestamptz": "TIMESTAMPTZ '2024-03-31' + i * interval '1 hour'",
    "xid": "i::text::xid", 'text COLLATE "folded"': "'V' || i", "there.citext": "'V' || i", "there.ltree": "('a.b' || i)::there.ltree",
}  # fmt: skip
SQLITE_KEYS = {
    "INTEGER": "i", "TEXT": "'k' || (i % 2) || ' ''\"' || i", "NUMERIC": "i / 7.0", "DATETIME": "2460000.5 + i", "INT": "i * 1000000007",
    "BLOB": "CAST('k' || i AS BLOB)", "BINARY(16)": "CAST('b' || i || char(0) AS BLOB)",
    "TEXT COLLATE NOCASE": "'k' || i", "REAL": "i / 3.0",
}  # fmt: skip
SQLITE_FILLS = {"INTEGER": "i", "TEXT": "'v' || i", "REAL": "i / 3.0", "BLOB": "CAST('v' || i AS BLOB)"}
LAYOUTS = {
    "postgresql": ["plain", "plain", "partitioned", "own keys", "inherited", "heirs without a key", "foreign child"],
    "sqlite": ["plain", "plain", "WITHOUT ROWID", "STRICT"],
}
HEIRS = ("inherited", "heirs without a key", "foreign child")  # identity columns are not handed down
TRIGGERS = {
    "postgresql": ["", "", "audit", "rewrite", "skip", "blank", "blank after"],
    "sqlite": ["", "", "audit", "skip", "blank after"],
}
EXTRAS = {
    "postgresql": ["own text GENERATED ALWAYS AS (note || '!') STORED", "own bigint GENERATED ALWAYS AS IDENTITY",
                   "own integer UNIQUE DEFERRABLE INITIALLY DEFERRED", "own integer REFERENCES far_off DEFERRABLE INITIALLY DEFERRED"],
    "sqlite": ["own TEXT GENERATED ALWAYS AS (note || '!') STORED", "own INTEGER REFERENCES far_off DEFERRABLE INITIALLY DEFERRED"],
}  # fmt: skip
_BLANK_AFTER = """IF NEW.link = 3 AND NEW."F0" IS DISTINCT FROM NULL AND NEW.note = 'hit' THEN
    UPDATE {table} SET "F0" = NULL WHERE link = 3 AND note = 'hit'; END IF; RETURN NULL;"""
DO = {
    "audit": ("AFTER UPDATE", "INSERT INTO audit VALUES (TG_TABLE_NAME); RETURN NULL;"),
    "rewrite": ("BEFORE UPDATE", "NEW.note := 'touched'; RETURN NEW;"),
    "skip": ("BEFORE UPDATE", "IF NEW.link = 3 AND NEW.note = 'hit' THEN RETURN NULL; END IF; RETURN NEW;"),
    "blank": ("BEFORE UPDATE", "IF NEW.link = 3 AND NEW.note = 'hit' THEN NEW.\"F0\" := NULL; END IF; RETURN NEW;"),
    "blank after": ("AFTER UPDATE", _BLANK_AFTER),
}  # fmt: skip
SQLITE_DO = {
    "audit": "AFTER UPDATE ON {table} BEGIN INSERT INTO audit VALUES ('t'); END",
    "skip": "BEFORE UPDATE ON {table} WHEN NEW.link = 3 AND NEW.note = 'hit' BEGIN SELECT RAISE(IGNORE); END",
    "blank after": "AFTER UPDATE ON {table} WHEN NEW.link = 3 AND NEW.note = 'hit' AND NEW.\"F0\" IS NOT NULL "
                   "BEGIN UPDATE {table} SET \"F0\" = NULL WHERE link = 3 AND note = 'hit'; END",
}  # fmt: skip
_numbers = count(1)


@dataclass(frozen=True)
class World:
    """One schema and what is done on it."""

    layout: str
    keys: tuple[str, ...]
    fills: tuple[str, ...]
    trigger: str
    extra: str
    names: tuple[str, str]
    row_security: bool
    order: str
    size: int
    dies: tuple[int, ...]


def worlds(dialect: str) -> st.SearchStrategy[World]:
    keys, fills = (PG_KEYS, PG_FILLS) if dialect == "postgresql" else (SQLITE_KEYS, SQLITE_FILLS)
    return st.builds(
        World,
        layout=st.sampled_from(LAYOUTS[dialect]),
        keys=st.lists(st.sampled_from(list(keys)), min_size=1, max_size=2).map(tuple),
        fills=st.lists(st.sampled_from(list(fills)), min_size=1, max_size=3).map(tuple),
        trigger=st.sampled_from(TRIGGERS[dialect]),
        extra=st.sampled_from(EXTRAS[dialect]),
        names=st.sampled_from(NAMES),
        row_security=st.booleans(),
        order=st.sampled_from(["auto", "key"]),
        size=st.integers(2, 12),
        dies=st.lists(st.integers(1, 5), max_size=2).map(tuple),
    )


# ─── building ───────────────────────────────────────────────────────────────────────────────────────────────────────
def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def child(world: World, name: str, n: int) -> str:
    return f"c{n}_{world.names.index(name)}"


def prepared(database: Database) -> set[str]:
    """What all worlds share, made once; the words of types that this server doesn't have."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS - 1})"
    database.script(f"CREATE TABLE numbers AS {numbers} SELECT i FROM n; CREATE TABLE audit (t text);"
                    "CREATE TABLE far_off (id integer PRIMARY KEY)")  # fmt: skip
    if database.dialect == "sqlite":
        return set()
    database.script("""CREATE SCHEMA there; CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a integer, b text);
        CREATE DOMAIN numbered AS integer CHECK (VALUE >= 0)""")
    lacks = set()
    for sql, word in (
        ("CREATE EXTENSION citext SCHEMA there", "citext"),
        ("CREATE EXTENSION ltree SCHEMA there", "ltree"),
        ("CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)", "folded"),
        ("CREATE EXTENSION file_fdw; CREATE SERVER f FOREIGN DATA WRAPPER file_fdw", "foreign"),
    ):
        try:
            database.script(sql)
        except psycopg.Error:
            lacks.add(word)
    return lacks


def columns(world: World) -> tuple[str, str]:
    """The key's definition, and all columns'."""
    keys = ", ".join(f'"K{n}" {kind} NOT NULL' for n, kind in enumerate(world.keys))
    fills = ", ".join(f'"F{n}" {kind}' for n, kind in enumerate(world.fills))
    return ", ".join(
        f'"K{n}"' for n in range(len(world.keys))
    ), f"{keys}, {fills}, link integer, note text, part integer NOT NULL"


def make(database: Database, world: World, name: str) -> None:
    """One table with its rows and triggers; equal rows for each name."""
    table, (key, definition) = quoted(name), columns(world)
    children: list[str] = []
    primary, extra = f", PRIMARY KEY ({key})", "" if world.layout in HEIRS else f", {world.extra}"
    if world.layout == "partitioned":
        database.script(f"CREATE TABLE {table} ({definition}, PRIMARY KEY ({key}, part)) PARTITION BY LIST (part)")
    elif world.layout == "own keys":
        database.script(f"CREATE TABLE {table} ({definition}) PARTITION BY LIST (part)")
    else:
        tail = f" {world.layout}" if world.layout in ("WITHOUT ROWID", "STRICT") else ""
        database.script(f"CREATE TABLE {table} ({definition}{extra}{primary}){tail}")
    if world.layout in ("partitioned", "own keys"):
        for n in (0, 1):
            own = f" (PRIMARY KEY ({key}))" if world.layout == "own keys" else ""
            children.append(f"CREATE TABLE {child(world, name, n)} PARTITION OF {table}{own} FOR VALUES IN ({n})")
    elif world.layout in HEIRS:
        own = "" if world.layout == "heirs without a key" else f"PRIMARY KEY ({key})"
        children = [f"CREATE TABLE {child(world, name, n)} ({own}) INHERITS ({table})" for n in (0, 1)]
        if world.layout == "foreign child":
            children.append(
                f"CREATE FOREIGN TABLE {child(world, name, 9)} () INHERITS ({table}) SERVER f OPTIONS (filename '/dev/null')"
            )
    for sql in children:
        database.script(sql)
    _fill(database, world, name)
    _meddle(database, world, name)
    if world.row_security and database.dialect == "postgresql":
        database.script(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def _fill(database: Database, world: World, name: str) -> None:
    values = PG_KEYS | {} if database.dialect == "postgresql" else SQLITE_KEYS
    fills = PG_FILLS if database.dialect == "postgresql" else SQLITE_FILLS
    # in inherited tables the same keys stand in both children
    heirs = world.layout in HEIRS
    tables = [child(world, name, n) for n in (0, 1)] if heirs else [quoted(name)]
    names = [
        *(f'"K{n}"' for n in range(len(world.keys))),
        *(f'"F{n}"' for n in range(len(world.fills))),
        "link",
        "note",
        "part",
    ]
    for m, table in enumerate(tables):
        made = [values[kind] for kind in world.keys]
        made += [f"CASE WHEN (i + {n} + {m}) % 4 = 0 THEN {fills[kind]} END" for n, kind in enumerate(world.fills)]
        made += [
            "CASE WHEN i % 6 < 5 THEN i % 6 END",
            f"CASE WHEN i % 9 = 3 AND (i + {m}) % 4 > 0 THEN 'hit' ELSE 'no' END",
            "i % 2",
        ]
        database.script(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(made)} FROM numbers ORDER BY (i * 7) % 11, i"
        )


def _meddle(database: Database, world: World, name: str) -> None:
    if not world.trigger:
        return
    table, number = quoted(name), next(_numbers)
    if database.dialect == "sqlite":
        database.script(f"CREATE TRIGGER g{number} {SQLITE_DO[world.trigger].format(table=table)}")
        return
    time, body = DO[world.trigger]
    database.script(
        f"CREATE FUNCTION g{number}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body.format(table=table)} END$$"
    )
    heirs = world.layout in HEIRS
    for one in [child(world, name, n) for n in (0, 1)] if heirs else [table]:
        database.script(f"CREATE TRIGGER g{number} {time} ON {one} FOR EACH ROW EXECUTE FUNCTION g{number}()")


def source(database: Database, world: World) -> None:
    """A row for the links 0 to 3, in some of which a value is NULL."""
    fills = PG_FILLS if database.dialect == "postgresql" else SQLITE_FILLS
    made = [f"CASE WHEN i <> {n} THEN {fills[kind]} END AS f{n}" for n, kind in enumerate(world.fills)]
    database.script(
        f"CREATE TABLE s AS SELECT i AS id, {', '.join(made)} FROM numbers WHERE i < 4; CREATE UNIQUE INDEX s_id ON s (id)"
    )


def drop(database: Database, world: World) -> None:
    for name in world.names:
        database.script(f"DROP TABLE IF EXISTS {quoted(name)}{' CASCADE' if database.dialect == 'postgresql' else ''}")
    database.script("DROP TABLE IF EXISTS s; DELETE FROM audit")


# ─── looking ────────────────────────────────────────────────────────────────────────────────────────────────────────
def content(database: Database, world: World, name: str, *, ignore: str = "") -> list[tuple[str, ...]]:
    """All rows as the server writes them, in which table each is, in an order of their own; without a generated column."""
    names = [f'"K{n}"' for n in range(len(world.keys))] + [f'"F{n}"' for n in range(len(world.fills))]
    names += [one for one in ("link", "note", "part") if one != ignore]
    form = "quote({})" if database.dialect == "sqlite" else "CAST({} AS text)"
    member = (
        ["left(nullif((SELECT relname FROM pg_class c WHERE c.oid = target.tableoid), %s), 2)"]
        if database.server
        else []
    )
    read = ", ".join([*member, *(form.format(one) for one in names)])
    return sorted(map(repr, database.rows(f"SELECT {read} FROM {quoted(name)} AS target", [name] if member else ())))


def careful_update(database: Database, world: World, name: str) -> None:
    """The one UPDATE."""
    null, value = (
        ("IS NOT DISTINCT FROM NULL", "IS DISTINCT FROM NULL")
        if database.dialect == "postgresql"
        else ("IS NULL", "IS NOT NULL")
    )
    sets = ", ".join(f'"F{n}" = coalesce(target."F{n}", source.f{n})' for n in range(len(world.fills)))
    needs = " OR ".join(f'(target."F{n}" {null} AND source.f{n} {value})' for n in range(len(world.fills)))
    database.script(
        f"UPDATE {quoted(name)} AS target SET {sets} FROM s AS source WHERE source.id = target.link AND ({needs})"
    )


def holds(database: Database, world: World) -> str:
    """Live through one world; the reason where it was refused."""
    name, twin = world.names
    for one in world.names:
        make(database, world, one)
    source(database, world)
    picked = ", ".join(f'f{n} AS "F{n}"' for n in range(len(world.fills)))
    step = backfill(
        table=name, key=[f"K{n}" for n in range(len(world.keys))] + (["part"] if world.layout == "partitioned" else []),
        source=f"SELECT id, {picked} FROM s", match="source.id = target.link", fill=[f"F{n}" for n in range(len(world.fills))],
        order=world.order, batch={"time": "10 s", "rows": [world.size, world.size]}, triggers="acknowledged",
        dead_letters={"max": 1000, "pct": 100},
    )  # fmt: skip
    before, trial = content(database, world, name), Trial(database, step)
    refused = trial.preflight()
    if refused:
        assert content(database, world, name) == before
        return refused[0]
    for n in world.dies:
        with contextlib.suppress(KeyboardInterrupt):
            trial.dying_before(f"batch {n}").apply()
    result = trial.apply()
    assert isinstance(result, BackfillResult)
    careful_update(database, world, twin)
    assert content(database, world, name) == content(database, world, twin)
    assert adds_up(result) and result.left == 0 and result.deferred == 0
    assert result.visited == result.in_range == result.at_start == len(before)
    after = content(database, world, name)
    again = trial.again().apply()
    assert content(database, world, name) == after
    assert isinstance(again, BackfillResult) and again.written == 0
    with contextlib.suppress(KeyboardInterrupt):
        trial.dying_before("undo 1").revert()
    trial.revert()
    touched = "note" if world.trigger == "rewrite" else ""  # a trigger's own word about a row is not the run's
    refusals = database.value(
        f"SELECT count(*) FROM {ledger(database, 'skipped_row')} WHERE run = '{trial.run}' AND action = 'revert'"
    )
    if refusals == 0 and not touched:
        assert content(database, world, name) == before
    return "" if refusals == 0 else "refused rows"


def lives(database: Database, world: World, lacks: set[str]) -> None:
    kinds = " ".join([*world.keys, *world.fills, world.layout])
    if any(word in kinds for word in lacks):
        return
    if world.layout == "STRICT" and not set(world.keys) <= {"INTEGER", "INT", "TEXT", "REAL", "BLOB"}:
        return
    try:
        told = holds(database, world)
    finally:
        drop(database, world)
    if world.layout == "heirs without a key":
        assert "no unique index" in told
    elif world.layout == "foreign child":
        assert "foreign table" in told
    elif "there.citext" in world.keys:
        assert "not on the search path" in told
    else:
        assert told == ""


@pytest.fixture
def lacks(empty_database: Database) -> set[str]:
    return prepared(empty_database)


def tried(database: Database, lacks: set[str], common: settings) -> None:
    @common
    @given(world=worlds(database.dialect))
    def each(world: World) -> None:
        lives(database, world, lacks)

    each()


def test_backfill_on_odd_schemas(empty_database: Database, lacks: set[str]) -> None:
    tried(empty_database, lacks, COMMON)


@pytest.mark.soak
def test_backfill_on_many_odd_schemas(empty_database: Database, lacks: set[str]) -> None:
    tried(empty_database, lacks, settings(COMMON, max_examples=600))
