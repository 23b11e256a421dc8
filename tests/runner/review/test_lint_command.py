"""The command lint: exit codes, JSON, SARIF, effects, what a target's environment asks for, and life without the extra."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from inside import InProcessCli

from runner.playbook.yaml_reader import Mark
from runner.review import sarif
from runner.review.findings import Finding, Severity

DANGER = """\
runbook: 1
name: danger
title: Remove what nobody reads
schema: public
contacts: {on_call: somebody}
steps:
  - {id: drop, type: sql, text: DROP TABLE old_sessions CASCADE}
success_criteria: {none: an example}
rollback: {none: it is a copy}
"""
GOOD = """\
runbook: 1
name: good
title: Prove that nobody is lost
schema: public
steps:
  - {id: go, type: checkpoint, success_criteria: [{id: some, check: rows, table: sessions, at_least: 1}]}
"""
WHOLE = GOOD.replace(
    "steps:\n", "contacts: {on_call: somebody}\nsteps:\n  - {id: all, type: sql, text: DELETE FROM sessions}\n"
)


@pytest.fixture
def desk(tmp_path: Path) -> InProcessCli:
    return InProcessCli(tmp_path, "")


def _codes(printed: str) -> list[str]:
    return [one["code"] for one in json.loads(printed)["findings"]]


def test_warnings_end_with_0_and_strictly_with_4(desk: InProcessCli) -> None:
    name = desk.playbook("danger", DANGER)
    done = desk.runbook("lint", name)
    assert done.code == 0
    assert "danger.yaml:7:33: warning RB207: CASCADE takes away what depends on old_sessions" in done.out
    assert desk.runbook("lint", name, "--strict").code == 4
    assert desk.runbook("lint", desk.playbook("good", GOOD), "--strict").out.strip() == "1 playbook: nothing found"


def test_errors_end_with_4_also_in_validate_plan_and_exec(desk: InProcessCli) -> None:
    name = desk.playbook("whole", WHOLE)
    for command in (["lint"], ["validate"], ["plan"], ["exec", "-t", "store.db"]):
        done = desk.runbook(command[0], name, *command[1:])
        assert done.code == 4, (command, done.text)
        assert "RB001" in done.text
    assert not (desk.directory / "store.db").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER s BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE TRIGGER s AFTER INSERT ON t BEGIN UPDATE t SET a = 1 WHERE b = 2; END",
        "DO $$ BEGIN PERFORM 1; END $$",
        "SELECT $tag$ it's $tag$",
    ],
)
def test_sql_that_one_of_the_databases_cannot_read_is_no_fault_of_ours(desk: InProcessCli, sql: str) -> None:
    """A text without a dialect may be meant for either."""
    (desk.directory / "one.yaml").write_text(
        'runbook: 1\nname: one\ntitle: T\nsteps:\n  - {id: s, type: sql, expect_rows: any, text: "'
        + sql
        + '", revert: [DROP TRIGGER s]}\n'
        "success_criteria: {none: not needed here}\n"
    )
    for words in (("validate",), ("lint",), ("lint", "--effects"), ("render",)):
        done = desk.runbook(*words, "one.yaml")
        assert "internal error" not in done.text and done.code in (0, 4), (words, done.text)
    assert desk.runbook("validate", "one.yaml").code == 0


def test_secret_in_the_file_is_refused_and_not_repeated(desk: InProcessCli) -> None:
    text = WHOLE.replace(
        "type: sql, text: DELETE FROM sessions", "type: command, argv: [fill, --password=correct-horse-battery]"
    )
    for command in ("lint", "validate"):
        done = desk.runbook(command, desk.playbook("secret", text))
        assert done.code == 4
        assert "RB005" in done.text
        assert "correct-horse" not in done.text


def test_json_names_digests_rules_and_versions(desk: InProcessCli) -> None:
    found = json.loads(desk.runbook("lint", desk.playbook("danger", DANGER), "--json").out)
    assert found["format"] == 1
    assert {"runbook-engine", "postgast", "squawk-cli"} == set(found["versions"])
    (playbook,) = found["playbooks"]
    assert (playbook["file"], playbook["name"], len(playbook["digest"])) == ("danger.yaml", "danger", 64)
    assert {"code": "RB206", "severity": "warning"}.items() <= next(
        r for r in found["rules"] if r["code"] == "RB206"
    ).items()
    assert {"RB206", "RB207"} <= {one["code"] for one in found["findings"]}
    assert all(one["line"] and one["file"] == "danger.yaml" for one in found["findings"])


def test_sarif_has_each_finding_with_its_place(desk: InProcessCli) -> None:
    text = DANGER.replace("  - {id: drop", "  # runbook: allow RB207: nothing depends on it\n  - {id: drop")
    desk.runbook("lint", desk.playbook("danger", text), "--sarif", "found.sarif")
    document = json.loads((desk.directory / "found.sarif").read_text())
    jsonschema.validate(document["version"], {"const": "2.1.0"})
    (run,) = document["runs"]
    known = {one["id"] for one in run["tool"]["driver"]["rules"]}
    found = {one["ruleId"]: one for one in run["results"]}
    assert set(found) <= known
    place = found["RB206"]["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "danger.yaml"}, "region": {"startLine": 8, "startColumn": 33}}
    assert found["RB207"]["suppressions"] == [{"kind": "inSource", "justification": "nothing depends on it"}]
    assert "suppressions" not in found["RB206"]


def test_effects_of_each_statement(desk: InProcessCli) -> None:
    done = desk.runbook("lint", desk.playbook("danger", DANGER), "--effects", "--json")
    (one,) = json.loads(done.out)["effects"]
    assert (one["lock"], one["blocks"], one["length"], one["one_way"]) == (
        "ACCESS EXCLUSIVE",
        "reads and writes",
        "instant",
        "its rows",
    )


def test_environment_of_the_target_asks_for_more(desk: InProcessCli) -> None:
    name = desk.playbook("danger", DANGER)
    (desk.directory / "targets.yaml").write_text(
        "targets:\n  live: {url: postgresql://nowhere.invalid/x, environment: production}\n  dev: {url: postgresql://nowhere.invalid/y}\n"
    )
    assert "RB109" in _codes(desk.runbook("lint", name, "-t", "live", "--json").out)
    assert "RB109" not in _codes(desk.runbook("lint", name, "-t", "dev", "--json").out)


def test_faults_of_one_file_hide_nothing_of_the_others(desk: InProcessCli) -> None:
    bad = desk.playbook("bad", "runbook: 1\nname: bad\n")
    done = desk.runbook("lint", bad, desk.playbook("danger", DANGER))
    assert done.code == 4
    assert "RB206" in done.text
    assert "cannot run without `title:`" in done.text


def test_finding_of_a_shared_include_is_told_once(desk: InProcessCli) -> None:
    desk.playbook(
        "common", "runbook: 1\nqueries:\n  left: SELECT count(*) AS n FROM public.sessions WHERE country = NULL\n"
    )
    check = "[{id: some, check: query, query: left, that: n == 0}]"
    text = "runbook: 1\nname: {0}\ntitle: T\ninclude: common.yaml\nsteps: [{{id: go, type: checkpoint, success_criteria: {1}}}]\n"
    names = [desk.playbook(name, text.format(name, check)) for name in ("one", "two")]
    assert _codes(desk.runbook("lint", *names, "--json").out).count("RB303") == 1


def test_without_the_extra_it_is_said_once_and_the_rest_is_found(desk: InProcessCli) -> None:
    """In a process that can't import the parser."""
    hidden = desk.directory / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nsys.modules['postgast'] = None\n")
    names = [
        desk.playbook("danger", DANGER.replace("contacts: {on_call: somebody}\n", "")),
        desk.playbook("whole", WHOLE),
    ]
    done = desk.start("lint", *names, PYTHONPATH=str(hidden))
    out, _ = done.communicate()
    assert done.returncode == 4
    assert "RB106" in out
    assert "RB001" in out
    assert "RB206" not in out
    assert out.count("were not applied: they need its parser; pip install 'runbook-engine[lint]'") == 1


