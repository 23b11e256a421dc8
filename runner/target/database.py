"""The target database as a run uses it: the only module that opens connections and commits.

Each commit of a step carries a ledger row in the same transaction, and checks the lease in it (fencing).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pydantic import BaseModel

from runner.common import crash_points
from runner.common.errors import LeaseLost
from runner.target import drivers, lock_hold, lost_commit, network_waits, session_settings, transactions
from runner.target.connection import ConnectionView
from runner.target.drivers import translated
from steps.catalog import touched_tables
from steps.contract import AlreadyCommitted, Change, DatabaseFault, Look, Question, Row, RunPosition, StepError, Work
from steps.contract.dialect import Dialect
from steps.contract.look import Trace
from steps.ledger import encoding, leases, step_commits

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from runner.playbook.model import LockPolicy, Timeouts
    from runner.target.resolve import ConnectArguments

SILENCE_S = 15.0  # pause before a server that did not answer at all is tried again: each try may hang as long
HURRY_S = 2  # connect timeout once a person has asked twice to stop
WAITING_READERS = 4  # idle reading connections kept open; opening one takes as long as most reads


@dataclass
class Fence:
    """The lease under which this process may commit; epoch 0: none was taken."""

    scope: str = ""
    epoch: int = 0


@dataclass
class Session:
    """State that all connections of a run share: the position in the run, the lease, the time limits in seconds."""

    run: str = ""
    step: str = ""
    action: str = "apply"
    fence: Fence = field(default_factory=Fence)
    lock_wait_s: float = 0.5
    keep_s: float = 0.0  # maximum duration of a step's transaction, including lock waits; 0: unlimited
    look_s: float = 300.0
    statement_s: float = 60.0
    long_s: float = 6 * 3600.0
    silent: str = ""  # a heartbeat of another run that was watched and not followed by another one in time

    @property
    def place(self) -> RunPosition | None:
        return RunPosition(self.run, self.step, self.action) if self.run else None  # step: "" between steps, for checks

    @property
    def application_name(self) -> str:
        return f"runbook:{self.run}:{self.step}"[:63] if self.run else "runbook"


class RunDatabase:
    """The target of a run; implements steps.contract.step.Database.

    Each thread keeps one writing connection. Each look has a reading connection to itself, new or returned by an earlier
    look. All connections in use are registered, so that another thread can cancel them.
    """

    def __init__(
        self,
        arguments: ConnectArguments,
        *,
        schema: str = "public",
        session: Session | None = None,
        path: Sequence[str] = (),
    ) -> None:
        """path: schemas of the search_path; (): those of an ordinary session of this role."""
        self._arguments = arguments
        self.session = session or Session()
        self.dialect = Dialect.SQLITE if arguments.path is not None else Dialect.POSTGRESQL
        self.schema = "main" if self.dialect is Dialect.SQLITE else schema
        self._patience = drivers.Patience(probe=drivers.probe(arguments))
        self._writer = drivers.engine(arguments, reading=False, patience=self._patience)
        self._reader = drivers.engine(arguments, reading=True, patience=self._patience)
        self._silence: tuple[float, DatabaseFault] | None = None  # until when not to connect, and the fault to raise
        self._open: set[Connection] = set()
        self._readers: deque[Connection] = deque()  # idle readers, outside of a transaction, for any thread
        self._local = threading.local()
        self._pending: str | None = None  # remembered for the next commit, as JSON
        self._what: object = None  # the current step
        self.password: str | None = None  # for masking only; libpq may have read it from a password file
        self.version: tuple[int, ...] = ()
        self.dialed = ("", "")  # address and port that were connected to
        self.inherited = session_settings.Inherited()
        self.path: tuple[str, ...] = ()
        self._meet(path)

    # ─── looking ────────────────────────────────────────────────────────────────────────────────────────────────────
    @contextlib.contextmanager
    def look(self, *, assumed: tuple[Trace, ...] = ()) -> Iterator[Look]:
        """A read-only snapshot; the database itself refuses writes in it."""
        connection = self._begun_reader()
        try:
            yield ConnectionView(self, connection, place=self.session.place, assumed=assumed)
        except BaseException:
            self._shut(connection)
            raise
        self._keep_reader(connection)

    def _begun_reader(self) -> Connection:
        """A reader in a transaction: an idle one that is still alive, else a new one."""
        settings = self._settings(statement_s=self.session.look_s)
        while True:
            waiting = self._waiting_reader()
            connection = waiting or self._opened(self._reader)
            try:
                with translated(self.dialect):
                    transactions.begin_look(connection, self.dialect, settings, pooled=self.inherited.pooled)
            except DatabaseFault:
                self._shut(connection)
                if waiting is None:
                    raise
            else:
                return connection

    def _waiting_reader(self) -> Connection | None:
        with contextlib.suppress(IndexError):
            connection = self._readers.pop()
            self._open.add(connection)
            return connection
        return None

    def _keep_reader(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except Exception:  # noqa: BLE001 - whatever the driver says, this connection isn't used again
            self._shut(connection)
            return
        if self.dialect is Dialect.SQLITE or connection.invalidated or len(self._readers) >= WAITING_READERS:
            self._shut(connection)
        else:
            self._open.discard(connection)
            self._readers.append(connection)

    @contextlib.contextmanager
    def trial(self, label: str) -> Iterator[Work]:
        """A writing transaction that is always rolled back."""
        del label
        with self._connected(self._writer) as connection:
            with translated(self.dialect):
                transactions.begin_work(connection, self.dialect, self._settings(statement_s=self.session.statement_s))
            try:
                yield ConnectionView(self, connection, place=self.session.place)
            finally:
                with contextlib.suppress(Exception):
                    transactions.roll_back(connection, self.dialect)

    # ─── changing ───────────────────────────────────────────────────────────────────────────────────────────────────
    @contextlib.contextmanager
    def commit(self, label: str, *, durable: bool = True, off: Sequence[str] = ()) -> Iterator[Work]:
        """A fenced transaction that ends with a ledger row for `label` and COMMIT; limited by the lock policy's `hold`.

        Raises:
            AlreadyCommitted: the ledger has a row for `label` already.
            LeaseLost: another process holds the lease.
            DatabaseFault: lost=True if it can't be determined whether the COMMIT took effect.
        """
        place, fence, longest = self.session.place, self.session.fence, self.session.keep_s
        if place is None or not place.step:
            raise StepError("cannot commit outside of a run")
        asked = leases.standing(self.dialect, place, label=label, scope=fence.scope, epoch=fence.epoch)
        with (
            self._transaction(durable=durable, off=off, first=asked, longest=longest) as (connection, eyes, found),
            lock_hold.bounded(connection, self.dialect, self.version, longest),
        ):
            # The first question locks the lease's row: whoever wants to take it over waits until this transaction ends.
            self._keep_out(stands=bool(found))
            if found[0].flag("known"):
                raise AlreadyCommitted(label)
            earlier, names = self._pending, self._touched(eyes) if durable else ()
            before_it = touched_tables.identify(eyes, names)
            try:
                yield eyes
                after_it = touched_tables.identify(eyes, names)
                tables = touched_tables.recorded(before_it, after_it, self._what) if names else None
            except BaseException:
                self._pending = earlier  # what this transaction read before it failed must be read again
                raise
            before, self._pending = self._pending, None
            act = step_commits.record_commit(
                self.dialect,
                place,
                label=self.spell(label),
                epoch=fence.epoch,
                before=before and self.spell(before),
                touched=self.spell(tables) if tables else None,
            )
            try:
                self._commit(
                    connection,
                    found[0].maybe_text("xid"),
                    act,
                    lambda look: step_commits.is_committed(look, place, label=label),
                )
            except BaseException:
                self._pending = before
                raise

    def commit_all(self, changes: Sequence[Change], *, durable: bool = True, off: Sequence[str] = ()) -> list[Row]:
        """Commit each change in a transaction of its own; the rows of their statements.

        PostgreSQL gets them all in one message. One by one: on SQLite, behind a pooler, and if `hold` limits each.
        """
        if self.dialect is Dialect.SQLITE or self.session.keep_s or self._pooled():
            return [self._alone(one, durable=durable, off=off) for one in changes]
        connection, pid = self._thread_writer(), self.backend_pid()
        settings = self._settings(statement_s=self.session.statement_s)
        crash_points.point("commit.before")
        try:
            with translated(self.dialect):
                rows = transactions.commit_all(connection, settings, self._wholes(changes), durable=durable, off=off)
        except BaseException as error:
            lost = isinstance(error, DatabaseFault) and error.lost
            self._roll_back(connection, lost=lost)
            if lost:  # the server may still be working through the message: don't ask what is done before it has ended
                lost_commit.outlive(self.look, pid)
            raise
        crash_points.point("commit.after")
        return rows

    def _alone(self, change: Change, *, durable: bool, off: Sequence[str]) -> Row:
        with self.commit(change.label, durable=durable, off=off) as work:
            return work.row(change.sql, change.params)

    def _wholes(self, changes: Sequence[Change]) -> list[transactions.Whole]:
        place, fence, dialect = self.session.place, self.session.fence, self.dialect
        if place is None or not place.step:
            raise StepError("cannot commit outside of a run")
        stands = leases.standing_or_fault(scope=fence.scope, epoch=fence.epoch) if fence.epoch else None
        return [
            transactions.Whole(
                stands,
                (one.sql, one.params),
                step_commits.record_commit(dialect, place, label=one.label, epoch=fence.epoch, before=None),
            )
            for one in changes
        ]

    @contextlib.contextmanager
    def own(self, *, fenced: bool = True) -> Iterator[Work]:
        """A transaction on the engine's own tables (run, step, lease, control)."""
        with self._transaction(spell=self.spell) as (connection, eyes, _):
            fence = self.session.fence
            if fenced and fence.epoch:
                self._keep_out(stands=leases.fence(eyes, scope=fence.scope, epoch=fence.epoch))
            yield eyes
            self._commit(connection, transactions.transaction_id(eyes))

    @contextlib.contextmanager
    def outside(self, label: str, *, bounded: bool = False) -> Iterator[Work]:
        """Autocommit, for statements that can't run in a transaction. bounded: with the usual lock timeout."""
        # What was remembered for the undo must be on disk first: there is no transaction to carry it along.
        if self._pending is not None:
            with contextlib.suppress(AlreadyCommitted), self.commit(f"{label}: remembered"):
                pass
        self._drop_writer()  # CONCURRENTLY waits for all transactions, so ours must not be idle in one
        with self._connected(self._writer) as connection:
            with translated(self.dialect):
                lock_s = None if bounded else 0
                settings = self._settings(lock_s=lock_s, statement_s=self.session.long_s)
                transactions.begin_outside(connection, self.dialect, settings)
            yield ConnectionView(self, connection, place=self.session.place)

    def remember(self, before: BaseModel) -> None:
        """Keep this (once) until the next commit, which writes it to the ledger."""
        if self._pending is None:
            self._pending = before.model_dump_json()

    def committed(self) -> list[str]:
        with self.look() as look:
            return step_commits.committed_labels(look, self.session.place)

    # ─── for the engine ─────────────────────────────────────────────────────────────────────────────────────────────
    def at(self, step: str, action: str = "apply", *, what: object = None) -> None:
        """Move on to a step: connections work for it from here on; what was remembered but not committed is dropped.

        what: the step itself if it is about to change something, so that its commits record the tables they touch.
        """
        self.session.step, self.session.action, self._what = step, action, what
        self._pending = None
        self._drop_writer()

    def policy(self, *, lock: LockPolicy, timeout: Timeouts) -> None:
        """Set the limits of the current step."""
        session = self.session
        session.lock_wait_s = lock.wait
        session.keep_s = lock.hold + lock.wait if lock.hold else 0.0  # the transaction also waits for its locks
        session.look_s, session.statement_s, session.long_s = timeout.look, timeout.statement, timeout.long

    @property
    def connections(self) -> int:
        """The number of connections that this process has open."""
        return len(self._open) + len(self._readers)

    @property
    def counts_connections(self) -> bool:
        """Whether the server counts each of our connections: not behind a pooler, and SQLite has no limit."""
        return self.dialect is Dialect.POSTGRESQL and not self.inherited.pooled

    def backend_pid(self) -> int:
        """The pid of the server process behind this thread's writing connection (PostgreSQL)."""
        return drivers.backend_pid(self._thread_writer())

    def cancel(self) -> None:
        """Cancel the running statements of all connections of this run."""
        for connection in list(self._open):
            with contextlib.suppress(Exception):
                drivers.cancel(connection, self.dialect)

    def cut_off(self, before: float) -> None:
        """Shut down all connections that have been waiting for an answer since before this time (time.monotonic())."""
        self._patience.connect_s = HURRY_S
        network_waits.ALL.cut(before=before)

    def environment(self) -> Mapping[str, str]:
        return drivers.environment(self._arguments)

    def release(self) -> None:
        self._drop_writer()

    def close(self) -> None:
        self._drop_writer()
        while self._readers:
            self._shut(self._readers.pop())
        self._writer.dispose()
        self._reader.dispose()

    # ─── inside ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def _settings(self, *, statement_s: float, lock_s: float | None = None) -> session_settings.SessionSettings:
        wait = self.session.lock_wait_s if lock_s is None else lock_s
        may = self.inherited.may_replicate or self.inherited.replication_role == "origin"
        name, monetary = self.session.application_name, self.inherited.monetary
        return session_settings.SessionSettings(
            name, wait, statement_s, self.path, self.version, replication=may, monetary=monetary
        )

    @contextlib.contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        connection = self._opened(engine)
        try:
            yield connection
        finally:
            self._shut(connection)

    def _opened(self, engine: Engine) -> Connection:
        if self._silence is not None and time.monotonic() < self._silence[0]:
            raise self._silence[1]
        try:
            with translated(self.dialect):
                connection = engine.connect()
        except DatabaseFault as fault:
            self._silence = (time.monotonic() + SILENCE_S, fault) if fault.silent else None
            raise
        self._silence = None
        self._open.add(connection)
        return connection

    def _shut(self, connection: Connection) -> None:
        self._open.discard(connection)
        with contextlib.suppress(Exception):
            connection.close()

    @contextlib.contextmanager
    def _transaction(
        self,
        *,
        durable: bool = True,
        off: Sequence[str] = (),
        first: Question | None = None,
        spell: Callable[[str], str] | None = None,
        longest: float = 0.0,
    ) -> Iterator[tuple[Connection, ConnectionView, list[Row]]]:
        """A transaction on this thread's writing connection; yields also the rows of the question `first`."""
        connection, found = self._begun_writer(durable=durable, off=off, first=first, longest=longest)
        try:
            yield connection, ConnectionView(self, connection, place=self.session.place, spell=spell), found
        except BaseException as error:
            self._roll_back(connection, lost=isinstance(error, DatabaseFault) and error.lost)
            raise
        finally:
            if self.dialect is Dialect.SQLITE and off:
                self._drop_writer()  # what is off was set on the connection; the next transaction must not inherit it

    def _begun_writer(
        self, *, durable: bool, off: Sequence[str], first: Question | None, longest: float
    ) -> tuple[Connection, list[Row]]:
        """Begin a transaction on this thread's writing connection; reconnect if that was ended while it was idle."""
        settings = replace(self._settings(statement_s=self.session.statement_s), transaction_s=longest)
        while True:
            kept = getattr(self._local, "writer", None) is not None
            connection = self._thread_writer()
            try:
                with translated(self.dialect):
                    return connection, transactions.begin_work(
                        connection, self.dialect, settings, durable=durable, off=off, first=first
                    )
            except BaseException as error:
                lost = isinstance(error, DatabaseFault) and error.lost
                self._roll_back(connection, lost=lost)
                if not (lost and kept):  # retrying is safe: nothing but a question was sent yet
                    raise

    def _roll_back(self, connection: Connection, *, lost: bool) -> None:
        """Roll back. A lost connection is dropped, never reconnected: it would come back without its settings."""
        try:
            if not lost:
                transactions.roll_back(connection, self.dialect)
        except Exception:  # noqa: BLE001 - whatever the driver says, the transaction is gone with its connection
            lost = True
        if lost or connection.invalidated:
            self._drop_writer()

    def _thread_writer(self) -> Connection:
        connection: Connection | None = getattr(self._local, "writer", None)
        if connection is None:
            connection = self._local.writer = self._opened(self._writer)
        return connection

    def _drop_writer(self) -> None:
        connection: Connection | None = getattr(self._local, "writer", None)
        if connection is not None:
            self._local.writer = None
            self._shut(connection)

    def _keep_out(self, *, stands: bool) -> None:
        if not stands:
            raise LeaseLost(
                "cannot commit: another run took over this target",
                why=f"the lease no longer stands at epoch {self.session.fence.epoch}",
                state="this run's last transaction was rolled back; everything before it is committed",
                then="runbook status",
            )

    def _commit(
        self,
        connection: Connection,
        xid: str | None,
        last: Question | None = None,
        known: Callable[[Look], bool] | None = None,
    ) -> None:
        """Send `last` and COMMIT. If the answer is lost, ask over a new connection what became of transaction `xid`."""
        crash_points.point("commit.before")
        pid = drivers.backend_pid(connection) if self.counts_connections else None
        try:
            with translated(self.dialect):
                transactions.commit(connection, self.dialect, last)
        except DatabaseFault as fault:
            if not fault.lost:
                raise
            self._drop_writer()
            if not lost_commit.acted(self.look, xid, known, pid=pid):
                raise  # rolled back; the caller may retry
        crash_points.point("commit.after")

    def _touched(self, look: Look) -> tuple[str, ...]:
        """The tables that the current step changes."""
        return self._what.touches(look) if isinstance(self._what, touched_tables.Touching) else ()

    def _pooled(self) -> bool:
        if getattr(self._local, "pooled", None) is None:
            with translated(self.dialect):
                self._local.pooled = transactions.pooled(self._thread_writer())
        return bool(self._local.pooled)

    def _meet(self, path: Sequence[str]) -> None:
        """Learn the server's version, the session's inherited settings, and the search_path to use."""
        with self._connected(self._reader) as connection, translated(self.dialect):
            self.password = drivers.password_of(connection, self.dialect)
            self.dialed = drivers.dialed(connection, self.dialect)
            self.version = drivers.server_version(connection, self.dialect)
            if self.dialect is Dialect.POSTGRESQL:
                self.inherited = session_settings.inherited(connection, self.version, self.schema)
                self.path = session_settings.resolved_path(self.schema, self.inherited, path)
                unheld = session_settings.unheld(connection, self._settings(statement_s=self.session.look_s))
                self.inherited = replace(self.inherited, unheld=unheld)
        self._patience.connect_s = int(network_waits.PROBE_S)

    def spell(self, text: str) -> str:
        """The text as the ledger stores it: characters that the database's encoding lacks are escaped."""
        return encoding.writable(text, self.inherited.encoding)
