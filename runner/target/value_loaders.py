"""Reads PostgreSQL values that no Python type can hold as text: infinity, 24:00, years before 1 or after 9999.

psycopg would raise on them and so lose the whole result. Numbers in JSON become Decimal, because float would silently drop
digits. Intervals with months become text, because their length depends on where they start.
"""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from struct import unpack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psycopg import Connection

_DAYS_TO_2000 = 10957  # from 1970
_DAY = 86_400_000_000  # microseconds
_NAMES = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")


def register(connection: Connection[Any]) -> None:
    """Install these loaders on a connection."""
    from psycopg.types.json import set_json_loads

    for name, loader in _loaders():
        connection.adapters.register_loader(name, loader)
    set_json_loads(_loads, connection)


def _loads(text: str | bytes) -> Any:
    """Parse JSON. A single module-level function: psycopg caches one adapter per function."""
    return json.loads(text, parse_float=Decimal)


@functools.cache
def _loaders() -> list[tuple[str, Any]]:
    """Psycopg's own loaders, text and binary, each wrapped with a fallback to text."""
    from psycopg.types import datetime as theirs

    found = []
    for name in _NAMES:
        word = name.capitalize()
        found += [
            (name, _or_text(getattr(theirs, f"{word}Loader"), lambda data: bytes(data).decode())),
            (name, _or_text(getattr(theirs, f"{word}BinaryLoader"), _WRITTEN[name])),
        ]
    return found


def _or_text(loader: Any, written: Any) -> type:
    import psycopg

    months = loader.__name__.startswith("Interval")

    class OrText(loader):  # type: ignore[misc] # the base is one of several classes
        def load(self, data: Any) -> object:
            if months and _has_months(data, binary=bool(loader.format)):
                return written(data)
            try:
                return super().load(data)
            except (psycopg.DataError, NotImplementedError, OverflowError, ValueError):
                return written(data)

    return OrText


def _has_months(data: Any, *, binary: bool) -> bool:
    if binary:
        return bool(unpack("!qii", data)[2])
    return b"mon" in bytes(data) or b"year" in bytes(data)


# ─── binary values as the text that the server would have sent ──────────────────────────────────────────────────────────
def _date(data: Any) -> str:
    days: int = unpack("!i", data)[0]
    return _infinite(days, 31) or _of_day(days)


def _timestamp(data: Any, zone: str = "") -> str:
    micros: int = unpack("!q", data)[0]
    if infinite := _infinite(micros, 63):
        return infinite
    days, within = divmod(micros, _DAY)
    day, _, before_christ = _of_day(days).partition(" ")
    return f"{day} {_of_time(within)}{zone}{' BC' if before_christ else ''}"


def _timetz(data: Any) -> str:
    micros, west = unpack("!qi", data)
    hours, rest = divmod(abs(west) // 60, 60)
    return f"{_of_time(micros)}{'-' if west > 0 else '+'}{hours:02}" + (f":{rest:02}" if rest else "")


def _interval(data: Any) -> str:
    micros, days, months = unpack("!qii", data)
    if infinite := _infinite(months, 31):
        return infinite
    years, months = int(months / 12), months - 12 * int(months / 12)
    parts, before = [], False  # before: whether the previous part was negative; a positive one is then written with +
    for count, word in ((years, "year"), (months, "mon"), (days, "day")):
        if count:
            parts.append(f"{'+' * (before and count > 0)}{count} {word}{'s' * (count != 1)}")
            before = count < 0
    if micros or not parts:
        parts.append(f"{'-' if micros < 0 else '+' * before}{_of_time(abs(micros))}")
    return " ".join(parts)


_WRITTEN: dict[str, Any] = {
    "date": _date,
    "time": lambda data: _of_time(unpack("!q", data)[0]),
    "timetz": _timetz,
    "timestamp": _timestamp,
    "timestamptz": lambda data: _timestamp(data, "+00"),
    "interval": _interval,
}


def _infinite(number: int, bits: int) -> str:
    return {2**bits - 1: "infinity", -(2**bits): "-infinity"}.get(number, "")


def _of_time(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _of_day(days: int) -> str:
    """The Gregorian date that is `days` after 2000-01-01; the year before 1 is 1 BC."""
    era, day = divmod(days + _DAYS_TO_2000 + 719_468, 146_097)  # eras of 400 years that start on 1 March
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    shifted = (5 * day + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    year += 400 * era + (month <= 2)
    text = f"{month:02}-{day - (153 * shifted + 2) // 5 + 1:02}"
    return f"{year:04}-{text}" if year > 0 else f"{1 - year:04}-{text} BC"
