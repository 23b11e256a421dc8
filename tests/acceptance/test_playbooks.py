"""The shipped playbooks: all load, say what the documents say, and would catch each of the documents' traps."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from databases import DOCUMENTED, Database
from phases import fill, rename_types
from plain_look import PlainDatabase

from runner.plan import ask
from runner.playbook.load import from_disk, load, load_file
from runner.playbook.model import Check, Playbook
from runner.playbook.yaml_reader import Faulty
from runner.trail.events import CheckAnswered
from steps import registry
from steps.contract import Answer, Value

ROOT = Path(__file__).parents[2]
PLAYBOOKS = ROOT / "playbooks"
SHARED = PLAYBOOKS / "adr007-common.yaml"
SHAPES = PLAYBOOKS / "adr007-shapes.yaml"
FILES = sorted(
    path for path in [*PLAYBOOKS.glob("*.yaml"), *PLAYBOOKS.glob("examples/*.yaml")] if path not in {SHARED, SHAPES}
)
PHASES = ("adr007-phase1", "adr007-phase2", "adr007-phase2-10k", "adr007-phase3", "adr007-phase4")
ROLLBACKS = ("adr007-rollback1", "adr007-rollback2", "adr007-rollback3")
NINE = re.findall(
    r"^def (test_\w+)", (PLAYBOOKS / "validation/test_production_validation.py").read_text(), re.MULTILINE
)


def _named(name: str) -> Playbook:
    return load_file(PLAYBOOKS / f"{name}.yaml")


def _text(name: str) -> str:
    return (PLAYBOOKS / f"{name}.yaml").read_text()


# ─── what is written ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_playbook_loads(path: Path) -> None:
    playbook = load_file(path)
    assert playbook.name == path.stem or path.parent.name == "examples"
    schema = "runbook.schema.json" if path.parent == PLAYBOOKS else "../runbook.schema.json"
    assert path.read_text().startswith(f"# yaml-language-server: $schema={schema}\n")


def test_playbooks_are_all_there() -> None:
    assert {*PHASES, *ROLLBACKS} <= {path.stem for path in FILES}
    examples = {path.stem for path in FILES if path.parent.name == "examples"}
    assert examples == set(registry.step_types())
    for path in PLAYBOOKS.glob("examples/*.yaml"):
        assert path.stem in {entry.step.kind for entry in load_file(path).entries}


@pytest.mark.parametrize(("name", "lines"), [("adr007-phase1", 30), ("adr007-phase3", 64)])
def test_playbook_is_short(name: str, lines: int) -> None:
    assert len(_text(name).splitlines()) <= lines


@pytest.mark.parametrize("name", PHASES)
def test_digest_is_of_meaning(name: str) -> None:
    """A comment or another indentation keeps it; a number changes it, in an included file only where it is used."""
    disk = from_disk(PLAYBOOKS)

    def changed(change: Callable[[str], str]) -> str:
        return load(f"{name}.yaml", lambda file: change(disk(file)) if file.endswith(".yaml") else disk(file)).digest

    same = changed(str)
    assert changed(lambda text: re.sub(r"(?m)(^| +)# .*$", "", text)) == same
    assert changed(lambda text: "# another comment\n" + re.sub(r"(?m)^( +)", r"  \1", text)) == same
    other = changed(lambda text: text.replace("coverage_pct: 95", "coverage_pct: 94"))
    assert (other != same) == ("limits.coverage_pct" in _text(name))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("adr007-common", "1,682,827"), ("adr007-common", "coverage_pct: 95"), ("adr007-common", "accuracy_pct: 99"),
        ("adr007-common", "errors_pct: 0.1"), ("adr007-common", "min_rate_per_s: 1000"), ("adr007-common", "90 to 120"),
        ("adr007-common", "2,000 to 5,000"), ("adr007-common", "memory_used_pct: 90"), ("adr007-common", "disk_free_pct: 10"),
        ("adr007-common", "dry_run_s: 5"), ("adr007-common", "5 to 10"),
        ("adr007-phase4", "coverage_alert_pct: 90"), ("adr007-phase4", "slower_pct: 20"),
        ("adr007-common", "> 100"), ("adr007-common", "LIMIT 20"), ("adr007-phase1", "window: 15 min"), ("adr007-phase2", "30 to 60"),
        ("adr007-phase2", "pct < limits.coverage_pct"), ("adr007-phase2", "limit: 1000"), ("adr007-phase2-10k", "default: 10000"),
        ("adr007-phase2-10k", "default: 9900"), ("adr007-phase2-10k", "default: 10100"), ("adr007-phase3", "for: 5 min"),
        ("adr007-phase4", "15 to 30"), ("adr007-phase4", "size: 1000"), ("adr007-rollback2", "minute of the documents"),
    ],
)  # fmt: skip
def test_number_of_the_documents_stands_there(name: str, number: str) -> None:
    assert number in _text(name)


def test_nine_tests_have_their_names() -> None:
    """Seven decide in phase 2, two are due later and decide there; in phase 4 the suite runs all nine."""
    assert len(NINE) == 9
    phase2 = _checks(_named("adr007-phase2"))
    assert set(NINE) <= set(phase2)
    due = {name: phase2[name].due for name in NINE if phase2[name].due}
    assert due == {
        "test_snapshot_accuracy_sampling": "adr007-phase2-10k",
        "test_query_performance_snapshot_vs_join": "adr007-phase4",
    }
    for name, where in due.items():
        assert not _checks(_named(where))[name].record_only
    assert set(_field(phase2["suite"], "names")) == set(NINE) - set(due)
    assert set(_field(_checks(_named("adr007-phase4"))["suite"], "names")) == set(NINE)


def test_no_run_ends_green_where_nothing_ran() -> None:
    """A key that no version knows is a fault before anything runs, and a pass that wrote nothing is a failure. T: 1 2 3."""
    disk = from_disk(PLAYBOOKS)
    name = "adr007-phase2-10k.yaml"
    with pytest.raises(Faulty, match="max_batches"):
        load(name, lambda file: disk(file).replace("stop_after:", "max_batches: 10\n    stop_after:"))
    enough = _checks(_named("adr007-phase2-10k"))["so_many"]
    for written, answer in ((0, "fail"), (9_899, "fail"), (9_900, "pass"), (10_100, "pass"), (10_101, "fail")):
        assert _own(enough, {"written": written, "left": 1, "visited": 10_400}) == answer


def test_no_password_stands_in_a_playbook() -> None:
    """T: 4."""
    for path in [*FILES, SHARED]:
        assert not re.search(r"://[^/\s]*:[^/\s]*@|password:", path.read_text())


def test_remaining_work_is_defined_once() -> None:
    """Dry run, trial run and backfill speak of the same rows, because they use the same words. T: 11."""
    fields = ("table", "key", "source", "match", "fill")
    preview = _checks(_named("adr007-phase2"))["test_dry_run_batch_performance"].probe
    trial = _named("adr007-phase2-10k").entry("fill_some").step
    full = _named("adr007-phase3").entry("fill").step
    for field in fields:
        assert getattr(preview, field) == getattr(trial, field) == getattr(full, field)
    assert _field(_checks(_named("adr007-phase4"))["test_snapshot_accuracy_sampling"], "source") == full.source  # type: ignore[attr-defined]


def test_limits_stand_once() -> None:
    """The suite asserts the playbooks' own limits, and a criterion says their names and no numbers. T: 13."""
    limits = yaml.safe_load(SHARED.read_text())["limits"]
    suite = (PLAYBOOKS / "validation/test_production_validation.py").read_text()
    assert {"accuracy_pct", "dry_run_s"} <= set(re.findall(r"limits\[\"(\w+)\"\]", suite))
    used = " ".join(_text(name) for name in (*PHASES, *ROLLBACKS))
    assert [name for name in limits if f"limits.{name}" not in used] == []


