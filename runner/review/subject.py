"""What the rules of lint look at: one playbook, its text, and its SQL as parsed."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from runner.common.plain_data import Data
from runner.plan import plan
from runner.playbook.load import WrittenPlaybook
from runner.playbook.model import Check, Entry, Playbook
from runner.playbook.sources import Place
from runner.playbook.yaml_reader import Mark
from runner.review import parse_tree
from runner.review.parse_tree import Parsed, SyntaxFault, TreeNode
from runner.review.sql_texts import Role, SqlText, texts_of
from steps.contract import RunsPrograms, able
from steps.contract.dialect import Dialect


class Program(NamedTuple):
    """A program that a step or check runs, with the place of the step or check."""

    words: tuple[str, ...]
    mark: Mark
    id: str


@dataclass(frozen=True)
class LintSubject:
    """A playbook under review. environment: of the target that was named, as targets.yaml has it ("production")."""

    written: WrittenPlaybook
    today: date
    environment: str = ""

    @property
    def playbook(self) -> Playbook:
        return self.written.playbook

    def mark(self, *path: str | int, key: bool = False) -> Mark:
        """The place of a value, or of its key; of the nearest value above it where there is none."""
        return self.written.sources.mark(path, key=key)

    def value(self, *path: str | int) -> Data:
        """What is written at a path, None where nothing is."""
        found: Data = dict(self.written.data)
        for part in path:
            if isinstance(found, dict) and isinstance(part, str):
                found = found.get(part)
            elif isinstance(found, list) and isinstance(part, int) and part < len(found):
                found = found[part]
            else:
                return None
        return found

    @functools.cached_property
    def steps(self) -> tuple[tuple[Place, Entry, Mapping[str, Data]], ...]:
        """Each step: its path, as loaded, and as written."""
        written = self.written.data.get("steps")
        each = written if isinstance(written, list) else []
        return tuple(
            (("steps", n), entry, one if isinstance(one, dict) else {})
            for n, (entry, one) in enumerate(zip(self.playbook.entries, each, strict=True))
        )

    @functools.cached_property
    def checks(self) -> tuple[Check, ...]:
        """All preconditions, criteria, guards and monitors."""
        playbook = self.playbook
        found = [*playbook.preconditions]
        for entry in playbook.entries:
            found += (*entry.preconditions, *entry.success_criteria, *(guard.check for guard in entry.guards))
        return (*found, *playbook.success_criteria, *(monitor.check for monitor in playbook.monitors))

    @functools.cached_property
    def one_way(self) -> Mapping[str, str]:
        """Step → why it can't be taken back, for those that can't."""
        reasons = ((entry.id, plan.one_way(entry)) for entry in self.playbook.entries)
        return {name: reason for name, reason in reasons if reason}

    @functools.cached_property
    def programs(self) -> tuple[Program, ...]:
        """The programs that steps and checks run."""
        steps = ((entry.step, entry.mark, entry.id) for entry in self.playbook.entries)
        probes = ((check.probe, check.mark, check.id) for check in self.checks)
        return tuple(
            Program(one.words, mark, name)
            for each, mark, name in (*steps, *probes)
            if able(each, RunsPrograms)
            for one in each.programs()
            if not one.suite
        )

    @functools.cached_property
    def declared(self) -> tuple[Dialect, ...]:
        """The databases that `target:` names; () where it names none."""
        needs = self.playbook.target
        return tuple(one for one in Dialect if getattr(needs, one.value))

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """The databases on which it may run."""
        return self.declared or tuple(Dialect)

    @functools.cached_property
    def texts(self) -> tuple[SqlText, ...]:
        """All SQL of the playbook."""
        return tuple(texts_of(self.written))

    def texts_for(self, dialect: Dialect) -> Iterator[SqlText]:
        """The SQL that is sent to this kind of database."""
        return (one for one in self.texts if one.dialect == dialect or (not one.dialect and dialect in self.dialects))

    @functools.cached_property
    def _read(self) -> tuple[tuple[SqlText, list[Parsed] | SyntaxFault], ...]:
        return tuple((one, parse_tree.parse(one)) for one in self.texts_for(Dialect.POSTGRESQL))

    @functools.cached_property
    def parsed(self) -> tuple[Parsed, ...]:
        """All statements, queries and conditions for PostgreSQL that its grammar can read."""
        return tuple(one for _text, found in self._read if not isinstance(found, SyntaxFault) for one in found)

    def parsed_as(self, *roles: Role) -> Iterator[Parsed]:
        """Those that are for this."""
        return (one for one in self.parsed if one.text.role in roles)

    @functools.cached_property
    def _nodes(self) -> Mapping[str, list[tuple[Parsed, TreeNode]]]:
        found: dict[str, list[tuple[Parsed, TreeNode]]] = defaultdict(list)
        for statement in self.parsed:
            for kind, nodes in statement.tree.by_kind.items():
                found[kind] += [(statement, node) for node in nodes]
        return found

    def find(self, *kinds: str, roles: Collection[Role] = tuple(Role)) -> Iterator[tuple[Parsed, TreeNode]]:
        """All nodes of these kinds in the SQL for PostgreSQL, each with its statement."""
        return (one for kind in kinds for one in self._nodes.get(kind, ()) if one[0].text.role in roles)

    @property
    def unreadable(self) -> Iterator[tuple[SqlText, SyntaxFault]]:
        """The SQL that PostgreSQL can't read."""
        return ((text, found) for text, found in self._read if isinstance(found, SyntaxFault))
