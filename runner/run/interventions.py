"""Actions of people on a run: approve, give evidence, settle, judge, note, tune, and send SQL by hand."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runner.common import person_names
from runner.common.errors import RunRefused, StepFailed
from runner.common.outcome import Outcome
from runner.plan import approvals, judgements, next_commands, open_runs, original_gates
from runner.plan.next_commands import REASON
from runner.plan.preflight import writing_session
from runner.playbook.model import Entry, Playbook
from runner.record import trust
from runner.run import resume
from runner.run.execute import RunOptions, masks_of_run, path_of
from runner.run.opened_run import OpenedRun, append_event, in_force, open_run, playbook_of, schema_of
from runner.run.resume import runs_of, same_target
from runner.target.runs import Found, find_run
from runner.target.workplace import Connected, connected
from runner.trail import run_process
from runner.trail.events import (
    Approved,
    EvidenceGiven,
    Judged,
    Noted,
    Process,
    RunState,
    Settled,
    SqlByHand,
    order_words,
)
from runner.trail.status import RunStatus
from steps.contract import Answer, ApprovalNeed, DatabaseFault, Gate, StepError, Value, Work
from steps.contract.dialect import Dialect
from steps.ledger import anchors, commands
from steps.sql.dialect import needs_autocommit
from steps.sql.scanner import split
from steps.sql.session_statements import void
from steps.sql.statements import lock_of, waits_in_the_way


def approve(
    name: str, orders: RunOptions, *, step: str, by: str, role: str, reason: str, valid_s: float | None = None
) -> Outcome:
    """Record an approval of a gate, bound to the approval digest. It is unsigned, so only a claim, as every report says."""
    by = person_names.named(by)
    with open_run(name, orders, what="approve") as opened:
        entry, now, anchored = _approve(opened, step=step, by=by, role=role, reason=reason, valid_s=valid_s)
        said = _same_user(opened.found.status, run_process.this_process(by))
    return _still_open(name, orders, entry, now, anchored, note=said)


def _approve(
    opened: OpenedRun, *, step: str, by: str, role: str, reason: str, valid_s: float | None
) -> tuple[Entry, datetime, str]:
    found = opened.found
    _refuse_ended(found.status, what="approve anything in")
    playbook = in_force(found)
    entry = _gate(playbook, found, step)
    needs = original_gates.needs(entry, playbook.kept_gates)
    fitting = _fitting([one.approval for one in needs if one.approval is not None], found.status, entry, by, role)
    who = run_process.this_process(by)
    now, server_at = opened.now()
    expires = min(filter(None, (approvals.expiry(one, given_s=valid_s, now=now) for one in fitting)), default="")
    event = Approved(
        step=entry.id, name=by, role=role, reason=reason, approval_digest=found.status.approval_digest,
        chain_head=found.status.head, expires=expires, user=who.user, host=who.host, trust=opened.trust,
        server_at=server_at,
    )  # fmt: skip
    return entry, now, opened.write(event, what=f"the approval of {entry.id}")


def _refuse_ended(status: RunStatus, *, what: str) -> None:
    """Raise RunRefused if the run can't go forward any more, so that an approval would be pointless."""
    if status.state in open_runs.ENDED:
        raise RunRefused(
            f"cannot {what} {status.run}: it has ended ({status.state.replace('_', ' ')})",
            state="nothing was recorded",
            then=f"runbook report {status.run}",
        )
    if status.rolling_back:
        raise RunRefused(
            f"cannot {what} {status.run}: taking it back has begun, and no gate of it opens any more",
            state="nothing was recorded",
            then=f"runbook rollback {status.run}",
        )


def _fitting(needs: list[ApprovalNeed], status: RunStatus, entry: Entry, by: str, role: str) -> list[ApprovalNeed]:
    """The needed approvals that this person may give in this role; raises RunRefused if there are none."""
    refused = [_why_not(need, status, entry, by=by, role=role) for need in needs]
    fitting = [need for need, reason in zip(needs, refused, strict=True) if reason is None]
    if fitting:
        return fitting
    raise next(
        filter(None, refused),
        RunRefused(f"cannot approve {entry.id}: it asks for no approval", then=f"runbook resume {status.run}"),
    )