def test_planned_time_fits_the_rate() -> None:
    """At the slowest rate that the guard lets pass, the backfill ends inside its window. T: 15."""
    phase3 = _named("adr007-phase3")
    assert phase3.window is not None
    assert 1_682_827 / float(str(phase3.limits["min_rate_per_s"])) < phase3.window


def test_nothing_is_taken_back_by_date() -> None:
    """Rollback 2 goes by what the runs wrote down, never by SQL of its own. T: 17 18 19."""
    for name in ROLLBACKS:
        assert "sql" not in {entry.step.kind for entry in _named(name).entries}
    undone = [entry.step.of for entry in _named("adr007-rollback2").entries if entry.step.kind == "undo"]  # type: ignore[attr-defined]
    assert undone == ["adr007-phase3", "adr007-phase2-10k"]


def test_index_comes_after_the_rows_that_it_is_on() -> None:
    """Built before the backfill it would be maintained for every row that is filled. F: H06"""
    kinds = [entry.step.kind for entry in _named("adr007-phase3").entries]
    assert kinds == ["checkpoint", "backfill", "create_index", "vacuum"]


def test_host_probes_measure_the_database() -> None:
    """T: 20."""
    hosts = [
        _field(check, "host")
        for name in (*PHASES, *ROLLBACKS)
        for check in _checks(_named(name)).values()
        if check.probe is not None and check.probe.kind in {"disk", "memory"}
    ]
    assert len(hosts) >= 4
    assert set(hosts) == {"database"}


