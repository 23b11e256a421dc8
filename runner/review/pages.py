"""The documentation of lint's rules, from their docstrings: a page for each, and the list of all."""

from __future__ import annotations

from collections.abc import Mapping

from runner.review import squawk
from runner.review.findings import RuleSummary
from runner.review.lint import OF_FILES, UNREADABLE, UNUSED, WITHOUT_REASON, load_rules
from runner.review.rule import Rule

_NEEDS = " It needs the extra `lint`."


def pages() -> dict[str, str]:
    """Code → its page, in Markdown."""
    found = {code: _page(one) for code, one in load_rules().items()}
    found |= {one.code: _foreign(name, one) for name, one in squawk.RULES.items()}
    found |= {one.code: _of_file(one) for one in OF_FILES}
    return dict(sorted(found.items()))


def table() -> str:
    """All rules in a table, each with a link to its page."""
    every = [*(one.summary for one in load_rules().values()), *squawk.SUMMARIES, *OF_FILES]
    lines = ["| code | severity | | needs |", "|---|---|---|---|"]
    for one in sorted(every, key=lambda rule: rule.code):
        needs = "the extra `lint`" if one.needs else ""
        lines.append(f"| [{one.code}]({one.code}.md) | {one.severity} | {one.title} | {needs} |")
    return "\n".join([*lines, ""])


def _page(rule: Rule) -> str:
    title, _, rest = rule.documentation.partition("\n\n")
    why = rest.partition("Found in::")[0].strip()
    lines = [f"# {rule.code}: {title.rstrip('.')}\n", f"{_sort(rule.summary)}\n", f"{why}\n"]
    lines += ["Found in:\n", _fenced(rule.found_in), "Not found in:\n", _fenced(rule.instead)]
    if not rule.allowable:
        lines.append("No comment can allow it: the run would fail.\n")
    return "\n".join(lines)


def _sort(summary: RuleSummary) -> str:
    article = "An" if summary.severity == "error" else "A"
    return f"{article} {summary.severity} of [`runbook lint`](README.md).{_NEEDS if summary.needs else ''}"


def _fenced(text: str) -> str:
    return f"```yaml\n{text}```\n"


def _foreign(name: str, mapped: squawk.Mapped) -> str:
    summary = next(one for one in squawk.SUMMARIES if one.code == mapped.code)
    lines = [f"# {mapped.code}: {mapped.title}\n", f"{_sort(summary)} It is found by squawk, as `{name}`.\n"]
    advice = mapped.instead[0].upper() + mapped.instead[1:]
    return "\n".join([*lines, f"{advice}.\n"])


_ABOUT_FILES = {
    UNREADABLE: "`runbook validate` says the same: an unknown key or value, SQL without effect, a name that stands twice.",
    UNUSED: "The finding has been mended, or stands elsewhere: [what a comment allows](README.md#allow).",
    WITHOUT_REASON: "Whoever reads it next must know why: [what a comment allows](README.md#allow).",
}


def _of_file(summary: RuleSummary) -> str:
    return f"# {summary.code}: {summary.title}\n\n{_sort(summary)}\n\n{_ABOUT_FILES[summary.code]}\n"


def documentation() -> Mapping[str, str]:
    """Path below the repository → text, of all pages of rules."""
    return {f"docs/lint/{code}.md": text for code, text in pages().items()}
