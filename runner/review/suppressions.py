"""Comments in which a file allows a finding: `# runbook: allow RB230: the table is a copy of last night`.

In SQL the comment begins with `--`. Behind a value it holds for that line, and for what is indented deeper below it. On a line
of its own it holds for the next line and what is indented deeper below that: for a key, a step, or a block of text. A comment in
YAML is no part of the playbook's digest; one in SQL is, as all of the SQL is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runner.playbook.load import WrittenPlaybook
from runner.playbook.yaml_reader import Mark
from runner.review.findings import Finding

_COMMENT = re.compile(
    r"(?:^|\s)(?:#|--)\s*runbook:\s*allow\b\s*(?P<codes>[A-Z]{2}\d{3}(?:\s*,\s*[A-Z]{2}\d{3})*)?(?P<rest>.*)$"
)
_ALONE = re.compile(r"^\s*(?:#|--)")


@dataclass(frozen=True)
class Allowance:
    """One comment that allows codes on some lines, with its reason ("" where it gives none)."""

    mark: Mark
    codes: tuple[str, ...]
    reason: str
    lines: range

    def covers(self, finding: Finding) -> bool:
        here = finding.mark.file == self.mark.file and finding.mark.line in self.lines
        return bool(self.reason) and here and finding.code in self.codes


def allowances(file: str, text: str) -> Iterator[Allowance]:
    """The comments of one file."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if "runbook:" in line and (found := _COMMENT.search(line)):
            codes = tuple(re.findall(r"[A-Z]{2}\d{3}", found["codes"] or ""))
            reason = found["rest"].strip().removeprefix(":").strip() if found["rest"].lstrip().startswith(":") else ""
            mark = Mark(file, number + 1, found.start() + 1 + (found[0][0].isspace()))
            yield Allowance(mark, codes, reason, _covered(lines, number))


def _covered(lines: list[str], number: int) -> range:
    first = number
    if _ALONE.match(lines[number]):
        first = next((n for n in range(number + 1, len(lines)) if _means_something(lines[n])), number)
    depth = _depth(lines[first])
    last = first
    for following in range(first + 1, len(lines)):
        if _means_something(lines[following]) and _depth(lines[following]) <= depth:
            break
        last = following
    return range(number + 1, last + 2)


def _means_something(line: str) -> bool:
    return bool(line.strip()) and not _ALONE.match(line)


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def texts_of_files(written: WrittenPlaybook) -> Mapping[str, str]:
    """The playbook's own file, its includes and its SQL files: name as shown → text."""
    sources = written.sources
    documents = {one.file: one.text for one in (sources.main, *sources.included)}
    files = {str(Path(sources.main.file).parent / name): sources.texts[name] for name in sources.files.values()}
    return {**documents, **files}


def of_playbook(written: WrittenPlaybook) -> Iterator[Allowance]:
    """The comments of all files of a playbook."""
    for file, text in texts_of_files(written).items():
        yield from allowances(file, text)


def apply(findings: Iterable[Finding], allowed: Iterable[Allowance], *, never: frozenset[str]) -> list[Finding]:
    """The findings, those that a comment covers with its reason. never: codes that no comment can allow."""
    comments = list(allowed)
    return [
        next((replace(one, allowed=by.reason) for by in comments if one.code not in never and by.covers(one)), one)
        for one in findings
    ]
