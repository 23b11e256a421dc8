"""Exceptions that stop a run. Each class names the state in which the run is left and owns an exit code."""

from __future__ import annotations

from typing import ClassVar


class RunbookError(Exception):
    """Base class: the run cannot continue.

    what: what failed, with step and file:line if known. why: the reason. state: what the database is like now.
    then: the next command to type. `title` is the heading that operators see.
    """

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "failed"

    stop: tuple[tuple[str, str], ...] = ()  # (label, text) of the stop message; empty if no run is involved

    def __init__(self, what: str, *, why: str = "", state: str = "", then: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.state, self.then = what, why, state, then

    def __str__(self) -> str:
        parts = [("", self.what), ("why: ", self.why), ("state: ", self.state), ("next: ", self.then)]
        return "\n".join(label + text for label, text in parts if text)


class StepFailed(RunbookError):
    """A step could not make its change."""


class CriteriaNotMet(RunbookError):
    """A precondition or success criterion did not answer `pass`."""

    exit_code = 3
    title = "criteria not met"


class PlaybookFaulty(RunbookError):
    """The playbook is invalid; nothing was run."""

    exit_code = 4
    title = "invalid playbook"


class Waiting(RunbookError):
    """The run is paused at a gate; it has no process and holds no lock."""

    exit_code = 5
    title = "waiting"


class RunRefused(RunbookError):
    """The run was not started or not resumed; nothing was changed."""

    exit_code = 6
    title = "refused"


class Aborted(RunbookError):
    """A person or a signal stopped the run at a safe point."""

    exit_code = 7
    title = "aborted"


class Interrupted(Aborted):
    """The run was asked to stop twice: statements in flight were cancelled."""

    exit_code = 130
    title = "interrupted"


class RolledBack(RunbookError):
    """The run was rolled back, by the playbook's failure policy or on a person's request."""

    exit_code = 8
    title = "rolled back"
    as_asked = False  # True for a requested rollback that succeeded: the exit code is then 0


class RunClosed(RunbookError):
    """A person closed the run in the state it was in; nothing was undone."""

    exit_code = 0
    title = "closed"


class RollbackFailed(RunbookError):
    """The rollback failed: part of the change is still in place."""

    exit_code = 9
    title = "rollback failed"


class RolledBackInPart(RollbackFailed):
    """The rollback finished, but some rows could not be restored or a step was left in place."""

    title = "rolled back in part"


class InDoubt(RunbookError):
    """A step was started and its outcome cannot be determined; a person must settle it."""

    exit_code = 10
    title = "in doubt"


class TrailBroken(RunbookError):
    """The trail can't be written, read or verified, so nothing may run."""

    exit_code = 11
    title = "trail broken"


class TargetUnreachable(RunbookError):
    """The database can't be reached, or the connection to it was lost for good."""

    exit_code = 12
    title = "target unreachable"


class LeaseLost(RunbookError):
    """Another process took over the lease on this target; the database refuses all further commits of this one."""

    exit_code = 13
    title = "lease lost"


class MonitorAlert(RunbookError):
    """A monitor alerts, and nobody has approved or muted that; the change that it watches is open again."""

    exit_code = 14
    title = "alert"


class Weakens(RunbookError):
    """A change of playbooks weakens something, or that can't be decided."""

    exit_code = 15
    title = "weakens"


EXIT_CODES: dict[int, str] = {
    0: "succeeded: every criterion was evaluated and held (or the run was rolled back as asked, closed, or ended unproven)",
    1: "failed: a step could not make its change",
    2: "usage: an option or argument can't be used",
    3: "criteria not met: a precondition or success criterion did not pass",
    4: "invalid playbook: nothing was run",
    5: "waiting: at a gate, for an approval, evidence, a window or `resume`",
    6: "refused: nothing was begun (another run, changed inputs, wrong target, requirement not met)",
    7: "aborted: stopped at a safe point by a person or a signal",
    8: "rolled back: the run failed and its changes were taken back",
    9: "rollback failed, or rolled back in part: part of the change still stands",
    10: "in doubt: a person must settle a step",
    11: "trail broken: the record can't be written or does not verify",
    12: "target unreachable: the database can't be reached or was lost",
    13: "lease lost: another run took over this target",
    14: "alert: a monitor of a run on this target alerts",
    15: "weakens: a diff of playbooks weakens something, or may",
    130: "interrupted: cancelled at once by a second ^C",
}


class BadInput(Exception):
    """Invalid input from the user (an argument, a file, an answer); nothing was run."""
