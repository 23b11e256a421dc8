"""Programs that a playbook runs: their exit codes, the host that they look at, and what they measure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from runner.review.findings import Severity
from runner.review.rule import Hit, rule
from runner.review.subject import LintSubject, Program
from steps.contract import cutting

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_LOCAL = frozenset({"df", "du", "free", "vmstat", "iostat", "top", "uptime", "lsblk", "nproc"})
_CLIENTS = frozenset({"psql", "sqlite3", "pgcli"})
_WRAPPERS = frozenset({"time", "sudo", "nohup", "exec", "nice", "env"})
_REACHES = frozenset({"ssh", "kubectl", "docker", "podman", "oc", "salt", "ansible"})


def _script(program: Program) -> str:
    """The text that a shell is given by -c; "" for any other program."""
    words = program.words
    flags = [n for n, one in enumerate(words) if re.fullmatch(r"-[a-z]*c[a-z]*", one)]
    shell = bool(words) and PurePath(words[0]).name in _SHELLS
    return words[flags[0] + 1] if shell and flags and flags[0] + 1 < len(words) else ""


def _names(program: Program) -> set[str]:
    """The programs that are called: the first word, and those that a shell's text calls, behind `time`, `sudo` and the like too."""
    commands = [program.words, *(one.split() for one in re.split(r"[|;&(\n]+", _script(program)))]
    return {name for command in commands for name in _called(command)}


def _called(command: Iterable[str]) -> Iterator[str]:
    """The program of a command, and the wrappers before it; their options and variables are left out."""
    for word in command:
        name = PurePath(word).name
        if not word.startswith("-") and "=" not in word:
            yield name
            if name not in _WRAPPERS:
                return


_HIDES = re.compile(r"\|\|\s*(true|:)|[;\n]\s*(true|exit 0|echo|printf|date)\b[^;&|]*$|(?<!&)&\s*$")


@rule("RB401", Severity.WARNING)
def pipe_hides_the_end(subject: LintSubject) -> Iterator[Hit]:
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
    for one in subject.programs:
        piped = re.search(r"(?<!\|)\|(?!\|)", _script(one))
        if (piped and "pipefail" not in " ".join(one.words)) or _HIDES.search(_script(one)):
            shown = cutting.shortened(_script(one), 60)
            why = f"the exit code of {shown!r} is that of its last program: a failure before it looks like success"
            yield Hit(one.mark, why, "run the program by its argv; its output is recorded", one.id)


@rule("RB402", Severity.WARNING)
def looks_at_this_host(subject: LintSubject) -> Iterator[Hit]:
    """A program looks at the host that runs the playbook, not at the database's.

    `df /var/lib/postgresql` on the operator's machine says nothing of the server's disk.

    Found in::

        preconditions:
          - {id: room, check: command, argv: [df, -h, /var/lib/postgresql], exit_codes: [0]}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}

    Instead::

        preconditions:
          - {id: room, check: disk, host: database, command: [ssh, db1, df, -P, /var/lib/postgresql], that: free_pct > 10}
        steps:
          - {id: mark, type: sql, text: UPDATE sessions SET seen = true WHERE id = 1}
    """
    for one in subject.programs:
        if not _names(one) & _REACHES and (found := _names(one) & _LOCAL):
            why = f"{min(found)} measures the host that runs the playbook, not the database's"
            yield Hit(one.mark, why, "use `check: disk` or `check: memory` with host: database", one.id)
    for check in subject.checks:
        host, path = getattr(check.probe, "host", ""), str(getattr(check.probe, "path", ""))
        if host == "runner" and re.search(r"postgres|pgsql|pgdata", path):
            why = f"{path} is looked at on the host that runs the playbook, not on the database's"
            yield Hit(check.mark, why, "write host: database, and how to reach it", check.id)


@rule("RB403", Severity.WARNING)
def timed_once(subject: LintSubject) -> Iterator[Hit]:
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
    for one in subject.programs:
        if "time" in _names(one):
            why = "one timing from outside measures the program's start and the cache, not the query"
            yield Hit(one.mark, why, "use `check: compare`, which runs both queries several times", one.id)


@rule("RB404", Severity.WARNING)
def client_in_a_command(subject: LintSubject) -> Iterator[Hit]:
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
    for one in subject.programs:
        if found := _names(one) & _CLIENTS:
            why = f"{min(found)} sends SQL past the engine: no lock timeout, no record, no way back"
            yield Hit(one.mark, why, "write the SQL as a step (`type: sql`) or a check (`check: query`)", one.id)
