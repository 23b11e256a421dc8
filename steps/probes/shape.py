"""A probe that compares the database with a declared shape."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from steps.catalog.shape import NamedShape, ShapeState
from steps.contract import Look, Model, Probe, Unknown


class ShapeResult(Model):
    """state: whole, more, half, absent or changing; declared, there: how many parts.

    missing, differing: parts that are not as declared, with what the catalogue says of them; more: what is there and must not
    be; changers: who is changing its tables now.
    """

    state: str
    declared: int
    there: int
    missing: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    changers: tuple[str, ...] = ()


class ShapeProbe(Probe):
    """Whether the database has a declared shape: passes where it is whole, or where `that:` holds of its figures.

    A number in a version table proves nothing: it is a row like others, and the catalogue decides. Unknown where something can't
    be seen, and all else is as declared.
    """

    kind: ClassVar[str] = "shape"
    conditional: ClassVar[bool] = True
    summary: ClassVar[str] = "the database compared with a declared shape: whole, half, absent, being changed"
    Result: ClassVar[type[BaseModel]] = ShapeResult
    default_that: ClassVar[str] = "state == 'whole'"

    shape: NamedShape

    def observe(self, look: Look) -> ShapeResult:
        from steps.catalog import shape_compare
        from steps.catalog.shape_compare import PartState

        seen = shape_compare.compare(look, self.shape.on(look.dialect))
        unseen = seen.those(PartState.UNSEEN)
        if seen.state is ShapeState.UNKNOWN:
            raise Unknown(f"of the shape {self.shape.name} {len(unseen)} parts can't be seen: {unseen[0]}")
        return ShapeResult(
            state=seen.state,
            declared=len(seen.shape.parts),
            there=len(seen.those(PartState.THERE)),
            missing=tuple(map(str, seen.those(PartState.MISSING))),
            differing=tuple(map(str, seen.those(PartState.DIFFERS, PartState.BEFORE))),
            more=seen.more,
            changers=tuple(map(str, seen.changers)),
        )