def test_rename_waits_briefly() -> None:
    """T: 22."""
    assert all(entry.lock.wait <= 0.2 for entry in _named("adr007-phase1").entries)


# ─── what the checks answer ─────────────────────────────────────────────────────────────────────────────────────────
def test_phase1_asks_this_schema_only(honeypot: Database) -> None:
    """A column of the same name elsewhere proves nothing. T: 21."""
    phase1 = _named("adr007-phase1")
    assert _ask(honeypot, phase1, "only_the_plural", "nothing_uses_it", "singular_and_text") == ["pass", "pass", "fail"]
    if honeypot.server:
        honeypot.script("CREATE SCHEMA other; CREATE TABLE other.session_summaries (snapshot_ip_type text)")
        assert _ask(honeypot, phase1, "only_the_plural", "singular_and_text") == ["pass", "fail"]
    rename_types(honeypot)
    assert _ask(honeypot, phase1, "only_the_plural", "singular_and_text") == ["fail", "pass"]


def test_phase1_sees_what_uses_the_column(honeypot: Database) -> None:
    """A view, and on PostgreSQL a function's body, which would fail at its next run only. T: 22."""
    phase1 = _named("adr007-phase1")
    honeypot.script("CREATE VIEW by_type AS SELECT snapshot_ip_types FROM session_summaries")
    assert _ask(honeypot, phase1, "nothing_uses_it") == ["fail"]
    if honeypot.server:
        honeypot.script(
            """DROP VIEW by_type; CREATE FUNCTION types() RETURNS bigint LANGUAGE plpgsql AS
               $$ BEGIN RETURN (SELECT count(snapshot_ip_types) FROM session_summaries); END $$"""
        )
        assert _ask(honeypot, phase1, "nothing_uses_it") == ["fail"]


@pytest.mark.parametrize(
    "_store", [pytest.param(name, marks=pytest.mark.store(name)) for name in (DOCUMENTED, "enriched", "rich")]
)
def test_phase2_finds_work_in_every_store(honeypot: Database, _store: str) -> None:
    """With source_ip NULL everywhere, with it stored, and with snapshots that v16 filled. T: 11 23."""
    rename_types(honeypot)
    wanted = ["v16_whole", "test_baseline_snapshot_coverage", "test_backfill_requirements", "network_data",
              "test_dry_run_batch_performance", "test_sample_session_inspection", "test_production_readiness_checklist",
              "may_fill", "no_orphans"]  # fmt: skip
    assert _ask(honeypot, _named("adr007-phase2"), *wanted) == ["pass"] * len(wanted)


@pytest.mark.store("raw")
def test_phase2_says_that_there_is_no_network_data(honeypot: Database) -> None:
    """Straight after v16 there is nothing to copy, and nothing that could be copied is missed by one column alone."""
    phase2 = _named("adr007-phase2")
    assert _ask(honeypot, phase2, "network_data") == ["fail"]
    honeypot.script('UPDATE ip_inventory SET enrichment = \'{"maxmind": {"country": "NL"}}\'')
    found = _figures(honeypot, phase2, "network_data")
    assert (found["with_country"], found["with_asn"], found["with_ip_type"]) == (found["addresses"], 0, 0)
    assert _ask(honeypot, phase2, "network_data") == ["fail"]