MUTATIONS = {
    "lag_s: 10": ("lag_s: 600", "RB111"),
    "id = 7": ("id > 7", "RB203"),
    "contacts: {on_call: somebody}": ("links: {}", "RB106"),
    "critical: lag_s > limits.critical_s": ("critical: lag_s > 5", "RB111"),
    "+00'": ("'", "RB305"),
    "review_after: '2999-01-01'": ("review_after: '2020-01-01'", "RB107"),
    "CREATE TABLE public.copy (id integer)": ("DROP TABLE public.sessions CASCADE", "RB207"),
    "rollback: reverse": ("rollback: [other]", "RB103"),
}
WELL = """\
runbook: 1
name: well
title: Mark one session
schema: public
contacts: {on_call: somebody}
review_after: '2999-01-01'
target: {postgresql: '>=15'}
limits: {lag_s: 10, critical_s: 120}
steps:
  - {id: make, type: sql, text: CREATE TABLE public.copy (id integer), revert: DROP TABLE public.copy}
  - id: mark
    type: sql
    text: UPDATE sessions SET seen = true WHERE id = 7 AND ended_at < '2026-01-01 00:00:00+00'
    revert: UPDATE sessions SET seen = false WHERE id = 7
    guards: [{id: lag, check: replication, that: lag_s <= limits.lag_s, critical: lag_s > limits.critical_s}]
  - {id: other, type: add_column, column: sessions.x, of_type: text}
success_criteria: [{id: marked, check: rows, table: sessions, where: seen, at_least: 1}]
rollback: reverse
"""


def test_playbook_before_its_mutations_is_clean(desk: InProcessCli) -> None:
    assert _codes(desk.runbook("lint", desk.playbook("well", WELL), "--json").out) == []


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_is_found(desk: InProcessCli, mutation: str) -> None:
    other, code = MUTATIONS[mutation]
    assert mutation in WELL
    assert code in _codes(desk.runbook("lint", desk.playbook("well", WELL.replace(mutation, other, 1)), "--json").out)


def test_sarif_names_files_as_uris() -> None:
    found = Finding("RB101", Severity.NOTE, Mark("night plans/ü 1.yaml", 1, 1), "nothing proves it")
    document = json.dumps(sarif.document([found], [], version="1"))
    assert '"uri": "night%20plans/%C3%BC%201.yaml"' in document
