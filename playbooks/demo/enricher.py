"""The demo's own enricher: asks about the addresses with the most sessions and fills the inventories with what it finds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

from playbooks.demo.addresses import Address, Asn, Networks

if TYPE_CHECKING:
    import psycopg

    Connection = sqlite3.Connection | psycopg.Connection

_ASNS = """INSERT INTO asn_inventory ({names}, first_seen, last_seen)
    VALUES ({values}, '2025-01-06 00:00:00', '2025-11-05 00:00:00')
    ON CONFLICT (asn_number) DO UPDATE SET ({rest}) = ({excluded})"""
_FOUND = (
    "CREATE TEMPORARY TABLE found (ip text PRIMARY KEY, network integer, types {array}, document {json}, at {time})"
)
_ADDRESSES = """UPDATE ip_inventory SET current_asn = found.network, ip_types = found.types, enrichment = {merged},
    enrichment_updated_at = found.at, asn_last_verified = found.at FROM found WHERE ip_address = found.ip"""


def enrich(connection: Connection, networks: Networks) -> None:
    """Fill both inventories, in the transaction that is open."""
    lite = isinstance(connection, sqlite3.Connection)
    mark = "?" if lite else "%s"
    rest = Asn._fields[1:]
    asns = _ASNS.format(
        names=", ".join(Asn._fields),
        values=", ".join([mark] * len(Asn._fields)),
        rest=", ".join(rest),
        excluded=", ".join(f"excluded.{name}" for name in rest),
    )
    kinds = ("TEXT", "TEXT", "TIMESTAMP") if lite else ("text[]", "jsonb", "timestamptz")
    merged = "json_patch(enrichment, found.document)" if lite else "enrichment || found.document"
    cursor = connection.cursor()
    cursor.executemany(asns, networks.asns)
    cursor.execute(_FOUND.format(array=kinds[0], json=kinds[1], time=kinds[2]))
    cursor.executemany(f"INSERT INTO found VALUES ({', '.join([mark] * 5)})", list(_rows(networks, lite=lite)))
    cursor.execute(_ADDRESSES.format(merged=merged))
    cursor.execute("DROP TABLE found")


def asked(networks: Networks) -> Iterable[Address]:
    """The addresses that it knows something of."""
    return (address for address in (*networks.addresses, *networks.private) if address.enriched)


def _rows(networks: Networks, *, lite: bool) -> Iterable[tuple[object, ...]]:
    for each in asked(networks):
        types = json.dumps(each.types) if lite else each.types
        yield each.ip, each.network, types, json.dumps(each.found), each.updated_at
