"""The backfill step of phase 3 against the single UPDATE … FROM, on a private PostgreSQL with fsync on.

Each pair measures four things, in an order that turns from pair to pair, each on a fresh copy of the same vacuumed
database, after a CHECKPOINT: the single UPDATE from its start to its COMMIT on an open connection; the step with its
undo, then once more over the data that it has just finished; the step without undo; the step with two workers. The step is run by a real
`runbook exec`; its time is the trail's own, from the record of its start to that of its end, so it has the ledger, the
sweep and the proofs in it, and the process's start not. All four must leave the same values behind. A quotient is
taken within a pair. Client CPU is the process's between those two records; WAL is the whole server's, which does
nothing else; batches are the ledger's. The usual style (read 1,000 rows, then an UPDATE for each) fills a slice, on a
copy of its own, and its time for all rows is extrapolated.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import yaml
from measuring import ROOT, RUNBOOK, Broken, Figure, Options, Report, Spent, progress, spend, workplace
from prepared import Prepared, prepared

ROWS, FULL_ROWS, PAIRS, SLICE, PAGE = 100_000, 1_682_827, 3, 10_000, 1_000
COLUMNS = ("source_ip", "snapshot_asn", "snapshot_country", "snapshot_ip_type", "enrichment_at")
SUM = f"""SELECT coalesce(sum(hashtextextended(concat_ws('|', session_id, {", ".join(COLUMNS)}), 0)), 0)
          FROM session_summaries"""
# A row is locked from the batch's start to its COMMIT: the record of the act is the last thing before that.
BATCHES = """SELECT (percentile_cont(ARRAY[0.5, 0.999]) WITHIN GROUP (ORDER BY held))::float[],
                    sum(held / seen) FILTER (WHERE tenth = 10) / count(*) FILTER (WHERE tenth = 10),
                    sum(held / seen) FILTER (WHERE tenth = 1) / count(*) FILTER (WHERE tenth = 1)
             FROM (SELECT b.ms + 1000 * extract(epoch FROM a.at - b.at) AS held, b.seen,
                   ntile(10) OVER (ORDER BY b.n) AS tenth FROM runbook.batch b
                   JOIN runbook.step_commit a ON a.run = b.run AND a.step = b.step AND a.label = 'batch ' || b.n
                   WHERE b.worker >= 0 AND b.seen > 0 AND b.run = %s) AS each"""


@dataclass(frozen=True)
class Step:
    """One run of the step."""

    seconds: float
    wal: int
    versions: int  # row versions that it wrote into the table
    cpu: float  # seconds, of the client, within the step
    spent: Spent
    p50: float  # ms, of its batches
    p999: float
    growth: float  # cost of a row in the last tenth of the batches by that in the first


@dataclass
class Pair:
    """What one pair came to; `sums` must be one and the same."""

    update: float = 0.0
    first: Step | None = None
    second: Step | None = None
    plain: Step | None = None
    crew: Step | None = None
    sums: set[int] = field(default_factory=set)


def run(options: Options) -> Report:
    rows = options.rows or (FULL_ROWS if options.full else ROWS)
    with workplace() as directory, prepared(directory / "server", rows=rows, major=options.pg) as database:
        bench = Bench(database, directory)
        pairs = [bench.pair(number) for number in range(options.pairs or PAIRS)]
        progress("the usual style")
        usual = bench.usual()
    return _report(pairs, rows=rows, usual=usual, version=database.server.version)


def playbook_in(directory: Path, name: str, **fields: object) -> None:
    """Write the playbook as directory/name.yaml, its step with these fields, beside the files that it names."""
    for file in ("adr007-common.yaml", "session_ip.postgresql.sql", "session_ip.sqlite.sql"):
        shutil.copy(ROOT / "playbooks" / file, directory)
    playbook = yaml.safe_load(Path(__file__).with_name("backfill.yaml").read_text())
    playbook["steps"][0] |= fields
    (directory / f"{name}.yaml").write_text(yaml.safe_dump(playbook, sort_keys=False))


@dataclass
class Bench:
    database: Prepared
    directory: Path

    def __post_init__(self) -> None:
        playbook_in(self.directory, "undo")
        playbook_in(self.directory, "plain", undo=False)
        playbook_in(self.directory, "crew", workers=2)
        common = yaml.safe_load((self.directory / "adr007-common.yaml").read_text())
        self.source = common["queries"]["snapshot_source"]["postgresql"]
        self.match = (self.directory / "session_ip.postgresql.sql").read_text()

    def pair(self, number: int) -> Pair:
        pair = Pair()
        sides: list[Callable[[Pair, psycopg.Connection], None]] = [self._update, self._undo, self._plain, self._crew]
        turn = number % len(sides)
        for side in (*sides[turn:], *sides[:turn]):
            progress(f"pair {number + 1}: {side.__name__.lstrip('_')}")
            with self.database.copy() as connection:
                side(pair, connection)
                pair.sums.add(_value(connection, SUM))
        if len(pair.sums) > 1:
            raise Broken("the step and the single UPDATE left different values behind")
        return pair

    def _update(self, pair: Pair, connection: psycopg.Connection) -> None:
        fill = ", ".join(f"{name} = coalesce(target.{name}, source.{name})" for name in COLUMNS)
        began = time.perf_counter()
        connection.execute(
            f"UPDATE session_summaries AS target SET {fill} FROM ({self.source}) AS source WHERE {self.match}"
        )
        pair.update = time.perf_counter() - began

    def _undo(self, pair: Pair, connection: psycopg.Connection) -> None:
        pair.first = self._step("undo", connection)
        connection.execute("CHECKPOINT")
        pair.second = self._step("undo", connection)

    def _plain(self, pair: Pair, connection: psycopg.Connection) -> None:
        pair.plain = self._step("plain", connection)

    def _crew(self, pair: Pair, connection: psycopg.Connection) -> None:
        pair.crew = self._step("crew", connection)

    def _step(self, playbook: str, connection: psycopg.Connection) -> Step:
        wal, transaction = _wal(connection), _value(connection, "SELECT pg_current_xact_id()::text::bigint")
        ear = Ear()
        file = str(self.directory / f"{playbook}.yaml")
        argv = [RUNBOOK, "exec", file, "-t", self.database.url, "--runs", str(self.directory / "runs"), "--json"]
        spent = spend(argv, cwd=self.directory, heard=ear.heard)
        wal = _wal(connection) - wal
        versions = f"SELECT count(*) FROM session_summaries WHERE xmin::text::bigint > {transaction}"
        [(p50, p999), last, first] = connection.execute(BATCHES, [ear.run]).fetchone() or ((0, 0), 0, 0)
        growth = last / first if first and last else 0.0  # too few batches for tenths
        return Step(ear.seconds, wal, _value(connection, versions), ear.cpu, spent, p50, p999, growth)

    def usual(self) -> float:
        """Seconds for the slice in the usual style, kindly: pages by key, the source joined by the page's query."""
        page = f"""SELECT session_id, {", ".join("source." + name for name in COLUMNS)} FROM
                   (SELECT * FROM session_summaries WHERE session_id > %s ORDER BY session_id LIMIT {PAGE}) AS target
                   LEFT JOIN ({self.source}) AS source ON {self.match} ORDER BY session_id"""
        change = f"UPDATE session_summaries SET {', '.join(name + ' = %s' for name in COLUMNS)} WHERE session_id = %s"
        with self.database.copy() as connection:
            began, last = time.perf_counter(), ""
            for _ in range(min(SLICE, self.database.rows) // PAGE):
                with connection.transaction():
                    rows = connection.execute(page, [last]).fetchall()
                    for key, *values in rows:
                        if values[0] is not None:
                            connection.execute(change, [*values, key])
                last = rows[-1][0]
            return time.perf_counter() - began


@dataclass
class Ear:
    """Hears the run's events as they are printed; at the step's start and end it looks at the process's CPU clock."""

    run: str = ""
    seconds: float = 0.0
    cpu: float = 0.0

    def heard(self, pid: int, line: str) -> None:
        event = json.loads(line) if line.startswith("{") else {}
        match event.get("event"):
            case "run_started":
                self.run = event["run"]
            case "step_started":
                self.cpu = -_cpu(pid)
            case "step_ended":
                self.cpu += _cpu(pid)
                self.seconds = event["seconds"]


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _value(connection: psycopg.Connection, sql: str) -> int:
    [value] = connection.execute(sql).fetchone() or [0]
    return int(value)


def _wal(connection: psycopg.Connection) -> int:
    return _value(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")


def _report(pairs: list[Pair], *, rows: int, usual: float, version: tuple[int, ...]) -> Report:
    found = [
        (p.update, p.first, p.second, p.plain, p.crew) for p in pairs if p.first and p.second and p.plain and p.crew
    ]
    updates, firsts, seconds, plains, crews = zip(*found, strict=True)
    full = rows >= FULL_ROWS
    per_row = usual / min(SLICE, rows)
    both = list(zip(firsts, seconds, strict=True))
    ratio, growth = _quotients(updates, [one.seconds for one in firsts]), [one.growth for one in firsts if one.growth]
    figures = [
        Figure("single UPDATE … FROM", [rows / update for update in updates], "rows/s"),
        Figure("backfill step", [rows / one.seconds for one in firsts], "rows/s"),
        Figure("step / UPDATE, throughput", ratio, "×", 1.0 if full else 0.92, at_least=True),
        Figure("step with 2 workers / UPDATE", _quotients(updates, [one.seconds for one in crews]), "×", 1.2, at_least=True),
        Figure("step without undo / UPDATE", _quotients(updates, [one.seconds for one in plains]), "×"),
        Figure("undo's cost", [100 * (one.seconds / two.seconds - 1) for one, two in zip(firsts, plains, strict=True)], "%", 8),
        Figure("batch, p50", [one.p50 for one in firsts], "ms", 250),
        Figure("batch, p99.9 (no row is locked for longer)", [one.p999 for one in firsts], "ms", 1000),
        Figure("a row's cost, last tenth / first tenth", growth, "×", 1.15 if growth else None),
        Figure("second run: time", [100 * two.seconds / one.seconds for one, two in both], "%", 8),
        Figure("second run: WAL", [100 * two.wal / one.wal for one, two in both], "%", 1),
        Figure("second run: new row versions", [two.versions for two in seconds], "", 0),
        Figure("client's CPU within the step", [100 * one.cpu / one.seconds for one in firsts], "%", 5),
        Figure("client's peak memory", [one.spent.rss for one in firsts], "MB", 80),
        Figure("whole process, its start included", [one.spent.wall for one in firsts], "s"),
        Figure("usual style, row by row", [1 / per_row], "rows/s"),
        Figure("usual style's time / the step's", [per_row * rows / one.seconds for one in firsts], "×"),
    ]  # fmt: skip
    words = f"PostgreSQL {'.'.join(map(str, version))}, {rows:,} sessions, fsync on, {len(pairs)} pairs"
    slices = f"the usual style was measured on {min(SLICE, rows):,} rows and extrapolated"
    return Report(figures, [f"{words}; {slices}"])


def _quotients(above: list[float], below: list[float]) -> list[float]:
    return [one / two for one, two in zip(above, below, strict=True)]
