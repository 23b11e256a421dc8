"""A probe that runs a reading program and looks at its exit code and output."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, field_validator

from steps import processes
from steps.base import Answer, Look, Probe, StepError, Verdict
from steps.words import Model, Seconds, Timespan

SHOWN = 4096  # characters of each stream


class CommandResult(Model):
    """stdout and stderr: their last 4,096 characters."""

    exit_code: int
    seconds: float
    stdout: str = ""
    stderr: str = ""


class CommandProbe(Probe):
    """A program, by argv and without a shell, that only reads; that it does is the author's word."""

    kind: ClassVar[str] = "command"
    summary: ClassVar[str] = "a reading program's exit code and output"
    enforced: ClassVar[bool] = False
    runs_programs: ClassVar[bool] = True
    Result: ClassVar[type[BaseModel]] = CommandResult

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout: Seconds = Timespan(60)
    exit_codes: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    stdout_matches: str | None = None
    env_from: tuple[str, ...] = ()
    database: bool = False

    @field_validator("stdout_matches")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as fault:
            raise ValueError(f"cannot use {pattern!r} as a pattern: {fault}") from None
        return pattern

    def observe(self, look: Look) -> CommandResult:
        env = processes.environment(names=self.env_from, extra=look.environment() if self.database else None)
        finished = processes.run(self.argv, timeout_s=self.timeout, env=env)
        if finished.timed_out:
            raise StepError(f"cannot decide: {self.argv[0]!r} was ended after {self.timeout:g} s")
        return CommandResult(
            exit_code=finished.exit_code,
            seconds=round(finished.seconds, 3),
            stdout=finished.stdout[-SHOWN:],
            stderr=finished.stderr[-SHOWN:],
        )

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = CommandResult.model_validate(result)
        if seen.exit_code not in self.exit_codes:
            last = seen.stderr.strip().rpartition("\n")[2]
            return Verdict(Answer.FAIL, f"exit code {seen.exit_code}" + (f": {last}" if last else ""))
        if self.stdout_matches is not None and not re.search(self.stdout_matches, seen.stdout, re.MULTILINE):
            return Verdict(Answer.FAIL, f"the output does not match {self.stdout_matches!r}")
        return Verdict(Answer.PASS, f"exit code {seen.exit_code}")

    def decides(self) -> bool:
        return True
