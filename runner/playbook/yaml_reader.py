"""Parses YAML into plain data with the place of every value and key; reports all faults at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from runner.common.errors import BadInput
from runner.common.plain_data import Data
from runner.playbook.yaml_advice import Ambiguous, ParserMark, Scalar, explain, plain
from steps.contract import cutting

if TYPE_CHECKING:
    from yaml import AliasEvent, DocumentStartEvent, Event, MappingStartEvent, ScalarEvent, SequenceStartEvent

Path = tuple[str | int, ...]

MAX_BYTES = 4 * 1024 * 1024  # a playbook of 10,000 steps has about 1 MB
MAX_NODES = 500_000
MAX_DEPTH = 50
MAX_FAULTS = 100  # nobody reads more, and a file of the wrong kind may have millions


@dataclass(frozen=True)
class Mark:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Fault:
    """One fault and its place."""

    mark: Mark
    message: str

    def __str__(self) -> str:
        return f"{self.mark}: {self.message}"


class Faulty(BadInput):
    """A file has faults; `faults` has all that were found, in order of place."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda f: (f.mark.file, f.mark.line, f.mark.column)))
        super().__init__("\n".join(str(fault) for fault in self.faults))


class _Place:
    """The place of a mapping or list, and of everything directly inside it."""

    __slots__ = ("at", "data", "flow", "inside", "key", "keys")

    def __init__(self, at: int, data: dict[str, Data] | list[Data], *, flow: bool) -> None:
        self.at = at
        self.data = data
        self.flow = flow
        self.inside: dict[str, int | _Place] | list[int | _Place] = {} if isinstance(data, dict) else []
        self.keys: dict[str, int] = {}
        self.key: str | _Skip | None = None  # the key whose value comes next

    def child(self, part: str | int) -> int | _Place | None:
        if isinstance(self.inside, dict):
            return self.inside.get(part) if isinstance(part, str) else None
        if isinstance(part, int) and 0 <= part < len(self.inside):
            return self.inside[part]
        return None


class _Skip:
    """Placeholder for a faulty key, whose value is read and dropped."""


_SKIP = _Skip()


class YamlDocument:
    """The data of one YAML file with the place of each value and key."""

    def __init__(self, data: Data, *, file: str, text: str, root: int | _Place) -> None:
        self.data = data
        self.file = file
        self.text = text
        self._root = root

    def mark(self, path: Path) -> Mark:
        """The place of the value at `path`, or of its nearest existing ancestor."""
        return _mark(self.file, self._find(path)[0])

    def key_mark(self, path: Path) -> Mark:
        """The place of the key at `path` (in a list: of the item), or of its nearest existing ancestor."""
        return _mark(self.file, self._find(path)[1])

    def _find(self, path: Path) -> tuple[int, int]:
        place: int | _Place = self._root
        at = key_at = place.at if isinstance(place, _Place) else place
        for part in path:
            child = place.child(part) if isinstance(place, _Place) else None
            if child is None or isinstance(place, int):
                break
            at = child.at if isinstance(child, _Place) else child
            key_at = place.keys[part] if isinstance(part, str) else at
            place = child
        return at, key_at


def parse(
    text: str | bytes,
    file: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_nodes: int = MAX_NODES,
    max_depth: int = MAX_DEPTH,
) -> YamlDocument:
    """Read one YAML document.

    Stricter than YAML 1.1: only true and false are booleans; dates and times stay text; duplicate keys, anchors,
    aliases, merge keys, tags, directives and multiple documents are faults.

    Raises:
        Faulty: with every fault that could be found.
    """
    decoded = _decode(text, file, max_bytes=max_bytes)
    if bad := list(_bad_characters(decoded, file)):
        raise Faulty(bad)
    composer = _Composer(file, max_nodes=max_nodes, max_depth=max_depth)
    composer.read(decoded)
    if composer.faults:
        raise Faulty(composer.faults)
    root = composer.root
    assert root is not None  # noqa: S101  an empty file is a fault
    return YamlDocument(composer.data, file=file, text=decoded, root=root)


def near(word: str, known: Iterable[str]) -> str:
    """A suffix for messages with the most similar known word, or "": ' (did you mean ...?)'."""
    from difflib import get_close_matches

    by_lower = {_folded(name): name for name in known}
    found = get_close_matches(_folded(word[:100]), by_lower, n=1, cutoff=0.65)
    return f" (did you mean {by_lower[found[0]]!r}?)" if found else ""


