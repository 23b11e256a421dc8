"""The trail: append-only JSON lines, fsynced before the act, each chained to the one before by its hash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from runner import faults
from runner.errors import TrailBroken
from runner.events import ADAPTER, Event, Record, TornTail
from runner.masks import Masks

FIRST = "0" * 64
# What the engine itself finds a run by again. A password `postgres` must not make `***ql` of a playbook's text.
NAMES = frozenset({
    "event", "run", "kind", "playbook", "file", "digest", "approval_digest", "source", "steps", "changed_steps", "target", "identity",
    "process", "until", "undo_of", "step", "id", "type", "role", "probe", "answer", "action", "when", "state", "outcome", "sqlstate",
    "scope", "due", "name", "chain_head", "sha256", "signed", "at", "expires",
})  # fmt: skip
_HASH = ',"hash":"'
_TAIL = len(_HASH) + 64 + 2  # ,"hash":"<64 hex>"}


def utc_now() -> datetime:
    """Aware UTC; passed in everywhere, so that a test can say what time it is."""
    return datetime.now(UTC)


def digest(text: str) -> str:
    """SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


class Trail:
    """One run's trail.jsonl, open for appending.

    Two processes may append (a run, and an approval from another terminal): each append takes a file lock and first
    reads what the other wrote, so that the chain stays one chain.
    """

    def __init__(self, path: Path, *, masks: Masks, now: Callable[[], datetime] = utc_now) -> None:
        self.path = path
        self._masks = masks
        self._now = now
        self.head = FIRST
        self.length = 0
        self._size = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+", buffering=0)
            _sync_directory(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error

    def append(self, event: Event) -> Record:
        """Write one record and wait until it is on disk.

        Raises TrailBroken where that can't be done; what was written of the line is cut off again.
        """
        faults.point("trail.before")
        with self._locked():
            try:
                self._catch_up()
                record = self._write(event)
            except OSError as error:
                raise _unwritable(self.path, error) from error
        faults.point("trail.after")
        return record

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
        if self._masks.mask(text) != text:
            event, text = _as_json(masked(event, self._masks))  # what is told on from here is masked as well
        at = self._now().isoformat(timespec="milliseconds")
        body = f'{{"n":{self.length + 1},"at":"{at}","prev":"{self.head}","event":{text}}}'
        found = digest(body)
        record = Record.model_construct(n=self.length + 1, at=at, prev=self.head, event=event, hash=found)
        return record, f'{body[:-1]}{_HASH}{found}"}}\n'.encode()

    def _catch_up(self) -> None:
        """Read what another process appended, and cut off what a kill left half written."""
        size = os.fstat(self._file.fileno()).st_size
        if size == self._size:
            return
        if size < self._size:
            raise TrailBroken(
                f"cannot go on with the trail {self.path}: somebody cut it while the run was going",
                why=f"{self._size - size:,} bytes that were on disk are gone",
                state="the database is as the ledger says; no statement was sent after the last record",
                then=f"runbook trail verify {self.path} --against-target",
            )
        data = os.pread(self._file.fileno(), size - self._size, self._size)
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].splitlines():
            self.length += 1
            self.head = line[-66:-2].decode("ascii", "replace")
        self._size += whole
        if whole < len(data):
            os.ftruncate(self._file.fileno(), self._size)
            self._write(TornTail(bytes_cut=len(data) - whole))

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
    return ADAPTER.validate_python({
        key: value if key in NAMES or isinstance(value, int | float) else masks.mask_data(value)
        for key, value in found.items()
    })  # fmt: skip


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
    return TrailBroken(
        f"cannot write the trail {path}: {error.strerror or error}",
        why="nothing runs that can't be recorded first",
        state="the database is as the last record in the trail says; no statement was sent after it",
        then="make room or give the directory's rights, then `runbook resume`",
    )


def read(path: Path) -> list[Record]:
    """All whole records of a trail; a torn last line is left out.

    Raises TrailBroken where a line can't be read as a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TrailBroken(f"cannot read the trail {path}: {error.strerror or error}", then="check --runs") from error
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            raise TrailBroken(
                f"cannot read line {number} of {path}: it is not a record of this format",
                why=str(error.errors()[0]["msg"]),
                then=f"runbook trail verify {path}",
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
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TrailBroken(f"cannot read the trail {path}: {error.strerror or error}", then="check --runs") from error
    torn = bool(lines[-1])
    hashes: list[str] = []
    head, fault = FIRST, ""
    for number, line in enumerate(lines[:-1], start=1):
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
