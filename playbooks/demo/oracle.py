"""What a correct backfill makes of the honeypot's store, computed from its rows without any database."""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from playbooks.demo.enricher import asked
from playbooks.demo.generator import Session, Store, World


class After(NamedTuple):
    """What the five columns of a session hold after a correct backfill."""

    source_ip: str | None = None
    snapshot_asn: int | None = None
    snapshot_country: str | None = None
    snapshot_ip_type: str | None = None
    enrichment_at: str | None = None  # UTC, 'YYYY-MM-DD HH:MM:SS'


@dataclass(frozen=True)
class Expected:
    """The figures of a correct backfill; private is part of the others.

    total = inventory_hit + not_in_inventory + no_ip + unreadable. stored: the five columns before the backfill.
    """

    total: int
    inventory_hit: int
    country_filled: int
    no_ip: int
    not_in_inventory: int
    unreadable: int
    private: int
    private_in_inventory: int
    rows: dict[str, After]
    stored: dict[str, After]

    @property
    def coverage(self) -> float:
        """The part of the sessions that has a country, in per cent."""
        return 100 * self.country_filled / self.total


@dataclass
class _Row:
    """A row of ip_inventory."""

    document: dict[str, Any]
    network: int | None
    types: list[str]
    updated_at: str | None = None


def expected(
    *, sessions: int = 100_000, store: Store = "enriched", seed: int = 7, late: int = 0, documented: bool = False
) -> Expected:
    """Of such a store; `late` sessions are reached too."""
    world = World(sessions, store=store, seed=seed, documented=documented)
    found, later = world.sessions()
    before = list(found)
    inventory = _inventory(world, before)
    stored = {} if documented else {each.session_id: _migrated(each) for each in before}
    rows, kinds, private, private_hit = {}, dict.fromkeys(("hit", "none", "unknown", "unreadable"), 0), 0, 0
    for session in itertools.chain(before, later, world.late(late)):
        was = stored.setdefault(session.session_id, After())
        ip = was.source_ip or _ip_in(_read(session.enrichment))
        kinds[
            "unreadable" if _unreadable(session) else "none" if ip is None else "hit" if ip in inventory else "unknown"
        ] += 1
        rows[session.session_id] = (
            was if _unreadable(session) or ip not in inventory else _filled(was, ip, inventory[ip])
        )
        if ip and _unroutable(ip):
            private += 1
            private_hit += ip in inventory
    filled = sum(after.snapshot_country is not None for after in rows.values())
    return Expected(
        len(rows), kinds["hit"], filled, kinds["none"], kinds["unknown"], kinds["unreadable"], private, private_hit, rows, stored
    )  # fmt: skip


def _inventory(world: World, before: list[Session]) -> dict[str, _Row]:
    """As v16 fills it from the newest session of each address, and as the enricher goes over it."""
    newest: dict[str, Session] = {}
    for each in sorted(before, key=lambda each: each.session_id):
        ip = _at(_read(each.enrichment), "dshield", "ip", "number")
        if ip and (ip not in newest or (each.last_event_at or "") > (newest[ip].last_event_at or "")):
            newest[ip] = each
    documents = {ip: _read(each.enrichment) for ip, each in newest.items()}
    inventory = {ip: _Row(document, _at(document, "cymru", "asn"), []) for ip, document in documents.items()}
    for address in asked(world.networks) if world.store != "raw" else ():
        if row := inventory.get(address.ip):
            row.document |= address.found
            row.network, row.types, row.updated_at = address.network, address.types, address.updated_at
    return inventory


def _migrated(session: Session) -> After:
    """What v16 writes into a session."""
    document = _read(session.enrichment)
    country = _first(document, ("maxmind", "country"), ("cymru", "country"))
    at = _at(document, "enriched_at")
    return After(
        source_ip=_at(document, "dshield", "ip", "number"),
        snapshot_asn=_at(document, "cymru", "asn"),
        snapshot_country=country.upper() if country else None,
        enrichment_at=at.removesuffix("+00:00") if at else session.created_at,
    )


def _filled(was: After, ip: str, row: _Row) -> After:
    """What was there stays; of the rest, what the inventory knows."""
    country = (
        _first(row.document, ("maxmind", "country"), ("cymru", "country"), ("dshield", "ip", "ascountry")) or ""
    ).upper()
    known = After(ip, row.network, country or None, row.types[0] if row.types else None, row.updated_at)
    if _unroutable(ip):
        known = After(ip, enrichment_at=row.updated_at)
    return After(*(new if old is None else old for old, new in zip(was, known, strict=True)))


def _unreadable(session: Session) -> bool:
    """An odd number of backslashes before the u0000."""
    return bool(re.search(r"(?<!\\)(?:\\\\)*\\u0000", session.enrichment or ""))


def _unroutable(ip: str) -> bool:
    return ip.startswith(("10.", "172.", "192.")) and ipaddress.ip_address(ip).is_private


def _read(enrichment: str | None) -> Any:
    try:
        return json.loads(enrichment or "null")
    except json.JSONDecodeError:
        return None


def _ip_in(document: Any) -> str | None:
    return _first(document, ("session_metadata", "source_ip"), ("dshield", "ip", "number"))


def _first(document: Any, *paths: tuple[str, ...]) -> Any:
    """The value of the first path that has one."""
    return next((value for path in paths if (value := _at(document, *path)) is not None), None)


def _at(document: Any, *path: str) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document
