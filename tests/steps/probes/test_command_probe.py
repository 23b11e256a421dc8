"""The probes command and pytest: exit codes, output, and tests by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from databases import Database
from looking import answer, look_at, probe
from pydantic import ValidationError

from steps.contract import Answer, StepError

SUITE = """
import os
import pytest

def test_good(): assert os.environ["RUNBOOK_URL"]
def test_bad(): assert False
@pytest.mark.skip
def test_skipped(): ...
@pytest.mark.parametrize("n", [1, 2])
def test_each(n): assert n == 1
@pytest.fixture
def broken(): raise RuntimeError
def test_broken(broken): ...
def test_no_pytest_variables(): assert not any(n.startswith("PYTEST_") and n not in
    {"PYTEST_CURRENT_TEST", "PYTEST_VERSION"} for n in os.environ)
class TestInside:
    def test_good_one(self): ...
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "test_validation.py"
    path.write_text(SUITE)
    return str(path)


@pytest.fixture
def database(databases) -> Database:
    with databases.kind("sqlite").database() as one:
        yield one


def test_command_gives_code_and_output(database: Database):
    one = probe("command", argv=["printf", "lag %s\\n", "3"], stdout_matches=r"^lag \d+$")
    seen = look_at(database, one)
    assert (seen.exit_code, seen.stdout) == (0, "lag 3\n")
    assert answer(database, one) is Answer.PASS
    assert not one.enforced


def test_command_fails_by_code_or_output(database: Database):
    assert answer(database, probe("command", argv=["false"])) is Answer.FAIL
    assert answer(database, probe("command", argv=["false"], exit_codes=[1])) is Answer.PASS
    assert answer(database, probe("command", argv=["echo", "no"], stdout_matches="yes")) is Answer.FAIL


def test_command_has_no_shell(database: Database):
    assert look_at(database, probe("command", argv=["echo", "$HOME;", "ls"])).stdout == "$HOME; ls\n"


def test_command_that_hangs_is_an_error(database: Database):
    with pytest.raises(StepError, match=r"was ended after 0.3 s"):
        look_at(database, probe("command", argv=["sleep", "60"], timeout="300 ms"))


def test_command_reaches_the_database_when_asked(database: Database):
    argv = [sys.executable, "-c", "import os; print(os.environ.get('RUNBOOK_URL'))"]
    assert look_at(database, probe("command", argv=argv)).stdout == "None\n"
    assert look_at(database, probe("command", argv=argv, database=True)).stdout == database.url + "\n"


def test_command_pattern_is_checked():
    with pytest.raises(ValidationError, match=r"as a pattern"):
        probe("command", argv=["true"], stdout_matches="(")


def test_suite_named_tests_decide(database: Database, suite: str):
    """Only the names count: test_bad is not asked for."""
    one = probe("pytest", path=suite, names=["test_good", "TestInside::test_good_one", "test_no_pytest_variables"])
    seen = look_at(database, one)
    assert seen.passed == ("test_good", "test_no_pytest_variables", "TestInside::test_good_one")
    assert (seen.failed, seen.missing, seen.skipped) == ((), (), ())
    assert one.verdict(seen).answer is Answer.PASS
    assert not one.enforced


def test_suite_missing_skipped_and_broken_names_fail(database: Database, suite: str):
    """A test that is not there, was skipped, or never came to run has not passed."""
    one = probe("pytest", path=suite, names=["test_gone", "test_skipped", "test_broken", "test_each", "test_good"])
    seen = look_at(database, one)
    assert seen.missing == ("test_gone",)
    assert seen.skipped == ("test_skipped",)
    assert set(seen.failed) == {"test_broken", "test_each"}
    assert (seen.passed_count, seen.failed_count, seen.missing_count) == (1, 2, 1)
    verdict = one.verdict(seen)
    assert verdict.answer is Answer.FAIL
    assert "missing: test_gone" in verdict.why
    for name in ("test_gone", "test_skipped", "test_broken", "test_each"):
        alone = probe("pytest", path=suite, names=[name])
        assert alone.verdict(alone.Result(**{**seen.model_dump(), "passed": (), "exit_code": 1})).answer is Answer.FAIL


def test_suite_without_names_wants_all(database: Database, suite: str, tmp_path: Path):
    assert answer(database, probe("pytest", path=suite)) is Answer.FAIL
    good = tmp_path / "test_fine.py"
    good.write_text("def test_one(): ...\n")
    assert answer(database, probe("pytest", path=str(good))) is Answer.PASS
    good.write_text("")
    assert answer(database, probe("pytest", path=str(good))) is Answer.FAIL


def test_suite_that_is_not_there_is_an_error(database: Database, tmp_path: Path):
    with pytest.raises(StepError, match=r"does not exist"):
        look_at(database, probe("pytest", path=str(tmp_path / "none.py")))


def test_suite_without_report_is_an_error(database: Database, suite: str):
    with pytest.raises(StepError, match=r"gave no report"):
        look_at(database, probe("pytest", path=suite, python=[sys.executable, "-c", "import sys; sys.exit(4)"]))


REASONED = """
import os
from pathlib import Path
import pytest

def test_coverage(): assert 90 > 95, "coverage is 90 %, wanted 95"
def test_place(): assert Path("here.txt").exists()
def test_word(): assert os.environ["WORD"] == "7"
@pytest.mark.skip(reason="no network data")
def test_network(): ...
@pytest.mark.parametrize("n", [1, 2])
def test_each(n): assert n == 1, f"case {n} is wrong"
"""


def test_suite_tells_reasons_and_takes_place_and_environment(database: Database, tmp_path: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "here.txt").touch()
    path = tmp_path / "test_reasons.py"
    path.write_text(REASONED)
    one = probe("pytest", path=str(path), cwd=str(tmp_path / "there"), env={"WORD": "7"})
    seen = look_at(database, one)
    assert set(seen.passed) == {"test_place", "test_word"}
    reasons = dict(line.split(": ", 1) for line in seen.reasons)
    assert reasons["test_coverage"].startswith("AssertionError: coverage is 90 %, wanted 95")
    assert "case 2 is wrong" in reasons["test_each"]
    assert reasons["test_network"] == "no network data"
    verdict = one.verdict(seen)
    assert verdict is not None
    assert "coverage is 90 %, wanted 95" in verdict.why


def test_suite_keeps_the_target_of_the_run():
    with pytest.raises(ValidationError, match="cannot set PGHOST"):
        probe("pytest", path="x", env={"PGHOST": "elsewhere"})
