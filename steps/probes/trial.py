"""A probe that runs statements in a transaction that is always rolled back: a smoke test."""

from __future__ import annotations

import time
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, field_validator

from steps.contract import Answer, DatabaseFault, Look, Model, Probe, StepError, Text, Verdict
from steps.contract.dialect import Dialect
from steps.contract.direction import UNSET
from steps.sql.dialect import is_single_select
from steps.sql.scanner import BadSql, split
from steps.sql.session_statements import void


class TrialResult(Model):
    """rows: returned or affected by the last statement, None where one failed; error: the database's message."""

    rows: Annotated[int | None, UNSET]
    seconds: float
    error: str = ""
    sqlstate: str = ""


class Trial(Probe):
    """Runs statements in a transaction that is always rolled back; passes where none of them fails.

    What a rollback doesn't undo stays: numbers taken from sequences, dead row versions, WAL.
    """

    kind: ClassVar[str] = "trial"
    summary: ClassVar[str] = "statements in a transaction that is always rolled back (sequences and bloat remain)"
    enforced: ClassVar[bool] = False
    Result: ClassVar[type[BaseModel]] = TrialResult

    statements: Annotated[tuple[Text, ...], Field(min_length=1)]
    rows: Annotated[int, Field(ge=0)] | None = None

    @field_validator("statements")
    @classmethod
    def _stay_inside(cls, statements: tuple[Text, ...]) -> tuple[Text, ...]:
        """Refuse statements that would outlive the trial: a COMMIT, and what acts on the session."""
        for one in statements:
            for dialect, text in one.texts.items():
                reasons = [_why_not(text, of) for of in ([Dialect(dialect)] if dialect else Dialect)]
                if all(reasons):  # a text for both may be meant for one of them
                    raise ValueError(reasons[0])
        return statements

    def observe(self, look: Look) -> TrialResult:
        began = time.monotonic()
        rows = None
        try:
            with look.trial("trial") as work:
                for statement in self.statements:
                    sql = statement.text(look.dialect)
                    if reason := _why_not(sql, look.dialect):
                        raise StepError(reason)
                    reads = is_single_select(sql, look.dialect) is None
                    rows = len(work.rows(sql)) if reads else work.execute(sql)
        except DatabaseFault as fault:
            if fault.lost:
                raise
            return TrialResult(rows=None, seconds=_since(began), error=str(fault), sqlstate=fault.sqlstate)
        return TrialResult(rows=rows, seconds=_since(began))

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = TrialResult.model_validate(result)
        if seen.error:
            return Verdict(Answer.FAIL, f"the database refused: {seen.error}")
        if self.rows is not None and seen.rows != self.rows:
            return Verdict(Answer.FAIL, f"the last statement gave {seen.rows} rows, expected {self.rows}")
        return Verdict(Answer.PASS, f"{len(self.statements)} statements ran and were rolled back")

    def decides(self) -> bool:
        return True


def _why_not(text: str, dialect: Dialect) -> str:
    try:
        pieces = split(text, dialect)
        found = void(text, dialect, together=True) if len(pieces) == 1 else None
    except BadSql as fault:
        return str(fault)
    if len(pieces) != 1:
        return f"cannot try {len(pieces)} statements in one text: write each as an entry of its own"
    return "" if found is None else str(found)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