@pytest.mark.store("enriched")
def test_phase2_knows_a_half_done_v16(honeypot: Database) -> None:
    """Version 16 is believed where the catalogue says so; more than v16 makes is no harm."""
    rename_types(honeypot)
    phase2 = _named("adr007-phase2")
    honeypot.script("CREATE INDEX ix_extra ON session_summaries (matcher)")
    assert _ask(honeypot, phase2, "v16_whole") == ["pass"]
    honeypot.script("DROP INDEX idx_session_snapshot_asn")
    [answer] = _answered(honeypot, phase2, ("v16_whole",), {})
    assert answer.answer is Answer.FAIL
    assert "idx_session_snapshot_asn" in answer.text


def test_coverage_believes_no_sentinel(honeypot: Database) -> None:
    """'XX' written into every unmatched row would make the figure 100; it stays what it is. F: B02 T: 6."""
    rename_types(honeypot)
    fill(honeypot)
    phase3 = _named("adr007-phase3")
    assert _ask(honeypot, phase3, "covered") == ["pass"]
    before = _figures(honeypot, phase3, "covered")
    assert 96 < float(str(before["pct"])) < 98
    honeypot.script("UPDATE session_summaries SET snapshot_country = 'XX' WHERE snapshot_country IS NULL")
    assert _figures(honeypot, phase3, "covered")["pct"] == before["pct"]


@pytest.mark.store("bad")
def test_coverage_of_bad_data_fails(honeypot: Database) -> None:
    """T: 6 12."""
    rename_types(honeypot)
    fill(honeypot)
    assert _ask(honeypot, _named("adr007-phase3"), "covered") == ["fail"]
    assert _ask(honeypot, _named("adr007-phase4"), "coverage", **{"phase2.baseline.covered": 0}) == ["fail"]


def test_accuracy_is_sampled_null_safely(honeypot: Database) -> None:
    """Rightly unknown countries are right, a few wrong ones are not, and orphans are not joined away. T: 12."""
    rename_types(honeypot)
    fill(honeypot)
    phase4, name = _named("adr007-phase4"), "test_snapshot_accuracy_sampling"
    unknown = "SELECT count(*) FROM session_summaries WHERE source_ip IS NOT NULL AND snapshot_country IS NULL"
    assert honeypot.value(unknown) > 0
    assert _ask(honeypot, phase4, name, "no_orphans") == ["pass", "pass"]
    found = _figures(honeypot, phase4, name)
    assert (found["sampled"], found["accuracy_pct"]) == (1000, 100)
    assert _ask(honeypot, _named("adr007-phase2-10k"), name) == ["pass"]
    honeypot.script("UPDATE session_summaries SET snapshot_ip_type = 'OTHER' WHERE session_id < '08'")
    assert _ask(honeypot, phase4, name) == ["fail"]
    assert _ask(honeypot, _named("adr007-phase2-10k"), name) == ["fail"]


def test_orphans_are_not_joined_away(honeypot: Database) -> None:
    """T: 12 26."""
    rename_types(honeypot)
    fill(honeypot)
    if honeypot.server:
        honeypot.script("ALTER TABLE session_summaries DROP CONSTRAINT fk_session_source_ip")
    honeypot.script("UPDATE session_summaries SET source_ip = '203.0.113.254' WHERE session_id < '08'")
    answers = _ask(honeypot, _named("adr007-phase4"), "no_orphans", "test_snapshot_accuracy_sampling")
    assert answers == ["fail", "fail"]


@pytest.mark.store("enriched")
def test_comparison_of_different_answers_fails(honeypot: Database) -> None:
    """Before the backfill the snapshot's way is fast and wrong: that is no speed-up. T: 14."""
    rename_types(honeypot)
    assert _ask(honeypot, _named("adr007-phase4"), "country") == ["fail"]


