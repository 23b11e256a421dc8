"""The recovery guide on every half-done v16: back to v15 by definition and by checksum, and a v16 after it like a clean one."""

from __future__ import annotations

import itertools
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import half_done
import pytest
from command import KILLED
from databases import Database, Databases, kind_or_skip
from definitions import differences, schema
from inside import InProcessCli, meanwhile, until
from phases import rename_types

from playbooks.demo import migration

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
DBA = ("--as", "ines", "--role", "dba", "--reason", "read the plan")
STEPS = [statement.name for statement in migration.v16("postgresql")]
MORE = """
INSERT INTO session_summaries (session_id, first_event_at, last_event_at, enrichment, created_at)
SELECT 'more' || n, timestamp '2025-01-01' + n * interval '1 s', timestamp '2025-01-01', (SELECT enrichment::text::json
       FROM session_summaries WHERE session_id = md5('1')), timestamptz '2025-01-01 00:00 UTC' FROM generate_series(1, 60) AS n"""
# all rows but for the times at which they were written
ROWS = {
    "sessions": """SELECT session_id, extract(epoch FROM first_event_at), extract(epoch FROM last_event_at), event_count,
        enrichment::text, source_files::text, created_at FROM session_summaries""",
    "files": "SELECT f::text FROM files AS f",
    "events": "SELECT e::text FROM raw_events AS e",
    "state": "SELECT s::text FROM schema_state AS s",
}
MADE = {
    "snapshots": """SELECT session_id, source_ip, enrichment_at, snapshot_asn, snapshot_country, snapshot_ip_types
        FROM session_summaries""",
    "ips": """SELECT ip_address, current_asn, first_seen, last_seen, session_count, enrichment::text, geo_country, ip_types, is_scanner,
        is_bogon FROM ip_inventory""",
    "asns": """SELECT asn_number, organization_name, first_seen, last_seen, unique_ip_count, total_session_count, enrichment::text
        FROM asn_inventory""",
}


@dataclass(frozen=True)
class Seen:
    """A store's definitions and rows."""

    schema: dict[str, list[tuple]]
    rows: dict[str, list[tuple]]

    @classmethod
    def of(cls, database: Database, **queries: str) -> Seen:
        return cls(schema(database), {name: sorted(database.rows(sql), key=repr) for name, sql in queries.items()})

    def __sub__(self, other: Seen) -> list[str]:
        rows = [name for name in self.rows if self.rows[name] != other.rows[name]]
        return [*differences(other.schema, self.schema), *rows]


def store(database: Database, *, sessions: int = half_done.SESSIONS) -> Seen:
    """A store at v15 whose v16 would pass its gate; what there is of it."""
    half_done.v15(database, sessions=sessions)
    database.script(MORE)
    return Seen.of(database, **ROWS)


def book(name: str) -> str:
    return str(PLAYBOOKS / f"{name}.yaml")


def ready(desk: InProcessCli) -> None:
    """The recovery up to its gate, and approved."""
    did(desk, "exec", book("adr007-recovery"), code=5)
    did(desk, "approve", "latest", "--step", "go", *DBA)


def recovered(desk: InProcessCli) -> None:
    """The whole recovery."""
    ready(desk)
    did(desk, "resume", "latest")


def did(desk: InProcessCli, *words: str, code: int = 0) -> str:
    done = desk.runbook(*words)
    assert done.code == code, done.text
    return " ".join(done.text.split())


