"""The step command: recorded before it works, done once, never an unknown orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from databases import Database
from plain_look import PlainContext, PlainDatabase
from pydantic import ValidationError

from steps.contract import Oneway, Reversible, RunPosition, State, StepError, Stopped
from steps.ledger import step_commits
from steps.types.command import Command, started

PLACE = RunPosition(run="r1", step="call", action="apply")


@pytest.fixture
def ctx(empty_database: Database) -> PlainContext:
    return PlainContext(PlainDatabase(empty_database, place=PLACE))


def command(*argv: str, **keys: object) -> Command:
    return Command.model_validate({"argv": argv, **keys})


def state(step: Command, ctx: PlainContext) -> State:
    with ctx.db.look() as look:
        return step.verify(look).state


def test_command_runs_once_and_is_known(ctx: PlainContext):
    step = command("echo", "hello world")
    assert step.describe() == "run echo 'hello world'"
    assert state(step, ctx) is State.NOT_DONE
    result = step.apply(ctx)
    assert (result.exit_code, result.stdout) == (0, "hello world\n")
    assert state(step, ctx) is State.DONE
    labels = ctx.db.committed()
    assert labels[0].startswith("started pid=")
    assert labels[1:] == ["done"]


def test_failing_command_is_not_known_to_be_undone(ctx: PlainContext):
    """T: 1, T: 3 - a bad exit code stops the run, and nobody assumes that nothing happened."""
    step = command(sys.executable, "-c", "import sys; sys.exit('unrecognized arguments: --max-batches')")
    with pytest.raises(StepError, match=r"ended with exit code 1: unrecognized arguments"):
        step.apply(ctx)
    assert state(step, ctx) is State.UNKNOWN
    assert "has ended" in _evidence(step, ctx)


def test_allowed_exit_codes(ctx: PlainContext):
    assert command(sys.executable, "-c", "raise SystemExit(3)", exit_codes=[0, 3]).apply(ctx).exit_code == 3


def test_timeout_is_said(ctx: PlainContext):
    with pytest.raises(StepError, match=r"ended after 0.5 s, with its process group"):
        command("sleep", "60", takes_at_most="500 ms").apply(ctx)


def test_missing_program_changes_nothing(ctx: PlainContext):
    step = command("no-such-program")
    with pytest.raises(StepError, match=r"no such program"):
        step.apply(ctx)
    assert state(step, ctx) is State.NOT_DONE


def test_stop_ends_the_command(ctx: PlainContext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("steps.types.command.PULSE_S", 0.05)
    ctx.stop = Stopped("enough")
    with pytest.raises(Stopped):
        command("sleep", "60").apply(ctx)
    [start] = started(ctx.db.committed())
    assert start.running() is False
    assert ctx.pulses[0].note.startswith("sleep 60 runs for")


def test_applied_if_asks_the_database(ctx: PlainContext):
    step = command("true", applied_if="SELECT count(*) > 0 AS there FROM marks")
    with ctx.db.writing(keep=True) as work:  # the role's own search_path would begin with the ledger's schema
        work.execute("CREATE TABLE marks (n int)")
    assert state(step, ctx) is State.NOT_DONE
    step.apply(ctx)
    assert state(step, ctx) is State.NOT_DONE, "its exit code is no proof"
    with ctx.db.writing(keep=True) as work:
        work.execute("INSERT INTO marks VALUES (1)")
    assert state(step, ctx) is State.DONE
    assert state(command("true", applied_if="SELECT max(n) FROM marks WHERE n > 5"), ctx) is State.UNKNOWN
    assert state(command("true", applied_if="SELECT n FROM marks WHERE n > 5"), ctx) is State.NOT_DONE
    with pytest.raises(StepError, match=r"must give one value"):
        state(command("true", applied_if="SELECT n, 1 AS one FROM marks"), ctx)


def test_applied_if_only_reads():
    with pytest.raises(ValidationError, match=r"as a query"):
        command("true", applied_if="DELETE FROM marks RETURNING true")


def test_environment_is_what_was_asked_for(ctx: PlainContext, monkeypatch: pytest.MonkeyPatch):
    """F: K01"""
    monkeypatch.setenv("API_KEY", "0123456789")
    monkeypatch.setenv("REGION", "eu")
    code = "import os; print(sorted(n for n in ('API_KEY', 'REGION', 'RUNBOOK_URL') if n in os.environ))"
    step = command(sys.executable, "-c", code, env_from=["REGION"], database=True)
    assert step.apply(ctx).stdout == "['REGION', 'RUNBOOK_URL']\n"


def test_revert_runs_its_own_command(ctx: PlainContext, tmp_path: Path):
    mark = tmp_path / "mark"
    step = command("touch", str(mark), revert=["rm", str(mark)])
    assert isinstance(step, Reversible)
    assert isinstance(step, Oneway)
    assert step.one_way() == ""
    step.apply(ctx)
    assert mark.exists()
    with ctx.db.look() as look:
        before = step_commits.remembered(look, run="r1", step="call")
    ctx.db.place = RunPosition(run="r1", step="call", action="revert")
    step.revert(ctx, Command.recall(before))
    assert not mark.exists()
    assert state(step, ctx) is State.NOT_DONE
    ctx.db.place = PLACE
    assert state(step, ctx) is State.NOT_DONE


def test_without_revert_it_is_one_way():
    assert command("true").one_way() == "it has no `revert:` command"
    with pytest.raises(ValidationError):
        command()


def test_orphan_of_a_killed_engine_is_found(ctx: PlainContext, empty_database: Database, tmp_path: Path):
    """kill -9 of the engine: the command goes on, and resume knows it by pid and start time, and starts no second."""
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]!r}
from databases import Database
from plain_look import PlainContext, PlainDatabase
from steps.contract import RunPosition
from steps.types.command import Command
target = Database({empty_database.name!r}, {empty_database.dialect!r}, {empty_database.url!r})
db = PlainDatabase(target, place=RunPosition(run="r1", step="call", action="apply"))
Command(argv=("sleep", "600")).apply(PlainContext(db))
"""
    (tmp_path / "engine.py").write_text(program)
    step = command("sleep", "600")

    with subprocess.Popen([sys.executable, str(tmp_path / "engine.py")]) as engine:
        until = time.monotonic() + 120
        while not ctx.db.committed() and engine.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.2)  # it lets the command go after the record
        engine.kill()
    [start] = started(ctx.db.committed())
    try:
        assert start.running()
        assert state(step, ctx) is State.UNKNOWN
        assert "still runs" in _evidence(step, ctx)
        with pytest.raises(StepError, match=f"process {start.pid} of an earlier start still runs"):
            step.apply(ctx)
    finally:
        os.killpg(start.pid, signal.SIGKILL)
        while start.running():
            time.sleep(0.02)
    assert "has ended" in _evidence(step, ctx)


