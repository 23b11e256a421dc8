"""From YAML to a playbook: every rule of the header, of checks and of inputs, and what the digest takes in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from command import proven

from runner.common.errors import BadInput, RunRefused
from runner.playbook.inputs import SecretOnCommandLine
from runner.playbook.load import HEADER, load, load_file
from runner.playbook.model import Playbook
from runner.playbook.yaml_reader import Faulty

HEAD = "runbook: 1\nname: p\ntitle: T\n"
STEP = "steps:\n  - {id: s, type: sql, text: UPDATE t SET a = 1 WHERE b = 2}\n"
EVERYTHING = """runbook: 1
name: whole
title: Everything that a header can have
description: words
owner: db team
contacts: {on call: "+41 44 000 00 00"}
links: {plan: "https://example.org/plan"}
revision: "3"
reviewed: "2026-11-01"
review_after: "2027-05-01"
takes: 5 min
include: shared.yaml
schema: app
search_path: [app, tools]
target: {postgresql: ">=14", sqlite: ">=3.38"}
inputs: {rows: {type: integer, default: 10, min: 1, max: 100}}
limits: {covered_pct: 95}
queries: {mine: SELECT 1 AS one}
shapes: {then: {tables: {t: {columns: {a: integer}}}}}
requires: [{playbook: earlier, as: before, within: 7 days}]
removes: [gone]
window: 2 h
open: {days: Tue-Thu, from: "09:00", to: "16:00", zone: Europe/Berlin}
scope: target
lock: {wait: 200 ms, retry_for: 5 min}
timeout: {look: 10 s, statement: 20 s, long: 1 h}
retry: {attempts: 2}
preconditions:
  - {id: there, check: query, query: mine, that: one == 1}
steps:
  - {id: change, type: sql, text: UPDATE t SET a = 1 WHERE b = 2, lock: {wait: 1 s}}
success_criteria:
  - {id: covered, check: query, query: SELECT 99 AS pct, that: pct >= limits.covered_pct}
monitors:
  - {id: still_covered, check: query, query: SELECT 99 AS pct, that: pct >= limits.covered_pct, every: 1 d}