@pytest.fixture(params=["pg15", "pg18"])
def place(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    with kind_or_skip(databases, request.param).database() as database:
        yield database


@pytest.fixture
def desk(place: Database, tmp_path: Path) -> InProcessCli:
    return InProcessCli(tmp_path, place.url)


def clean(databases: Databases, place: Database) -> Seen:
    """What the project's own statements make of the same store."""
    with kind_or_skip(databases, f"pg{place.major}").database() as other:
        store(other)
        half_done.migrate(other)
        return Seen.of(other, **ROWS, **MADE)


# ─── every state ────────────────────────────────────────────────────────────────────────────────────────────────────
def _whole_circle(
    databases: Databases, place: Database, desk: InProcessCli, make: Callable[[Database], None], *, plain: bool = True
) -> None:
    """Half done, found, back to v15, on to v16, checked. plain: of rows that the project's own v16 can swallow, too."""
    before = store(place)
    make(place)
    rows = Seen.of(place, **ROWS).rows
    assert "half" in did(desk, "doctor", book("adr007-v16"), code=3)
    assert "adr007-recovery" in did(desk, "exec", book("adr007-v16"), code=3) + desk.runbook("report", "latest").out
    recovered(desk)
    after = Seen.of(place, **ROWS)
    assert differences(before.schema, after.schema) == []
    assert {**rows, "state": before.rows["state"]} == after.rows
    did(desk, "exec", book("adr007-v16"))
    if plain:
        assert Seen.of(place, **ROWS, **MADE) - clean(databases, place) == []
    did(desk, "exec", book("adr007-recovery-check"))


SAMPLE = {15: {"models_tables_only"}, 18: {"phase1_then_v16_again"}}


@pytest.mark.parametrize("state", sorted({one for names in SAMPLE.values() for one in names}))
def test_half_done_state_is_recovered(databases: Databases, place: Database, desk: InProcessCli, state: str) -> None:
    """A sample of the next test."""
    if state not in SAMPLE[place.major]:
        pytest.skip("with the other version")
    _whole_circle(databases, place, desk, half_done.STATES[state])


@pytest.mark.soak
@pytest.mark.parametrize("state", sorted(half_done.STATES))
def test_every_half_done_state_is_recovered(
    databases: Databases, place: Database, desk: InProcessCli, state: str
) -> None:
    _whole_circle(databases, place, desk, half_done.STATES[state], plain=state != "key_not_valid")


@pytest.mark.soak
@pytest.mark.parametrize("name", STEPS[1:])
def test_v16_broken_off_anywhere_is_recovered(
    databases: Databases, place: Database, desk: InProcessCli, name: str
) -> None:
    """v16's own statements one by one, failed before this one."""
    _whole_circle(databases, place, desk, lambda database: half_done.migrate(database, until=name))


# ─── diagnosis ──────────────────────────────────────────────────────────────────────────────────────────────────────
on_18 = pytest.mark.parametrize("place", ["pg18"], indirect=True)


@on_18
def test_whole_v16_is_left_alone(place: Database, desk: InProcessCli) -> None:
    """Also with an index more, and after phase 1 of ADR-007, with and without the index of phase 3."""
    (desk.directory / "playbooks").symlink_to(PLAYBOOKS)
    store(place)
    half_done.migrate(place)
    before = Seen.of(place, **ROWS, **MADE)
    assert "v16_is_not_whole (fail)" in did(desk, "exec", book("adr007-recovery"), code=3)
    assert Seen.of(place, **ROWS, **MADE) - before == []
    more = "CREATE INDEX {} ON session_summaries (snapshot_country, event_count)"
    place.script(more.format("mine"))
    assert "phase1_is_not_whole (fail)" in did(desk, "exec", book("adr007-recovery"), code=3)
    place.script("DROP INDEX mine")
    rename_types(place)
    for index in ("", "mine"):
        place.script(more.format(index) if index else "SELECT 1")
        assert "phase1_is_not_whole (fail)" in did(desk, "exec", book("adr007-recovery"), code=3), index
        told = did(desk, "doctor", "v16", code=3)
        assert "runbook doctor after_phase1" in told and "runbook plan adr007-recovery" not in told


@on_18
def test_nothing_left_means_that_program_or_data_is_at_fault(place: Database, desk: InProcessCli) -> None:
    """The rows that the project's v16 dies of are shown; v16 by typed steps passes them over."""
    before = store(place)
    place.script(
        """UPDATE session_summaries SET enrichment = '{"cymru": {"asn": "0"}}' WHERE session_id = md5('1');
        UPDATE session_summaries SET enrichment = '{"x": "\\u0000"}' WHERE session_id = md5('2')"""
    )
    told = did(desk, "exec", book("adr007-recovery"), code=3)
    assert "something_is_left (fail)" in told
    table = {one.id: one for one in desk.events("check_answered")}["data"].result["table"]
    assert {row["why"]: row["sessions"] for row in table} == {
        "JSON with \\u0000": 1,
        "an ASN that is 0 or no number": 1,
    }
    assert differences(before.schema, schema(place)) == []
    did(desk, "exec", book("adr007-v16"))
    assert (
        place.rows("SELECT source_ip, snapshot_asn FROM session_summaries WHERE session_id IN (md5('1'), md5('2'))")
        == [(None, None)] * 2
    )


@on_18
def test_running_migration_is_waited_for(place: Database, desk: InProcessCli) -> None:
    """Its client is gone, and its server process goes on; it ends by itself meanwhile, and nothing of it is left."""
    store(place)
    with half_done.running(place) as pid, meanwhile(lambda: did(desk, "exec", book("adr007-recovery"), code=3)):
        until(
            lambda: place.rows("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'runbook:adr007-recovery%'")
        )
        time.sleep(2)
        place.rows("SELECT pg_terminate_backend(%s)", (pid,))
    told = {one.id: one.answer for one in desk.events("check_answered")}
    assert (told["nobody_changes_it"], told["something_is_left"]) == ("pass", "fail")


@on_18
def test_running_migration_is_ended_with_a_word(place: Database, desk: InProcessCli) -> None:
    store(place)
    half_done.source_ip_empty(place)
    with half_done.running_on(place) as pid:
        told = did(desk, "exec", book("adr007-recovery"), "-i", "end_migration=true", code=5)
        assert "may_end_it waits for" in told
        did(desk, "approve", "latest", "--step", "may_end_it", *DBA)
        did(desk, "resume", "latest", code=5)
        assert place.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)) == []
    did(desk, "approve", "latest", "--step", "go", *DBA)
    did(desk, "resume", "latest")
    assert {name: one.outcome for name, one in desk.status().steps.items()}["end_it"] == "done"


