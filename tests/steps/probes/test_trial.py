"""The probe trial: it writes, and nothing of it stays."""

from __future__ import annotations

from databases import Database
from looking import answer, look_at, probe

from steps.contract import Answer


def test_trial_writes_and_takes_back(honeypot: Database):
    one = probe(
        "trial",
        statements=[
            "UPDATE session_summaries SET snapshot_country = 'DE'",
            "SELECT session_id FROM session_summaries WHERE snapshot_country = 'DE'",
        ],
        rows=2000,
    )
    assert look_at(honeypot, one).rows == 2000
    assert answer(honeypot, one) is Answer.PASS
    assert not one.enforced
    assert honeypot.value("SELECT count(snapshot_country) FROM session_summaries") == 0


def test_trial_takes_back_definitions(honeypot: Database):
    one = probe("trial", statements=["DROP TABLE raw_events"])
    assert answer(honeypot, one) is Answer.PASS
    assert honeypot.value("SELECT count(*) FROM raw_events") > 0


def test_trial_refused_by_the_database_fails(honeypot: Database):
    one = probe("trial", statements=["UPDATE session_summaries SET session_id = 'same'", "SELECT 1"])
    seen = look_at(honeypot, one)
    assert seen.rows is None
    assert seen.error
    assert one.verdict(seen).answer is Answer.FAIL
    assert honeypot.value("SELECT count(DISTINCT session_id) FROM session_summaries") == 2000


def test_trial_with_other_row_count_fails(honeypot: Database):
    one = probe("trial", statements=["DELETE FROM session_summaries WHERE 1 = 0"], rows=1)
    assert answer(honeypot, one) is Answer.FAIL
