"""Programs that a playbook runs: their exit codes, the host that they look at, and what they measure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

from runner.playbook.yaml_reader import Mark
from runner.review.findings import Severity
from runner.review.rule import Found, rule
from runner.review.subject import Subject
from steps.contract import RunsPrograms

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_LOCAL = frozenset({"df", "du", "free", "vmstat", "iostat", "top", "uptime", "lsblk", "nproc"})
_CLIENTS = frozenset({"psql", "sqlite3", "pgcli"})
_REACHES = frozenset({"ssh", "kubectl", "docker", "podman", "oc", "salt", "ansible"})


class _Program(NamedTuple):
    """A program that a step or check runs, with the place of the step or check."""

    words: tuple[str, ...]
    mark: Mark
    id: str

    @property
    def names(self) -> list[str]:
        """The programs that are called: the first word, and within a shell's text the first words of its commands."""
        first = PurePath(self.words[0]).name if self.words else ""
        inner = [PurePath(one).name for one in re.findall(r"(?:^|[|;&(]\s*)([\w./-]+)", self.script)]
        return [first, *inner]

    @property
    def script(self) -> str:
        """The text that a shell is given by -c; "" for any other program."""
        shell = PurePath(self.words[0]).name in _SHELLS if self.words else False
        flags = [n for n, one in enumerate(self.words) if re.fullmatch(r"-[a-z]*c[a-z]*", one)]
        return self.words[flags[0] + 1] if shell and flags and flags[0] + 1 < len(self.words) else ""


def _programs(subject: Subject) -> Iterator[_Program]:
    for entry in subject.playbook.entries:
        if isinstance(entry.step, RunsPrograms):
            yield from (_Program(one.words, entry.mark, entry.id) for one in entry.step.programs() if not one.suite)
    for check in subject.checks():
        if isinstance(check.probe, RunsPrograms):
            yield from (_Program(one.words, check.mark, check.id) for one in check.probe.programs() if not one.suite)


@rule("RB401", Severity.WARNING)
def pipe_hides_the_end(subject: Subject) -> Iterator[Found]:
    """A pipe hides how a program ended.

    A shell reports the exit code of the last program of a pipe: `fill … | tee log` ends with 0 also where `fill` didn't even start.
    Standard output and error stay in the trail anyway.

    Found in::

        steps:
          - {id: fill, type: command, argv: [sh, -c, "fill --all 2>&1 | tee fill.log"]}

    Instead::

        steps:
          - {id: fill, type: command, argv: [fill, --all]}
    """
    for one in _programs(subject):
        piped = re.search(r"(?<!\|)\|(?!\|)", one.script)
        if (piped and "pipefail" not in one.script) or re.search(r"\|\|\s*(true|:)|;\s*(true|exit 0)\b", one.script):
            why = f"the exit code of {one.script[:60]!r} is that of its last program: a failure before it looks like success"
            yield Found(one.mark, why, "run the program by its argv; its output is recorded", one.id)


@rule("RB402", Severity.WARNING)
def looks_at_this_host(subject: Subject) -> Iterator[Found]:
    """A program looks at the host that runs the playbook, not at the database's.

    `df /var/lib/postgresql` on the operator's machine says nothing of the server's disk.

    Found in::

        preconditions:
          - {id: room, check: command, argv: [df, -h, /var/lib/postgresql], exit_codes: [0]}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        preconditions:
          - {id: room, check: disk, host: database, path: /var/lib/postgresql, command: [ssh, db1, df, -P, /var/lib/postgresql], that: free_pct > 10}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    for one in _programs(subject):
        if not _REACHES.intersection(one.names) and (found := _LOCAL.intersection(one.names)):
            why = f"{min(found)} measures the host that runs the playbook, not the database's"
            yield Found(one.mark, why, "use `check: disk` or `check: memory` with host: database", one.id)
    for check in subject.checks():
        host, path = getattr(check.probe, "host", ""), str(getattr(check.probe, "path", ""))
        if host == "runner" and re.search(r"postgres|pgsql|pgdata", path):
            why = f"{path} is looked at on the host that runs the playbook, not on the database's"
            yield Found(check.mark, why, "write host: database, and how to reach it", check.id)


@rule("RB403", Severity.WARNING)
def timed_once(subject: Subject) -> Iterator[Found]:
    """A speed is measured once, from outside.

    `time psql` measures the start of a program, the network and a cold cache against a warm one. `check: compare` runs both queries
    in turn, takes medians, says how noisy they are, and answers unknown where they can't be told apart.

    Found in::

        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: fast, check: command, argv: [sh, -c, "time psql -c 'SELECT count(*) FROM sessions'"], exit_codes: [0]}

    Instead::

        queries:
          new: SELECT count(*) AS n FROM public.sessions WHERE country = 'CN'
          old: SELECT count(*) AS n FROM public.sessions AS s JOIN public.addresses AS a USING (ip) WHERE a.country = 'CN'
        steps:
          - id: go
            type: checkpoint
            success_criteria:
              - {id: fast, check: compare, a: new, b: old, that: speedup >= 2}
    """
    for one in _programs(subject):
        if "time" in one.names or re.search(r"(^|[;&|]\s*)time\s", one.script):
            why = "one timing from outside measures the program's start and the cache, not the query"
            yield Found(one.mark, why, "use `check: compare`, which runs both queries several times", one.id)


@rule("RB404", Severity.WARNING)
def client_in_a_command(subject: Subject) -> Iterator[Found]:
    """SQL is sent by a client program.

    Its session has none of the engine's limits (how long it waits for a lock, how long a statement may take), nothing of it is in the
    ledger, nothing can be taken back, and psql ends with 0 where a statement failed unless ON_ERROR_STOP is set.

    Found in::

        steps:
          - {id: name, type: command, argv: [psql, -c, ALTER TABLE sessions RENAME COLUMN ip_types TO ip_type]}

    Instead::

        steps:
          - {id: name, type: rename_column, column: sessions.ip_types, to: ip_type}
    """
    for one in _programs(subject):
        if found := _CLIENTS.intersection(one.names):
            why = f"{min(found)} sends SQL past the engine: no lock timeout, no record, no way back"
            yield Found(one.mark, why, "write the SQL as a step (`type: sql`) or a check (`check: query`)", one.id)