def _folded(word: str) -> str:
    return word.casefold().replace("-", "_")


def decoded(raw: bytes, file: str) -> str:
    """Decode UTF-8 without a byte order mark; raises Faulty with the place of the first invalid byte."""
    return _utf8(raw, file).removeprefix("\ufeff")


def _decode(text: str | bytes, file: str, *, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise _faulty(
            file, f"cannot read {len(text):,} bytes: at most {max_bytes:,} are allowed; split the file with `include`"
        )
    if isinstance(text, bytes):
        text = _utf8(text, file)
    return text.removeprefix("\ufeff")


def _utf8(raw: bytes, file: str) -> str:
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise _faulty(file, "cannot read UTF-16: save the file as UTF-8")
    try:
        return raw.decode()
    except UnicodeDecodeError as bad:
        before = raw[: bad.start].decode()
        message = f"cannot read the byte 0x{raw[bad.start]:02x}: save the file as UTF-8"
        raise Faulty([Fault(_mark_in(before, len(before), file), message)]) from None


def _faulty(file: str, message: str) -> Faulty:
    return Faulty([Fault(Mark(file, 1, 1), message)])


def _mark_in(text: str, offset: int, file: str) -> Mark:
    return Mark(file, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


# Besides control characters: line breaks that only YAML knows, and characters that hide or reorder text.
_BAD_CHARACTERS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
    "|\r(?!\n)"
)
_BAD_ESCAPED = re.compile("[\x00\ud800-\udfff]")  # neither databases nor JSON can store these


def _bad_characters(text: str, file: str) -> Iterator[Fault]:
    for count, bad in enumerate(_BAD_CHARACTERS.finditer(text)):
        if count == MAX_FAULTS:
            return
        message = f"cannot read the character U+{ord(bad[0]):04X}: it is invisible; remove it"
        yield Fault(_mark_in(text, bad.start(), file), message)


class _Enough(Exception):
    """Stop reading the file."""


class _Composer:
    """Builds data and places from the parser's events in one pass, without recursion or expansion of aliases."""

    def __init__(self, file: str, *, max_nodes: int, max_depth: int) -> None:
        self.file = file
        self.max_nodes = max_nodes
        self.max_depth = max_depth
        self.faults: list[Fault] = []
        self.data: Data = None
        self.root: int | _Place | None = None
        self._open: list[_Place] = []
        self._cut: list[tuple[int, str]] = []  # faults of values that a comma split in two
        self._nodes = 0
        self._documents = 0

    def read(self, text: str) -> None:
        import yaml

        actions: dict[type[Event], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._begin,
            yaml.SequenceStartEvent: self._begin,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        last: Event | None = None
        try:
            for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                last = event
                if action := actions.get(type(event)):
                    action(event)
        except yaml.MarkedYAMLError as error:
            (line, column), message = explain(error, last=last, lines=text.splitlines())
            self.faults.append(Fault(Mark(self.file, line + 1, column + 1), message))
        except _Enough:
            return
        self._report_cut()
        if self.root is None and not self.faults:
            self.faults.append(Fault(Mark(self.file, 1, 1), "cannot use an empty file"))

    def _report_cut(self) -> None:
        """Report split values, one per line, and only for lines without another fault: they usually cause several."""
        told = {fault.mark.line for fault in self.faults}
        for at, message in self._cut[:MAX_FAULTS]:
            mark = _mark(self.file, at)
            if mark.line not in told:
                told.add(mark.line)
                self.faults.append(Fault(mark, message))

    def _fault(self, at: int, message: str) -> None:
        if len(self.faults) == MAX_FAULTS:
            message = f"cannot list more than {MAX_FAULTS} faults: the rest of the file was not read"
        self.faults.append(Fault(_mark(self.file, at), message))
        if len(self.faults) > MAX_FAULTS:
            raise _Enough

    def _stop(self, at: int, message: str) -> None:
        self._fault(at, message)
        raise _Enough

    def _document(self, event: DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(_at(event), "cannot use a second document in one file: remove the line '---'")
        if event.version or event.tags:
            self._fault(_at(event), "cannot use a directive: remove the line that starts with %")

    def _alias(self, event: AliasEvent) -> None:
        at = _at(event)
        self._fault(at, f"cannot use the alias *{event.anchor}: it hides meaning in a diff; write the value out")
        self._put(None, at)

    def _scalar(self, event: ScalarEvent) -> None:
        at = _at(event)
        self._check(event, at)
        parent = self._open[-1] if self._open else None
        if parent and parent.key is None and isinstance(parent.data, dict):
            self._key(parent, event, at)
            return
        value = self._value(event, at)
        if parent and parent.flow and event.implicit[0]:
            self._look_for_cut(event.value, at)
        if value is not None or parent:  # a file with nothing but null counts as empty
            self._put(value, at)

    def _value(self, event: ScalarEvent, at: int) -> Scalar:
        text: str = event.value
        if event.style == '"' and _BAD_ESCAPED.search(text):
            self._fault(at, "cannot use a text with the character NUL or half a surrogate pair in it")
        if not event.implicit[0]:
            return text
        try:
            return plain(text)
        except Ambiguous as ambiguous:
            self._fault(at, str(ambiguous))
            return text

    def _look_for_cut(self, text: str, at: int) -> None:
        """Detect an unquoted value inside brackets that a comma splits in two, which YAML accepts silently."""
        if not text:
            self._cut.append(
                (at, "cannot use a key without value between { and }: write null, or quote the whole value")
            )
        elif text.count("(") != text.count(")"):
            self._cut.append((at, f"cannot use {_short(text)!r}: a comma cut it off; quote the whole value"))

    def _key(self, parent: _Place, event: ScalarEvent, at: int) -> None:
        parent.key = _SKIP
        key: str = event.value
        if event.implicit[0] and key == "<<":
            self._fault(at, "cannot use the merge key <<: it hides meaning in a diff; write the keys out")
        elif not isinstance(self._value(event, at), str):
            self._fault(at, f"cannot use {_short(key) or 'nothing'} as a key: quote it")
        elif key in parent.keys:
            first = _mark(self.file, parent.keys[key])
            self._fault(at, f"cannot use the key {_short(key)!r} twice: it stands at {first} already")
        else:
            parent.key = key
            parent.keys[key] = at

    def _begin(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        import yaml

        at = _at(event)
        self._check(event, at)
        if len(self._open) == self.max_depth:
            self._stop(at, f"cannot nest deeper than {self.max_depth} levels")
        data: dict[str, Data] | list[Data] = {} if type(event) is yaml.MappingStartEvent else []
        place = _Place(at, data, flow=bool(event.flow_style))
        self._put(data, place)
        self._open.append(place)

    def _end(self, _event: Event) -> None:
        self._open.pop()

    def _check(self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent, at: int) -> None:
        self._nodes += 1
        if self._nodes > self.max_nodes:
            self._stop(at, f"cannot read more than {self.max_nodes:,} values; split the file with `include`")
        if event.anchor is not None:
            self._fault(at, f"cannot use the anchor &{event.anchor}: it hides meaning in a diff; write the value out")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(at, f"cannot use the tag {tag}: remove it, or quote the whole value")

    def _put(self, data: Data, place: int | _Place) -> None:
        """Add a value to the innermost open mapping or list, or make it the document's root."""
        if not self._open:
            self.data, self.root = data, place
            return
        parent = self._open[-1]
        if isinstance(parent.data, list) and isinstance(parent.inside, list):
            parent.data.append(data)
            parent.inside.append(place)
        elif isinstance(parent.data, dict) and isinstance(parent.inside, dict):
            key, parent.key = parent.key, None
            if isinstance(key, str):
                parent.data[key] = data
                parent.inside[key] = place
            elif key is None:
                self._no_key(parent, place)

    def _no_key(self, parent: _Place, place: int | _Place) -> None:
        parent.key = _SKIP
        if isinstance(place, int):  # an alias, which was reported already
            return
        if parent.flow and place.at == parent.at + 1:
            self._fault(parent.at, "cannot start an unquoted value with {{: quote the whole value")
        else:
            self._fault(place.at, "cannot use a mapping or a list as a key: use a text")


def _at(event: Event) -> int:
    """Line and column packed into one int, to save memory: a playbook of 10,000 steps has 200,000 of them."""
    mark = cast("ParserMark", event.start_mark)
    return mark.line << 32 | mark.column


def _mark(file: str, at: int) -> Mark:
    return Mark(file, (at >> 32) + 1, (at & 0xFFFFFFFF) + 1)


def _short(text: str) -> str:
    return cutting.shortened(text, 61)