rollback: {none: nothing to keep}
"""
SHARED = "runbook: 1\nlimits: {accurate_pct: 99}\nqueries: {theirs: SELECT 2 AS two}\n"


def read(text: str, files: Mapping[str, str] | None = None, **inputs: str) -> Playbook:
    texts = {"p.yaml": proven(text), **(files or {})}

    def reader(name: str) -> str:
        if name not in texts:
            raise BadInput(f"cannot read {name!r}")
        return texts[name]

    return load("p.yaml", reader, values=inputs)


def faults(text: str, files: Mapping[str, str] | None = None, **inputs: str) -> list[str]:
    with pytest.raises(Faulty) as caught:
        read(text, files, **inputs)
    return [str(one) for one in caught.value.faults]


def test_every_header_key_arrives():
    playbook = read(EVERYTHING, {"shared.yaml": SHARED})
    assert set(HEADER) <= {line.partition(":")[0] for line in EVERYTHING.splitlines()}, (
        "a key of the header is not tried here"
    )
    assert (playbook.name, playbook.owner, playbook.db_schema, playbook.window) == ("whole", "db team", "app", 7200)
    assert playbook.search_path == ("app", "tools")
    assert playbook.limits == {"covered_pct": 95, "accurate_pct": 99}
    assert set(playbook.queries) == {"mine", "theirs"}
    assert playbook.shapes["then"].on("sqlite").tables == ("t",)
    assert (playbook.requires[0].playbook, playbook.requires[0].short, playbook.requires[0].within) == (
        "earlier",
        "before",
        7 * 86400,
    )
    assert playbook.removes == ("gone",)
    assert [one.check.id for one in playbook.monitors] == ["still_covered"]
    assert (playbook.rollback, playbook.rollback_reason) == ("none", "nothing to keep")
    entry = playbook.entry("change")
    assert (entry.lock.wait, entry.lock.retry_for) == (1.0, 300.0), "a step changes a part of the header's policy"
    assert (entry.timeout.statement, entry.retry.attempts) == (20.0, 2)
    assert playbook.values == {"rows": 10}


def test_defaults_are_the_safe_ones():
    playbook = read(HEAD + STEP)
    entry = playbook.entry("s")
    assert (playbook.rollback, playbook.db_schema, playbook.scope) == ("reverse", "public", "target")
    assert (entry.on_failure.policy, entry.lock.wait, entry.lock.retry_for) == ("stop", 0.5, 1800.0)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (HEAD + STEP + "rolback: reverse\n", "6:1", "unknown key 'rolback' (did you mean 'rollback'?)"),
        (HEAD.replace("runbook: 1", "runbook: 2") + STEP, "1:10", "cannot read format 2: write `runbook: 1`"),
        (HEAD.replace("runbook: 1\n", "") + STEP, "1:1", "cannot read format None"),
        (HEAD, "1:1", "cannot run without `steps:`"),
        (HEAD + "steps: {a: 1}\n", "4:8", "cannot read steps: it must be a list"),
        (HEAD + "steps:\n  - nothing\n", "5:5", "cannot read this step"),
        (HEAD.replace("name: p", "name: P_1") + STEP, "2:7", "cannot use the name 'P_1'"),
        (HEAD + STEP + "limits: {a-b: 1}\n", "6:10", "cannot use the name 'a-b'"),
        (HEAD + STEP + "window: 90\n", "6:9", "cannot read 90 as a time span: write a number and its unit"),
        (HEAD + STEP + "window: 90 parsecs\n", "6:9", "the unit must be one of ms, s, min, h, days"),
        (HEAD + STEP + "lock: {wait: 200}\n", "6:14", "cannot read 200 as a time span"),
        (HEAD + STEP + "retry: {attempts: 99}\n", "6:19", "less than or equal to 20"),
        (HEAD + STEP + "requires: earlier\n", "6:11", "cannot read requires: it must be a list"),
        (HEAD + STEP + "requires: [{playbook: a, as: x}, {playbook: b, as: x}]\n", "6:34", "cannot use `as: x` for two playbooks"),
        (HEAD + STEP + "rollback: [gone]\n", "6:12", "cannot find the step 'gone'"),
        (HEAD + STEP + "rollback: {none: ''}\n", "6:11", "cannot read rollback: write `reverse`"),
        (HEAD + STEP + "queries: {q: 5}\n", "6:14", "cannot read query 'q'"),
        (HEAD + STEP + "queries: {q: {mysql: SELECT 1}}\n", "6:14", "one text for each of postgresql and sqlite"),
        (HEAD + STEP + "include: {a: b}\n", "6:10", "cannot read include: it must be a file name, or a list"),
        (HEAD + STEP + "include: gone.yaml\n", "6:10", "cannot read 'gone.yaml'"),
        (HEAD + STEP.replace("id: s,", ""), "5:5", "cannot use the id None"),
        (HEAD + STEP.replace("id: s", "id: a-b"), "5:10", "cannot use the id 'a-b'"),
        (HEAD + STEP + STEP.removeprefix("steps:\n"), "6:10", "cannot use the id 's' twice: it stands in p.yaml:5:5 already"),
        (HEAD + STEP.replace("type: sql", "type: sequel"), "5:19", "unknown step type 'sequel'"),
        (HEAD + STEP.replace("type: sql, ", ""), "5:5", "unknown step type None"),
        (HEAD + STEP.replace("text:", "txt:"), "5:24", "unknown key 'txt' (did you mean 'text'?)"),
        (HEAD + STEP.replace("}", ", guards: {a: b}}"), "5:70", "cannot read guards: it must be a list"),
        (HEAD + STEP.replace("}", ", guards: [a]}"), "5:71", "cannot read this guard"),
        (HEAD + STEP.replace("}", ", on_failure: ask}"), "5:74", "on_failure is stop, rollback, or {continue: the reason}"),
        (HEAD + STEP.replace("}", ", on_failure: {continue: ' '}}"), "5:74", "{continue: the reason}"),
        (HEAD + STEP.replace("}", ", precondition: []}"), "5:62", "did you mean 'preconditions'?"),
    ],
)  # fmt: skip
def test_fault_has_its_place(text: str, place: str, message: str):
    found = faults(text)
    assert any(one.startswith(f"p.yaml:{place}: ") and message in one for one in found), found


def test_fault_of_a_shared_policy_is_told_once():
    steps = "".join(f"  - {{id: s{n}, type: sql, text: UPDATE t SET a = 1 WHERE b = {n}}}\n" for n in range(5))
    found = faults(f"{HEAD}lock: {{wait: soon}}\nsteps:\n{steps}")
    assert len(found) == 1
    assert found[0].startswith("p.yaml:4:14: ")


def test_all_faults_at_once_in_order():
    """Nothing hides behind the first fault."""
    text = HEAD + "tilte: x\n" + STEP
    assert len(faults(text.replace("runbook: 1", "runbook: one"))) == 2
    checks = (
        "success_criteria:\n  - {id: c, check: qery}\n  - {id: c, check: query, query: SELECT 1 AS a, that: 'a = 1'}\n"
    )
    found = faults(HEAD + STEP.replace("text", "txet") + checks)
    assert [one.split(":")[1] for one in found] == sorted(one.split(":")[1] for one in found)
    assert {one.split(":")[1] for one in found} == {"5", "7", "8"}
    assert len(found) >= 4


# ─── includes ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_name_defined_twice_names_both_places():
    text = f"{HEAD}include: shared.yaml\nqueries:\n  theirs: SELECT 3 AS two\n{STEP}"
    [found] = faults(text, {"shared.yaml": SHARED})
    assert found == "p.yaml:6:3: cannot define queries.theirs twice: it stands in shared.yaml:3:19 already"


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        ("- a list\n", "shared.yaml:1:1: cannot include this: it must be a mapping"),
        ("runbook: 9\n", "shared.yaml:1:10: cannot read format 9"),
        ("runbook: 1\nsteps: []\n", "shared.yaml:2:1: cannot include 'steps'"),
        ("runbook: 1\nqueries: {a: 1, a: 2}\n", "shared.yaml:2:17: cannot use the key 'a' twice"),
        ("runbook: 1\nlimits: {bad-name: 1}\n", "shared.yaml:2:10: cannot use the name 'bad-name'"),
    ],
)
def test_fault_in_an_included_file_has_its_place(shared: str, message: str):
    assert any(
        one.startswith(message) for one in faults(f"{HEAD}include: [shared.yaml]\n{STEP}", {"shared.yaml": shared})
    )


@pytest.mark.parametrize(
    "name", ["../secret.sql", "/etc/passwd", "link.sql", "nul\\0.sql", "folder", "pipe", "gone.sql", "circle.sql"]
)
def test_file_outside_of_the_directory_is_refused(tmp_path: Path, name: str):
    """Nothing beside the playbook is read: no parent, no link that leads out, no device that never ends."""
    here = tmp_path / "here"
    (here / "folder").mkdir(parents=True)
    (tmp_path / "secret.sql").write_text("SELECT 'swordfish'")
    (here / "link.sql").symlink_to(tmp_path / "secret.sql")
    (here / "circle.sql").symlink_to("circle.sql")
    os.mkfifo(here / "pipe")
    playbook = here / "p.yaml"
    for text in (
        HEAD + f'steps:\n  - {{id: s, type: sql, text: {{file: "{name}"}}}}\n',
        HEAD + f'include: "{name}"\n' + STEP,
    ):
        playbook.write_text(text)
        with pytest.raises(Faulty, match=r"p\.yaml:\d+:\d+: cannot (read|use)") as caught:
            load_file(playbook)
        assert "swordfish" not in str(caught.value)


def test_file_that_is_not_utf8_says_where(tmp_path: Path):
    playbook = tmp_path / "p.yaml"
    playbook.write_bytes(HEAD.encode() + "# grün\n".encode("latin-1") + STEP.encode())
    with pytest.raises(Faulty, match=r"p\.yaml:4:5: cannot read the byte 0xfc: save the file as UTF-8"):
        load_file(playbook)
    (tmp_path / "s.sql").write_bytes(b"SELECT '\xfc'")
    playbook.write_text(HEAD + "steps:\n  - {id: s, type: sql, text: {file: s.sql}}\n")
    with pytest.raises(Faulty, match=r"s\.sql:1:9: cannot read the byte 0xfc"):
        load_file(playbook)


# ─── inputs ─────────────────────────────────────────────────────────────────────────────────────────────────────────
INPUTS = """inputs:
  rows: {type: integer, default: 10, min: 1, max: 100}
  share: {type: number, max: 1}
  where: {one_of: [staging, production]}
  name: {pattern: "[a-z]+"}
  fast: {type: boolean, default: false}
  wait: {type: time span, default: 5 min}
  token: {secret: true, pattern: "[a-z0-9]{8,}"}
