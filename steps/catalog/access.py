"""Who may do what with a view, as it was: neither less nor more, whatever the default privileges give a new one."""

from __future__ import annotations

from steps.catalog import catalog
from steps.contract import Look, Work


def grants(look: Look, table: str) -> tuple[str, ...]:
    """The statements that grant again what is granted, the owner's own rights included; () where nothing was ever granted."""
    return tuple(row.text("sql") for row in catalog.answers(look, "grants", _params(look, table)))


def give(work: Work, table: str, wanted: tuple[str, ...]) -> None:
    """Leave the table with these grants alone."""
    for row in catalog.answers(work, "revokes", {**_params(work, table), "owner": bool(wanted)}):
        work.execute(row.text("sql"))
    for sql in wanted:
        work.execute(sql)


def _params(look: Look, table: str) -> dict[str, str]:
    schema, name = catalog.named(look, table)
    return {"schema": schema, "table": name}
