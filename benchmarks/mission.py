"""The mission as its operator types it, on a store of the size that is asked for: how long each phase and way back takes.

One pass on a private PostgreSQL with fsync on: phase 1, phase 2, the trial, phase 3 with its approvals, phase 4, then the three
ways back; each is a real `runbook exec` of the playbook as shipped, and its time is the whole process's. A phase that doesn't succeed
breaks the benchmark, and so does a row or a definition that is not what it was before phase 1 once all is taken back.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from measuring import ROOT, RUNBOOK, Broken, Figure, Options, Report, environment, progress, spend, workplace

from runner.sandbox.server import Server

ROWS, FULL_ROWS = 20_000, 1_682_827
LARGE = 1_000_000  # with fewer sessions the queries' speed shows little but the round trip
WAITING = 5  # exit code: a gate waits for people
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "16GB"}
PHASES = ("phase1", "phase2", "phase2-10k", "phase3", "phase4", "rollback3", "rollback2", "rollback1")
APPROVALS = {
    "phase3": (("ines", "--role", "dba"), ("sam", "--role", "stakeholder")),
    "phase4": (("sam", "--evidence", "application_log"),),
}
FILL = "from playbooks.demo import honeypot; import sys; honeypot.populate(sys.argv[1], sessions=int(sys.argv[2]), store=sys.argv[3])"
TABLES = """SELECT relname::text, array_agg(attname::text ORDER BY attname) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped GROUP BY 1 ORDER BY 1"""


@dataclass
class Pass:
    """One database with its store, and what each phase took, in seconds."""

    server: Server
    directory: Path
    rows: int
    store: str
    took: dict[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.url(self.store)

    def run(self) -> None:
        self._fill()
        before = self._state()
        for phase in PHASES:
            progress(f"{self.store}: {phase}")
            began = time.perf_counter()
            self._phase(phase)
            self.took[phase] = time.perf_counter() - began
        if self._state() != before:
            raise Broken(f"{self.store}: after all ways back the store is not what it was before phase 1")

    def _fill(self) -> None:
        progress(f"{self.store}: making {self.rows:,} sessions")
        with psycopg.connect(self.server.conninfo(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.store}")
        spend([sys.executable, "-c", FILL, self.url, str(self.rows), self.store])
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")

    def _phase(self, phase: str) -> None:
        waiver = ["--input", "speed_waiver=so few sessions are too few to measure"] if self.rows < LARGE else []
        inputs = waiver if phase in {"phase4", "rollback3"} else []
        code = self._runbook("exec", str(ROOT / "playbooks" / f"adr007-{phase}.yaml"), *inputs)
        for who, *words in APPROVALS.get(phase, ()):
            if code != WAITING:
                break
            self._runbook("approve", "latest", *words, "--as", who, "--reason", "the benchmark's own word")
            code = self._runbook("resume", "latest")
        if code:
            raise Broken(f"{self.store}: {phase} ended with {code}")

    def _runbook(self, *words: str) -> int:
        env = environment({"RUNBOOK_TARGET": self.url, "RUNBOOK_RUNS": str(self.directory / self.store)})
        with (self.directory / f"{self.store}.log").open("ab") as log:
            done = subprocess.run(
                [RUNBOOK, *words],
                check=False,
                cwd=self.directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return done.returncode

    def _state(self) -> list[tuple[object, ...]]:
        """Of each table, its columns and a sum over all rows; all definitions of indexes, constraints and columns."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [*_sums(connection), *_definitions(connection)]


def run(options: Options) -> Report:
    rows = options.rows or (FULL_ROWS if options.full else ROWS)
    with workplace() as directory:
        server = Server(directory / "server", major=options.pg, settings=SETTINGS)
        server.start()
        try:
            found = Pass(server, directory, rows, options.store or "enriched")
            found.run()
        except Broken as why:
            log = directory / f"{found.store}.log"
            raise Broken(f"{why}\n{_end(log)}") from why
        finally:
            server.discard()
        version = ".".join(map(str, server.version))
    figures = [Figure(f"{found.store}, {rows:,} sessions: {phase}", [took], "s") for phase, took in found.took.items()]
    return Report(figures, [f"PostgreSQL {version}; rows and schema at the end are those of the beginning"])


def _sums(connection: psycopg.Connection) -> Iterator[tuple[object, ...]]:
    for table, columns in connection.execute(TABLES).fetchall():
        texts = ", ".join(f"{name}::text" for name in columns)
        found = connection.execute(
            f"SELECT count(*), sum(hashtextextended(ROW({texts})::text, 0)) FROM {table}"
        ).fetchone()
        yield table, tuple(columns), *(found or ())


def _definitions(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        """SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = 'public'
           UNION ALL SELECT conname::text, pg_get_constraintdef(oid) || convalidated FROM pg_constraint
           WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
           UNION ALL SELECT attrelid::regclass || '.' || attname, concat(format_type(atttypid, atttypmod), attnotnull, attgenerated)
           FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
           WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2"""
    ).fetchall()


def _end(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 3000))
        return file.read().decode(errors="replace")
