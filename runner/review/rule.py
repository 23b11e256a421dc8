"""A rule of lint: its code, its severity, and the function that finds; its documentation is the function's docstring."""

from __future__ import annotations

import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from runner.playbook.yaml_reader import Mark
from runner.review.findings import LINT, Finding, RuleSummary, Severity
from runner.review.subject import LintSubject


class Hit(NamedTuple):
    """What a rule says of one place; code and severity are the rule's."""

    mark: Mark
    why: str
    instead: str = ""
    step: str = ""


Finder = Callable[[LintSubject], Iterator[Hit]]


@dataclass(frozen=True)
class Rule:
    """One rule. parsed: it reads the parse tree of SQL, for which the extra `lint` must be installed.

    allowable: whether a comment in the file can allow what it finds; not where a run would fail anyway.
    """

    code: str
    severity: Severity
    find: Finder
    parsed: bool
    allowable: bool

    @property
    def documentation(self) -> str:
        """The docstring, which is also its page: title, reason, and an example of each kind."""
        return inspect.cleandoc(self.find.__doc__ or "")

    @property
    def found_in(self) -> str:
        """A part of a playbook in which the rule finds something."""
        return self._example("Found in::")

    @property
    def instead(self) -> str:
        """The same in its safe form, in which it finds nothing."""
        return self._example("Instead::")

    def _example(self, title: str) -> str:
        behind = self.documentation.partition(f"{title}\n\n")[2]
        lines = itertools.takewhile(lambda line: not line or line.startswith(" "), behind.split("\n"))
        return textwrap.dedent("\n".join(lines)).strip() + "\n"

    @property
    def summary(self) -> RuleSummary:
        title = self.documentation.partition("\n")[0].rstrip(".")
        return RuleSummary(self.code, self.severity, title, LINT if self.parsed else "")


RULES: dict[str, Rule] = {}
"""All rules by code; a module of runner.review.rules adds its own when it is imported."""


def rule(code: str, severity: Severity, *, parsed: bool = False, allowable: bool = True) -> Callable[[Finder], Finder]:
    """Make a function a rule."""

    def register(find: Finder) -> Finder:
        if code in RULES:
            raise ValueError(f"{code} is a rule already")
        RULES[code] = Rule(code, severity, find, parsed, allowable)
        return find

    return register


def apply_rules(subject: LintSubject, applied: Iterable[Rule]) -> Iterator[Finding]:
    """What these rules find in a playbook."""
    for one in applied:
        for found in one.find(subject):
            yield Finding(one.code, one.severity, found.mark, found.why, found.instead, found.step)
