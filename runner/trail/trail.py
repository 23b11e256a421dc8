"""The trail: append-only JSON lines, fsynced before the act, each chained to the one before by its hash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from runner.common import crash_points, private_files
from runner.common.errors import LeaseLost, TrailBroken
from runner.common.secrets import Masks
from runner.trail import old_words
from runner.trail.events import ADAPTER, Approved, Event, Judged, Record, TornTail

FIRST = "0" * 64
# What the engine itself finds a run by again. A password `postgres` must not make `***ql` of a playbook's text.
NAMES = frozenset({
    "event", "run", "kind", "playbook", "file", "digest", "approval_digest", "source", "steps", "changed_steps", "target", "identity",
    "process", "until", "undo_of", "step", "id", "type", "role", "probe", "answer", "action", "when", "state", "outcome", "sqlstate",
    "scope", "due", "name", "chain_head", "sha256", "signed", "at", "expires",
})  # fmt: skip
_HASH = ',"hash":"'
_TAKEN = b'"event":{"event":"lease_taken"'  # how a record of a hold on the target begins behind its envelope
_TAIL = len(_HASH) + 64 + 2  # ,"hash":"<64 hex>"}


def utc_now() -> datetime:
    """Aware UTC; passed in everywhere, so that a test can say what time it is."""
    return datetime.now(UTC)


def digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrailExtent:
    """The bytes of a trail that were read and judged: what is appended must stand behind these, and no others."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> TrailExtent:
        """The whole records in these bytes; a torn last line is cut off by whoever appends next."""
        whole = data[: data.rfind(b"\n") + 1]
        return cls(len(whole), hashlib.sha256(whole).hexdigest())


class Trail:
    """One run's trail.jsonl, open for appending.

    Two processes may append (a run, and an approval from another terminal): each append takes a file lock and first
    reads what the other wrote, so that the chain stays one chain.

    seen: what was read of it before. own: appended by the process that carries the run; it stops when another one takes
    the run over.
    """

    def __init__(
        self,
        path: Path,
        *,
        masks: Masks,
        now: Callable[[], datetime] = utc_now,
        seen: TrailExtent | None = None,
        own: bool = False,
    ) -> None:
        self.path = path
        self._masks = masks
        self._now = now
        self._seen = seen
        self._own = own
        self.head = FIRST
        self.length = 0
        self._size = 0
        try:
            if seen is None:
                private_files.make_directory(path.parent)
            self._file = private_files.open_to_append(path, create=seen is None)
            _sync_directory(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, event: Event) -> Record:
        """Write one record and wait until it is on disk.

        Raises TrailBroken where that can't be done; what was written of the line is cut off again.
        """
        crash_points.point("trail.before")
        with self._locked():
            try:
                self._still_there()
                self._catch_up()
                record = self._write(event)
            except OSError as error:
                raise _unwritable(self.path, error) from error
        crash_points.point("trail.after")
        return record

    def _still_there(self) -> None:
        """The record is the file of this name and no other: what would be written elsewhere is no record."""
        own = os.fstat(self._file.fileno())
        try:
            named: os.stat_result | None = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            named = None
        if named is None:
            self._broken("somebody removed it", "there is no file of that name any more")
        elif (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino):
            self._broken("somebody put another file in its place", "it is not the file that this run has written")
        elif own.st_nlink != 1:
            self._broken(
                "it has a second name (a hard link)", "what is recorded here could be changed under the other name"
            )

    def _broken(self, what: str, why: str) -> NoReturn:
        raise TrailBroken(
            f"cannot go on with the trail {self.path}: {what}",
            why=why,
            state="what had committed stays, and the target's ledger has it; nothing more is sent by this process",
            then="put the run's folder back as it was, then `runbook trail verify RUN --against-target`",
        )

    def intact(self) -> None:
        """Raises TrailBroken where the file of this name is no longer the record that was begun."""
        with contextlib.suppress(PermissionError):
            self._still_there()

    def mask(self, text: str) -> str:
        """A person's words as they may be written anywhere: as this trail would have them."""
        return self._masks.mask(text)

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> Record:
        """Write one record behind the last; what there is no room for is cut off again."""
        record, line = self._line(event)
        try:
            _write_all(self._file.fileno(), line)
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
            raise
        self._size += len(line)
        self.head, self.length = record.hash, record.n
        return record

    def _line(self, event: Event) -> tuple[Record, bytes]:
        event, text = _as_json(event)
        # Without a backslash a text stands in JSON as it is; with one only the event itself can be asked.
        if self._masks.has_some and ("\\" in text or self._masks.mask(text) != text):
            event, text = _as_json(masked(event, self._masks))  # what is told on from here is masked as well
        at = self._now().isoformat(timespec="milliseconds")
        body = f'{{"n":{self.length + 1},"at":"{at}","prev":"{self.head}","event":{text}}}'
        found = digest(body)
        record = Record.model_construct(n=self.length + 1, at=at, prev=self.head, event=event, hash=found)
        return record, f'{body[:-1]}{_HASH}{found}"}}\n'.encode()

    def _catch_up(self) -> None:
        """Read what another process appended, and cut off what a kill left half written."""
        size = os.fstat(self._file.fileno()).st_size
        if size == self._size and self._seen is None:
            return
        if size < self._size:
            self._broken(
                "somebody cut it while the run was going", f"{self._size - size:,} bytes that were on disk are gone"
            )
        data = os.pread(self._file.fileno(), size - self._size, self._size)
        self._refuse_others(data)
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].splitlines():
            self.length += 1
            self.head = line[-66:-2].decode("ascii", "replace")
        self._size += whole
        if whole < len(data):
            os.ftruncate(self._file.fileno(), self._size)
            self._write(TornTail(bytes_cut=len(data) - whole))

    def _refuse_others(self, data: bytes) -> None:
        """What stands behind our own records must go on from them, and must not be another process's hold on the run."""
        new = data
        if self._seen is not None:
            seen, self._seen = self._seen, None
            if hashlib.sha256(data[: seen.size]).hexdigest() != seen.sha256:
                self._broken("it was changed since it was read", "the records that were checked are no longer there")
            new = data[seen.size :]
            head = data[: seen.size][-67:-3].decode("ascii", "replace") if seen.size else FIRST
            length = data[: seen.size].count(b"\n")
        else:
            head, length = self.head, self.length
        fault = check(new, head=head, length=length).fault
        if fault and (self._own or length):
            self._broken("somebody wrote into it what is no record of this run", fault)
        if self._own and any(line.find(_TAKEN) >= 0 for line in new.splitlines()):
            raise LeaseLost(
                "cannot go on: another process has taken up this run",
                why="its hold on the target stands in the trail",
                state="what this process committed stays; nothing more is sent by it",
                then="runbook status",
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def masked(event: Event, masks: Masks) -> Event:
    """The event as it may be told: what a run is found again by stays, and a number of ours is no secret's digits."""
    found = event.model_dump(mode="json")
    kept = NAMES - {"name"} if isinstance(event, Approved | Judged) else NAMES  # there it is a person's, as typed
    told = {
        key: value if key in kept or isinstance(value, int | float) else masks.mask_data(value)
        for key, value in found.items()
    }
    return ADAPTER.validate_json(json.dumps(told))  # as from the file, where values have their types


def _as_json(event: Event) -> tuple[Event, str]:
    """An event as one line; bytes that are no text (in a shell's argument, say) are written as escapes."""
    try:
        return event, event.model_dump_json()
    except PydanticSerializationError:
        event = ADAPTER.validate_python(_escaped(event.model_dump(mode="python")))
        return event, event.model_dump_json()


def _escaped(data: object) -> object:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(value) for key, value in data.items()}
        case list() | tuple():
            return [_escaped(one) for one in data]
        case _:
            return data


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _sync_directory(path: Path) -> None:
    """A new file is there after a crash only when its directory was synced too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(path: Path, error: OSError) -> TrailBroken:
    rights = private_files.rights(path, error)
    then = "make room or give the folder's rights, then `runbook resume`"
    if rights:
        then = (
            f"as its owner: chmod -R g+rwX {path.parent}, and chgrp -R GROUP {path.parent} where the group is another"
        )
    return TrailBroken(
        f"cannot write the trail {path}: {error.strerror or error}",
        why=rights or "nothing runs that can't be recorded first",
        state="what had committed stays, and the target's ledger has it; nothing more is sent by this process",
        then=then,
    )


def read(path: Path) -> list[Record]:
    """All whole records of a trail; a torn last line is left out.

    Raises TrailBroken where a line can't be read as a record.
    """
    return parse(load(path), path)


def load(path: Path) -> bytes:
    """The bytes of a trail, to be checked and parsed from one reading; raises TrailBroken where there are none to read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrailBroken(
            f"cannot read the trail {path}: {error.strerror or error}",
            why=private_files.rights(path, error),
            then=f"runbook runs --runs {shlex.quote(str(path.parent.parent))}",
        ) from error


