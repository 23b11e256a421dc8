"""What the probes' tests share: a probe from its YAML keys, and one look at a test's own database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from databases import Database
from inside import until
from plain_look import PlainDatabase
from pydantic import BaseModel

from steps.contract import Answer, Probe, Query, Unknown
from steps.registry import probe_types


def probe(kind: str, *, queries: Mapping[str, str | Mapping[str, str]] | None = None, **keys: object) -> Probe:
    """The probe as a playbook gives it; queries: name → text, or dialect → text."""
    known = {
        name: Query(name=name, texts={"": text} if isinstance(text, str) else text)
        for name, text in (queries or {}).items()
    }
    return probe_types()[kind].model_validate(keys, context={"queries": known})


def look_at(database: Database, one: Probe, *, user: str | None = None) -> BaseModel:
    with PlainDatabase(database, user=user).look() as look:
        return one.observe(look)


def await_seen(database: Database, one: Probe, wanted: Callable[[BaseModel], bool]) -> BaseModel:
    """What the probe sees as soon as it is so; PostgreSQL's counters follow a transaction's end by up to a second."""

    def seen() -> BaseModel | None:
        with contextlib.suppress(Unknown):
            found = look_at(database, one)
            return found if wanted(found) else None

    database.close()  # a session that is kept tells its counters only after 10 s of idling
    return until(seen)


def answer(database: Database, one: Probe, *, user: str | None = None) -> Answer | None:
    verdict = one.verdict(look_at(database, one, user=user))
    return None if verdict is None else verdict.answer


@contextlib.contextmanager
def role(database: Database, *grants: str) -> Iterator[str]:
    """A role that may log in and what `grants` give ({} is its name); gone afterwards."""
    name = f"role_{database.name}"
    database.script(f"CREATE ROLE {name} LOGIN;" + "".join(f"{grant.format(name)};" for grant in grants))
    database.close()  # a kept session is another role's, and hides what it does from this one
    try:
        yield name
    finally:
        database.script(f"DROP OWNED BY {name}; DROP ROLE {name}")
