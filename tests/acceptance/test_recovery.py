"""The recovery guide on every half-done v16: back to v15 by definition and by checksum, and a v16 after it like a clean one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import half_done
import pytest
from command import KILLED
from databases import Database, Databases, kind_or_skip
from definitions import differences, schema
from inside import InProcessCli, session

from playbooks.demo import migration

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
DBA = ("--as", "ines", "--role", "dba", "--reason", "read the plan")
STEPS = [statement.name for statement in migration.v16("postgresql")]
MORE = """
INSERT INTO session_summaries (session_id, first_event_at, last_event_at, enrichment, created_at)
SELECT 'more' || n, timestamp '2025-01-01' + n * interval '1 s', timestamp '2025-01-01', (SELECT enrichment::text::json
       FROM session_summaries WHERE session_id = md5('1')), timestamptz '2025-01-01 00:00 UTC' FROM generate_series(1, 20) AS n"""
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


def store(database: Database) -> Seen:
    """A store at v15 whose v16 would pass its gate; what there is of it."""
    half_done.v15(database)
    database.script(MORE)
    return Seen.of(database, **ROWS)


def book(name: str) -> str:
    return str(PLAYBOOKS / f"{name}.yaml")


def recovered(desk: InProcessCli, *, code: int = 0) -> str:
    """The recovery, with its approval."""
    first = desk.runbook("exec", book("adr007-recovery"))
    assert first.code == 5, first.text
    assert desk.runbook("approve", "latest", "--step", "go", *DBA).code == 0
    done = desk.runbook("resume", "latest")
    assert done.code == code, done.text
    return first.text + done.text


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
def _whole_circle(databases: Databases, place: Database, desk: InProcessCli, make: Callable[[Database], None]) -> None:
    """Half done, found, back to v15, on to v16, checked."""
    before = store(place)
    make(place)
    found = desk.runbook("doctor", book("adr007-v16"))
    assert found.code == 3 and "half" in found.out, found.text
    assert desk.runbook("exec", book("adr007-v16")).code == 3
    assert desk.runbook("close", "latest", "--reason", "it began nothing").code in {0, 6}
    recovered(desk)
    after = Seen.of(place, **ROWS)
    assert after - before == []
    done = desk.runbook("exec", book("adr007-v16"))
    assert done.code == 0, done.text
    assert Seen.of(place, **ROWS, **MADE) - clean(databases, place) == []
    checked = desk.runbook("exec", book("adr007-recovery-check"))
    assert checked.code == 0, checked.text


SAMPLE = {15: {"models_tables_only"}, 18: {"phase1_then_v16_again", "column_missing"}}


@pytest.mark.parametrize("state", sorted({one for names in SAMPLE.values() for one in names}))
def test_half_done_state_is_recovered(databases: Databases, place: Database, desk: InProcessCli, state: str) -> None:
    """A sample of the next test."""
    if state not in SAMPLE[place.major]:
        pytest.skip("with the other version")
    _whole_circle(databases, place, desk, half_done.STATES[state])


@pytest.mark.soak
@pytest.mark.parametrize("state", sorted(set(half_done.STATES) - {"key_not_valid", "orphans"}))
def test_every_half_done_state_is_recovered(
    databases: Databases, place: Database, desk: InProcessCli, state: str
) -> None:
    _whole_circle(databases, place, desk, half_done.STATES[state])


@pytest.mark.soak
@pytest.mark.parametrize("name", STEPS[1:])
def test_v16_broken_off_anywhere_is_recovered(
    databases: Databases, place: Database, desk: InProcessCli, name: str
) -> None:
    """v16's own statements one by one, failed before this one."""
    _whole_circle(databases, place, desk, lambda database: half_done.migrate(database, until=name))