def _why_not(need: ApprovalNeed, status: RunStatus, entry: Entry, *, by: str, role: str) -> RunRefused | None:
    if need.roles and role not in need.roles:
        return RunRefused(
            f"cannot approve {entry.id} {f'as {role}' if role else 'without a role'}: it asks for {' or '.join(need.roles)}",
            then="\n".join(
                f"runbook approve {status.run} --step {entry.id} --as {shlex.quote(by)} --role {shlex.quote(one)} {REASON}"
                for one in need.roles
            ),
        )
    if not approvals.may(need, by):
        names = " or ".join(need.by)
        return RunRefused(f"cannot approve {entry.id} as {by}: only {names} may", then=f"ask {names}")
    operated = [one for one in status.operators if person_names.same(by, one)]
    if need.not_operator and operated:
        other = f" (as {operated[0]})" if operated[0] != by else ""
        return RunRefused(
            f"cannot approve {entry.id} as {by}: the playbook forbids it to the operator",
            why=f"{by} has operated this run{other}: exec, resume, settle, sql, or tune where it loosens",
            then=f"somebody else: runbook approve {status.run} --step {entry.id} --as NAME"
            + (f" --role {shlex.quote(role)}" if role else "")
            + f" {REASON}",
        )
    return None


def _same_user(status: RunStatus, who: Process) -> str:
    """A note if the approver has the operator's OS user: it may, but need not, be another person at the same machine."""
    names = ", ".join(name for name, user in status.operators.items() if user == who.user)
    return f"given by the same system user as the operator's: {who.user} ({names})" if names else ""


def submit_evidence(
    name: str, orders: RunOptions, *, step: str, evidence: str, by: str, reason: str, file: Path | None
) -> Outcome:
    """Record evidence for a gate, bound to the approval digest; a file is identified by its SHA-256."""
    by = person_names.named(by)
    with open_run(name, orders, what="take evidence for") as opened:
        _refuse_ended(opened.found.status, what="take evidence for")
        playbook = in_force(opened.found)
        entry = _gate(playbook, opened.found, step)
        wanted = {one.name: one for need in original_gates.needs(entry, playbook.kept_gates) for one in need.evidence}
        if evidence not in wanted:
            raise RunRefused(
                f"cannot take evidence {evidence!r}: {entry.id} asks for {', '.join(wanted) or 'none'}",
                then="\n".join(
                    f"runbook approve {opened.found.status.run} --step {entry.id} --evidence {shlex.quote(one)} {REASON}"
                    for one in wanted
                )
                or f"runbook status {opened.found.status.run}",
            )
        sha = _sha256(file) if file is not None else ""
        now, server_at = opened.now()
        expires = approvals.expiry(wanted[evidence], given_s=None, now=now)
        event = EvidenceGiven(
            step=entry.id, name=evidence, by=by, reason=reason, file=str(file or ""), sha256=sha, expires=expires,
            approval_digest=opened.found.status.approval_digest, user=run_process.this_process(by).user, trust=opened.trust,
            server_at=server_at,
        )  # fmt: skip
        anchored = opened.write(event, what=f"the evidence for {entry.id}")
    return _still_open(name, orders, entry, now, anchored)


def _still_open(
    name: str, orders: RunOptions, entry: Entry, now: datetime, anchored: str, *, note: str = ""
) -> Outcome:
    found = _found(name, orders)
    needs = original_gates.needs(entry, in_force(found).kept_gates)
    open_needs = approvals.all_open(needs, found.status, step=entry.id, now=now)
    word = f"still waits for: {'; '.join(open_needs)}" if open_needs else "has all that it asks for"
    return _outcome(found, f"recorded{anchored}", note=note, gate=f"{entry.id} {word}")


def _outcome(found: Found, done: str, **facts: str) -> Outcome:
    """What was done, with the run's next commands."""
    then = next_commands.onward(in_force(found), found.status, resume.here(found, {}))
    return Outcome(done, found.status.run, facts, then.commands, then.when)


def settle(name: str, orders: RunOptions, *, step: str, done: bool, by: str, reason: str) -> Outcome:
    """Record whether a step in doubt was done. Also possible if the record is contradicted; the event says so."""
    by = person_names.named(by)
    with open_run(name, orders, what="settle", contradicted=True) as opened:
        status = opened.found.status
        if _running(opened.found):
            raise RunRefused(f"cannot settle {step}: {status.run} still runs", then=f"runbook status {status.run}")
        doubtful = [one.id for one in status.steps.values() if one.open or one.doubtful]
        if step not in doubtful:
            raise RunRefused(
                f"cannot settle {step}: it is not in doubt",
                why=f"in doubt: {', '.join(doubtful) or 'no step'}",
                then=f"runbook status {status.run}",
            )
        event = Settled(step=step, done=done, by=by, reason=reason, trust=opened.trust)
        anchored = opened.write(event, what=f"the settling of {step}")
    return _outcome(_found(name, orders), f"settled: {step} is {'done' if done else 'not done'}{anchored}")


