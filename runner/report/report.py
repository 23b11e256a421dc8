"""The report of a run, from its trail alone: verdict, change cards with what really happened, checks, timeline."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from runner.common.markdown import code, escaped, table
from runner.plan import advice, next_commands, plan
from runner.playbook.model import Entry, Playbook
from runner.record import trust
from runner.report import checks_table, plan_cards
from runner.report.timeline import OUTCOMES, clock, timeline, took
from runner.target import identity
from runner.target.runs import Found
from runner.trail import events, trail
from runner.trail.events import Json, Record, RunKind, RunStarted, RunState
from runner.trail.status import RunStatus, StepStatus
from steps.contract import Database, Value, cutting, running_figures
from steps.contract.values import readable_all
from steps.ledger import skipped_rows

_VERDICTS = {
    RunState.RUNNING: "Running",
    RunState.WAITING: "Waiting at a gate",
    RunState.SUCCEEDED: "Succeeded",
    RunState.FAILED: "Failed",
    RunState.CRITERIA_NOT_MET: "Criteria not met",
    RunState.ABORTED: "Aborted",
    RunState.IN_DOUBT: "In doubt",
    RunState.ROLLED_BACK: "Rolled back",
    RunState.ROLLED_BACK_IN_PART: "Rolled back in part",
    RunState.ROLLBACK_FAILED: "Rollback failed",
    RunState.ENDED_UNPROVEN: "Ended unproven",
    RunState.CLOSED: "Closed",
}
_KINDS = {
    RunKind.REAL: "",
    RunKind.DEMO: "a **demo** run, on a database made for it: it says nothing of any other",
    RunKind.ROLLBACK: "a run that takes another one back",
}
ENDED = frozenset({RunState.SUCCEEDED, RunState.ENDED_UNPROVEN, RunState.ROLLED_BACK, RunState.CLOSED})


def markdown(found: Found, playbook: Playbook, here: next_commands.Here | None = None) -> str:
    """The report as Markdown; asks no database."""
    records = trail.read(found.trail)
    status = found.status
    parts = [
        _head(found, playbook),
        _section("Run", _facts(status, playbook)),
        _section(
            "How it stands",
            _standing(
                playbook,
                status,
                here or next_commands.Here(trail.utc_now(), alive=advice.alive(status), options=found.options()),
            ),
        ),
        _section("Steps", _steps(records, playbook, status)),
        _section("Figures", _figures(playbook, status)),
        _section("Checks", checks_table.checks(records, playbook)),
        _section("Monitors", _monitors(playbook, status)),
        _section("Approvals", checks_table.approvals(records, status)),
        _section("Evidence", checks_table.evidence(records)),
        _section("Timeline", timeline(records)),
        _section("Trail", _anchor(found)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines] if lines else []


def _monitors(playbook: Playbook, status: RunStatus) -> list[str]:
    """What goes on being asked, and the alerts that this trail has; `runbook monitor history` has every observation."""
    rows = []
    for monitor in playbook.monitors:
        alert = status.alerts.get(monitor.check.id)
        told = f"**alert** since {clock(alert.since)}: {escaped(alert.text)}" if alert is not None else ""
        rows.append([code(monitor.check.id), escaped(plan.monitor_words(monitor)), told])
    return table(["monitor", "asked", "alert (UTC)"], rows)


# ─── the verdict ────────────────────────────────────────────────────────────────────────────────────────────────────
def _head(found: Found, playbook: Playbook) -> list[str]:
    status = found.status
    kind = status.started.kind if status.started else RunKind.REAL
    title = f"# {'Demo: ' if kind is RunKind.DEMO else ''}{escaped(playbook.title)}"
    lines = [title, "", f"**{verdict(status)}.** {_proof(playbook, status)}"]
    if _KINDS[kind]:
        undone = f", {code(status.started.undo_of)}" if status.started and status.started.undo_of else ""
        lines += ["", f"This was {_KINDS[kind]}{undone}."]
    if status.what and status.state not in ENDED:
        lines += ["", f"> {escaped(status.what)}", *([f"> {escaped(status.why)}"] if status.why else [])]
    if status.out_of_order:
        lines += ["", f"**Times go backwards** {clocks(status)}."]
    broken = trust.alone(found)
    if broken:
        lines += ["", f"**This trail does not verify: {escaped(broken)}. What follows can't be relied on.**"]
    return lines


def clocks(status: RunStatus) -> str:
    """The records that are older than their predecessors, and what that may mean."""
    some = ", ".join(map(str, status.out_of_order[:5])) + ("…" if len(status.out_of_order) > 5 else "")
    return f"at record {some}: a machine's clock was set back, or the record comes from another machine"


def verdict(status: RunStatus) -> str:
    """The outcome of the run in words; a running run whose process is gone is called interrupted."""
    if status.state is RunState.RUNNING and advice.alive(status) is False:
        return "Interrupted: its process is gone"
    words = _VERDICTS[status.state] + (f", {status.alert}" if status.alert else "")
    return words + (f", held: {escaped(status.held)}" if status.held else "")


def _proof(playbook: Playbook, status: RunStatus) -> str:
    not_due = f", {len(status.not_due)} not due here" if status.not_due else ""
    never = checks_table.unasked(status, playbook)
    not_due += f", {never} never asked" if never else ""
    return f"{advice.counted(playbook, status)}; {checks_table.tally(status.checks)}{not_due}."


# ─── who, when, where ───────────────────────────────────────────────────────────────────────────────────────────────
def _from_checkpoint(started: RunStarted) -> str:
    if not started.from_checkpoint:
        return ""
    gates = ", ".join(f"{code(gate)} in {code(run)}" for gate, run in started.passed_in.items())
    return f"{code(started.from_checkpoint)} (--from)" + (f"; passed before: {gates}" if gates else "")


def _facts(status: RunStatus, playbook: Playbook) -> list[str]:
    started = status.started
    if started is None:
        return ["The trail has no beginning: nothing is known of who ran what."]
    who, versions = started.process, started.process.versions
    rows = [
        ("run", code(started.run)),
        ("playbook", f"{code(started.playbook)} from {code(started.file)}"),
        ("target", f"{code(started.target)} ({escaped(versions.get('server', 'version not known'))})"),
        ("identity", code(_pairs(identity.shown(started.identity)))),
        ("operator", f"{escaped(who.operator)} (as claimed); system's user {escaped(who.user)} at {escaped(who.host)}"),
        ("also operated", escaped(", ".join(name for name in status.operators if name != who.operator))),
        ("from, to", f"{clock(status.started_at)} to {clock(status.last_at)} UTC, {_working(status)}"),
        ("engine", escaped(", ".join(f"{key} {value}" for key, value in versions.items() if key != "server"))),
        ("digest", code(status.digest)),
        ("approval digest", code(status.approval_digest)),
        ("inputs", code(_pairs(started.inputs))),
        ("limits", code(_pairs(started.limits))),
        ("until", code(started.until)),
        ("begun at", _from_checkpoint(started)),
        ("owner", escaped(playbook.owner)),
        ("contacts", escaped(", ".join(f"{role.replace('_', ' ')}: {who}" for role, who in playbook.contacts.items()))),
        ("links", escaped(", ".join(f"{name}: {link}" for name, link in playbook.links.items()))),
    ]
    return table(["", ""], [[f"**{name}**", text] for name, text in rows if text])


def _working(status: RunStatus) -> str:
    return f"steps worked for {took(sum(step.seconds for step in status.steps.values()))}"


def _pairs(values: Mapping[str, Json]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items() if value not in (None, ""))


def _standing(playbook: Playbook, status: RunStatus, here: next_commands.Here) -> list[str]:
    """The five lines of a stop; the next command is left out if it is this report."""
    told = advice.stop(playbook, status, here)
    lines = told.then.split("\n")
    then = "<br>".join(code(line) if line.startswith("runbook ") else escaped(line) for line in lines)
    rows = [
        ["**state**", escaped(told.state)],
        ["**leave it?**", escaped(told.leave)],
        ["**take back**", escaped(told.back)],
        ["**call**", escaped(told.call)],
        ["**next**", then],
    ]
    return table(["", ""], rows[:-1] if told.then.startswith("runbook report") and "--rows" not in told.then else rows)


# ─── the cards, with what really happened ───────────────────────────────────────────────────────────────────────────
@dataclass
class _Seen:
    """What the trail has about one step besides its status."""

    evidence: str = ""
    waits: int = 0
    waited_s: float = 0.0
    retries: int = 0
    revert_s: float = 0.0
    back: dict[str, Value] = field(default_factory=dict)  # what taking it back came to


def _seen(records: Iterable[Record]) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    for record in records:
        match record.event:
            case events.StepVerified(step=step) as event:
                found.setdefault(step, _Seen()).evidence = event.evidence
            case events.LockWaited(step=step) as waited:
                seen = found.setdefault(step, _Seen())
                seen.waits, seen.waited_s = seen.waits + 1, seen.waited_s + waited.next_try_s
            case events.Retried(step=step):
                found.setdefault(step, _Seen()).retries += 1
            case events.StepEnded(step=step, action="revert") as ended:
                seen = found.setdefault(step, _Seen())
                seen.revert_s, seen.back = seen.revert_s + ended.seconds, ended.results
            case _:
                pass
    return found


def _steps(records: Sequence[Record], playbook: Playbook, status: RunStatus) -> list[str]:
    made = plan.plan(playbook)
    seen = _seen(records)
    steps = [status.steps.get(card.id) for card in made.cards]
    return plan_cards.rows(
        made.cards,
        more={
            "what happened": [
                _happened(playbook.entry(card.id), step, seen.get(card.id, _Seen()))
                for step, card in zip(steps, made.cards, strict=True)
            ],
            "began (UTC)": [clock(step.started_at) if step else "" for step in steps],
            "took": [took(step.seconds) if step and step.outcome else "" for step in steps],
        },
    )


def _happened(entry: Entry, step: StepStatus | None, seen: _Seen) -> str:
    if step is None:
        return "*not begun*"
    outcome = "waits at its gate" if step.gate else "**began and did not end**" if step.open else "*not begun*"
    words = [OUTCOMES[step.outcome] if step.outcome and not step.open else outcome]
    words += [escaped(step.error)] if step.error else []
    words += [f"taken back in {took(seen.revert_s)}{_short(seen.back, ': ')}"] if step.reverted else []
    words += [f"**left standing** by {escaped(step.left)}"] if step.left else []
    words += [f"the database says: {escaped(seen.evidence)}"] if seen.evidence else []
    words += [_short(step.results)] if step.results and not _went_over(entry, step) else []
    words += [f"settled by a person: {'done' if step.settled else 'not done'}"] if step.settled is not None else []
    words += [f"the lock was not free {seen.waits} times, {took(seen.waited_s)} between tries"] if seen.waits else []
    words += [f"tried again {seen.retries} times after faults"] if seen.retries else []
    return "<br>".join(words)


def _short(results: Mapping[str, Value], before: str = "") -> str:
    words = [f"{name} {_figure(value)}" for name, value in results.items() if value not in (None, "") and value != []]
    return before + escaped(", ".join(words)) if words else ""


def _figure(value: Value) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return cutting.shortened(str(value), 100)
    return f"{value:,}"


def _went_over(entry: Entry, step: StepStatus) -> bool:
    counted = running_figures(entry.step).counted
    return bool(counted) and all(name in step.results for name in counted)


def _figures(playbook: Playbook, status: RunStatus) -> list[str]:
    """The figures of steps that go over a table, with a column per step."""
    began = ((entry, status.steps.get(entry.id)) for entry in playbook.entries)
    passes = [(entry, step) for entry, step in began if step and _went_over(entry, step)]
    names = dict.fromkeys(name for _, step in passes for name in step.results)
    lines = table(
        ["figure", *(code(step.id) for _, step in passes)],
        [[escaped(name), *(_figure(step.results.get(name)) for _, step in passes)] for name in names] if passes else [],
    )
    counts = [(running_figures(entry.step).set_aside, step.results) for entry, step in passes]
    for name in dict.fromkeys(name for name, results in counts if results.get(name)):
        lines += ["", f"The {name} rows, by key: {code(f'runbook report {status.run} --rows {name}')}"]
    return lines


def _anchor(found: Found) -> list[str]:
    verified = trail.verify(found.trail)
    word = f"does **not** verify: {escaped(verified.fault)}" if verified.fault else "verifies"
    torn = "; its last line is torn" if verified.torn else ""
    command = f"runbook trail verify {found.status.run} --against-target"
    return [
        *table(
            ["", ""],
            [
                ["**path**", code(str(found.trail))],
                ["**head**", code(found.status.head)],
                ["**length**", f"{found.status.length} records; the chain {word}{torn}"],
                ["**record**", escaped(trust.trusted(found).words)],
            ],
        ),
        "",
        f"Keep the head elsewhere: a chain alone can't show a cut tail. {code(command)} asks the target's ledger too.",
    ]


# ─── rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def rows(database: Database, run: str, *, kind: str, as_json: bool) -> str:
    """The rows that a run's backfills set aside, or that its rollback refused, as CSV or JSON.

    kind: what `--rows` calls them, of skipped_rows.KINDS.
    """
    with database.look() as look:
        found = skipped_rows.skipped(look, run, kind)
    if as_json:
        return json.dumps([readable_all(row) for row in found], indent=1, ensure_ascii=False) + "\n"
    out = io.StringIO()
    writer = csv.DictWriter(out, skipped_rows.COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue()
