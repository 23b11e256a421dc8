"""Commands to try on a demo server that stays up; they can be pasted one after the other."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from runner.common.invocation import command, shown
from runner.format.examples import PLAYBOOKS

PLAYBOOK = PLAYBOOKS / "demo" / "touch.yaml"
BEGUN_S = 6  # seconds until the slow step is under way; it takes about 17


def lines(url: str, runs: Path) -> Iterator[tuple[str, str]]:
    """Pairs of description and command line: kill -9, status, resume and tune, report, rollback."""
    me, where = command(), f"--runs {shlex.quote(str(runs.absolute()))}"
    released = f"{me} tune latest go --reason 'seen' {where}"
    yield (
        "kill -9 in the middle of a backfill that is slow on purpose",
        f"( {me} exec {shown(PLAYBOOK)} -t {shlex.quote(url)} {where} & sleep {BEGUN_S}; kill -9 $! )",
    )
    yield "how it stands now, and what comes next", f"{me} status latest {where}"
    yield (
        "go on where it stood; meanwhile hold it, and let it go again",
        f"( {me} resume latest {where} & sleep {BEGUN_S}; {me} tune latest hold --reason 'a look' {where}; sleep 3; {released}; wait )",
    )
    yield "what it did, and what it proved", f"{me} report latest {where}"
    yield "take back exactly its rows", f"{me} rollback latest {where}"
