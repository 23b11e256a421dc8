"""The values that a query or a probe can return: encoded as JSON with their type, decoded, compared exactly, bounded in size.

Strings, booleans, null, integers and finite doubles are JSON values as they are. Every other value becomes an object with
one key that begins with $ and names the type: {"$decimal": "0.10"}. Data that looks like such an object is itself wrapped in
{"$map": …}, so that decoding returns exactly what was encoded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, JsonValue

from steps.contract import cutting

LONGEST = 4_096  # characters of a text, bytes of a blob
MOST = 1_000  # entries of a list or mapping
LARGEST = 64_000  # characters of all values of one result together
_MARK = "…(cut)"


@dataclass(frozen=True)
class Cut:
    """Stands for a value that was too large to record: its beginning, and its full length. No check can compare it."""

    shown: str
    length: int
    what: str  # the unit of length: "characters", "bytes", "bits" or "entries"

    def __str__(self) -> str:
        return f"{self.shown}{_MARK}"

    @property
    def why(self) -> str:
        return f"was cut: it had {self.length:,} {self.what}"


Scalar: TypeAlias = (
    "bool | int | float | Decimal | str | bytes | date | datetime | time | timedelta | UUID | Cut | None"
)
Value: TypeAlias = "Scalar | list[Value] | dict[str, Value]"


# ─── to JSON and back ───────────────────────────────────────────────────────────────────────────────────────────────
def encode(value: object) -> JsonValue:
    """A value as typed JSON; an object of any other class becomes its text."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else {"$float": str(float(value))}
        case BaseModel():
            return encode(dict(value))
        case Mapping():
            encoded = {str(key): encode(one) for key, one in value.items()}
            return {"$map": encoded} if _looks_tagged(encoded) else encoded
        case list() | tuple() | set() | frozenset():
            return [encode(one) for one in value]
        case _:
            return _tagged(value)


def _tagged(value: object) -> JsonValue:  # noqa: C901, PLR0911 - one flat match over all kinds of values
    match value:
        case Decimal():
            return {"$decimal": str(value)}
        case datetime():
            return {"$timestamp": value.isoformat()}
        case date():
            return {"$date": value.isoformat()}
        case time():
            return {"$time": value.isoformat()}
        case timedelta():
            return {"$interval": [value.days, value.seconds, value.microseconds]}
        case UUID():
            return {"$uuid": str(value)}
        case bytes():
            return {"$bytes": value.hex()}
        case Cut():
            return {"$cut": [value.shown, value.length, value.what]}
        case _:
            return str(value)


_READ: dict[str, Callable[[Any], Value]] = {
    "$float": float,
    "$decimal": Decimal,
    "$timestamp": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$interval": lambda parts: timedelta(*map(int, parts)),
    "$uuid": UUID,
    "$bytes": bytes.fromhex,
    "$cut": lambda parts: Cut(str(parts[0]), int(parts[1]), str(parts[2])),
    "$map": lambda inside: {key: decode(one) for key, one in inside.items()},
}


def decode(value: object) -> Value:
    """The value that `encode` was given; JSON without type tags, as earlier versions wrote it, is returned as it is."""
    match value:
        case dict():
            if _looks_tagged(value):
                tag, inside = next(iter(value.items()))
                try:
                    return _READ[tag](inside)
                except (ValueError, TypeError, ArithmeticError, AttributeError, IndexError):
                    return (
                        inside if isinstance(inside, str) else json.dumps(value)
                    )  # masked: a text, equal to no number
            return {str(key): decode(one) for key, one in value.items()}
        case list() | tuple():
            return [decode(one) for one in value]
        case _:
            scalar: Value = value  # type: ignore[assignment] # JSON's own scalars, and what is a Value already
            return scalar


def _looks_tagged(value: Mapping[str, object]) -> bool:
    return len(value) == 1 and next(iter(value)) in _READ


def encode_all(values: Mapping[str, object]) -> dict[str, JsonValue]:
    return {str(key): encode(value) for key, value in values.items()}


def decode_all(values: object) -> dict[str, Value]:
    return {str(key): decode(value) for key, value in values.items()} if isinstance(values, Mapping) else {}


def in_json(values: Mapping[str, object]) -> str:
    """The values, or mappings of values, as the JSON text of a ledger column."""
    return json.dumps({name: encode_all(one) if isinstance(one, dict) else encode(one) for name, one in values.items()})


