"""The probes plan and compare: the shape of plans, medians, noise, and results that disagree."""

from __future__ import annotations

import pytest
from databases import Database
from looking import answer, look_at, probe
from pydantic import ValidationError

from steps.contract import Answer

PAIR = "SELECT count(*) AS n FROM session_summaries WHERE event_count = 3 AND command_count = 2"


def result_of(one: object, **figures: object) -> object:
    """A comparison's result with chosen figures: what the noise of this machine must not decide."""
    defaults = {"a_ms": 2.0, "b_ms": 10.0, "speedup": 5.0, "agree": True, "noise_pct": 3.0, "undecided": False}
    values = {"a_value": 1, "b_value": 1, "difference_pct": 0.0, "a_plan": "", "b_plan": ""}
    return one.Result(**{**defaults, **values, **figures})


def test_plan_without_and_with_index(honeypot: Database):
    """The playbook says the same words for both databases."""
    without = probe("plan", query=PAIR, has=["Seq Scan"])
    assert answer(honeypot, without) is Answer.PASS
    assert answer(honeypot, probe("plan", query=PAIR, lacks=["seq scan"])) is Answer.FAIL
    honeypot.script("CREATE INDEX pair ON session_summaries (event_count, command_count); ANALYZE")
    with_index = probe("plan", query=PAIR, uses="pair", lacks=["Seq Scan"])
    seen = look_at(honeypot, with_index)
    assert seen.indexes == ("pair",)
    assert "pair" in seen.text
    assert answer(honeypot, with_index) is Answer.PASS
    assert answer(honeypot, probe("plan", query=PAIR, uses="other")) is Answer.FAIL


def test_plan_never_runs_the_query(honeypot_pg: Database):
    """F: I01 - EXPLAIN alone: a query that would divide by zero has a plan all the same."""
    sql = "SELECT 1 / (event_count - event_count) FROM session_summaries"
    assert look_at(honeypot_pg, probe("plan", query=sql)).cost > 0
    assert not probe("plan", query=sql).decides()


def test_compare_agrees_and_measures(honeypot: Database):
    slow = """SELECT count(*) AS n FROM session_summaries a WHERE a.event_count =
              (SELECT max(b.event_count) FROM session_summaries b WHERE b.session_id <= a.session_id)"""
    honeypot.script("CREATE TABLE answer AS " + slow)
    one = probe("compare", a="SELECT n FROM answer", b=slow, runs=3)
    seen = look_at(honeypot, one)
    assert seen.agree
    assert seen.a_value == seen.b_value
    assert seen.speedup > 3
    assert (seen.noise_pct >= 0, seen.difference_pct) == (True, 0.0)
    assert "answer" in seen.a_plan
    assert "session_summaries" in seen.b_plan
    assert one.alone


def test_compare_disagreement_fails(honeypot: Database):
    """A faster query with another result is no gain."""
    keys = {"a": "SELECT 990 AS n", "b": "SELECT 1000 AS n", "runs": 3}
    assert answer(honeypot, probe("compare", **keys)) is Answer.FAIL
    near = look_at(honeypot, probe("compare", **keys, agree="1 %"))
    assert (near.agree, near.difference_pct) == (True, 1.0)
    assert answer(honeypot, probe("compare", **keys, agree="0.5 %")) is Answer.FAIL


def test_compare_rows_in_any_order(honeypot: Database):
    a = "SELECT key, value FROM schema_state UNION ALL SELECT 'a', 'b' ORDER BY 1"
    b = "SELECT key, value FROM schema_state UNION ALL SELECT 'a', 'b' ORDER BY 1 DESC"
    assert look_at(honeypot, probe("compare", a=a, b=b, runs=3)).agree
    more = "SELECT key, value FROM schema_state UNION ALL SELECT 'a', 'c'"
    assert not look_at(honeypot, probe("compare", a=a, b=more, runs=3)).agree


def test_compare_noise_is_undecided():
    """F: I05 - noise above the effect is neither pass nor fail, and the figures stay for the record."""
    one = probe("compare", a="SELECT 1", b="SELECT 2")
    verdict = one.verdict(result_of(one, undecided=True, noise_pct=40.0))
    assert verdict.answer is Answer.UNKNOWN
    assert verdict.why.startswith("undecided: noise of 40 % above the effect")
    assert one.verdict(result_of(one)).answer is Answer.PASS
    assert one.verdict(result_of(one, agree=False, undecided=True)).answer is Answer.FAIL


@pytest.mark.parametrize(
    "nothing", ["SELECT 0 AS n", "SELECT NULL AS n", "SELECT 0.0 AS n", "SELECT 1 AS n WHERE 1 = 2"]
)
def test_compare_of_nothing_proves_nothing(honeypot: Database, nothing: str):
    """Two queries that find nothing agree, and one of them is faster: that is unknown, whatever `that:` says of speed."""
    one = probe("compare", a=nothing, b=nothing + " LIMIT 1", runs=3, agree="1 %")
    if "WHERE" not in nothing and "NULL" not in nothing:
        assert look_at(honeypot, one).a_value == 0
    assert (
        one.verdict(result_of(one, agree=True, a_value=look_at(honeypot, one).a_value, b_value=0)).answer
        is Answer.UNKNOWN
    )
    something = probe("compare", a=nothing, b="SELECT 5 AS n", runs=3)
    assert answer(honeypot, something) is Answer.FAIL


def test_compare_of_equal_queries_is_mostly_noise(honeypot: Database):
    """Two texts of one query: their spreads overlap, or their medians are close; a gain is never claimed from it."""
    seen = look_at(honeypot, probe("compare", a="SELECT 1 AS n", b="SELECT 1  AS n", runs=15))
    assert seen.agree
    assert seen.speedup > 0


@pytest.mark.parametrize("agree", ["1", "about", "-1 %", "1%%"])
def test_compare_tolerance_is_read_strictly(agree: str):
    with pytest.raises(ValidationError, match=r"tolerance"):
        probe("compare", a="SELECT 1", b="SELECT 2", agree=agree)


def test_compare_with_itself_is_refused():
    with pytest.raises(ValidationError, match=r"same query"):
        probe("compare", a="SELECT 1", b="SELECT 1")


def test_plan_with_analyze_runs_the_query_and_measures_it(honeypot: Database):
    seen = look_at(honeypot, probe("plan", query=PAIR, analyze=True))
    assert seen.ms > 0 and seen.rows >= 0
    assert "Seq Scan" in seen.nodes
    if honeypot.dialect == "postgresql":
        assert seen.hit_pages + seen.read_pages > 0
        assert "ms=" in seen.text and "session_summaries" in seen.text
    without = look_at(honeypot, probe("plan", query=PAIR))
    assert (without.ms, without.rows, without.hit_pages) == (None, None, None)
