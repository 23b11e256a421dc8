"""The contract of a probe: it reads from the database and returns figures, on which a check decides."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from steps.contract.fields import Model
from steps.contract.look import Look


# ─── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Answer(StrEnum):
    """The outcome of a check; only PASS opens a gate."""

    PASS = "pass"  # evaluated, and it holds
    FAIL = "fail"  # evaluated, and it does not hold
    ERROR = "error"  # not evaluated: the probe itself failed
    UNKNOWN = "unknown"  # evaluated, but the data can't decide it (NULL, missing privilege, noise)


class Verdict(NamedTuple):
    """A probe's own decision, from its typed fields (`has`, `lacks`, `rows` …) and before any `that:`."""

    answer: Answer
    why: str


# ─── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Probe(Model):
    """A kind of measurement. The fields of a subclass are its keys in YAML, in addition to id, that, warn, why."""

    kind: ClassVar[str]  # the word behind `check:`
    summary: ClassVar[str]  # one line for the generated docs
    enforced: ClassVar[bool] = True  # the database enforces read-only; False: the plan says that nothing does
    runs_programs: ClassVar[bool] = False  # it runs a program of the playbook's author: `plan` skips it unless asked
    alone: ClassVar[bool] = False  # needs a snapshot of its own (long or repeated measurement), not that of its group
    only: ClassVar[str] = ""  # the one dialect where this exists ("postgresql"), "" for both
    conditional: ClassVar[bool] = False  # a step may depend on it (`when:`)
    Result: ClassVar[type[BaseModel]]  # its fields are the names for `that:`
    default_that: ClassVar[str] = ""  # the `that:` of a check that has none
    open_names: ClassVar[bool] = False  # the query's columns are names for `that:` too

    def observe(self, look: Look) -> BaseModel:
        """Measure and return the figures; raises Unknown where the data can't decide the check."""
        raise NotImplementedError

    def verdict(self, result: BaseModel) -> Verdict | None:
        """The decision of the typed fields; None where only `that:` decides."""
        del result
        return None

    def decides(self) -> bool:
        """Whether the typed fields alone decide the check, so that `that:` may be omitted."""
        return False


class Unknown(Exception):
    """The data can't decide the check; the text names the missing grant, statistic or host."""


class Figures(Model):
    """A probe's result whose field names are the query's column names."""

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)
