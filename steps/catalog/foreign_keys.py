"""Foreign keys as playbooks write them: as SQL, and compared with those of the catalogue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from steps.catalog import catalog
from steps.catalog.definitions import ConstraintInfo
from steps.contract import Column, Identifier, Look, Model
from steps.contract.dialect import Dialect
from steps.contract.fields import one_or_more
from steps.sql.dialect import quote

Act = Literal["no action", "restrict", "cascade", "set null", "set default"]
_DEFERRABLE = {"no": "", "immediate": "DEFERRABLE", "deferred": "DEFERRABLE INITIALLY DEFERRED"}


class ForeignKey(Model):
    """A foreign key. references: `table.column`, one for each of `columns`."""

    columns: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    references: Annotated[
        tuple[Column, ...],
        BeforeValidator(one_or_more, json_schema_input_type=tuple[Column, ...] | Column),
        Field(min_length=1),
    ]
    on_delete: Act = "no action"
    on_update: Act = "no action"
    deferrable: Literal["no", "immediate", "deferred"] = "no"

    @model_validator(mode="after")
    def _paired(self) -> ForeignKey:
        if len(self.columns) != len(self.references):
            raise ValueError("cannot pair the foreign key's columns: columns and references differ in length")
        if len({one.table for one in self.references}) > 1:
            raise ValueError("cannot reference two tables with one foreign key")
        return self

    @property
    def table(self) -> str:
        return self.references[0].table

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(one.column for one in self.references)


def clause(look: Look, key: ForeignKey, target: str = "") -> str:
    """FOREIGN KEY … REFERENCES …; target: another quoted table instead of the key's own."""
    ours, theirs = (", ".join(map(quote, names)) for names in (key.columns, key.targets))
    there = target or catalog.sql_name(look, key.table)
    words = f"FOREIGN KEY ({ours}) REFERENCES {there} ({theirs}) ON DELETE {key.on_delete.upper()} ON UPDATE {key.on_update.upper()}"
    return f"{words} {_DEFERRABLE[key.deferrable]}".rstrip()


def is_same(look: Look, key: ForeignKey, found: ConstraintInfo) -> bool:
    """Whether a constraint of the catalogue is this foreign key, whatever its name."""
    special = {"no": "", "immediate": "DEFERRABLE", "deferred": "INITIALLY DEFERRED"}[key.deferrable]
    if look.dialect is Dialect.SQLITE:  # its pragmas don't tell whether a key is deferrable
        special = found.special
    wanted = (key.columns, catalog.named(look, key.table), key.targets, key.on_delete, key.on_update, special)
    return found.kind == "foreign key" and wanted == (
        found.columns,
        found.references,
        found.foreign_columns,
        found.on_delete,
        found.on_update,
        found.special,
    )
