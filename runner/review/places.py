"""Maps a position in a value to its place in the file: YAML folds lines, doubles quotes and escapes characters."""

from __future__ import annotations

from runner.playbook.yaml_reader import Mark

_ESCAPED = {"x": 4, "u": 6, "U": 10}  # length of an escape in double quotes; all others have two characters
_SPACES = "ntrvf \t_LPN"  # escapes that stand for white space


def place_in_text(file: str, text: str, position: int) -> Mark:
    """The place of a position in a text."""
    position = min(position, len(text))
    return Mark(file, text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))


def place_in_scalar(start: Mark, text: str, value: str, position: int) -> Mark:
    """The place of `value[position]`. start: where the scalar begins in the YAML file that has this text.

    Folding changes only white space, so the characters between are counted: the n-th of the value is the n-th of the source.
    """
    lines = text.splitlines(keepends=True)
    begin = sum(map(len, lines[: start.line - 1])) + start.column - 1
    found = _source_position(text, begin, value[:position] + value[position : position + 1].strip())
    return place_in_text(start.file, text, found)


def _source_position(text: str, begin: int, upto: str) -> int:
    """Where the last character of `upto`, the beginning of the value, stands in the source."""
    style = text[begin : begin + 1]
    at = begin
    if style in {"|", ">"}:
        at = text.find("\n", begin) + 1 or begin
    elif style in {"'", '"'}:
        at = begin + 1
    last = at
    for sign in upto:
        if sign.isspace():
            continue
        at = _skip_space(text, at, style)
        last = at
        at += _width(text, at, style)
    return last


def _skip_space(text: str, at: int, style: str) -> int:
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif style == '"' and text[at] == "\\" and text[at + 1 : at + 2] in (*_SPACES, "\n"):
            at += 2
        else:
            return at
    return at


def _width(text: str, at: int, style: str) -> int:
    """How many characters of the source stand for one of the value."""
    if style == "'" and text[at : at + 2] == "''":
        return 2
    if style == '"' and text[at : at + 1] == "\\":
        return _ESCAPED.get(text[at + 1 : at + 2], 2)
    return 1
