"""Matches regular expressions from playbooks in time linear in the length of the text.

Python's `re` backtracks: (a+)+$ takes hours on 40 letters. Rust's regex, which comes with pydantic-core, never does; in
return it has no look-ahead, look-behind or back-references.
"""

from __future__ import annotations

import functools
import re

from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema


class BadPattern(ValueError):
    """The text is not a valid pattern."""


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
    except SchemaError as fault:
        raise BadPattern(_reason(str(fault))) from None


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = next(
        (line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1] if lines else ""
    )
    reason = re.sub(r", including look-ahead and look-behind,", "", reason)
    return f"{reason} (patterns are those of Rust's regex: no look-around, no back-references)"


def check(pattern: str) -> None:
    """Raises BadPattern where the pattern can't be compiled."""
    _compiled(pattern)
    _compiled(_whole(pattern))


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text."""
    return _found(_whole(pattern), text)


def found_in_lines(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text; ^ and $ match at line boundaries."""
    return _found(f"(?m:{pattern})", text)


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"


def _found(pattern: str, text: str) -> bool:
    try:
        _compiled(pattern).validate_python(text)
    except ValidationError:
        return False
    return True
