"""Fields of steps that work in batches: the size of a batch, a pause after some of them, and the limit on dead rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from steps.contract import Model, Seconds
from steps.contract.direction import HIGHER

Count = Annotated[int, Field(ge=1, le=100_000)]


class BatchSize(Model):
    """The target duration of a batch, and the range of rows within which its size adapts."""

    time: Annotated[Seconds, Field(gt=0, le=60), HIGHER] = 0.25
    rows: tuple[Count, Count] = (100, 10_000)

    @model_validator(mode="after")
    def _ordered(self) -> BatchSize:
        if self.rows[0] > self.rows[1]:
            raise ValueError(f"cannot use rows {list(self.rows)}: the smaller number comes first")
        return self


class PauseAfter(Model):
    """When the pass pauses once for a person: after so many rows written, or so many batches."""

    written: Annotated[Annotated[int, Field(ge=1)] | None, HIGHER] = None
    batches: Annotated[Annotated[int, Field(ge=1)] | None, HIGHER] = None

    @model_validator(mode="after")
    def _one(self) -> PauseAfter:
        if (self.written is None) == (self.batches is None):
            raise ValueError("cannot tell when to pause: write either written or batches")
        return self


class DeadLetters(Model):
    """How many rows may be skipped as dead before the step stops: a number and a share of the rows in range; both limits apply."""

    max: Annotated[int, Field(ge=0), HIGHER] = 100
    pct: Annotated[float, Field(ge=0, le=100), HIGHER] = 1.0