def _evidence(step: Command, ctx: PlainContext) -> str:
    with ctx.db.look() as look:
        return step.verify(look).evidence


NOISY = """
import sys
print("row 1 done")
try:
    try:
        {}["asn"]
    except KeyError:
        raise RuntimeError("column asn is missing")
except RuntimeError:
    import traceback; traceback.print_exc()
for n in range(5000):
    print(f"sqlalchemy.exc.InvalidRequestError: Can't operate on closed transaction ({n})", file=sys.stderr)
sys.exit(1)
"""


def test_failure_shows_first_error_end_and_file(ctx: PlainContext, tmp_path: Path):
    """The cause stands before thousands of lines that only follow from it."""
    ctx.folder = tmp_path
    with pytest.raises(StepError) as caught:
        command(sys.executable, "-c", NOISY).apply(ctx)
    said = str(caught.value)
    assert "KeyError: 'asn'" in said
    assert said.index("KeyError") < said.index("(4999)")
    assert str(tmp_path / "call.apply.1.stderr") in said
    whole = (tmp_path / "call.apply.1.stderr").read_text()
    assert "(0)" in whole
    assert "(4999)" in whole
    assert (tmp_path / "call.apply.1.stdout").read_text() == "row 1 done\n"
    assert (tmp_path / "call.apply.1.stderr").stat().st_mode & 0o077 == 0


def test_output_of_success_leaves_no_file(ctx: PlainContext, tmp_path: Path):
    ctx.folder = tmp_path
    command("echo", "fine").apply(ctx)
    assert list(tmp_path.iterdir()) == []
