"""The probe on replication: how the standbys keep up, and what the slots keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from steps.contract import Answer, Look, Model, Probe, Row, Seconds, Timespan, Unknown, Verdict

# A base backup is no standby, nor is a subscriber of a publication: the subscribers' slots speak for them.
_STANDBYS = """
SELECT coalesce(nullif(r.application_name, ''), host(r.client_addr), 'pid ' || r.pid) AS name, r.state, r.sync_state,
       r.replay_lsn IS NOT NULL AS replays, r.write_lsn IS NOT NULL AS receives,
       greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn), 0) AS lag_bytes,
       extract(epoch FROM r.replay_lag) AS lag_s,
       extract(epoch FROM clock_timestamp() - r.reply_time) AS silent_s
FROM pg_catalog.pg_stat_replication r
WHERE r.state IS DISTINCT FROM 'backup' AND NOT EXISTS (
  SELECT 1 FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')"""

_SLOTS = """
SELECT slot_name AS name, active, wal_status, safe_wal_size AS safe_wal_bytes,
       greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0) AS retained_bytes,
       CASE WHEN slot_type = 'logical' THEN greatest(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0) END
         AS logical_lag_bytes
FROM pg_catalog.pg_replication_slots ORDER BY slot_name"""


class ReplicationResult(Model):
    """standbys: connected, of which `streaming` keep up a stream and the rest are still catching up.

    lag_bytes, lag_s: of the standby that is furthest behind in replaying; None where none is connected. lag_s is 0 for
    one that has replayed everything, None where a standby that hasn't gives no time. synchronous: standbys that commits
    may wait for; synchronous_missing: commits wait for one, and none is there.
    retained_bytes: WAL kept for the slot that is furthest behind; safe_wal_bytes: what may still be written before a
    slot is lost, None without max_slot_wal_keep_size. inactive: slots that nobody reads; unreserved: about to be lost;
    lost: past help. logical_lag_bytes: what the furthest logical slot has not confirmed, None without one.
    """

    standbys: int
    streaming: int
    not_streaming: int
    lag_bytes: int | None
    lag_s: float | None
    synchronous: int
    synchronous_missing: bool
    slots: int
    inactive_slots: int
    inactive: tuple[str, ...]
    unreserved_slots: int
    unreserved: tuple[str, ...]
    lost_slots: int
    lost: tuple[str, ...]
    retained_bytes: int
    safe_wal_bytes: int | None
    logical_lag_bytes: int | None


class Replication(Probe):
    """Standbys' lag and the WAL that replication slots keep.

    standbys: how many must stream; fewer fail, since one that has stopped is not in the list at all. With 0, no standby
    is no lag; without it, no standby gives no figure. Raises Unknown where a standby doesn't say how far it is, or has
    not answered within `answer_within` though there is WAL for it: no lag is not the same as no answer.
    """

    kind: ClassVar[str] = "replication"
    summary: ClassVar[str] = "standbys' lag, WAL kept for slots"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = ReplicationResult

    standbys: Annotated[int, Field(ge=0)] | None = None
    answer_within: Seconds = Timespan(30)

    def observe(self, look: Look) -> ReplicationResult:
        if look.row("SELECT pg_is_in_recovery() AS standby").flag("standby"):
            raise Unknown("this server is a standby: look at the primary")
        standbys = self._telling(look.rows(_STANDBYS))
        wanted = look.row("SELECT current_setting('synchronous_standby_names') AS names").text("names")
        synchronous = sum(row.text("sync_state") in {"sync", "quorum"} for row in standbys)
        streaming = sum(row.text("state") == "streaming" for row in standbys)
        slots = look.rows(_SLOTS)
        named = {status: _names(slots, status) for status in ("unreserved", "lost")}
        inactive = tuple(slot.text("name") for slot in slots if not slot.flag("active"))
        return ReplicationResult(
            standbys=len(standbys),
            streaming=streaming,
            not_streaming=len(standbys) - streaming,
            lag_bytes=self._worst(row.integer("lag_bytes") for row in standbys),
            lag_s=self._worst_time(standbys),
            synchronous=synchronous,
            synchronous_missing=bool(wanted) and not synchronous,
            slots=len(slots),
            inactive_slots=len(inactive),
            inactive=inactive,
            unreserved_slots=len(named["unreserved"]),
            unreserved=named["unreserved"],
            lost_slots=len(named["lost"]),
            lost=named["lost"],
            retained_bytes=max(_told(slots, "retained_bytes"), default=0),
            safe_wal_bytes=min(_told(slots, "safe_wal_bytes"), default=None),
            logical_lag_bytes=max(_told(slots, "logical_lag_bytes"), default=None),
        )

    def _telling(self, found: list[Row]) -> list[Row]:
        """The standbys, each of which says how far it is; what only receives (pg_receivewal) is none."""
        if any(row["state"] is None for row in found):
            raise Unknown("this role can't see how far the standbys are: GRANT pg_read_all_stats (or pg_monitor) to it")
        for row in found:
            if not row.flag("replays") and not row.flag("receives"):
                raise Unknown(f"{row.text('name')!r} has not said yet how far it is")
            if row.flag("replays") and row.integer("lag_bytes") and row.number("silent_s") > self.answer_within:
                raise Unknown(
                    f"the standby {row.text('name')!r} has not answered for {row.number('silent_s'):.0f} s: "
                    "nobody knows how far it is"
                )
        return [row for row in found if row.flag("replays")]

    def _worst(self, lags: Iterable[int]) -> int | None:
        return max(lags, default=0 if self.standbys == 0 else None)

    def _worst_time(self, standbys: list[Row]) -> float | None:
        """PostgreSQL gives no time for a standby that is idle because it has replayed all: that, and only that, is 0."""
        behind = [row for row in standbys if row.integer("lag_bytes")]
        if any(row["lag_s"] is None for row in behind):
            return None
        if not behind:
            return 0.0 if standbys or self.standbys == 0 else None
        return round(max(row.number("lag_s") for row in behind), 3)

    def verdict(self, result: BaseModel) -> Verdict | None:
        if self.standbys is None:
            return None
        seen = ReplicationResult.model_validate(result)
        says = f"{seen.streaming} standbys stream, {self.standbys} are wanted"
        return Verdict(Answer.FAIL if seen.streaming < self.standbys else Answer.PASS, says)

    def decides(self) -> bool:
        return self.standbys is not None


def _names(slots: list[Row], status: str) -> tuple[str, ...]:
    return tuple(slot.text("name") for slot in slots if slot["wal_status"] == status)


def _told(slots: list[Row], name: str) -> list[int]:
    return [slot.integer(name) for slot in slots if slot[name] is not None]
