"""Lints parts of playbooks, as the pages of the rules and their tests show them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from runner.common.errors import BadInput
from runner.playbook.load import WrittenPlaybook, load_written
from runner.review import lint
from runner.review.findings import Finding, LintResult

TODAY = date(2026, 12, 1)


def written(text: str, files: Mapping[str, str] | None = None, *, name: str = "change.yaml") -> WrittenPlaybook:
    """A playbook of this text; what a part of one lacks is added."""
    head = "" if "runbook: 1" in text else "runbook: 1\nname: change\ntitle: A change\n"
    head = head.replace("title: A change\n", "") if "\ntitle:" in f"\n{text}" else head
    steps = "" if "steps:" in text else "steps: [{id: look, type: checkpoint, preconditions: []}]\n"
    proof = "" if "success_criteria" in text else "success_criteria: {none: an example}\n"
    texts = {name: head + text + steps + proof, **(files or {})}

    def read(wanted: str) -> str:
        if wanted not in texts:
            raise BadInput(f"cannot read {wanted!r}: there is no such file")
        return texts[wanted]

    return load_written(name, read)


def linted(text: str, files: Mapping[str, str] | None = None, *, environment: str = "") -> LintResult:
    return lint.lint([written(text, files)], environment=environment, day=TODAY)


def codes(text: str, files: Mapping[str, str] | None = None, *, environment: str = "") -> list[str]:
    """The codes of what is found and not allowed, each once."""
    return sorted({one.code for one in linted(text, files, environment=environment).open})


def finding(text: str, code: str, files: Mapping[str, str] | None = None) -> Finding:
    """The one finding of this code."""
    (one,) = [one for one in linted(text, files).findings if one.code == code]
    return one