"""


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("rows", "7", 7), ("share", "0.25", 0.25), ("where", "staging", "staging"), ("fast", "true", True),
        ("wait", "90 s", 90.0), ("name", "abc", "abc"), ("token", "hunter22", "hunter22"),
    ],
)  # fmt: skip
def test_input_gets_its_type(name: str, value: str, found: object):
    playbook = read(HEAD + INPUTS + STEP, **{name: value})
    assert playbook.values[name] == found
    assert type(playbook.values[name]) is type(found) or isinstance(found, float | str)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("rows", "0", "it must be at least 1"), ("rows", "101", "it must be at most 100"), ("rows", "1e1", "write a whole number"),
        ("rows", "1_0", "write a whole number"), ("rows", "٣", "write a whole number"), ("share", "nan", "write a number"),
        ("share", "inf", "write a number"), ("share", "x", "write a number"), ("where", "test", "it must be one of staging, production"),
        ("name", "Abc", r"it must match \[a-z\]\+"), ("fast", "yes", "write true or false"), ("wait", "5", "time span"),
        ("roes", "5", r"no such input \(did you mean 'rows'\?\)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(name: str, value: str, reason: str):
    with pytest.raises(Faulty, match=reason):
        read(HEAD + INPUTS + STEP, **{name: value})


def test_secret_input_is_never_repeated():
    """F: K01 - neither in the reason for refusing it, nor on the command line; nor has a playbook one for everybody."""
    with pytest.raises(Faulty) as caught:
        read(HEAD + INPUTS + STEP, token="Hunter-2")
    assert "Hunter-2" not in str(caught.value)
    with pytest.raises(RunRefused, match=r"RUNBOOK_INPUT_TOKEN") as refused:
        read(HEAD + INPUTS + STEP, token=SecretOnCommandLine("hunter22"))
    assert "hunter22" not in str(refused.value)
    assert (
        "a default would stand in the playbook"
        in faults(HEAD + "inputs: {t: {secret: true, default: hunter22}}\n" + STEP)[0]
    )
    assert "a secret is a text" in faults(HEAD + "inputs: {t: {secret: true, type: integer}}\n" + STEP)[0]


@pytest.mark.parametrize(
    "step",
    [
        "{id: s, type: command, argv: [login, '{{ token }}']}",
        "{id: s, type: command, argv: ['true'], revert: [login, '{{ inputs.token }}']}",
        "{id: s, type: sql, text: 'UPDATE {{ token | ident }} SET a = 1 WHERE b = 2'}",
    ],
)
def test_secret_where_others_see_it_is_a_fault(step: str):
    """F: K01, T: 4 - an argv stands in the process list, an identifier in pg_stat_activity."""
    assert any(
        "the secret input 'token' would be seen here" in one for one in faults(f"{HEAD}{INPUTS}steps:\n  - {step}\n")
    )


def test_scalar_that_is_one_input_takes_its_type():
    text = (
        HEAD
        + INPUTS
        + "steps:\n  - {id: s, type: sql, text: 'UPDATE t SET a = 1 WHERE b = :b', params: {b: '{{ rows }}'}}\n"
    )
    [entry] = read(text, rows="7").entries
    assert entry.step.model_dump()["params"] == {"b": 7}
    assert "unknown input 'roes' (did you mean 'rows'?)" in faults(text.replace("{{ rows }}", "{{ roes }}"))[0]


def test_missing_required_input_is_named():
    text = HEAD + "inputs: {ticket: {required: true, help: the change's number}}\n" + STEP
    assert faults(text) == [
        "p.yaml:4:18: cannot run without the input 'ticket': give --input ticket=… (the change's number)"
    ]
    assert "pattern can't be read" in faults(HEAD + "inputs: {a: {pattern: '['}}\n" + STEP)[0]


# ─── checks ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("{id: c, check: query, query: SELECT 1 AS a}", "cannot decide anything: write `that:`"),
        ("{id: c, check: query, query: SELECT 1 AS a, record_only: ''}", "cannot decide anything"),
        ("{id: c, check: querry, query: SELECT 1 AS a, that: a == 1}", "unknown probe 'querry' (did you mean 'query'?)"),
        ("{id: c, check: query, query: SELECT 1 AS a, taht: a == 1}", "unknown key 'taht' (did you mean 'that'?)"),
        ("{id: c, that: a == 1}", "cannot do without `check:` here"),
        ("{id: c, check: columns, table: t, has: {a: text}, that: colums == 1}", "unknown name 'colums'"),
        ("{id: c, check: query, query: SELECT 1 AS a, that: a == limits.mising}", "(did you mean 'limits.missing'?)"),
        ("{id: c, check: query, query: SELECT 1 AS a, that: a == later.a}", "unknown name 'later.a'"),
        ("{id: c, check: query, query: SELECT 1 AS a, that: a == c.a}", "unknown name 'c.a'"),
        ("{id: c, check: query, query: coverage, that: a == 1}", "cannot find the query 'coverage'"),
        ("not a mapping", "cannot read this check"),
    ],
)  # fmt: skip
def test_check_that_cannot_be(check: str, message: str):
    found = faults(f"{HEAD}limits: {{missing: 1}}\npreconditions:\n  - {check}\n{STEP}")
    assert any(message in one for one in found), found
    assert all(one.startswith("p.yaml:6:") for one in found), found


def test_check_forms_that_decide():
    checks = """preconditions:
  - {id: one, check: query, query: SELECT 1 AS a, that: a == 1, warn: a > 0}
  - {id: two, check: columns, table: t, has: {a: text}}
  - {id: three, check: query, query: SELECT 1 AS a, record_only: nobody knows yet what is right}
  - {id: four, due: later-playbook}
  - {id: five, check: query, query: SELECT 1 AS b, that: b >= one.a and b <= limits.top}
