"""Which database this is, so that nothing approved or begun on one goes on upon another."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from runner import persons
from runner.drivers import describe_arguments
from runner.events import Json, Process
from steps import pids
from steps.base import DatabaseFault, Look
from steps.dialect import Dialect
from steps.pids import ProcessId

if TYPE_CHECKING:
    from runner.database import RunDatabase
    from runner.targets import ConnectArguments

_POSTGRESQL = """
SELECT d.oid::bigint AS database_oid, d.datname::text AS database, pg_is_in_recovery() AS standby,
       coalesce(host(inet_server_addr()), '') AS address, inet_server_port() AS port, version() AS server
FROM pg_catalog.pg_database d WHERE d.datname = current_database()"""
_CONTROL = """SELECT s.system_identifier::text AS system, c.timeline_id AS timeline
FROM pg_control_system() s, pg_control_checkpoint() c"""


def of_target(database: RunDatabase, *, name: str, arguments: ConnectArguments) -> dict[str, Json]:
    """System identifier, timeline, database, address and the name in the targets file.

    The same system identifier under another address or name is a copy or a failover: it counts as another target.
    """
    where: dict[str, Json] = {"name": name, **describe_arguments(arguments)}
    with database.look() as look:
        if look.dialect is Dialect.SQLITE:
            path = Path(str(where["file"])).resolve()
            return {**where, "dialect": "sqlite", "file": str(path), "inode": path.stat().st_ino}
        found = look.row(_POSTGRESQL)
        identity: dict[str, Json] = {
            **where,
            "dialect": "postgresql",
            "database": found.text("database"),
            "database_oid": found.integer("database_oid"),
            "standby": found.flag("standby"),
            "address": found.text("address"),
            "port": found.maybe_integer("port"),
            "schema": look.schema,
        }
    return identity | _control(database)


def _control(database: RunDatabase) -> dict[str, Json]:
    """In a look of its own: a role that may not read it must not spoil the other's transaction."""
    try:
        with database.look() as look:
            row = look.row(_CONTROL)
            return {"system": row.text("system"), "timeline": row.integer("timeline")}
    except DatabaseFault:
        return {"system": None, "timeline": None}


def another(database: RunDatabase, known: dict[str, Json]) -> list[str]:
    """In which of what can change behind an address the server is not the one that is known: after a failover, in words."""
    now = _control(database)
    with database.look() as look:
        if look.dialect is Dialect.POSTGRESQL:
            now["standby"] = look.row("SELECT pg_is_in_recovery() AS standby").flag("standby")
    return differences({key: known.get(key) for key in now}, now) if now.get("system") else []


def server_words(look: Look) -> str:
    """Dialect and version for people: "PostgreSQL 18.6"."""
    name = "PostgreSQL" if look.dialect is Dialect.POSTGRESQL else "SQLite"
    return f"{name} {'.'.join(map(str, look.version))}"


def differences(one: dict[str, Json], other: dict[str, Json]) -> list[str]:
    """What differs between two identities, in words."""
    keys = sorted(set(one) | set(other))
    return [f"{key}: {one.get(key)!r} then, {other.get(key)!r} now" for key in keys if one.get(key) != other.get(key)]


def process(operator: str | None) -> Process:
    """This process, and who says to act in it."""
    user, own = _user(), pids.identify(os.getpid())
    return Process(
        operator=user if operator is None else persons.named(operator, option="--operator"),
        user=user,
        host=socket.gethostname(),
        pid=own.pid,
        started=own.started,
        boot_id=own.boot,
        pid_ns=own.namespace,
        ticks=own.ticks,
        versions={
            "runbook": version(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        },
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without an entry in the system's list, as in some containers
        return str(os.getuid())


def alive(process: Process) -> bool | None:
    """Whether that very process still runs; None where that can't be seen from here."""
    return pids.alive(ProcessId(process.pid, process.boot_id, process.pid_ns, process.ticks, process.started))


def version() -> str:
    """The engine's own version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("runbook-engine")
    except PackageNotFoundError:
        return "0+source"
