"""One pass of a backfill: its workers over their ranges, the rows to return to, the sweep at the end."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil

from steps.contract import (
    AlreadyCommitted,
    Context,
    DatabaseFault,
    Look,
    Params,
    Paused,
    Row,
    RunPosition,
    StepError,
    Tuning,
    Value,
)
from steps.sql.unreadable import tried
from steps.types.backfill import store
from steps.types.backfill.batch import BatchResult, BatchSpec, change, outcome_of, run_batch
from steps.types.backfill.payload import UndoPayload, prune, written_before
from steps.types.backfill.pool import WorkerPool
from steps.types.backfill.progress import forecast, progress, rest_s, size
from steps.types.backfill.ranges import Route, Start, again, begin, heap_of, key_names
from steps.types.backfill.reading import Unreadable, in_table
from steps.types.backfill.sql import Shape, Window, left, missed
from steps.types.backfill.store import AGAIN, SWEEP, Batch, DeadRow, Totals
from steps.types.backfill.throttle import Pace
from steps.types.backfill.worker import Assignment, PassSettings, PassState, Worker, array

RETURNS = 5  # times that deferred rows are returned to, with growing waits of up to 1.6 s
AT_ONCE = 100_000  # rows of a sweep's query: what one process keeps in mind
NULL_AGAIN = "NULL again after it was written"
FULL_AGAIN = "written again after it was emptied"
EVERYWHERE = Window("true", {})
ROUNDS = 20  # of the sweep: each begins anew where a row was not found again under the key that it had


class Enough(Exception):
    """The pass reached what `stop_after` asks for: it ends well, and says what it left."""


class Pass:
    """A pass under way in one process; all that must outlive the process is in the ledger."""

    def __init__(self, ctx: Context, place: RunPosition, shape: Shape, settings: PassSettings, route: Route) -> None:
        self.ctx, self.place, self.shape, self.settings = ctx, place, shape, settings
        self.document = PassState(route=route, start=Start(ranges=(), rows=0, bytes=0))
        self.totals, self.number = Totals(), 0
        self._rate = 0.0  # while the sweep looks, it is what it was
        self.cursors: dict[int, str] = {}  # of the ranges, as far as they are begun
        self.pace = Pace(ctx.db, settings.throttle)
        self.pool = WorkerPool(wanted=settings.workers, done=ctx.db.release)
        self._assignment = Assignment(shape, settings, self.pace, ctx.db.look)
        self._figures = threading.Lock()  # of totals, number and document
        self._turn = threading.Lock()  # one worker at a time reports and obeys; a hold holds them all

    # ─── the whole ──────────────────────────────────────────────────────────────────────────────────────────────────
    def run(self) -> PassState:
        """Go from where the ledger says it stands to the end; raises Paused, Stopped, StepError."""
        self._open()
        if not self._ended():
            try:
                self._ranges()
                self._flush()
                left = self._sweep()
            except Enough:
                self._return_to_deferred(self._new_worker())
                left = self._count_left()
            self.document = self.document.model_copy(update={"finished": True, "left": left})
            self._keep(f"end {self.numbered()}")  # a pass that was opened again ends again
        return self.document

    def _flush(self) -> None:
        """A commit that waits for the disk: what the sweep proves after it can't be lost any more."""
        if not self.totals.written:
            return
        with contextlib.suppress(AlreadyCommitted):  # no batch came after it
            self._keep(f"sweep {self.numbered()}")

    def _open(self) -> None:
        with self.ctx.db.look() as look:
            text = store.document(look, self.place)
            if text is not None:
                self.document = PassState.model_validate_json(text)
                self._reload(look)
        if text is None:
            self._first()
        elif not self._ended():
            self._same_table()
            self._follow()

    def _ended(self) -> bool:
        return self.document.ended(self.settings, deferred=self.totals.deferred)

    def _same_table(self) -> None:
        """Raises StepError where another table stands under the name: its rows are not the ones that were gone over."""
        start, shape = self.document.start, self.shape
        if start.oid and start.oid != shape.oid:
            raise StepError(
                f"cannot go on: {shape.table} is another table than the one that this pass began on (oid {shape.oid}, "
                f"then {start.oid}): it was replaced; {self.totals.written} rows were written in the old one. "
                "Begin a new run for the new table"
            )
        if start.key and start.key != key_names(shape):
            raise StepError(
                f"cannot go on: rows of {shape.table} were told apart by {', '.join(start.key)} when this pass began, and "
                f"now it takes {', '.join(key_names(shape))}; begin a new run"
            )

    @contextlib.contextmanager
    def _scan(self) -> Iterator[Look]:
        """For what reads the whole table: while others work it takes one core, however many there are."""
        with self.ctx.db.look() as look:
            if self.pace.busy:
                look.rows("SELECT set_config('max_parallel_workers_per_gather', '0', true)")
            yield look

    def _first(self) -> None:
        self.pace.look(0)
        with self._scan() as look:
            start = begin(look, self.shape, self.document.route, workers=self.settings.workers)
        self.document = self.document.model_copy(update={"start": start})
        if self.document.start.rows == 0 and self.settings.expect_work:
            raise StepError(
                f"nothing to do: no row of {self.shape.table} is in range; look at `where` and at the table, or write "
                "expect_work: false where an empty range is right"
            )
        self._keep("begin")

    def _reload(self, look: Look) -> None:
        self.totals, self.number = store.totals(look, self.place), store.last_number(look, self.place)

    def _follow(self) -> None:
        """Begin the heap again where VACUUM FULL or CLUSTER gave its rows new places; nothing is written twice."""
        if not any(one.kind == "pages" for one in self.document.start.ranges):
            return
        with self.ctx.db.look() as look:
            heap = heap_of(look, self.shape)
            if heap == self.document.start.heap:
                return
            start = again(look, self.shape, self.document.start)
        self.document = self.document.model_copy(update={"start": start})
        self._keep(f"heap {heap}")

    def _keep(self, label: str) -> None:
        with self.ctx.db.commit(label) as work:
            store.keep_document(work, self.place, self.document.model_dump_json())

    def reopen(self) -> None:
        """Return to the rows that were set aside when the pass goes on."""
        self._open()
        self.document = self.document.model_copy(update={"finished": False})
        with self.ctx.db.commit(f"reopen {self.numbered()}") as work:
            rows = store.reopen(work, self.place)
            store.add_batch(work, self.place, Batch(self.number, SWEEP, "", "", Totals(deferred=rows, dead=-rows)))
            store.keep_document(work, self.place, self.document.model_dump_json())

    # ─── the ranges ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _ranges(self) -> None:
        if self.settings.ends and self.document.paused:
            raise Enough  # killed between the last batch and the end
        self.pool.want(1 if self.pause_ahead() else self._workers(Tuning()))
        while todo := self._unfinished():
            self.pool.work(todo, self._new_worker)
            self._follow()

    def _unfinished(self) -> list[int]:
        with self.ctx.db.look() as look:
            self.cursors = store.cursors(look, self.place)
        start = self.document.start
        return [n for n, one in enumerate(start.ranges) if start.stands(one) and self.cursors.get(n) != one.hi]

    def _new_worker(self) -> Worker:
        return Worker(self._assignment, self)

    # ─── what workers need (PassPort) ───────────────────────────────────────────────────────────────────────────────
    def state(self) -> PassState:
        return self.document

    def cursor(self, number: int) -> str:
        return self.cursors.get(number) or self.document.start.ranges[number].lo

    def moved(self, number: int, at: str) -> str:
        self.cursors[number] = at
        return at

    def until_pause(self) -> int | None:
        wanted = self.settings.pause_written
        if wanted is None or self.document.paused:
            return None
        return max(1, wanted - self.totals.written)

    def caught_up(self, part: int) -> str:
        """What the ledger has beyond what this process knows is taken in; where this range's cursor stands there."""
        with self.ctx.db.look() as look, self._figures:
            self.totals = store.totals(look, self.place)
            self.number = max(self.number, store.last_number(look, self.place))
            return store.cursors(look, self.place).get(part) or self.document.start.ranges[part].lo

    def numbered(self) -> int:
        """A number that no batch of this pass has had."""
        with self._figures:
            self.number += 1
            return self.number

    def note(self, figures: Totals) -> None:
        """Add what was committed."""
        with self._figures:
            self.totals = self.totals.plus(figures)

    def pulse(self, *, rate: float, rows: int, ms: float) -> Tuning:
        """A worker's safe point: the pass reports, holds or stops; how many are wanted is read there too."""
        with self._turn:
            self.pool.check()
            self._rate = self.pool.rate or rate or self._rate
            told = progress(self.totals, self.document.start, rate=self._rate, rows=rows, ms=ms, pace=self.pace)
            tuning = self.ctx.pulse(told)
            self.pace.look(self.totals.batches, tuning)
            self.pool.want(1 if self.pause_ahead() else self._workers(tuning))
            return tuning

    def _workers(self, tuning: Tuning) -> int:
        return (tuning.workers or self.settings.workers) if self.shape.pg else 1  # SQLite has one writer

    def pause_ahead(self) -> bool:
        """Up to its gate a pass has one worker, so that it stops at the row that was asked for."""
        return bool(self.settings.pause_written or self.settings.pause_batches) and not self.document.paused

    def commit(self, order: BatchSpec, *, keys: Sequence[str] = (), off: Sequence[str] = ()) -> BatchResult:
        """One batch. COMMIT needn't wait for the disk: the cursor is lost with the rows or kept with them.

        While others work it does wait, or a COMMIT of theirs that comes in our rest would have to write all of it.
        """
        with self.ctx.db.commit(store.label_of(order.n), durable=self.pace.busy, off=off) as work:
            if keys:
                order = replace(order, returned=store.forget_deferred(work, self.place, array(keys)))
            outcome = run_batch(work, self.place, self.shape, order)
            document = self._pausing(outcome)
            if document is not None:
                store.keep_document(work, self.place, document.model_dump_json())
        self.note(outcome.figures)
        if document is not None:
            self._pause(document)
        if order.window.pages and outcome.heap != self.document.start.heap:
            self._follow_once(outcome.heap)
        self._count_dead(outcome)
        return outcome

    def commit_all(self, orders: Sequence[BatchSpec], *, off: Sequence[str] = ()) -> list[BatchResult]:
        """Batches of pages, in one message; of fewer of them than that, where one failed: alone, it says why.

        So each locks its rows for its own short time, and the server needn't wait for us between them.
        """
        changes = [change(self.place, self.shape, order) for order in orders]
        try:
            rows = self.ctx.db.commit_all(changes, durable=self.pace.busy, off=off)
            outcomes = [outcome_of(row, self.shape) for row in rows]
        except (DatabaseFault, AlreadyCommitted) as fault:
            if isinstance(fault, DatabaseFault) and fault.lost:
                raise
            outcomes = self._committed(orders)
        for one in outcomes:
            self.note(one.figures)
        if outcomes and outcomes[-1].heap != self.document.start.heap:
            self._follow_once(outcomes[-1].heap)
        self._count_dead(*outcomes)
        return outcomes

    def _committed(self, orders: Sequence[BatchSpec]) -> list[BatchResult]:
        with self.ctx.db.look() as look:
            found = store.batches(look, self.place, first=orders[0].n, last=orders[-1].n)
        heap, ours = self.document.start.heap, {order.n for order in orders}
        return [BatchResult(one.figures, one.figures.seen, one.hi, heap) for one in found if one.n in ours]

    def set_aside(self, order: BatchSpec, row: DeadRow, *, action: str) -> None:
        with self.ctx.db.commit(store.label_of(order.n)) as work:
            known = store.set_aside(work, self.place, row, action=action)
            dead = int(action == store.DEAD_ACTION)
            figures = Totals(1, seen=1 - known, dead=dead, deferred=1 - dead - known)
            store.add_batch(work, self.place, Batch(order.n, order.worker, order.lo, order.window.end, figures))
        self.note(figures)
        self._keep_to_budget(f"the last one, {row.key}: {row.message}")

    def leave_out(self, order: BatchSpec, bad: Unreadable) -> None:
        """Rows that can't be read are dead; the cursor stays, since the others of this batch are yet to come."""
        for one in bad.found:
            stays = replace(order, n=self.numbered(), window=replace(order.window, end=order.lo))
            self.set_aside(stays, DeadRow.unreadable(one), action=store.DEAD_ACTION)

    def _count_dead(self, *outcomes: BatchResult) -> None:
        if any(one.figures.dead for one in outcomes):
            self._keep_to_budget("a trigger of the table kept them from being written, or set them back to NULL")

    def _keep_to_budget(self, why: str) -> None:
        """Stop where more rows are dead than the playbook allows."""
        settings, rows, dead = self.settings, self.document.start.rows, self.totals.dead
        allowed = min(settings.dead_max, ceil(rows * settings.dead_pct / 100))
        if dead > allowed:
            raise StepError(
                f"cannot go on: {dead} rows could not be written, and dead_letters allows {allowed} "
                f"(max {settings.dead_max}, {settings.dead_pct} % of {rows}); {why}"
            )

    def _follow_once(self, heap: int) -> None:
        with self._turn:
            if heap != self.document.start.heap:
                self._follow()

    def _pause(self, document: PassState) -> None:
        self.document = document
        if self.settings.ends:
            raise Enough
        with self.ctx.db.look() as look:
            seconds, wal = store.seconds(look, self.place), store.server_wal(look, self.place)
            bytes_now = size(look, self.shape)
            told = forecast(self.totals, document.start, seconds=seconds, bytes_now=bytes_now, wal=wal)
            raise Paused(told, needs_s=rest_s(self.totals, document.start, seconds=seconds))

    def _pausing(self, outcome: BatchResult) -> PassState | None:
        """The document with its pause, where this batch reaches it: it commits with the batch, so resume goes on."""
        written, batches = self.totals.written + outcome.figures.written, self.totals.batches + 1
        reached = (self.settings.pause_written or 0) <= written if self.settings.pause_written else False
        reached = reached or (batches >= self.settings.pause_batches if self.settings.pause_batches else False)
        return self.document.model_copy(update={"paused": True}) if reached and not self.document.paused else None

    # ─── the end ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _sweep(self) -> int:
        """Return to rows that were locked, then to rows that moved or came meanwhile; how many of them are left.

        A query over the whole table, by no order and no bound, finds all that can be filled. They are filled, and it is
        asked again: none of them may be found a second time. Whatever else is found then came after the first query, so it
        was not there when the pass began; unless a row was not met under the key that it had, and is looked for again: in its turn,
        or when it was returned to since it was locked.
        """
        worker, tried, whole = self._new_worker(), set[str](), False
        for _ in range(ROUNDS):
            self._return_to_deferred(worker)
            keys = self._missed()
            fallen = self._take_up(keys)
            new = [key for key in keys if key not in fallen]
            all_met = whole and not worker.vanished
            if not fallen and not (tried.intersection(new) if all_met else new):
                return 0
            worker.vanished = 0
            worker.settle_all(new, worker=SWEEP)
            whole = len(keys) < AT_ONCE
            tried.update(new)
            if len(tried) > AT_ONCE + self.document.start.rows:
                break
        self._return_to_deferred(worker)
        return self._count_left()

    def _take_up(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that this run wrote and that need it again: they are written once more, and then they are dead."""
        held, message = UndoPayload.of(self.shape), FULL_AGAIN if self.shape.clears else NULL_AGAIN
        with self.ctx.db.look() as look:
            before = written_before(look, self.place, held, keys)
            known = {one.key for one in store.letters(look, run=self.place.run, step=self.place.step, action=AGAIN)}
        fallen = {key for _, key in before}
        if not fallen:
            return fallen
        twice = sorted(fallen & known)
        once = sorted(fallen - known)
        with self.ctx.db.commit(f"again {self.numbered()}") as work:
            for n in sorted({n for n, _ in before}):
                prune(work, self.place, held, n=n, keys=[key for m, key in before if m == n])
            store.recall(work, self.place, once, message=message, action=AGAIN)
            store.recall(work, self.place, once, message=message, action=store.DEFERRED)
            store.recall(work, self.place, twice, message=message, action=store.DEAD_ACTION)
            figures = Totals(1, written=-len(fallen), deferred=len(once), dead=len(twice))
            store.add_batch(work, self.place, Batch(self.number, SWEEP, "", "", figures))
        self.note(figures)
        if twice:
            self._keep_to_budget(f"the last one, {twice[-1]}: {message}")
        return fallen

    def _missed(self) -> list[str]:
        sql, params = missed(self.shape, EVERYWHERE, limit=AT_ONCE)
        rows, bad = self._scanned(sql, params)
        if rows is None:
            self.leave_out(BatchSpec(0, SWEEP, "", EVERYWHERE), bad)
            rows, bad = self._scanned(sql, params)
        if rows is None:
            raise StepError(
                "cannot prove that no row was missed: others can't be read each time it is asked; resume later"
            )
        return [row.text("key") for row in rows]

    def _count_left(self) -> int:
        rows, bad = self._scanned(left(self.shape, EVERYWHERE), {})
        if rows is None:  # they are left too: nobody has gone over them
            rest = EVERYWHERE.without(bad.keys)
            with self._scan() as look:
                rows = look.rows(left(self.shape, rest), {**rest.params, **self._ours()})
        return rows[0].integer("n") + len(bad.found)

    def _scanned(self, sql: str, params: Params) -> tuple[list[Row] | None, Unreadable]:
        """The rows of a query over the whole table; None where it fails at some, which are looked for then."""
        with self._scan() as look:
            rows = tried(look, lambda: look.rows(sql, {**params, **self._ours()}))
            if rows is not None:
                return rows, Unreadable()
            bad = in_table(look, self.shape, place=self.place)
            # where no row is at fault, the statement says by itself what is
            return (None, bad) if bad.found else (look.rows(sql, {**params, **self._ours()}), bad)

    def _ours(self) -> dict[str, Value]:
        return {"run": self.place.run, "step": self.place.step}

    def _return_to_deferred(self, worker: Worker) -> None:
        for turn in range(RETURNS if self.totals.deferred else 0):
            with self.ctx.db.look() as look:
                ours = store.letters(look, run=self.place.run, step=self.place.step, action=store.DEFERRED)
            keys = [letter.key for letter in ours]
            if not keys:
                return
            if turn:
                time.sleep(random.uniform(0.5, 1.0) * 0.1 * 2**turn)  # noqa: S311 - jitter, no secret
            worker.settle_all(keys, worker=SWEEP)
