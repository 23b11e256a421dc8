"""What `validate` refuses, and exec before it begins: lint's errors that need no extra. Loads no other rules."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from runner.common.errors import PlaybookFaulty
from runner.playbook.load import WrittenPlaybook
from runner.review import suppressions
from runner.review.findings import Severity, in_order
from runner.review.rule import RULES, apply_rules
from runner.review.rules import runs as _all_errors  # noqa: F401  adds them to RULES
from runner.review.subject import LintSubject


def refuse_errors(written: WrittenPlaybook) -> None:
    """Raise PlaybookFaulty for what would make a run fail, as far as that can be known without extras.

    So `validate` refuses it, and exec before it begins.
    """
    subject = LintSubject(written, datetime.now(UTC).date())
    wanted = [one for one in RULES.values() if one.severity is Severity.ERROR and not one.parsed]
    found = list(apply_rules(subject, wanted))
    never = frozenset(one.code for one in wanted if not one.allowable)
    judged = suppressions.apply(found, suppressions.of_playbook(written) if found else (), never=never)
    bad = [one for one in in_order(judged) if not one.allowed]
    if bad:
        file = written.sources.main.file
        raise PlaybookFaulty(
            f"cannot run {file}: {len(bad)} fault{'s' if len(bad) != 1 else ''}\n" + "\n".join(map(str, bad)),
            state="nothing was run",
            then=f"mend what is named above, then runbook validate {shlex.quote(file)}",
        )