@on_18
def test_dependant_stops_it_before_anything_is_dropped(place: Database, desk: InProcessCli) -> None:
    store(place)
    half_done.some_snapshot_columns(place)
    place.script("CREATE VIEW addresses AS SELECT session_id, source_ip FROM session_summaries")
    before = Seen.of(place, **ROWS)
    assert "addresses" in did(desk, "exec", book("adr007-recovery"), code=6)
    assert Seen.of(place, **ROWS) - before == []


# ─── what can't be derived again ────────────────────────────────────────────────────────────────────────────────────
ENRICHED = """
UPDATE ip_inventory SET enrichment = '{"maxmind": {"country": "FR"}}', ip_types = '{TOR}', enrichment_updated_at = '2025-06-01 UTC'
    WHERE ip_address = '10.0.0.1';
UPDATE ip_inventory SET session_count = session_count + 1 WHERE ip_address = '10.0.0.2';
UPDATE asn_inventory SET organization_name = 'Example Net' WHERE asn_number = 64500;
UPDATE session_summaries SET source_ip = '10.0.0.2', snapshot_asn = 64501, snapshot_country = 'IT', snapshot_ip_types = '{VPN}'
    WHERE session_id = md5('10');
DROP INDEX idx_session_snapshot_asn"""


@on_18
def test_what_no_session_holds_is_kept_and_comes_back(place: Database, desk: InProcessCli) -> None:
    """On an enriched store, whose v16 then broke: the clean-up of the guide loses all of it."""
    store(place)
    half_done.migrate(place)
    place.script(ENRICHED)
    made = Seen.of(place, **MADE).rows
    told = did(desk, "plan", book("adr007-recovery"))
    assert (
        "1 addresses have enrichment that no session holds" in told
        and "1 networks are known beyond their number" in told
    )
    assert "1 sessions have an address that their JSON doesn't hold" in told
    recovered(desk)
    did(desk, "exec", book("adr007-v16"))
    assert Seen.of(place, **MADE).rows == made
    did(desk, "exec", book("adr007-recovery-check"))


@pytest.mark.soak
@pytest.mark.parametrize("honeypot", ["pg15", "pg18"], indirect=True)
@pytest.mark.parametrize(
    "_store", [pytest.param(name, marks=pytest.mark.store(name)) for name in ("raw", "enriched", "rich")]
)
def test_real_store_keeps_its_enrichment(honeypot: Database, tmp_path: Path, _store: str) -> None:
    """The real stores, with \\u0000, odd countries and private addresses; sessions that came after v16 get their address, too."""
    desk = InProcessCli(tmp_path, honeypot.url)
    known = "SELECT ip_address, current_asn, enrichment::text, geo_country, ip_types, enrichment_updated_at FROM ip_inventory"
    networks = "SELECT asn_number, organization_name, organization_country, rir_registry, asn_type FROM asn_inventory"
    before = {
        *honeypot.rows(f"SELECT t::text FROM ({known}) AS t"),
        *honeypot.rows(f"SELECT t::text FROM ({networks}) AS t"),
    }
    addresses = dict(honeypot.rows("SELECT session_id, source_ip FROM session_summaries WHERE source_ip IS NOT NULL"))
    honeypot.script("DROP INDEX idx_session_snapshot_asn")
    recovered(desk)
    did(desk, "exec", book("adr007-v16"))
    after = {
        *honeypot.rows(f"SELECT t::text FROM ({known}) AS t"),
        *honeypot.rows(f"SELECT t::text FROM ({networks}) AS t"),
    }
    assert before <= after
    assert addresses.items() <= dict(honeypot.rows("SELECT session_id, source_ip FROM session_summaries")).items()
    did(desk, "exec", book("adr007-recovery-check"))


@on_18
def test_recovery_is_taken_back(place: Database, desk: InProcessCli) -> None:
    """All that it dropped was kept aside: after a rollback the half-done v16 stands as it stood."""
    store(place)
    half_done.all_columns_no_keys(place)
    before = Seen.of(place, **ROWS, **MADE)
    recovered(desk)
    did(desk, "rollback", "latest")
    assert Seen.of(place, **ROWS, **MADE) - before == []


