"""`target check` and `target init`: whether everything that a run needs is there, and creating the ledger."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from runner.common.errors import RunRefused
from runner.target import identity, lease_holder, ledger_check
from runner.target.database import RunDatabase
from runner.target.workplace import Connected, Workplace, connected
from steps.contract import INSUFFICIENT_PRIVILEGE, LOCK_NOT_AVAILABLE, DatabaseFault, Look
from steps.contract.dialect import Dialect
from steps.ledger import form, tables
from steps.ledger.tables import VERSION
from steps.sql.dialect import quote

# Errors of `target init` that the operator can do something about.
_ANSWERS = frozenset({LOCK_NOT_AVAILABLE, INSUFFICIENT_PRIVILEGE})
PACKAGES = ("sqlalchemy", "psycopg", "pydantic", "pyyaml", "click", "jinja2", "simpleeval", "psutil")


@dataclass(frozen=True)
class Readiness:
    """The result of examining one thing."""

    name: str
    good: bool
    text: str


def check(place: Workplace) -> list[Readiness]:
    """Examine everything that can be examined without changing anything; raises TargetUnreachable."""
    found = [Readiness("python", sys.version_info >= (3, 11), platform.python_version())]
    found += [_package(name) for name in PACKAGES]
    with connected(place) as target:
        with target.database.look() as look:
            found.append(Readiness("server", True, identity.server_words(look)))
            found.append(_ledger(look))
        found.append(
            Readiness(
                "identity",
                True,
                ", ".join(f"{key} {value}" for key, value in identity.shown(target.identity).items()),
            )
        )
        found += _privileges(target)
    return found


def _package(name: str) -> Readiness:
    try:
        return Readiness(name, True, version(name))
    except PackageNotFoundError:
        return Readiness(name, False, f"not installed: pip install {name}")


def _ledger(look: Look) -> Readiness:
    try:
        found = ledger_check.refuse_bad(look)
    except RunRefused as bad:
        return Readiness("ledger", False, f"{bad.what}{f' ({bad.why})' if bad.why else ''}; {bad.then}")
    if found.there:
        return Readiness("ledger", True, f"there, version {found.version}")
    if look.dialect is Dialect.SQLITE:
        return Readiness("ledger", True, "not there yet; the first changing run makes it")
    may = look.row("SELECT has_database_privilege(current_database(), 'CREATE') AS may").flag("may")
    words = "the first changing run makes it" if may else "this role may not make it: runbook target init --print"
    return Readiness("ledger", may, f"not there yet; {words}")


def _privileges(target: Connected) -> list[Readiness]:
    """Privileges that checks need to see other sessions and all settings; without them checks answer unknown."""
    if target.database.dialect is Dialect.SQLITE:
        return []
    with target.database.look() as look:
        row = look.row(
            """SELECT current_user::text AS role, pg_has_role(current_user, 'pg_read_all_stats', 'MEMBER') AS stats,
                      pg_has_role(current_user, 'pg_read_all_settings', 'MEMBER') AS settings"""
        )
    role = quote(row.text("role"))
    return [
        Readiness(
            "other sessions visible",
            row.flag("stats"),
            "yes" if row.flag("stats") else f"no: GRANT pg_read_all_stats TO {role}",
        ),
        Readiness(
            "all settings visible",
            row.flag("settings"),
            "yes" if row.flag("settings") else f"no: GRANT pg_read_all_settings TO {role}",
        ),
    ]


def statements(dialect: str, role: str) -> str:
    """The SQL script with which a DBA creates the ledger for a role that may not do so itself."""
    kind = Dialect(dialect)
    lines = tables.ddl(kind)
    if role and kind is Dialect.POSTGRESQL:
        lines += tables.grants(quote(role))
    return "".join(" ".join(line.split()) + ";\n" for line in lines)


def init(place: Workplace) -> str:
    """Create the ledger, or migrate one of an earlier version; returns a sentence. Raises RunRefused."""
    with connected(place) as target:
        database: RunDatabase = target.database
        with database.look() as look:
            found, whole = _mendable(look), tables.tables(look) >= tables.ON_DEMAND
        already = f"the ledger is there already in {target.name}"
        if found.good and whole:
            return already
        try:
            with database.own(fenced=False) as work:
                form.keep_to_itself(work)  # one migration at a time; so look again once we have the lock
                found = _mendable(work)
                if found.good and tables.tables(work) >= tables.ON_DEMAND:  # another process has done it meanwhile
                    return already
                if found.there:
                    lease_holder.refuse_any_held(work)
                done = form.migrate(work)
        except DatabaseFault as fault:
            if fault.sqlstate not in _ANSWERS:
                raise
            raise _refused(found, fault) from fault
        except form.Inconvertible as stuck:
            raise RunRefused(
                f"cannot bring the ledger to today's form: {stuck}, and rows stand there",
                why="this version doesn't know how to read them",
                state="nothing was changed by this command",
                then="take back or close the runs that they belong to with the version that made them, then runbook target init",
            ) from stuck
        if not found.there:
            return f"made the ledger in {target.name}"
        return f"brought the ledger in {target.name} to today's form: {'; '.join(done) or f'version {VERSION}'}"


def _mendable(look: Look) -> form.Form:
    """The ledger's form; raises RunRefused if it must not be migrated."""
    found = form.form(look)
    if found.planted or found.version > VERSION:
        ledger_check.refuse_bad(look)
    return found


def _refused(found: form.Form, fault: DatabaseFault) -> RunRefused:
    if fault.sqlstate == LOCK_NOT_AVAILABLE:
        return RunRefused(
            "cannot bring the ledger to today's form now: somebody is at work on its tables",
            why=str(fault),
            state="nothing was changed",
            then="runbook target init, when they are done (pg_stat_activity has them)",
        )
    what, then = "make the ledger", "runbook target init --print --role ROLE, and give what it prints to the DBA"
    if found.there:
        what, then = "bring the ledger to today's form", "runbook target init, as the role that owns the ledger"
    return RunRefused(
        f"cannot {what}: this role may not", why=str(fault), state="nothing was changed by this command", then=then
    )
