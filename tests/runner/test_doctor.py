"""runbook doctor: its answer for the store in every state, for playbooks and runs, and for what was left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import half_done
import pytest
from command import Done, proven
from databases import Database
from inside import InProcessCli, written

from playbooks.demo import migration

SHAPES = Path(__file__).parents[2] / "playbooks" / "adr007-shapes.yaml"
VERSIONS = ["pg15", "pg18"]


@pytest.fixture(params=VERSIONS)
def store(request: pytest.FixtureRequest, databases):
    try:
        kind = databases.kind(request.param)
    except LookupError as missing:
        pytest.skip(str(missing))
    with kind.database() as database:
        half_done.v15(database)
        yield database


@pytest.fixture
def desk(store: Database, tmp_path: Path) -> InProcessCli:
    (tmp_path / SHAPES.name).write_text(SHAPES.read_text())
    return InProcessCli(tmp_path, store.url)


def answer(done: Done) -> dict:
    return json.loads(done.out)


def shape_of(done: Done, name: str) -> dict:
    return next(one for one in answer(done)["shapes"] if one["name"] == name)


def test_a_store_at_v15_is_well_and_its_data_passes(desk: InProcessCli):
    done = desk.runbook("doctor", SHAPES.name)
    assert done.code == 0, done.text
    assert "shape v15: whole" in done.out
    assert "shape v16: absent" in done.out
    assert "✓ asn_is_a_number" in done.out
    assert "left behind: nothing was found" in done.out
    assert "runbook plan adr007-v16" in done.out


def test_each_half_done_state_is_3_and_proposes_the_recovery(desk: InProcessCli, store: Database):
    half_done.STATES["index_invalid"](store)
    done = desk.runbook("doctor", "v16")
    assert done.code == 3
    assert "shape v16: half" in done.out
    assert "index idx_session_snapshot_asn on session_summaries: is INVALID (indisvalid is false)" in done.out
    then = answer(desk.runbook("doctor", "v16", "--json"))["next"]
    assert [one.partition(" -t ")[0] for one in then] == ["runbook plan adr007-recovery"], (
        "and nothing that goes around it"
    )


def test_a_version_row_is_a_finding_and_no_proof(desk: InProcessCli, store: Database):
    store.script("UPDATE schema_state SET value = '16'")
    v16 = shape_of(desk.runbook("doctor", "v16", "--json"), "v16")
    assert v16["state"] == "half"
    half_done.migrate(store)
    store.script("UPDATE schema_state SET value = '15'")
    done = desk.runbook("doctor", "v16", "--json")
    assert done.code == 3
    [version] = shape_of(done, "v16")["parts"]
    assert version["evidence"] == "value is '15', declared '16' (as in v15)"


def test_whole_is_0(desk: InProcessCli, store: Database):
    half_done.migrate(store)
    done = desk.runbook("doctor", "v16")
    assert done.code == 0, done.text
    assert "shape v16: whole" in done.out


def test_who_still_changes_it_is_named_and_how_to_end_it(desk: InProcessCli, store: Database):
    with half_done.running(store) as pid:
        done = desk.runbook("doctor", "v16")
    assert done.code == 3
    assert "still being changed" in done.out
    assert f"pid {pid}" in done.out
    assert f"SELECT pg_terminate_backend({pid})" in done.out


def test_what_a_running_migration_locks_makes_no_question_hang(desk: InProcessCli, store: Database):
    (desk.directory / "change.yaml").write_text(
        proven(
            "runbook: 1\nname: change\ntitle: A change\ninclude: adr007-shapes.yaml\nsteps:\n"
            "  - {id: add, type: add_column, column: session_summaries.note, of_type: text}\n"
        )
    )
    half_done.migrate(store, until="fill_ip_inventory")
    with store.session() as other:
        other.execute("BEGIN; LOCK TABLE ip_inventory, session_summaries IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        for words in ((), ("v16",), ("change",)):
            done = desk.runbook("doctor", *words)
            assert done.code == (3 if words else done.code), done.text
            assert "Traceback" not in done.err
        assert time.monotonic() - began < 60


def test_data_that_would_make_it_fail_is_shown_and_one_unreadable_row_stops_nothing(
    desk: InProcessCli, store: Database
):
    store.script(
        "INSERT INTO session_summaries (session_id, enrichment) VALUES"
        """ ('bad-asn', '{"cymru": {"asn": "AS13335"}}'), ('asn-0', '{"cymru": {"asn": "0"}}'),"""
        """ ('three', '{"maxmind": {"country": "DEU"}}'), ('unreadable', '{"cymru": "\\u0000"}'),"""
        """ ('timeless', '{"dshield": {"ip": {"number": "10.8.8.8"}}}')"""
    )
    done = desk.runbook("doctor", SHAPES.name, "--json")
    assert done.code == 3
    rules = {one["name"]: one for one in shape_of(done, "v16")["must_hold"]}
    assert (rules["json_is_readable"]["rows"], rules["json_is_readable"]["unreadable"]) == (0, 1)
    assert rules["json_is_readable"]["examples"] == ["session_id=unreadable: unsupported Unicode escape sequence"]
    assert rules["asn_is_a_number"]["rows"] == 2
    assert rules["country_has_two_letters"]["examples"] == ["session_id=three"]
    assert rules["country_fits_the_inventory"]["rows"] == 1
    assert rules["address_was_seen_at_a_time"]["examples"] == ["address=10.8.8.8, sessions=1"]


def test_a_rule_that_could_not_be_asked_is_no_row_at_fault(desk: InProcessCli, store: Database):
    (desk.directory / "ours.yaml").write_text(
        "runbook: 1\nshapes:\n  ours:\n    tables: {files: {columns: {note: text}}}\n"
        "    must_hold: {named: {table: files, key: id, holds: no_such > 0}}\n"
    )
    done = desk.runbook("doctor", "ours.yaml")
    assert done.code == 3 and "let named be asked" in done.out and "mend the rows" not in done.out, done.text


def test_what_is_written_is_whole_and_the_same_each_time(desk: InProcessCli, store: Database):
    half_done.migrate(store)
    words = ("doctor", "--write", "now", "--tables", "session_summaries,ip_inventory,asn_inventory")
    first, second = desk.runbook(*words), desk.runbook(*words)
    assert (first.code, first.out) == (0, second.out)
    assert desk.runbook(*words, "-o", "now.yaml").code == 0
    assert (desk.directory / "now.yaml").read_text() == first.out
    assert desk.runbook(*words, "-o", "now.yaml").code == 6
    done = desk.runbook("doctor", "now.yaml", "--json")
    assert (done.code, shape_of(done, "now")["parts"], shape_of(done, "now")["more"]) == (0, [], [])
    store.script("ALTER TABLE ip_inventory ADD COLUMN note text")
    assert shape_of(desk.runbook("doctor", "now.yaml", "--json"), "now")["more"] == ["column ip_inventory.note"]


def test_what_is_declared_so_is_not_left_behind(desk: InProcessCli, store: Database):
    """A constraint that is declared as not validated, a disabled trigger; in a shape that the target hasn't they don't count."""
    store.script("""ALTER TABLE files ADD CONSTRAINT "it's new" CHECK (id > 0) NOT VALID;
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER rests BEFORE INSERT ON files FOR EACH ROW EXECUTE FUNCTION nothing(); ALTER TABLE files DISABLE TRIGGER rests""")
    assert desk.runbook("doctor", "--write", "now", "--tables", "files", "-o", "now.yaml").code == 0
    done = desk.runbook("doctor", "now.yaml", "--json")
    assert (done.code, answer(done)["leftovers"]) == (0, [])
    store.script("ALTER TABLE files ADD COLUMN note text")
    done = desk.runbook("doctor", "now.yaml", "--json")
    assert (done.code, len(answer(done)["leftovers"])) == (3, 2)


def test_what_runs_keep_is_named_and_harmless(desk: InProcessCli, store: Database):
    """By the name that a statement needs, whatever was kept in whichever way."""
    store.script("""CREATE TABLE "We're ""here"" " (id int PRIMARY KEY, n int)""")
    written(
        desk,
        """
