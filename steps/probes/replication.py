"""The probe on replication: lag of the standbys, and WAL retained for slots."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from steps.contract import Answer, Look, Model, Probe, Row, Seconds, Timespan, Unknown, Verdict
from steps.contract.direction import HIGHER, LOWER

# Base backups and subscribers of publications are no standbys; subscribers are covered by their slots.
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
    """standbys: connected, of which `streaming` are streaming and the rest are still catching up.

    lag_bytes, lag_s: replay lag of the standby that is furthest behind; None where none is connected. lag_s is 0 where all has
    been replayed, None where a standby that is behind reports no time. synchronous: standbys that commits may wait for;
    synchronous_missing: commits wait for a synchronous standby, and none is connected.
    retained_bytes: WAL kept for the slot that is furthest behind; safe_wal_bytes: how much may still be written before a slot is
    lost, None without max_slot_wal_keep_size. inactive: slots without a consumer; unreserved: about to be lost; lost: can't be
    used any more. logical_lag_bytes: what the logical slot furthest behind has not confirmed, None without one.
    """

    standbys: Annotated[int, LOWER]
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
    """Standbys' lag and the WAL that replication slots retain.

    standbys: how many must stream; fewer fail the check, since a standby that has stopped is not listed at all. With 0, the lag
    is 0 where there is no standby; without this field it is None. Unknown where a standby doesn't report its position, or has not
    replied within `answer_within` although there is WAL for it: no reply must not look like no lag.
    """

    kind: ClassVar[str] = "replication"
    summary: ClassVar[str] = "standbys' lag, WAL kept for slots"
    only: ClassVar[str] = "postgresql"
    Result: ClassVar[type[BaseModel]] = ReplicationResult

    standbys: Annotated[int, Field(ge=0)] | None = None
    answer_within: Annotated[Seconds, HIGHER] = Timespan(30)

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
            retained_bytes=max(_known(slots, "retained_bytes"), default=0),
            safe_wal_bytes=min(_known(slots, "safe_wal_bytes"), default=None),
            logical_lag_bytes=max(_known(slots, "logical_lag_bytes"), default=None),
        )

    def _telling(self, found: list[Row]) -> list[Row]:
        """The standbys, all of which report their position (else Unknown); pg_receivewal, which replays nothing, is none."""
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
        """The longest lag in seconds. PostgreSQL reports no time for a standby that has replayed everything: only that is 0."""
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


def _known(slots: list[Row], name: str) -> list[int]:
    return [slot.integer(name) for slot in slots if slot[name] is not None]