@pytest.mark.store("enriched")
def test_rollback_must_come_back_to_the_baseline(honeypot: Database) -> None:
    """A stored source_ip that was cleared too is seen, and so is a snapshot that stayed. T: 17 18."""
    rename_types(honeypot)
    rollback, name = _named("adr007-rollback2"), "baseline_again"
    baseline = _figures(honeypot, _named("adr007-phase2"), "baseline")
    then = {f"phase2.baseline.{key}": value for key, value in baseline.items()}
    assert _ask(honeypot, rollback, name, **then) == ["pass"]
    fill(honeypot)
    assert _ask(honeypot, rollback, name, **then) == ["fail"]
    honeypot.script("UPDATE session_summaries SET snapshot_country = NULL, source_ip = NULL")
    assert _ask(honeypot, rollback, name, **then) == ["fail"]


def test_rebuild_stops_nobody(pg: str) -> None:
    """T: 19."""
    step = _named("adr007-rollback3").entry("rebuild").step
    with PlainDatabase(Database("", "postgresql", pg)).look() as look:
        statements = step.statements(look)  # type: ignore[attr-defined]
    assert statements
    assert all("CONCURRENTLY" in one.sql for one in statements)


# ─── the suite ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_suite_decides_before_and_after(honeypot: Database) -> None:
    """Seven names before the backfill, nine after it; a skipped one is no pass, and a sentinel is found. T: 6 12 13."""
    if honeypot.major == 15:
        pytest.skip("each run takes seconds, and the suite has nothing that depends on the version")
    rename_types(honeypot)
    phase2, phase4 = _named("adr007-phase2"), _named("adr007-phase4")
    assert _ask(honeypot, phase2, "suite") == ["pass"]
    early = _figures(honeypot, phase4, "suite")
    assert set(map(str, early["skipped"])) == {
        "test_query_performance_snapshot_vs_join",
        "test_snapshot_accuracy_sampling",
    }  # type: ignore[arg-type]
    fill(honeypot)
    honeypot.script("CREATE INDEX pair ON session_summaries (snapshot_country, snapshot_ip_type)")
    honeypot.script("VACUUM (ANALYZE) session_summaries" if honeypot.server else "ANALYZE")
    assert _ask(honeypot, phase4, "suite") == ["pass"]
    honeypot.script("UPDATE session_summaries SET snapshot_country = 'XX' WHERE snapshot_country IS NULL")
    late = _figures(honeypot, phase4, "suite")
    assert "test_baseline_snapshot_coverage" in late["failed"]  # type: ignore[operator]


# ─── helpers ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _checks(playbook: Playbook) -> dict[str, Check]:
    return {check.id: check for check in _all(playbook)}


def _all(playbook: Playbook) -> Iterator[Check]:
    yield from (*playbook.preconditions, *playbook.success_criteria)
    for entry in playbook.entries:
        yield from (*entry.preconditions, *entry.success_criteria, *(guard.check for guard in entry.guards))


def _field(check: Check, name: str) -> Value:
    return getattr(check.probe, name)


def _answered(
    database: Database, playbook: Playbook, ids: tuple[str, ...], more: Mapping[str, Value]
) -> list[CheckAnswered]:
    known = _checks(playbook)
    scope: dict[str, Value] = {**_given(playbook), **more}
    plain = PlainDatabase(database)
    answers = [ask.ask([known[one]], step="", role="criterion", look=plain.look, scope=scope) for one in ids]
    return [one for [one] in answers if isinstance(one, CheckAnswered)]


def _given(playbook: Playbook) -> dict[str, Value]:
    limits = {f"limits.{name}": value for name, value in playbook.limits.items()}
    return {**limits, **{f"inputs.{name}": value for name, value in playbook.values.items()}}  # type: ignore[dict-item]


def _ask(database: Database, playbook: Playbook, *ids: str, **more: Value) -> list[str]:
    return [one.answer.value for one in _answered(database, playbook, ids, more)]


def _figures(database: Database, playbook: Playbook, name: str) -> dict[str, Value]:
    [one] = _answered(database, playbook, (name,), {})
    assert one.answer is not Answer.ERROR, one.text
    return one.result  # type: ignore[return-value]


def _own(check: Check, result: dict[str, Value]) -> str:
    """A criterion on a step's own result."""

    scope = _given(_named("adr007-phase2-10k"))
    [one] = ask.ask([check], step="", role="criterion", look=contextlib.nullcontext, scope=scope, own=result)  # type: ignore[arg-type]
    assert isinstance(one, CheckAnswered)
    return one.answer.value