def plain(value: object) -> Value:
    """A model field's content as a Value: tuples become lists, models mappings, and any other class its text."""
    match value:
        case str() if type(value) is not str:
            return str(value)  # a member of a StrEnum
        case BaseModel():
            return {name: plain(one) for name, one in value}
        case Mapping():
            return {str(key): plain(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in value]
        case (
            None
            | bool()
            | int()
            | float()
            | Decimal()
            | str()
            | bytes()
            | date()
            | time()
            | timedelta()
            | UUID()
            | Cut()
        ):
            return value
        case _:
            return str(value)


def readable(value: object) -> JsonValue:  # noqa: C901, PLR0911 - one flat match over all kinds of values
    """A value as plain JSON without type tags, for other tools: a decimal is a number only where a double holds it exactly."""
    match value:
        case Decimal():
            return _number(value)
        case float():
            return value if math.isfinite(value) else None
        case timedelta():
            return value.total_seconds()
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.decode("utf-8", "replace")
        case BaseModel():
            return readable(dict(value))
        case Mapping():
            return {str(key): readable(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [readable(one) for one in value]
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def readable_all(values: Mapping[str, object]) -> dict[str, JsonValue]:
    return {str(key): readable(value) for key, value in values.items()}


def _number(value: Decimal) -> JsonValue:
    """The decimal as an integer or a double where that is exactly the same number, otherwise as its digits."""
    if not value.is_finite():
        return str(value)
    if abs(value.adjusted()) < 16 and value == value.to_integral_value():
        return int(value)
    double = float(value) if abs(value.adjusted()) < 300 else math.inf
    return double if Decimal(repr(double)) == value else str(value)


class NoPlace(Exception):
    """SQLite can't store this value exactly."""


def for_sqlite(value: Value) -> str | int | float | bytes | None:  # noqa: C901 - one flat match
    """The value as SQLite stores it; raises NoPlace where it would be stored as a different value."""
    match value:
        case int() if not -(2**63) <= value < 2**63:
            raise NoPlace(f"{value} is outside of SQLite's integers (64 bits): give it as text, in quotes")
        case float() if math.isnan(value):
            raise NoPlace("SQLite stores NULL for NaN")
        case Decimal():
            number = _number(value)
            if isinstance(number, int | float):
                return for_sqlite(number)
            raise NoPlace(f"{value} has more digits than a number of SQLite keeps: give it as text, in quotes")
        case Cut():
            raise NoPlace(f"it {value.why}")
        case datetime():
            return value.isoformat(" ")
        case timedelta():
            return value.total_seconds()
        case None | int() | float() | str() | bytes():
            return value
        case _:
            return str(readable(value))


# ─── comparing ──────────────────────────────────────────────────────────────────────────────────────────────────────
def exact(value: Value) -> Value:
    """A float as the decimal of its shortest repr, so that a float 95.1 equals a decimal 95.1; recursive."""
    match value:
        case float():
            return Decimal(float.__repr__(value))
        case list() | tuple():
            return [exact(one) for one in value]
        case dict():
            return {key: exact(one) for key, one in value.items()}
        case _:
            return value


def why_unknown(value: Value) -> str:
    """Why a value can't be compared with anything (NULL, NaN, cut), as the end of a sentence; "" where it can."""
    match value:
        case None:
            return "is NULL"
        case Cut():
            return value.why
        case float() if math.isnan(value):
            return "is not a number (NaN)"
        case Decimal() if value.is_nan():
            return "is not a number (NaN)"
        case list() | tuple():
            return next(
                (f"holds a value that {why}" for one in value if one is not None and (why := why_unknown(one))), ""
            )
        case dict():
            return why_unknown(list(value.values()))
        case _:
            return ""


def sortable(value: Value) -> str:
    """A canonical text, identical exactly for equal values: 1, 1.0 and 1.00 are equal, 1 and '1' are not."""
    match value:
        case bool():
            return f"t{value:d}"
        case int() | float() | Decimal():
            return f"n{_canonical(value)}"
        case datetime() if value.tzinfo is not None:
            return f"z{value.astimezone(UTC).isoformat()}"
        case list() | tuple():
            return f"[{', '.join(map(sortable, value))}]"
        case dict():
            return f"{{{', '.join(f'{key!r}: {sortable(one)}' for key, one in sorted(value.items()))}}}"
        case _:
            return f"{type(value).__name__} {value!r}"


def _canonical(value: float | Decimal) -> str:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite():
        return str(number)
    if number.is_zero():
        return "0"
    return str(number.normalize(Context(prec=len(number.as_tuple().digits))))


# ─── bounding ───────────────────────────────────────────────────────────────────────────────────────────────────────
def bounded(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values of one result within the size limits above: any value that is too large becomes a Cut."""
    left = LARGEST
    kept: dict[str, Value] = {}
    for name, value in values.items():
        kept[name] = _bounded(value, min(LONGEST, max(left, 0)))
        left -= _size(kept[name])
    return kept


def _bounded(value: Value, longest: int) -> Value:
    match value:
        case str() if len(value) > longest:
            return Cut(cutting.first(value, min(longest, 200)), len(value), "characters")
        case bytes() if len(value) > longest:
            return Cut(cutting.first(value[: cutting.BESIDE].hex(), 40), len(value), "bytes")
        case int() if not isinstance(value, bool) and value.bit_length() > 4 * LONGEST:
            return Cut("a number", value.bit_length(), "bits")
        case list() | tuple() | dict() if len(value) > MOST or _size(value) > LARGEST // 2:
            return Cut(_beginning(value), len(value), "entries")
        case list() | tuple():
            return [_bounded(one, longest) for one in value]
        case dict():
            return {key: _bounded(one, longest) for key, one in value.items()}
        case _:
            return value


def _beginning(value: list[Value] | tuple[Value, ...] | dict[str, Value]) -> str:
    first = next(iter(value), "")
    return f"{type(value).__name__} from {cutting.first(str(first), 100)!r} on"


def _size(value: Value) -> int:
    """The approximate size of a value in the record, in characters; a list is counted only up to the limit."""
    match value:
        case str() | bytes():
            return len(value)
        case list() | tuple():
            return sum(map(_size, value[: MOST + 1])) + len(value)
        case dict():
            return sum(len(key) + _size(one) for key, one in value.items())
        case Decimal():
            return len(value.as_tuple().digits)
        case _:
            return 8