def judge(name: str, orders: RunOptions, *, check: str, answer: Answer, by: str, role: str, reason: str) -> Outcome:
    """Record a person's answer to a check that could not decide, if the playbook allows it (`judge:`)."""
    by = person_names.named(by)
    with open_run(name, orders, what="judge") as opened:
        _refuse_ended(opened.found.status, what="judge anything in")
        status, playbook = opened.found.status, in_force(opened.found)
        waiting = judgements.open_ones(playbook, status)
        if check not in waiting:
            raise RunRefused(
                f"cannot judge {check}: it doesn't wait for a judgement",
                why=f"these do: {', '.join(waiting)}" if waiting else "no check of the run does",
                then=f"runbook status {status.run}",
            )
        if role not in waiting[check]:
            raise RunRefused(
                f"cannot judge {check} {f'as {role}' if role else 'without a role'}: it is for {' or '.join(waiting[check])}",
                then="\n".join(
                    f"runbook judge {status.run} {check} {answer.value} --as {shlex.quote(by)} --role {shlex.quote(one)} {REASON}"
                    for one in waiting[check]
                ),
            )
        step = next(step for step, one in judgements.every(playbook) if one.id == check)
        who = run_process.this_process(by)
        event = Judged(
            step=step, id=check, answer=answer, name=by, role=role, reason=reason, approval_digest=status.approval_digest,
            chain_head=status.head, user=who.user, host=who.host, trust=opened.trust,
        )  # fmt: skip
        anchored = opened.write(event, what=f"the judgement of {check}")
    return _outcome(_found(name, orders), f"judged: {check} is a {answer.value}{anchored}")


def note(name: str, orders: RunOptions, *, text: str, by: str) -> Outcome:
    """Record a note in the run's timeline."""
    by = person_names.named(by)
    with open_run(name, orders, what="note anything in") as opened:
        anchored = opened.write(Noted(by=by, text=text, trust=opened.trust), what="a note")
    run = opened.found.status.run
    return Outcome(f"noted in {run}{anchored}", run)


def tune(name: str, orders: RunOptions, *, order: Mapping[str, Value], by: str, reason: str) -> Outcome:
    """Send an order to a running run, which reads it at its next safe point."""
    by = person_names.named(by)
    found = _found(name, orders)
    if _running(found) is False:
        raise RunRefused(
            f"cannot tell {found.status.run} anything: it does not run now ({found.status.state.replace('_', ' ')})",
            then=f"runbook status {found.status.run}",
        )
    _known_limits(found.status, order)
    masks = masks_of_run(found.status, orders)
    with connected(orders.place, schema=schema_of(found), masks=masks) as target:
        same_target(found.status, target)
        trust.uncontradicted(found, target.database, what="steer")
        by, reason = masks.mask(by), masks.mask(reason)
        target.database.session.run = found.status.run
        with target.database.own(fenced=False) as work:
            commands.add_command(work, run=found.status.run, order=order, by=by, reason=reason)
    run = found.status.run
    told = f"told {run}: {order_words(order)}; it obeys at its next safe point"
    return Outcome(told, run, next=(f"runbook status {run} {found.options()}".rstrip(),))