def parse(data: bytes, path: Path) -> list[Record]:
    """The whole records in these bytes."""
    records = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            records.append(Record.model_validate_json(old_words.today(line)))
        except ValidationError as error:
            raise TrailBroken(
                f"cannot read line {number} of {path}: it is not a record of this format",
                why=str(error.errors()[0]["msg"]),
                then=f"runbook trail verify {shlex.quote(str(path))}",
            ) from error
    return records


@dataclass(frozen=True)
class Verification:
    """What a check of the chain found; good records first, then the first fault in words ("" where there is none)."""

    records: int
    head: str
    torn: bool
    fault: str
    hashes: tuple[str, ...]


def verify(path: Path) -> Verification:
    """Recompute the chain: a changed, dropped, inserted or reordered line is named; a torn last line is called torn.

    Raises TrailBroken where the file can't be read.
    """
    return check(load(path))


def check(data: bytes, *, head: str = FIRST, length: int = 0) -> Verification:
    """The same of bytes that were read: the chain goes on from this head, which so many records lead to."""
    lines = data.split(b"\n")
    torn = bool(lines[-1])
    hashes: list[str] = []
    fault = ""
    for number, line in enumerate(lines[:-1], start=length + 1):
        fault = _fault(line, number=number, head=head)
        if fault:
            break
        head = line[-66:-2].decode()
        hashes.append(head)
    return Verification(len(hashes), head, torn, fault, tuple(hashes))


def _fault(line: bytes, *, number: int, head: str) -> str:
    try:
        found = json.loads(line)
    except ValueError:
        return f"line {number} is not JSON"
    if not isinstance(found, dict) or not {"n", "prev", "hash"} <= set(found):
        return f"line {number} is not a record"
    if hashlib.sha256(line[:-_TAIL] + b"}").hexdigest() != found["hash"]:
        return f"line {number} was changed: its hash does not fit its text"
    if found["prev"] != head:
        return f"line {number} does not follow the line before it: one was dropped, inserted or moved"
    if found["n"] != number:
        return f"line {number} says that it is number {found['n']}"
    return ""
