"""A probe that runs a read-only program and judges its exit code and output."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, field_validator

from steps.contract import Answer, Look, Model, Probe, Seconds, StepError, Timespan, Uses, Verdict, cutting, processes
from steps.contract.direction import HIGHER, MORE, NO_EFFECT, UNSET
from steps.contract.values import Cut
from steps.expressions import patterns

SHOWN = 4096  # characters of each stream


class CommandOutput(Model):
    """stdout and stderr: their last 4,096 characters; a longer one is marked as cut and can't be compared."""

    exit_code: int
    seconds: float
    stdout: str | Cut = ""
    stderr: str | Cut = ""


class CommandProbe(Probe):
    """Runs a program, by argv and without a shell, that must only read; only its author ensures that it does."""

    kind: ClassVar[str] = "command"
    summary: ClassVar[str] = "a reading program's exit code and output"
    enforced: ClassVar[bool] = False
    runs_programs: ClassVar[bool] = True
    Result: ClassVar[type[BaseModel]] = CommandOutput

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Annotated[Seconds, HIGHER] = Timespan(60)
    exit_codes: Annotated[tuple[int, ...], Field(min_length=1), MORE] = (0,)
    stdout_matches: Annotated[str | None, UNSET] = None
    env_from: Annotated[tuple[str, ...], NO_EFFECT] = ()
    database: bool = False

    @field_validator("stdout_matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            patterns.check(pattern or "")
        except patterns.BadPattern as fault:
            raise ValueError(f"cannot use {pattern!r} as a pattern: {fault}") from None
        return pattern

    def programs(self) -> tuple[Uses, ...]:
        return (Uses(self.argv),)

    def observe(self, look: Look) -> CommandOutput:
        env = processes.environment(names=self.env_from, extra=look.environment() if self.database else None)
        finished = processes.run(self.argv, timeout_s=self.timeout, env=env)
        if finished.timed_out:
            raise StepError(f"cannot decide: {self.argv[0]!r} was ended after {self.timeout:g} s")
        return CommandOutput(
            exit_code=finished.exit_code,
            seconds=round(finished.seconds, 3),
            stdout=_end_of(finished.stdout),
            stderr=_end_of(finished.stderr),
        )

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = CommandOutput.model_validate(result)
        if seen.exit_code not in self.exit_codes:
            last = _shown(seen.stderr).strip().rpartition("\n")[2]
            return Verdict(Answer.FAIL, f"exit code {seen.exit_code}" + (f": {last}" if last else ""))
        if self.stdout_matches is not None and not patterns.found_in_lines(self.stdout_matches, _shown(seen.stdout)):
            return Verdict(Answer.FAIL, f"the output does not match {self.stdout_matches!r}")
        return Verdict(Answer.PASS, f"exit code {seen.exit_code}")

    def decides(self) -> bool:
        return True


def _end_of(text: str) -> str | Cut:
    return text if len(text) <= SHOWN else Cut(cutting.last(text, SHOWN), len(text), "characters")


def _shown(text: str | Cut) -> str:
    return text.shown if isinstance(text, Cut) else text