def _known_limits(status: RunStatus, order: Mapping[str, Value]) -> None:
    """Refuse limits that the playbook doesn't have as numbers: such an order would silently have no effect."""
    given = status.started.limits if status.started else {}
    numbers = [
        f"limits.{key}"
        for key, value in given.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    for name in order:
        if name.startswith("limits.") and name not in numbers:
            raise RunRefused(
                f"cannot change {name}: the playbook has no such number",
                why=f"it has {', '.join(numbers) or 'none'}",
                then=f"runbook tune {status.run} {numbers[0]}=N {REASON}"
                if numbers
                else f"runbook status {status.run}",
            )


def sql(name: str, orders: RunOptions, *, text: str, by: str, reason: str) -> list[SqlByHand]:
    """Break-glass: send statements one by one under the run's name and timeouts; each is recorded before the next."""
    by = person_names.named(by)
    found = _found(name, orders)
    playbook = playbook_of(found)
    masks = masks_of_run(found.status, orders)
    sent: list[SqlByHand] = []
    path = path_of(found.status, playbook)
    with connected(orders.place, schema=playbook.db_schema, path=path, masks=masks) as target:
        same_target(found.status, target)
        writing_session(target.database, what="send SQL by hand here")
        _refuse_unanchored(found, target)
        target.database.session.run, target.database.session.step = found.status.run, "by_hand"
        hand = _Hand(found, target, by, reason)
        pieces = split(text, target.database.dialect)
        _refuse_void([piece.text for piece in pieces], target.database.dialect, found.status.run)
        for piece in pieces:
            event = hand.send(piece.text)
            sent.append(event)
            if event.error:
                raise StepFailed(
                    f"cannot run this by hand: {event.error}",
                    state=f"{len(sent) - 1} of {len(pieces)} statements are committed, this one is rolled back, none after it was sent",
                    then=f"runbook status {found.status.run}",
                )
    return sent


def _refuse_unanchored(found: Found, target: Connected) -> None:
    """Refuse SQL by hand if the ledger can't anchor its record: it could be removed from the trail unnoticed."""
    verdict = trust.proven(found, target.database, changes=True, what="send anything by hand in")
    if verdict.row is None:
        raise RunRefused(
            f"cannot send anything by hand in {found.status.run}: {verdict.fault}, so nothing would vouch for the record of it",
            state="nothing was changed by this command",
            then=f"use the database's own client, and say so: runbook note {found.status.run} '…'",
        )


def _refuse_void(statements: Sequence[str], dialect: Dialect, run: str) -> None:
    """Refuse statements without effect in a transaction of their own (SET, BEGIN …), before the first is sent."""
    for sql in statements:
        if (found := void(sql, dialect)) is not None:
            raise RunRefused(
                f"cannot send {found.what} by hand: {found.why}",
                state="nothing was sent",
                then="leave it out, or send by another client what needs a session of its own, and note it: "
                f"runbook note {run} '…'",
            )


@dataclass(frozen=True)
class _Hand:
    """Sends a person's statements within a run."""

    found: Found
    target: Connected
    by: str
    reason: str

    def send(self, text: str) -> SqlByHand:
        """Send one statement. It is recorded on disk before, and anchored in the ledger with it, so a kill hides nothing."""
        words = f"sends by hand ({self.reason}): {text}"
        head, length = append_event(self.found, Noted(by=self.by, text=words), self.target.masks)
        rows, error = self._sent(text, head, length)
        event = SqlByHand(by=self.by, reason=self.reason, sql=text, rows=rows, error=error)
        self._anchor(*append_event(self.found, event, self.target.masks))
        return event.model_copy(update={"sql": self.target.masks.mask(text), "error": self.target.masks.mask(error)})

    def _sent(self, text: str, head: str, length: int) -> tuple[int, str]:
        """Execute one statement in a transaction together with its anchor; in autocommit, if it must be, after its anchor."""
        database = self.target.database
        try:
            if needs_autocommit(text, dialect=database.dialect):
                self._anchor(head, length)
                with database.outside("by hand", bounded=waits_in_the_way(lock_of(text))) as work:
                    return work.execute(text), ""
            with database.own(fenced=False) as work:
                self._anchored(work, head, length)
                return work.execute(text), ""
        except (DatabaseFault, StepError) as fault:
            return -1, str(fault)

    def _anchor(self, head: str, length: int) -> None:
        with self.target.database.own(fenced=False) as work:
            self._anchored(work, head, length)

    def _anchored(self, work: Work, head: str, length: int) -> None:
        anchors.add_anchor(work, run=self.found.status.run, what="a statement by hand", head=head, length=length)


def _running(found: Found) -> bool | None:
    """Whether the run's process is alive; None if that can't be determined from here."""
    process = found.status.process
    if found.status.state is not RunState.RUNNING or process is None:
        return False
    return run_process.alive(process)


def _found(name: str, orders: RunOptions) -> Found:
    return find_run(runs_of(orders), name)


def _gate(playbook: Playbook, found: Found, step: str) -> Entry:
    """The gate with this id; without an id the one at which the run waits, or the only one not passed yet."""
    gates = [entry for entry in playbook.entries if isinstance(entry.step, Gate)]
    unfinished = [entry for entry in gates if not found.status.step(entry.id).finished]
    waiting = [entry for entry in unfinished if found.status.step(entry.id).gate]
    meant = [entry for entry in gates if entry.id == step] if step else waiting or unfinished
    if len(meant) == 1:
        return meant[0]
    raise RunRefused(
        f"cannot find the gate {step!r} in {playbook.name}"
        if step
        else f"cannot tell which gate of {playbook.name} is meant",
        why=f"its gates: {', '.join(one.id for one in gates) or 'none'}"
        + ("" if unfinished or not gates else "; all of them are passed"),
        then="\n".join(
            f"runbook approve {found.status.run} --step {one.id} --as NAME {REASON}" for one in (waiting or unfinished)
        )
        or f"runbook status {found.status.run}",
    )


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise RunRefused(
            f"cannot read the evidence {file}: {error.strerror or error}", then="give --file a file that can be read"
        ) from error
