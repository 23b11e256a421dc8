"""Everything that can stop a run; each class is named for the state of the world and owns its exit code."""

from __future__ import annotations

from typing import ClassVar


class RunbookError(Exception):
    """The run cannot go on.

    what: what failed, with step and file:line where there are any. why: the reason. state: what the database is like
    now. then: the next command to type.
    """

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "failed"

    stop: tuple[tuple[str, str], ...] = ()  # the five lines with their labels, where a run stands behind it

    def __init__(self, what: str, *, why: str = "", state: str = "", then: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.state, self.then = what, why, state, then

    def __str__(self) -> str:
        parts = [("", self.what), ("why: ", self.why), ("state: ", self.state), ("next: ", self.then)]
        return "\n".join(label + text for label, text in parts if text)


class StepFailed(RunbookError):
    """A step could not make its change."""


class CriteriaNotMet(RunbookError):
    """A precondition or success criterion answered something else than pass."""

    exit_code = 3
    title = "criteria not met"


class PlaybookFaulty(RunbookError):
    """The playbook can't be run as written."""

    exit_code = 4
    title = "invalid playbook"


class Waiting(RunbookError):
    """The run stands at a gate and holds no process and no lock."""

    exit_code = 5
    title = "waiting"


class RunRefused(RunbookError):
    """The run was not begun or not taken up again; nothing was changed."""

    exit_code = 6
    title = "refused"


class Aborted(RunbookError):
    """Somebody stopped the run at a safe point."""

    exit_code = 7
    title = "aborted"


class Interrupted(Aborted):
    """Somebody asked twice: what was in flight was cancelled."""

    exit_code = 130
    title = "interrupted"


class RolledBack(RunbookError):
    """The run was taken back: as the playbook says after a failure, or as a person asked."""

    exit_code = 8
    title = "rolled back"
    as_asked = False  # what was asked for ended well, with 0


class RunClosed(RunbookError):
    """A person ended the run as what it was."""

    exit_code = 0
    title = "closed"


class RollbackFailed(RunbookError):
    """Taking back failed: part of the change still stands."""

    exit_code = 9
    title = "rollback failed"


class RolledBackInPart(RollbackFailed):
    """Taking back came to its end, but rows were refused or a step was left standing."""

    title = "rolled back in part"


class InDoubt(RunbookError):
    """A step began and nobody can say whether it was done; a person must settle it."""

    exit_code = 10
    title = "in doubt"


class TrailBroken(RunbookError):
    """The trail can't be written or read, so nothing may run."""

    exit_code = 11
    title = "trail broken"


class TargetUnreachable(RunbookError):
    """The database can't be reached or was lost."""

    exit_code = 12
    title = "target unreachable"


class LeaseLost(RunbookError):
    """Another run took over this target: whatever this run still wanted to commit is refused by the database."""

    exit_code = 13
    title = "lease lost"


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
    130: "interrupted: cancelled at once by a second ^C",
}


class BadInput(Exception):
    """What a person wrote cannot be used; nothing was run."""
