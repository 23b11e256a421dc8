"""The trail: an append-only file of JSON lines, each chained to the previous one by its hash.

Write-ahead: a record is on disk (fsync) before the engine does what it announces. The format is specified in
docs/trail-format.md.
"""

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

FIRST = "0" * 64  # `prev` of the first record
# Fields that are never masked, because the engine relies on them to find and resume a run: with the password
# `postgres`, the dialect `postgresql` in a playbook's text would become `***ql`.
NAMES = frozenset({
    "event", "run", "kind", "playbook", "file", "digest", "approval_digest", "source", "steps", "changed_steps", "target", "identity",
    "process", "until", "undo_of", "step", "id", "type", "role", "probe", "answer", "action", "when", "state", "outcome", "sqlstate",
    "scope", "due", "name", "chain_head", "sha256", "signed", "at", "expires",
})  # fmt: skip
_HASH = ',"hash":"'
_TAKEN = b'"event":{"event":"lease_taken"'  # how the event of a lease_taken record starts
_TAIL = len(_HASH) + 64 + 2  # bytes of ,"hash":"<64 hex>"}; the hash covers the line without them


def utc_now() -> datetime:
    """The current time, timezone-aware UTC. Passed in as a function everywhere, so that tests can set it."""
    return datetime.now(UTC)


def digest(text: str) -> str:
    """SHA-256 of a text, as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrailExtent:
    """Size and hash of the part of a trail that was read and verified; an append must continue exactly this part."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> TrailExtent:
        """The complete records in these bytes, without a torn last line (the next append cuts that off)."""
        whole = data[: data.rfind(b"\n") + 1]
        return cls(len(whole), hashlib.sha256(whole).hexdigest())


class Trail:
    """One run's trail.jsonl, open for appending.

    Several processes may append (the run, and an approval from another terminal): each append takes a file lock and
    first reads what the others wrote, so that there is always a single chain.

    seen: the extent that the caller has read and verified; None for a new trail. own: this is the process that executes
    the run; it raises LeaseLost once another process has recorded that it took the run over.
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
        """Write one record and return once it is on disk.

        Raises:
            TrailBroken: it can't be written (a partial line is cut off again), or the file was tampered with.
            LeaseLost: another process took over this run.
        """
        # Killed before the fsync, the process leaves at most a torn line, and nothing was done yet. Killed after it, it
        # leaves an announcement without an outcome, about which a resume asks the database.
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
        """Raise TrailBroken if our descriptor isn't the file of this name any more: appends would go to a lost file."""
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
        """Raise TrailBroken if the file of this name is no longer the one that was opened."""
        with contextlib.suppress(PermissionError):
            self._still_there()

    def mask(self, text: str) -> str:
        """A text with the run's secrets masked, as this trail would write it."""
        return self._masks.mask(text)

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> Record:
        """Write and fsync one record at the end; if that fails (disk full), cut off what was written of it."""
        record, line = self._line(event)
        try:
            _write_all(self._file.fileno(), line)
            os.fsync(self._file.fileno())
        except OSError:
            # After a failed fsync the line may or may not survive a crash, so it must not count as written.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
            raise
        self._size += len(line)
        self.head, self.length = record.hash, record.n
        return record

    def _line(self, event: Event) -> tuple[Record, bytes]:
        event, text = _as_json(event)
        # Masking the JSON text is a cheap test for secrets. It is only valid without escapes: JSON with a backslash in it
        # is masked value by value.
        if self._masks.has_some and ("\\" in text or self._masks.mask(text) != text):
            event, text = _as_json(masked(event, self._masks))  # listeners get the masked event, too
        at = self._now().isoformat(timespec="milliseconds")
        body = f'{{"n":{self.length + 1},"at":"{at}","prev":"{self.head}","event":{text}}}'
        own = digest(body)
        record = Record.model_construct(n=self.length + 1, at=at, prev=self.head, event=event, hash=own)
        return record, f'{body[:-1]}{_HASH}{own}"}}\n'.encode()

    def _catch_up(self) -> None:
        """Advance to the end of what other processes appended, and cut off a line that a kill left incomplete."""
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
        if whole < len(data):  # we hold the lock, so whoever wrote this is dead
            os.ftruncate(self._file.fileno(), self._size)
            self._write(TornTail(bytes_cut=len(data) - whole))

    def _refuse_others(self, data: bytes) -> None:
        """Check what follows our own records: raise TrailBroken if it breaks the chain, LeaseLost if the run was taken over."""
        new = data
        if self._seen is not None:  # first append: the file must still begin with what the caller verified
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
        # The lease in the database fences our commits; this stops us as soon as the successor has recorded itself.
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
    """The event with secrets masked, except in the fields of NAMES and in the engine's own numbers."""
    # In these events `name` is a person's name as typed, not a name that the engine relies on.
    kept = NAMES - {"name"} if isinstance(event, Approved | Judged) else NAMES
    fields = {
        key: value if key in kept or isinstance(value, int | float) else masks.mask_data(value)
        for key, value in event.model_dump(mode="json").items()
    }
    return ADAPTER.validate_json(json.dumps(fields))  # parsed as from the file, so that values get their types back


def _as_json(event: Event) -> tuple[Event, str]:
    """An event as one line of JSON; what is not valid UTF-8 (in a command line argument, say) is escaped."""
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
    """Fsync a directory: without it, a newly created file may be missing after a crash."""
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
    """Read all complete records of a trail; a torn last line is ignored.

    Raises TrailBroken if the file can't be read, or a line isn't a record.
    """
    return parse(load(path), path)


def load(path: Path) -> bytes:
    """Read a trail's bytes once, so that what is verified is what is parsed. Raises TrailBroken if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrailBroken(
            f"cannot read the trail {path}: {error.strerror or error}",
            why=private_files.rights(path, error),
            then=f"runbook runs --runs {shlex.quote(str(path.parent.parent))}",
        ) from error


def parse(data: bytes, path: Path) -> list[Record]:
    """Parse the complete records in these bytes; `path` is for messages. Raises TrailBroken."""
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
    """Result of verifying a chain: the number of good records, the last good hash, and the first fault ("" if none)."""

    records: int
    head: str
    torn: bool
    fault: str
    hashes: tuple[str, ...]


def verify(path: Path) -> Verification:
    """Recompute the hash chain of a file; detects changed, dropped, inserted and reordered lines.

    A torn last line is reported as such; it is no fault. Raises TrailBroken if the file can't be read.
    """
    return check(load(path))


def check(data: bytes, *, head: str = FIRST, length: int = 0) -> Verification:
    """Verify bytes that were read: a whole trail, or the part that follows record `length`, whose hash is `head`."""
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
