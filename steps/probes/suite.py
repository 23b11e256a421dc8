"""A probe that runs a pytest suite in a process of its own, and reads the outcome of each test from its JUnit report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, Field, field_validator

from steps.contract import (
    Answer,
    BesideFile,
    Look,
    Model,
    Probe,
    Seconds,
    StepError,
    Timespan,
    Uses,
    Verdict,
    cutting,
    processes,
)
from steps.contract.direction import FEWER, HIGHER, NO_EFFECT

if TYPE_CHECKING:
    import xml.etree.ElementTree as ET

REASON = 300  # characters of the reason of one test
REASONS = 5  # that the answer shows; `reasons` has all of them
_NONE_COLLECTED = 5  # pytest's exit code where it collected no tests


class SuiteResult(Model):
    """Test names by outcome; a parametrised test is listed once, with its worst outcome.

    reasons: of each test that failed or was skipped, its name and the first line of what pytest says of it.
    """

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    passed_count: int
    failed_count: int
    skipped_count: int
    missing_count: int
    reasons: tuple[str, ...]
    seconds: float
    exit_code: int
    output: str = ""


class Suite(Probe):
    """Runs a pytest suite; with `names` each of these tests must pass, without it all tests that ran.

    A named test that is missing from the run fails, and so does a skipped one. The suite finds the database in RUNBOOK_URL and
    libpq's variables; of our environment it gets basic variables and those that `env_from` names, and what `env` sets: secrets
    belong there, where other users of the host don't see them. Nothing but its author keeps it from writing.
    """

    kind: ClassVar[str] = "pytest"
    summary: ClassVar[str] = "named tests of a pytest suite"
    enforced: ClassVar[bool] = False
    runs_programs: ClassVar[bool] = True
    alone: ClassVar[bool] = True
    Result: ClassVar[type[BaseModel]] = SuiteResult

    path: BesideFile
    names: Annotated[tuple[str, ...], FEWER] = ()
    marker: str | None = None
    timeout: Annotated[Seconds, HIGHER] = Timespan(600)
    cwd: BesideFile | None = None
    env: Mapping[str, str] = {}
    env_from: Annotated[tuple[str, ...], NO_EFFECT] = ()
    python: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @field_validator("env")
    @classmethod
    def _leaves_the_target(cls, env: Mapping[str, str]) -> Mapping[str, str]:
        ours = [name for name in env if name.startswith("PG") or name == "RUNBOOK_URL"]
        if ours:
            raise ValueError(f"cannot set {', '.join(ours)}: the suite runs on the target of the run")
        return env

    def programs(self) -> tuple[Uses, ...]:
        return (Uses((self.path,), suite=True), *([Uses(self.python)] if self.python else []))

    def observe(self, look: Look) -> SuiteResult:
        if not Path(self.path.partition("::")[0]).exists():
            raise StepError(f"cannot run the suite {self.path!r}: it does not exist")
        with tempfile.TemporaryDirectory(prefix="runbook-suite-") as directory:
            report = Path(directory) / "junit.xml"
            env = processes.environment(names=self.env_from, extra={**self.env, **look.environment()})
            finished = processes.run(self._argv(report), timeout_s=self.timeout, env=env, cwd=self.cwd)
            if finished.timed_out:
                raise StepError(f"cannot decide: the suite {self.path!r} was ended after {self.timeout:g} s")
            if not report.exists():
                raise StepError(
                    f"cannot decide: the suite {self.path!r} gave no report, exit code {finished.exit_code}: "
                    + cutting.last(finished.stderr.strip() or finished.stdout.strip(), 500)
                )
            return self._result(_read(report), finished)

    def _argv(self, report: Path) -> list[str]:
        marker = ["-m", self.marker] if self.marker else []
        file, colons, test = self.path.partition("::")
        return [
            *(self.python or (sys.executable,)),
            "-m",
            "pytest",
            f"{Path(file).absolute()}{colons}{test}",
            *marker,
            f"--junit-xml={report}",
            "-p",
            "no:cacheprovider",
            "-q",
        ]

    def _result(self, cases: list[_Case], finished: processes.Finished) -> SuiteResult:
        outcomes: dict[str, str] = {}
        reasons: dict[str, str] = {}
        for case in cases:
            for name in self._asked(case):
                if case.reason and _worse(outcomes.get(name, "passed"), case.outcome) != outcomes.get(name, "passed"):
                    reasons[name] = case.reason
                outcomes[name] = _worse(outcomes.get(name, "passed"), case.outcome)
        passed, failed, skipped = (
            tuple(name for name, outcome in outcomes.items() if outcome == wanted)
            for wanted in ("passed", "failed", "skipped")
        )
        missing = tuple(name for name in self.names if name not in outcomes)
        return SuiteResult(
            passed=passed,
            failed=failed,
            skipped=skipped,
            missing=missing,
            passed_count=len(passed),
            failed_count=len(failed),
            skipped_count=len(skipped),
            missing_count=len(missing),
            reasons=tuple(f"{name}: {reason}" for name, reason in reasons.items()),
            seconds=round(finished.seconds, 3),
            exit_code=finished.exit_code,
            output=cutting.last(finished.stdout, 4096) if finished.exit_code else "",
        )

    def _asked(self, case: _Case) -> list[str]:
        """The names under which this test case counts."""
        if not self.names:
            return [case.test]
        return [name for name in self.names if name in {case.name, case.test, f"{case.owner}::{case.test}"}]

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = SuiteResult.model_validate(result)
        bad = [
            f"{word}: {', '.join(names)}"
            for word, names in (("failed", seen.failed), ("missing", seen.missing), ("skipped", seen.skipped))
            if names and (self.names or word == "failed")
        ]
        if not self.names and (seen.exit_code != 0 or not seen.passed):
            none = seen.exit_code == _NONE_COLLECTED or not seen.passed
            bad.append("no test passed" if none else f"pytest ended with exit code {seen.exit_code}")
        if bad:
            return Verdict(Answer.FAIL, "; ".join([*bad, *seen.reasons[:REASONS]]))
        return Verdict(Answer.PASS, f"{seen.passed_count} tests passed")

    def decides(self) -> bool:
        return True


@dataclass(frozen=True)
class _Case:
    name: str  # test_x[param]
    owner: str  # the class or module that contains it
    outcome: str
    reason: str = ""

    @property
    def test(self) -> str:
        return self.name.partition("[")[0]


def _read(report: Path) -> list[_Case]:
    import xml.etree.ElementTree as ET

    return list(_cases(ET.parse(report).getroot()))  # noqa: S314 - our own child has just written it


def _cases(root: ET.Element) -> Iterator[_Case]:
    for case in root.iter("testcase"):
        told = {child.tag: child.get("message", "") for child in case if child.tag in ("failure", "error", "skipped")}
        outcome = "failed" if told.keys() & {"failure", "error"} else "skipped" if told else "passed"
        reason = _first_line(told.get("failure") or told.get("error") or told.get("skipped") or "")
        yield _Case(case.get("name", ""), case.get("classname", "").rpartition(".")[2], outcome, reason)


def _first_line(message: str) -> str:
    """The first line of what pytest says of a test, masked before it is cut."""
    return cutting.on_one_line(cutting.masked(message).strip().partition("\n")[0], REASON)


def _worse(one: str, other: str) -> str:
    order = ("passed", "skipped", "failed")
    return max(one, other, key=order.index)
