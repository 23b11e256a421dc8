"""The strongest lock that statements take, by PostgreSQL's own grammar where the extra `lint` is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runner.review import parse_tree
from runner.review.effects import StatementEffect, effect_of
from runner.review.sql_texts import Role, SqlText

if TYPE_CHECKING:
    from runner.playbook.load import WrittenPlaybook


def strongest(sql: str) -> StatementEffect | None:
    """The effect of the strongest of these statements; None where it can't be told."""
    if not parse_tree.available():
        return None
    nowhere = cast("WrittenPlaybook", None)  # only places in a file need it
    found = parse_tree.parse(SqlText((), sql, "postgresql", Role.STATEMENT, (), nowhere))
    if not isinstance(found, list):
        return None
    return max((effect_of(one) for one in found), key=lambda one: one.strength, default=None)