- {id: copy, type: keep, what: SELECT 1 AS one, into: copied, because: a test}
- {id: column, type: drop_column, column: 'We''re "here" .n'}
- {id: gone, type: drop_table, table: 'We''re "here" '}
""",
    )
    assert desk.runbook("exec", "change.yaml").code == 0
    done = desk.runbook("doctor", "--json")
    left = answer(done)["leftovers"]
    assert (done.code, len(left)) == (0, 3) and all(one["harmless"] for one in left)
    for one in left:
        store.script(f"DROP TABLE {one['name']}")
    assert answer(desk.runbook("doctor", "--json"))["leftovers"] == []


def test_only_the_difference_to_a_base_is_written(desk: InProcessCli, store: Database):
    store.script("ALTER TABLE files ADD COLUMN note text; ALTER TABLE files DROP COLUMN filename")
    done = desk.runbook("doctor", SHAPES.name, "--write", "then", "--tables", "files", "--from", "v15")
    assert done.out == (
        "runbook: 1\nshapes:\n  then:\n    postgresql:\n      from: v15\n      tables:\n        files:\n          columns:\n"
        "            note: text\n      absent:\n        - files.filename\n"
    )


def test_without_a_subject_it_finds_what_was_left_behind(desk: InProcessCli, store: Database):
    assert desk.runbook("doctor").code == 0
    half_done.STATES["key_not_valid"](store)
    store.script(
        "ALTER TABLE ip_inventory ALTER COLUMN is_bogon DROP EXPRESSION;"
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER _pgroll_trigger_files BEFORE INSERT ON files FOR EACH ROW EXECUTE FUNCTION nothing();"
        "CREATE TABLE _files_gho (id int)"
    )
    done = desk.runbook("doctor", "--json")
    assert done.code == 3
    found = {(one["kind"], one["name"]) for one in answer(done)["leftovers"]}
    assert found == {
        ("constraint", "fk_ip_current_asn on public.ip_inventory"),
        ("column", "ip_inventory.is_bogon"),
        ("trigger", "_pgroll_trigger_files on public.files"),
        ("table", "public._files_gho"),
    }


def test_a_playbook_and_a_run_are_asked_by_their_own_steps(desk: InProcessCli, store: Database):
    (desk.directory / "change.yaml").write_text(
        proven(
            "runbook: 1\nname: change\ntitle: A change\ninclude: adr007-shapes.yaml\nsteps:\n"
            "  - {id: add, type: add_column, column: files.note, of_type: text}\n"
            "  - {id: ask, type: checkpoint, approval: {roles: [dba], need: 1}}\n"
            "  - {id: index, type: create_index, table: files, columns: [note], name: ix_note}\n"
        )
    )
    before = answer(desk.runbook("doctor", "change", "--json"))
    assert [(one["id"], one["state"]) for one in before["steps"]] == [("add", "not_done"), ("index", "not_done")]
    assert desk.runbook("exec", "change").code == 5
    done = desk.runbook("doctor", "latest", "--json")
    said = answer(done)
    assert done.code == 3
    assert said["run"].startswith("waiting")
    assert [(one["id"], one["state"]) for one in said["steps"]] == [("add", "done"), ("index", "not_done")]
    [still_open] = said["open_runs"]
    assert still_open.startswith("run change-")
    assert ": waiting, " in still_open
    store.script("ALTER TABLE files DROP COLUMN note")
    [add, _] = answer(desk.runbook("doctor", "latest", "--json"))["steps"]
    assert (add["state"], add["faults"]) == (
        "not_done",
        ["the run did it and has not taken it back, but it is not there any more"],
    )


def test_a_role_that_only_reads_is_told_what_it_cannot_see(desk: InProcessCli, store: Database):
    half_done.migrate(store)
    store.script("CREATE ROLE looker LOGIN; GRANT USAGE ON SCHEMA public TO looker")
    try:
        blind = InProcessCli(desk.directory, store.url.replace("owner@", "looker@"))
        done = blind.runbook("doctor", "v16", "--json")
        assert done.code == 3
        assert shape_of(done, "v16")["state"] == "unknown"
        store.script("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
        assert blind.runbook("doctor", "v16").code == 0
    finally:
        store.script("DROP OWNED BY looker; DROP ROLE looker")


def test_a_word_that_means_nothing_is_refused(desk: InProcessCli):
    done = desk.runbook("doctor", "nothing")
    assert done.code == 6
    assert "it is no playbook, no shape and no run" in done.text


# ─── SQLite ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def lite(databases, tmp_path: Path):
    (tmp_path / SHAPES.name).write_text(SHAPES.read_text())
    with databases.kind("sqlite").database() as database:
        for statement in [*migration.tables("sqlite"), *migration.indexes("sqlite")]:
            database.script(statement)
        yield database


def test_sqlite_has_the_same_answers(lite: Database, tmp_path: Path):
    desk = InProcessCli(tmp_path, lite.url)
    assert desk.runbook("doctor", SHAPES.name).code == 0
    statements = migration.v16("sqlite")
    lite.script(
        'INSERT INTO session_summaries (session_id, enrichment) VALUES (\'one\', \'{"dshield": {"ip": {"number": "10.0.0.1"}}}\')'
    )
    lite.script(
        "UPDATE session_summaries SET first_event_at = '2025-01-01 00:00:00', last_event_at = '2025-01-01 00:00:00'"
    )
    for n, statement in enumerate(statements):
        lite.script(statement.sql)
        state = shape_of(desk.runbook("doctor", "v16", "--json"), "v16")["state"]
        assert state == ("whole" if n == len(statements) - 1 else "half"), statement.name


def test_sqlite_views_that_do_not_compile_are_left_behind(lite: Database, tmp_path: Path):
    lite.script("CREATE VIEW gone AS SELECT no_such FROM files; CREATE TABLE runbook_kept (id int)")
    done = InProcessCli(tmp_path, lite.url).runbook("doctor", "--json")
    found = {one["name"]: one for one in answer(done)["leftovers"]}
    assert done.code == 3
    assert found["gone"]["evidence"] == "it doesn't compile: no such column: no_such"
    assert found["runbook_kept"]["harmless"]


def test_unreadable_rows_are_found_among_many(lite: Database, tmp_path: Path):
    """At the start, at the end, two side by side, and alone in the middle: each is counted, and the rest is judged."""
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) "
    lite.script(
        rows + "INSERT INTO session_summaries (session_id, enrichment) SELECT printf('%05d', i),"
        " CASE WHEN i IN (1, 5000, 5001, 7777, 12000) THEN '{' WHEN i % 4000 = 17 THEN '{\"a\": 0}' ELSE '{\"a\": 1}' END FROM n"
    )
    (tmp_path / "data.yaml").write_text(
        "runbook: 1\nshapes:\n  later:\n    tables: {later: {}}\n    must_hold:\n"
        "      a_is_one: {table: session_summaries, key: session_id, holds: \"json_extract(enrichment, '$.a') = 1\"}\n"
    )
    done = InProcessCli(tmp_path, lite.url).runbook("doctor", "later", "--json")
    assert done.out, done.err
    [rule] = shape_of(done, "later")["must_hold"]
    assert (rule["rows"], rule["unreadable"], len(rule["examples"])) == (3, 5, 3)
