"""How many connections a run needs at once, and whether the server's limits leave room for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from runner.playbook.model import Entry, Playbook
from runner.target.database import RunDatabase
from steps.contract import Connecting, Gate, Look
from steps.sql.dialect import quote

HEARTBEAT = 1
LOOKS = 1  # safe points, `verify` and checks read one after the other


class Need(NamedTuple):
    """The most connections that one step has open, besides the heartbeat's."""

    step: str
    writing: int
    looking: int

    @property
    def total(self) -> int:
        return HEARTBEAT + self.writing + self.looking

    @property
    def words(self) -> str:
        return f"{self.writing} to write, {self.looking} to look, {HEARTBEAT} for the heartbeat, in step {self.step}"


def need(playbook: Playbook) -> Need:
    """The step that needs the most connections."""
    return max((_of(entry) for entry in playbook.entries), key=lambda one: one.total)


def _of(entry: Entry) -> Need:
    writing = entry.step.connections() if isinstance(entry.step, Connecting) else 1
    return Need(entry.id, 0 if isinstance(entry.step, Gate) else writing, LOOKS + bool(entry.guards))


@dataclass(frozen=True)
class Room:
    """A connection limit: how much of it is free for this run, and how to raise it."""

    free: int
    limit: str
    mend: str


_ROOM = """
SELECT r.rolname::text AS role, d.datname::text AS name, r.rolsuper AS super, r.rolconnlimit AS role_limit, d.datconnlimit AS db_limit,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid) AS of_role,
       pg_stat_get_db_numbackends(d.oid) AS of_db,
       (SELECT sum(pg_stat_get_db_numbackends(o.oid)) FROM pg_catalog.pg_database o) AS of_all,
       current_setting('max_connections')::int AS most, current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true), '0')::int AS kept
FROM pg_catalog.pg_roles r, pg_catalog.pg_database d WHERE r.rolname = session_user AND d.datname = current_database()"""


def rooms(look: Look, *, ours: int) -> list[Room]:
    """The connection limits of server, role and database. ours: connections of this process, which the server counts too."""
    row = look.row(_ROOM)
    role, name, most = row.text("role"), row.text("name"), row.integer("most")
    kept = 0 if row.flag("super") else row.integer("kept")
    found = [
        Room(
            most - kept - row.integer("of_all") + ours,
            f"the server has {most} in all, of which {kept} are kept for others and {row.integer('of_all') - ours} are in use",
            "wait until some are free, or raise max_connections",
        )
    ]
    if row.flag("super"):
        return found
    for limit, used, whose, alter in (
        (row.integer("role_limit"), row.integer("of_role"), f"the role {role!r}", f"ALTER ROLE {quote(role)}"),
        (row.integer("db_limit"), row.integer("of_db"), f"the database {name!r}", f"ALTER DATABASE {quote(name)}"),
    ):
        if limit >= 0:
            words = f"{whose} may have {limit} (CONNECTION LIMIT), of which {used - ours} are in use"
            found.append(Room(limit - used + ours, words, f"{alter} CONNECTION LIMIT …"))
    return found


def too_few(playbook: Playbook, database: RunDatabase, look: Look) -> tuple[str, str]:
    """Why the limits are too low for this run, and the remedy; ("", "") if they suffice."""
    if not database.counts_connections:
        return "", ""
    needed = need(playbook)
    tight = [one for one in rooms(look, ours=database.connections) if one.free < needed.total]
    if not tight:
        return "", ""
    why = f"it needs {needed.total} connections at once ({needed.words}), and {'; '.join(one.limit for one in tight)}"
    return why, f"{tight[0].mend}, or use fewer workers"
