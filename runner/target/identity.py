"""Identifies the target, so that an approval or a run never carries over to another database."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from runner.common.durations import when
from runner.playbook import digest
from runner.target.drivers import describe_arguments
from runner.trail.events import Json
from steps.contract import DatabaseFault, Look
from steps.contract.dialect import Dialect

if TYPE_CHECKING:
    from runner.target.database import RunDatabase
    from runner.target.resolve import ConnectArguments

_POSTGRESQL = """
SELECT d.oid::bigint AS database_oid, d.datname::text AS database, pg_is_in_recovery() AS standby,
       coalesce(host(inet_server_addr()), '') AS address, current_setting('port')::int AS port,
       CAST(extract(epoch FROM pg_postmaster_start_time()) AS text) AS up_since
FROM pg_catalog.pg_database d WHERE d.datname = current_database()"""
_CONTROL = """SELECT s.system_identifier::text AS system, c.timeline_id AS timeline
FROM pg_control_system() s, pg_control_checkpoint() c"""


def of_target(database: RunDatabase, *, name: str, arguments: ConnectArguments) -> dict[str, Json]:
    """The identity of the target: what the server reports about itself, and how it was reached.

    The same system identifier at another place is a copy or a standby, so another target; under another name for the
    same place it is the same one.
    """
    where: dict[str, Json] = {"name": name, **describe_arguments(arguments)}
    with database.look() as look:
        if look.dialect is Dialect.SQLITE:
            path = Path(str(where["file"])).resolve()
            stat = path.stat()
            return {
                **where,
                "dialect": "sqlite",
                "file": str(path),
                "inode": stat.st_ino,
                "device": stat.st_dev,
            }
        found = look.row(_POSTGRESQL)
        identity: dict[str, Json] = {
            **where,
            "dialect": "postgresql",
            "database": found.text("database"),
            "database_oid": found.integer("database_oid"),
            "standby": found.flag("standby"),
            "address": found.text("address"),
            "port": found.maybe_integer("port"),
            "up_since": found.text("up_since"),
            "dialed": ":".join(database.dialed),
            "server": _server(database.dialed, found.text("address"), found.integer("port")),
            "schema": look.schema,
        }
    return identity | _control(database)


def _control(database: RunDatabase) -> dict[str, Json]:
    """System identifier and timeline; None for both if the role may not read them. In a look of its own, which may fail."""
    try:
        with database.look() as look:
            row = look.row(_CONTROL)
            return {"system": row.text("system"), "timeline": row.integer("timeline")}
    except DatabaseFault:
        return {"system": None, "timeline": None}


def another(database: RunDatabase, known: dict[str, Json]) -> list[str]:
    """How the server behind the address differs from the known one, as after a failover; [] if it doesn't."""
    now = _control(database)
    with database.look() as look:
        if look.dialect is Dialect.POSTGRESQL:
            now["standby"] = look.row("SELECT pg_is_in_recovery() AS standby").flag("standby")
    return differences({key: known.get(key) for key in now}, now) if now.get("system") else []


def server_words(look: Look) -> str:
    """Name and version of the server, for people: "PostgreSQL 18.6"."""
    name = "PostgreSQL" if look.dialect is Dialect.POSTGRESQL else "SQLite"
    return f"{name} {'.'.join(map(str, look.version))}"


def _server(dialed: tuple[str, str], address: str, port: int) -> str:
    """A canonical place of the server: socket directory or address, with the port.

    "" if the connection goes through something (a tunnel, a pooler, a container's network), where the server's own
    address doesn't tell the place.
    """
    host, at = dialed
    if at != str(port):
        return ""
    if host.startswith("/") and not address:
        return f"{socket.gethostname()}:{Path(host).resolve()}:{port}"
    if host != address:
        return ""
    return f"{socket.gethostname()}:{port}" if address in _own_addresses() else f"{address}:{port}"


def _own_addresses() -> set[str]:
    import psutil

    return {"127.0.0.1", "::1"} | {
        one.address.partition("%")[0] for card in psutil.net_if_addrs().values() for one in card
    }


def shown(known: Mapping[str, Json]) -> dict[str, Json]:
    """An identity for people: empty entries are left out, and the server's start is a time."""
    found: dict[str, Json] = {key: value for key, value in known.items() if value not in (None, "")}
    since = found.get("up_since")
    if isinstance(since, str) and re.fullmatch(r"\d+(\.\d+)?", since):
        found["up_since"] = when(datetime.fromtimestamp(float(since), UTC), seconds=True)
    return found


def differences(one: Mapping[str, Json], other: Mapping[str, Json]) -> list[str]:
    """Why two identities are two different databases, in words; [] if they are the same."""
    known = [key for key in digest.ITSELF if key in one and key in other]
    found = [key for key in (*known, "schema") if one.get(key) != other.get(key)]
    if one.get("dialect") == "sqlite":
        found += [] if "device" in known else [key for key in ("file",) if one.get(key) != other.get(key)]
    elif not found and not _same_place(one, other):
        found = [key for key in ("server", "dialed", "address", "host", "port") if one.get(key) != other.get(key)]
    return [_differ(key, one, other) for key in found]


def _differ(key: str, one: Mapping[str, Json], other: Mapping[str, Json]) -> str:
    return f"{key}: {one.get(key)!r} then, {other.get(key)!r} now"


def _same_place(one: Mapping[str, Json], other: Mapping[str, Json]) -> bool:
    """Whether both are one server and not a copy: same start time, same place, or reached in the same way."""
    proofs = ("up_since", "server") if one.get("system") is not None else ()
    way = ("host", "service", "address", *(("dialed",) if "dialed" in one and "dialed" in other else ()))
    return any(one.get(key) and one.get(key) == other.get(key) for key in proofs) or all(
        one.get(key) == other.get(key) for key in way
    )
