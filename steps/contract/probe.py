"""What a probe is: it looks at the database and returns figures, which a check decides on."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict

from steps.contract.fields import Model
from steps.contract.look import Look


# ─── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────
class Answer(StrEnum):
    """What a check says; only PASS opens a gate."""

    PASS = "pass"  # evaluated, and it held
    FAIL = "fail"  # evaluated, and it did not hold
    ERROR = "error"  # could not be evaluated: the probe itself failed
    UNKNOWN = "unknown"  # evaluated, but what was seen can't decide (NULL, missing privilege, noise)


class Verdict(NamedTuple):
    """A probe's own decision from its typed fields (`has`, `lacks`, `rows` …), before any `that:`."""

    answer: Answer
    why: str


# ─── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Probe(Model):
    """Something that can be looked at. The fields of a subclass are its keys in YAML beside id, that, warn, why."""

    kind: ClassVar[str]  # the word behind `check:`
    summary: ClassVar[str]
    enforced: ClassVar[bool] = True  # read-only by the database itself; False: shown as such in the plan
    runs_programs: ClassVar[bool] = False  # of the playbook's author: a plan leaves it out unless asked
    alone: ClassVar[bool] = False  # wants a look of its own (long or repeated measurement), not the group's snapshot
    only: ClassVar[str] = ""
    Result: ClassVar[type[BaseModel]]  # its fields are the names for `that:`
    open_names: ClassVar[bool] = False  # further names come from the query at hand

    def observe(self, look: Look) -> BaseModel:
        """Look, and return the figures; raises Unknown where what could be seen can't decide."""
        raise NotImplementedError

    def verdict(self, result: BaseModel) -> Verdict | None:
        """What the typed fields say of it; None where only `that:` decides."""
        del result
        return None

    def decides(self) -> bool:
        """Whether the typed fields alone make this a check, so that `that:` may be absent."""
        return False


class Unknown(Exception):
    """What could be seen can't decide; the text names the missing grant, statistic or host."""


class Figures(Model):
    """A probe's result whose names come from the query: {name: value}."""

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)