@on_18
@pytest.mark.soak
def test_v16_is_safe_to_run_again(place: Database, desk: InProcessCli) -> None:
    """Broken off by kill -9 and resumed; once more on a whole v16, where it finds all of it; and no more once it is cleaned up."""
    store(place)
    assert desk.kill("exec", book("adr007-v16"), fault="commit.after:20").code == KILLED
    did(desk, "resume", "latest")
    before = Seen.of(place, **ROWS, **MADE)
    v16 = desk.newest.parent.name
    did(desk, "exec", book("adr007-v16"))
    assert Seen.of(place, **ROWS, **MADE) - before == []
    place.script("DROP INDEX idx_session_snapshot_asn")
    recovered(desk)
    recovery = desk.newest.parent.name
    assert f"removed by run {recovery}" in did(desk, "status", v16)
    assert f"run {recovery} takes away what it made" in did(desk, "rollback", v16, code=6)
    did(desk, "plan", book("adr007-v16"))


# ─── kill -9 ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _killed(databases: Databases, place: Database, desk: InProcessCli, points: Iterable[str], *, sessions: int) -> int:
    """Killed there and resumed: v15 by definition and by checksum, each time; at how many points it was."""
    before = store(place, sessions=sessions)
    half_done.all_columns_no_keys(place)
    ready(desk)
    runs, saved = desk.directory / "runs", desk.directory / "runs-saved"
    shutil.copytree(runs, saved)
    count = 0
    with kind_or_skip(databases, f"pg{place.major}").saved(place) as restore:
        for point in points:
            restore()
            shutil.rmtree(runs)
            shutil.copytree(saved, runs)
            done = desk.kill("resume", "latest", fault=point)
            if done.code != KILLED:  # there are no more
                assert done.code == 0, done.text
                break
            count += 1
            did(desk, "resume", "latest")
            assert Seen.of(place, **ROWS) - before == [], point
    return count


@on_18
def test_recovery_killed_and_resumed(databases: Databases, place: Database, desk: InProcessCli) -> None:
    """A sample of the next test."""
    points = ["commit.after:12", "trail.after:45"]
    assert _killed(databases, place, desk, points, sessions=half_done.SESSIONS) == len(points)


STRIDE = 5


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1, STRIDE + 1))
@pytest.mark.parametrize("kind", ["trail.before", "trail.after", "commit.before", "commit.after"])
def test_recovery_killed_anywhere(
    databases: Databases, place: Database, desk: InProcessCli, kind: str, first: int
) -> None:
    """At every record and commit of the recovery, on 2,000 sessions; in parts of every fifth, which can run side by side."""
    points = (f"{kind}:{number}" for number in itertools.count(first, STRIDE))
    assert _killed(databases, place, desk, points, sessions=2000) >= 7  # 35 commits, 60 records


# ─── the project's own program ──────────────────────────────────────────────────────────────────────────────────────
RUNS_V16 = f"""
import os, signal, sys
import psycopg
sys.path.insert(0, {str(PLAYBOOKS.parent)!r})
from playbooks.demo import migration
how = {{how!r}}
with psycopg.connect(os.environ["RUNBOOK_URL"], autocommit=how == "half") as connection:
    for statement in migration.v16("postgresql"):
        if how == "nothing":
            break
        if how in ("fails", "killed", "half") and statement.name == "add_snapshot_asn":
            os.kill(os.getpid(), signal.SIGKILL) if how == "killed" else sys.exit("the first error")
        connection.execute(statement.sql)
"""


@on_18
@pytest.mark.parametrize(("how", "code"), [("works", 0), ("nothing", 1), ("fails", 1), ("killed", 1), ("half", 1)])
def test_projects_own_program(place: Database, desk: InProcessCli, how: str, code: int) -> None:
    """What it says of itself isn't believed: one that exits 0 without effect has failed, and each failure leaves v15.

    half: it commits each statement by itself. Then resume doesn't run it again, and the recovery is the next command.
    """
    before = store(place)
    program = desk.directory / "migrate"
    script = desk.directory / "migrate.py"
    script.write_text(RUNS_V16.format(how=how))
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(script))}\n")
    program.chmod(0o755)
    done = desk.runbook("exec", book("adr007-v16-program"), "-i", f"program={program}")
    assert done.code == code, done.text
    if how == "works":
        assert desk.status().state == "succeeded"
        return
    if how == "half":
        assert "next runbook exec adr007-recovery" in did(desk, "resume", "latest", code=3)
        ready(desk)
        return
    assert Seen.of(place, **ROWS) - before == []
    assert "something_is_left (fail)" in did(desk, "exec", book("adr007-recovery"), code=3)
