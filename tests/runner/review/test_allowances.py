"""Comments that allow a finding: where they hold, that they need a reason, and what is said of those that allow nothing."""

from __future__ import annotations

import pytest
from linting import codes, linted

DROP = "      text: DROP TABLE public.old_sessions\n"
STEP = "steps:\n  {above}- id: drop{behind}\n    type: sql\n    text: DROP TABLE public.old_sessions{last}\n"
ALLOW = "# runbook: allow RB206: nobody has read it since May"


def _step(above: str = "", behind: str = "", last: str = "") -> str:
    return STEP.format(
        above=f"{above}\n  " if above else "",
        behind=f"   {behind}" if behind else "",
        last=f"   {last}" if last else "",
    )


@pytest.mark.parametrize(
    "text",
    [_step(above=ALLOW), _step(behind=ALLOW), _step(last=ALLOW)],
    ids=["above the step", "behind its first line", "behind the value"],
)
def test_comment_allows_there(text: str) -> None:
    result = linted(text)
    (found,) = [one for one in result.findings if one.code == "RB206"]
    assert found.allowed == "nobody has read it since May"
    assert not {"RB206", "RB901", "RB902"} & {one.code for one in result.open}


def test_comment_holds_for_its_step_only() -> None:
    text = _step(above=ALLOW) + "  - {id: other, type: sql, text: DROP TABLE public.older}\n"
    assert [one.step for one in linted(text).open if one.code == "RB206"] == ["other"]


def test_comment_within_sql_allows_its_statement() -> None:
    text = """\
steps:
  - id: drop
    type: sql
    text: |
      -- runbook: allow RB206: it is empty
      DROP TABLE public.old_sessions;
      DROP TABLE public.older;
"""
    assert [one.mark.line for one in linted(text).open if one.code == "RB206"] == [10]


def test_comment_in_a_sql_file_allows_there() -> None:
    text = "steps:\n  - {id: drop, type: sql, text: {file: drop.sql}}\n"
    files = {
        "drop.sql": "-- runbook: allow RB206: it is empty\nDROP TABLE public.old_sessions;\nDROP TABLE public.older;\n"
    }
    assert [(one.mark.file, one.mark.line) for one in linted(text, files).open if one.code == "RB206"] == [
        ("drop.sql", 3)
    ]


@pytest.mark.parametrize(
    "comment", ["# runbook: allow RB206", "# runbook: allow RB206:", "# runbook: allow: it is empty"]
)
def test_comment_without_reason_or_code_allows_nothing(comment: str) -> None:
    assert {"RB206", "RB902"} <= set(codes(_step(above=comment)))


def test_unused_comment_is_reported() -> None:
    assert "RB901" in codes(_step(above="# runbook: allow RB201: the table is small"))
    assert "RB901" in codes(_step(above="# runbook: allow RB299: no such rule"))


def test_what_would_fail_can_not_be_allowed() -> None:
    text = "steps:\n  # runbook: allow RB001: it will be fine\n  - {id: all, type: sql, text: DELETE FROM public.sessions}\n"
    assert "RB001" in codes(text)


def test_one_comment_allows_several_codes() -> None:
    text = _step(above="# runbook: allow RB206, RB207: a copy").replace("old_sessions", "old_sessions CASCADE")
    assert not {"RB206", "RB207"} & set(codes(text))
