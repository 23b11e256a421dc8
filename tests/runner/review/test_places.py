"""A position in SQL leads to its place in the YAML file, however the value is written."""

from __future__ import annotations

import pytest
from linting import finding, written

from runner.review.sql_texts import texts_of

STYLES = {
    "plain": "text: UPDATE t SET a = 1 WHERE b = NULL AND id = 1",
    "plain over lines": "text: UPDATE t SET a = 1\n      WHERE\n\n        b = NULL AND id = 1",
    "single quotes": "text: 'UPDATE t SET a = ''x'' WHERE b = NULL AND id = 1'",
    "double quotes": 'text: "UPDATE t SET a = \\"x\\", c = \'\\u00e9\' \\n WHERE b = NULL AND id = 1"',
    "double quotes over lines": 'text: "UPDATE t SET a = 1 \\\n      WHERE b = NULL\n      AND id = 1"',
    "literal": "text: |\n      UPDATE t SET a = 'ü'\n\n      WHERE b = NULL AND id = 1\n",
    "folded": "text: >-\n      UPDATE t SET a = 1\n      WHERE b = NULL\n        AND id = 1\n",
    "in a list": "statements:\n      - UPDATE t SET a = 1 WHERE b = NULL AND id = 1",
    "with a parameter": "text: UPDATE t SET a = :value WHERE b = NULL AND id = 1\n    params: {value: 1}",
    "with a template": "text: UPDATE t SET {{ column | ident }} = 1 WHERE b = NULL AND id = 1",
}


@pytest.mark.parametrize("style", STYLES)
def test_place_of_a_comparison(style: str) -> None:
    text = f"inputs: {{column: {{default: a}}}}\nsteps:\n  - id: change\n    type: sql\n    {STYLES[style]}\n"
    mark = finding(text, "RB303").mark
    lines = ("runbook: 1\nname: change\ntitle: A change\n" + text).splitlines()
    assert lines[mark.line - 1][mark.column - 1 :].startswith("= NULL")


def test_place_in_a_condition() -> None:
    text = "steps: [{id: go, type: checkpoint, success_criteria: [{id: x, check: rows, table: t, where: a = NULL, exactly: 0}]}]\n"
    mark = finding(text, "RB303").mark
    assert text.splitlines()[0][mark.column - 1 :].startswith("= NULL")


def test_place_in_an_include_and_in_a_sql_file() -> None:
    files = {
        "common.yaml": "runbook: 1\nqueries:\n  left:\n    SELECT count(*) AS n FROM t\n    WHERE a = NULL\n",
        "change.sql": "-- é\nUPDATE t\nSET a = 1 WHERE b = NULL AND id = 1;\n",
    }
    text = """\
include: common.yaml
steps:
  - {id: change, type: sql, text: {file: change.sql}}
  - {id: go, type: checkpoint, success_criteria: [{id: none, check: query, query: left, that: n == 0}]}
"""
    from linting import linted

    marks = {str(one.mark) for one in linted(text, files).findings if one.code == "RB303"}
    assert marks == {"common.yaml:5:13", "change.sql:3:19"}


def test_query_of_an_include_that_is_not_used_is_not_read() -> None:
    files = {"common.yaml": "runbook: 1\nqueries:\n  other: SELECT a FROM t WHERE a = NULL\n"}
    assert not list(texts_of(written("include: common.yaml\n", files)))
