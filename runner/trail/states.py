"""The states of a run, the outcomes of its steps, and the kinds of runs: persisted words of trail and ledger."""

from __future__ import annotations

from enum import StrEnum


class RunKind(StrEnum):
    """The kind of a run; it is recorded, so that a demo or a rollback can't pass for a real run."""

    REAL = "real"
    DEMO = "demo"
    ROLLBACK = (
        "rollback"  # a persisted word; a way back is recorded in the run that it takes back, so no run has it yet
    )


class StepOutcome(StrEnum):
    """The outcome of a step."""

    DONE = "done"  # applied, and verified afterwards
    ALREADY_APPLIED = "already_applied"  # `verify` found the change in place before anything was sent
    PASSED = "passed"  # a gate; it changes nothing
    SKIPPED = "skipped"  # its condition (`when:`) did not hold; nothing was sent
    PASSED_EARLIER = "passed_earlier"  # a gate before --from: another run passed it, on this target and for this digest
    FAILED = "failed"
    CRITERIA_NOT_MET = "criteria_not_met"  # applied, but a criterion did not hold
    CONTINUED = "continued"  # failed, and the playbook allows the run to continue, with a reason
    PAUSED = "paused"  # waits at a gate of its own
    STOPPED = "stopped"  # stopped at a safe point
    REVERTED = "reverted"
    NOTHING_TO_REVERT = "nothing_to_revert"
    LEFT_STANDING = "left_standing"  # in a rollback a person chose to keep it

    @property
    def words(self) -> str:
        """The outcome in words, for people."""
        told = {"reverted": "taken back", "nothing_to_revert": "nothing to take back"}
        return told.get(self.value, self.value.replace("_", " "))


class RunState(StrEnum):
    """The state of a run."""

    RUNNING = "running"
    WAITING = "waiting"  # at a gate
    SUCCEEDED = "succeeded"  # every criterion evaluated and held
    ENDED_UNPROVEN = "ended_unproven"  # done, but the playbook declares that it has no success criterion
    FAILED = "failed"  # a step could not make its change
    CRITERIA_NOT_MET = "criteria_not_met"
    ABORTED = "aborted"  # stopped by a person or a signal
    IN_DOUBT = "in_doubt"  # a person must settle a step
    ROLLED_BACK = "rolled_back"
    ROLLED_BACK_IN_PART = "rolled_back_in_part"  # some rows could not be restored, or a step was left in place
    ROLLBACK_FAILED = "rollback_failed"
    CLOSED = "closed"  # a person closed it as it was; nothing was undone