"""
    playbook = read(f"{HEAD}limits: {{top: 3}}\n{checks}{STEP}")
    assert [(one.id, bool(one.that), one.due, bool(one.record_only)) for one in playbook.preconditions] == [
        ("one", True, "", False), ("two", False, "", False), ("three", False, "", True), ("four", False, "later-playbook", False),
        ("five", True, "", False),
    ]  # fmt: skip


# ─── digest ─────────────────────────────────────────────────────────────────────────────────────────────────────────
BASE = """runbook: 1
name: p
title: One
limits: {takes: 5, why: 1}
queries: {title: SELECT 1 AS n}
preconditions:
  - {id: c, check: query, query: title, that: n == 1, why: because}
steps:
  - {id: s, type: sql, why: because, text: {file: s.sql}, params: {owner: me}}
"""
FILES = {"s.sql": "UPDATE t SET a = :owner WHERE b = 2"}


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace(
            "title: One",
            "title: Another\ndescription: more\nowner: them\ntakes: 1 h\ncontacts: {a: b}\nreviewed: today",
        ),
        BASE.replace("why: because", "why: another reason"),
        "# a comment\n" + BASE.replace("name: p\ntitle: One\n", "title: One\nname: p\n"),
        BASE.replace("{id: s, type: sql,", "{type: sql, id: s,"),
    ],
)
def test_digest_stays_with_words_for_people(text: str):
    """Comments, key order and words for people change nothing that is done."""
    assert read(text, FILES).digest == read(BASE, FILES).digest
    assert read(text, FILES).entry("s").digest == read(BASE, FILES).entry("s").digest


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (BASE.replace("takes: 5", "takes: 6"), FILES),
        (BASE.replace("why: 1", "why: 2"), FILES),
        (BASE.replace("SELECT 1 AS n", "SELECT 2 AS n"), FILES),
        (BASE.replace("n == 1", "n >= 1"), FILES),
        (BASE.replace("owner: me", "owner: you"), FILES),
        (BASE, {"s.sql": FILES["s.sql"] + " AND c = 3"}),
        (BASE.replace("name: p", "name: p2"), FILES),
        (BASE + "lock: {wait: 1 s}\n", FILES),
    ],
)  # fmt: skip
def test_digest_changes_with_what_is_done(text: str, files: dict[str, str]):
    """Also where a query or a limit has a name that is a word for people elsewhere."""
    assert read(text, files).digest != read(BASE, FILES).digest


def test_digest_takes_in_included_files():
    """By the names that are used, also through others: what else stands there locks nobody out."""
    criterion = "success_criteria: [{id: c, check: query, query: theirs, that: two >= limits.accurate_pct}]\n"
    text = f"{HEAD}include: shared.yaml\n{STEP}{criterion}"
    one, other = (read(text, {"shared.yaml": shared}).digest for shared in (SHARED, SHARED.replace("99", "98")))
    assert one != other
    assert read(text, {"shared.yaml": "# a comment\n" + SHARED}).digest == one
    assert read(text, {"shared.yaml": SHARED.replace("SELECT 2", "SELECT 3")}).digest != one
    more = (
        SHARED.replace("99}", "99, idle: 1}").replace("two}", "two, idle: SELECT 1 AS n}")
        + "inputs: {idle: {default: a}}\n"
    )
    found = read(text, {"shared.yaml": more})
    assert found.digest == one and found.meant == {}
    used = read(text.replace("b = 2", "b = :b, params: {b: '{{ idle }}'}"), {"shared.yaml": more})
    assert used.digest != one and used.meant == {"idle": "a"}
    assert read(text, {"shared.yaml": SHARED + "lock: {wait: 1 s}\n"}).digest != one, "a policy is always used"


CHAIN = """runbook: 1
queries: {outer: 'SELECT 1 AS n FROM {{ who | ident }}'}
inputs: {who: {default: a, help: as limits.deep says}}
limits: {deep: 1}
"""


@pytest.mark.parametrize(
    ("old", "new"), [("SELECT 1", "SELECT 2"), ("default: a", "default: b"), ("deep: 1", "deep: 2")]
)
def test_digest_follows_names_through_others(old: str, new: str):
    criterion = "success_criteria: [{id: c, check: query, query: outer, that: n == 1}]\n"
    text = f"{HEAD}include: shared.yaml\n{STEP}{criterion}"
    one, other = (read(text, {"shared.yaml": shared}).digest for shared in (CHAIN, CHAIN.replace(old, new)))
    assert one != other
