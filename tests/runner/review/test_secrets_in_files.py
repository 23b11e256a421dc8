"""Secrets in a playbook's files are refused, and what only looks like one isn't."""

from __future__ import annotations

import pytest
from linting import codes, linted

STEP = "steps:\n  - {id: fill, type: command, argv: [sh, -c, 'true']}\n"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://fill:correct-horse@db.example/store",
        "fill --password=correct-horse",
        "argv: [fill, --password, correct-horse]",
        "fill --api-key correct-horse",
        "PGPASSWORD=correct-horse psql",
        "ALTER ROLE fill PASSWORD 'correct-horse'",
        "host=db password=correct-horse user=fill",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_0123456789abcdef0123456789abcdef0123",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_secret_is_found(text: str) -> None:
    assert "RB005" in codes(f"# {text}\n" + STEP)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://fill@db.example/store",
        "postgresql://fill:***@db.example/store",
        "postgresql://fill:$PGPASSWORD@db.example/store",
        "postgresql://user:password@host/database",
        "SELECT 1 FROM logins WHERE password = password_hash",
        "UPDATE logins SET password = NULL",
        "SELECT password_hash FROM logins WHERE token = :token",
        "an access-token rotation, and --password-file /run/secret",
        "fill --password {{ password }} --token $TOKEN",
        "see https://example.com/a:b@c",
    ],
)
def test_what_looks_like_one_is_not_found(text: str) -> None:
    assert "RB005" not in codes(f"# {text}\n" + STEP)


def test_place_is_that_of_the_secret_in_any_of_its_files() -> None:
    files = {"common.yaml": "runbook: 1\nlimits: {a: 1}  # PGPASSWORD=correct-horse\n"}
    (found,) = [one for one in linted("include: common.yaml\n" + STEP, files).findings if one.code == "RB005"]
    assert str(found.mark) == "common.yaml:2:30"


def test_false_alarm_can_be_allowed() -> None:
    text = "# runbook: allow RB005: the documentation's own example\ntitle: as postgresql://fill:correct-horse@db.example/store\n"
    assert "RB005" not in codes(text + STEP)
