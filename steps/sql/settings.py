"""PostgreSQL settings for each of a step's transactions: `set: {search_path: app, role: app_owner}`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from steps.contract import Look, Work
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote
from steps.sql.session_statements import why_not_set

WantedSettings: TypeAlias = bool | int | float | str | tuple[str, ...]


def _allowed(wanted: Mapping[str, WantedSettings]) -> Mapping[str, WantedSettings]:
    for name in wanted:
        if reason := why_not_set(name):
            raise ValueError(reason)
    return wanted


Settings = Annotated[Mapping[str, WantedSettings], AfterValidator(_allowed)]


def shown(wanted: Mapping[str, WantedSettings]) -> str:
    """The settings as plan and trail show them; "" for none."""
    return ", ".join(f"{name} = {_text(name, value)}" for name, value in _in_order(wanted))


def faults(look: Look, wanted: Mapping[str, WantedSettings]) -> list[str]:
    """Why these settings can't be set here, by this role; [] where they can."""
    if not wanted:
        return []
    if look.dialect is Dialect.SQLITE:
        return ["cannot use set: SQLite has no settings of a transaction; leave it out"]
    found = []
    for name, value in wanted.items():
        text = _text(name, value)
        if name == "role":
            found += _why_no_role(look, text)
        elif name == "search_path":
            found += _why_no_path(look, text)
        elif "." not in name:
            found += _why_no_setting(look, name)
    return found


@contextlib.contextmanager
def applied(work: Work, wanted: Mapping[str, WantedSettings], *, local: bool) -> Iterator[None]:
    """Run the block with these settings, and restore the old ones after it, so that the engine's role writes the ledger's row.

    local: limited to the current transaction; else to the session, which ends after the block. After an error nothing is restored,
    because the transaction is rolled back.
    """
    if not wanted:
        yield
        return
    names = [name for name, _ in _in_order(wanted)]
    before = work.row("SELECT " + ", ".join(f"current_setting('{name}', true) AS s{n}" for n, name in enumerate(names)))
    _set(work, [(name, _text(name, value)) for name, value in _in_order(wanted)], local=local)
    yield
    if local:
        # deferred triggers must run with the block's role and settings, not with those restored below
        work.execute("SET CONSTRAINTS ALL IMMEDIATE")
        _set(work, [(name, before.maybe_text(f"s{n}") or "") for n, name in reversed([*enumerate(names)])], local=True)


def _set(work: Work, values: list[tuple[str, str]], *, local: bool) -> None:
    """Set each in a statement of its own, so that each is checked after those before it took effect."""
    for name, value in values:
        work.rows(f"SELECT set_config('{name}', :value, {str(local).lower()})", {"value": value})


def _in_order(wanted: Mapping[str, WantedSettings]) -> list[tuple[str, WantedSettings]]:
    """The settings with the role last: under that role the others might not be allowed."""
    return sorted(wanted.items(), key=lambda one: one[0] == "role")


def _text(name: str, value: WantedSettings) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ", ".join(map(quote, value)) if isinstance(value, tuple) else str(value)
    # if not named, pg_temp is searched first, and a temporary table could shadow the real one
    return f"{text}, pg_temp" if name == "search_path" and "pg_temp" not in text else text


def _why_no_role(look: Look, role: str) -> list[str]:
    sql = "SELECT pg_catalog.pg_has_role(current_user, oid, 'MEMBER') AS ok FROM pg_catalog.pg_roles WHERE rolname = :role"
    rows = look.rows(sql, {"role": role})
    if not rows:
        return [f"cannot set role {role!r}: there is no such role"]
    return (
        []
        if rows[0].flag("ok")
        else [f"cannot set role {role!r}: this connection's role isn't a member of it; GRANT it"]
    )


def _why_no_path(look: Look, path: str) -> list[str]:
    sql = """SELECT trim(one) AS name FROM unnest(string_to_array(:path, ',')) AS one
             WHERE trim(one) NOT IN ('"$user"', 'pg_temp') AND to_regnamespace(trim(one)) IS NULL"""
    missing = [row.text("name") for row in look.rows(sql, {"path": path})]
    return (
        [f"cannot set search_path: there is no schema {', '.join(missing)}, and PostgreSQL would pass over it"]
        if missing
        else []
    )


def _why_no_setting(look: Look, name: str) -> list[str]:
    rows = look.rows("SELECT context FROM pg_catalog.pg_settings WHERE lower(name) = lower(:name)", {"name": name})
    if not rows:
        return [f"cannot set {name}: this server has no such setting"]
    context = rows[0].text("context")
    return (
        [] if context in ("user", "superuser") else [f"cannot set {name}: it can't be changed in a session ({context})"]
    )
