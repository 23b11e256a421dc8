"""What is shortened is masked first: no part of a secret stays where a text was cut, whoever cut it; F: K01."""

from __future__ import annotations

import ast
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from databases import Database
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import InProcessCli

from runner.common.secrets import MASK, PART, Masks
from steps.contract import cutting, processes, values

ROOT = Path(__file__).parents[2]
SECRET = "Zw0rdq/42+xqd:7%mzre-Wyrdk\\hqre'xv7"
LONG = (
    "-----BEGIN KEY-----\n" + "\n".join(base64.b64encode(bytes([n] * 45)).decode() for n in range(40)) + "\nEndOfKey=="
)
CUTS: dict[str, Callable[[str, int], str]] = {
    "first": cutting.first,
    "last": cutting.last,
    "shortened": cutting.shortened,
    "on_one_line": cutting.on_one_line,
}


def masks_of(*secrets: str) -> Masks:
    masks = Masks()
    for one in secrets:
        masks.add(one)
    return masks


def assert_no_part(text: str, *forms: str) -> None:
    """No piece of PART characters of any of these forms."""
    for form in forms:
        found = [form[at : at + PART] for at in range(len(form) - PART + 1) if form[at : at + PART] in text]
        assert not found, (found, text[:300])


@pytest.mark.parametrize("cut", list(CUTS))
@pytest.mark.parametrize("write", [str, repr, json.dumps, lambda text: text.encode().hex()])
def test_no_part_is_left_wherever_it_is_cut(cut: str, write: Callable[[str], str]):
    masks = masks_of(SECRET)
    told = write(SECRET)
    with cutting.masked_by(masks.mask):
        for longest in range(1, len(told) + 30):
            short = CUTS[cut](f"{'_' * 20} {told} {'_' * 20}", longest)
            assert len(short) <= longest
            assert_no_part(masks.mask(short), told.strip("'\""))


@pytest.mark.parametrize("cut", [cutting.first, cutting.last])
@pytest.mark.parametrize("size", [cutting.EDGE, cutting.BESIDE, cutting.BESIDE + 50, 3 * cutting.BESIDE])
def test_no_part_is_left_in_a_text_of_secrets(cut: Callable[[str, int], str], size: int):
    """Masking makes such a text so short that the edge of what was looked at comes into what is kept."""
    with cutting.masked_by(masks_of(SECRET).mask):
        assert_no_part(cut(SECRET * (size // len(SECRET) + 1), 50), SECRET)


@given(before=st.integers(0, 200), longest=st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_values_of_the_record_are_masked_before_they_are_cut(before: int, longest: int):
    text = "_" * before + SECRET + "_" * (values.LONGEST + longest)
    found = [values.bounded({"a": text, "b": text.encode()}), values.bounded({"a": [text] * (values.MOST + 1)})]
    with cutting.masked_by(masks_of(SECRET).mask):
        found += [values.bounded({"a": text, "b": text.encode()}), values.bounded({"a": [text] * (values.MOST + 1)})]
    for one in (value for result in found[2:] for value in result.values()):
        assert isinstance(one, values.Cut)
        assert_no_part(one.shown, SECRET, SECRET.encode().hex())


@pytest.mark.parametrize("mark", ["…", "...", "\\u2026"])
@pytest.mark.parametrize("secret", [SECRET, LONG])
def test_part_beside_somebody_elses_cut_is_masked(secret: str, mark: str):
    """A server keeps 64 bytes of each value of a failing row; pytest and repr leave out the middle."""
    masks = masks_of(secret)
    for told in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], secret.encode().hex()):
        for size in (PART, len(told) // 3, len(told) - 1):
            shown = masks.mask(f"Failing row contains (7, {told[:size]}{mark}, x) and {mark}{told[-size:]}; ends")
            if secret is LONG:  # of which each line is a secret of its own
                assert_no_part(shown, told.replace("\\n", "\n").replace(b"\n".hex(), "\n").splitlines()[1][:40])
                continue
            parts = (
                shown.removeprefix("Failing row contains (7, ").removesuffix("; ends").split(f"{mark}, x) and {mark}")
            )
            assert all(part.replace(MASK, "").strip("\\n") == "" for part in parts), (size, shown)
    assert masks.mask(f"nothing of it{mark} is here") == f"nothing of it{mark} is here"


def test_lines_of_a_secret_are_masked_alone():
    """Messages are split into lines, indented, and told by their first or their last one."""
    masks = masks_of(LONG)
    for line in [*LONG.splitlines(), " ".join(LONG.split()), *(f"E   {line}" for line in LONG.splitlines())]:
        assert_no_part(masks.mask(line).replace(MASK, ""), line.removeprefix("E   "))
    for coded in (base64.encodebytes(LONG.encode()).decode(), base64.encodebytes(LONG.encode() * 1).decode()):
        for line in coded.splitlines():
            assert masks.mask(line) == MASK or len(line) < PART + 2, line


@pytest.mark.parametrize("secret", [SECRET, "Two  Words\tand\\more", 'quo"ted,\\x y'])
def test_further_spellings_are_masked(secret: str):
    """As servers fold names, as records, arrays and COPY quote, as a shell escapes."""
    masks = masks_of(secret)
    doubled = secret.replace("\\", "\\\\")
    for told in (
        secret.lower(), secret.upper(), " ".join(secret.split()), doubled.replace('"', '\\"'), doubled.replace('"', '""'),
        doubled.replace("\t", "\\t"), secret.replace('"', '""'),
    ):  # fmt: skip
        assert masks.mask(f"<{told}>") == "<***>"


def test_output_of_a_child_is_masked_before_it_is_cut(tmp_path: Path):
    script = tmp_path / "print.py"
    script.write_text("import sys\nsys.stdout.write(sys.argv[1] * int(sys.argv[2]) + '_' * int(sys.argv[3]))\n")
    kept, half = processes.KEPT_BYTES, len(SECRET) // 2
    with cutting.masked_by(masks_of(SECRET).mask):
        for times, after in ((1, kept - half), (1, kept - 5), (9000, 0), (9000, kept - half)):
            argv = [sys.executable, str(script), SECRET, str(times), str(after)]
            finished = processes.run(argv, timeout_s=60, env=processes.environment())
            assert_no_part(finished.stdout, SECRET)


# ─── in a run ───────────────────────────────────────────────────────────────────────────────────────────────────────
PROBES = """
import os, sys
token = os.environ["RUNBOOK_INPUT_TOKEN"]
before, after = map(int, sys.argv[1:3])
sys.stderr.write("_" * before + token + "_" * after)
sys.exit(int(sys.argv[3]))
"""
SUITE = """
import os
def test_it():
    token = os.environ["RUNBOOK_INPUT_TOKEN"]
    assert token + "x" * 4000 == "", "_" * 3000 + token
"""


def assert_no_part_anywhere(desk: InProcessCli, told: str) -> None:
    assert_no_part(told, SECRET)
    for path in (desk.directory / "runs").rglob("*"):
        if path.is_file():
            assert_no_part(path.read_text(errors="replace"), SECRET)


@pytest.mark.parametrize("half", [8, 20, 30])
def test_no_part_is_left_in_a_run(empty_database: Database, tmp_path: Path, half: int):
    """Each place of a run at which a text is shortened gets one whose cut goes through the secret."""
    desk = InProcessCli(tmp_path, empty_database.url)
    (tmp_path / "print.py").write_text(PROBES)
    (tmp_path / "test_suite.py").write_text(SUITE)
    program = f"{sys.executable}, print.py"
    desk.playbook("cuts", f"""runbook: 1
name: cuts
title: Cuts
inputs: {{token: {{secret: true, required: true}}}}
steps:
  - {{id: add, type: sql, text: CREATE TABLE t (a text), if_stopped_here: safe}}
  - id: fails
    type: command
    argv: [{program}, '0', '{500 - half}', '1']
    env_from: [RUNBOOK_INPUT_TOKEN]
""")  # fmt: skip
    env = {"RUNBOOK_INPUT_TOKEN": SECRET}
    done = desk.runbook("exec", "cuts.yaml", **env)
    assert done.code == 1, done.text
    assert_no_part_anywhere(desk, done.text)
    for words in (
        f"SELECT {'1' * (152 - half)} AS a, '{SECRET.replace(chr(39), chr(39) * 2)}' FROM nowhere",
        f"INSERT INTO t VALUES ('{'1' * (80 - half)}{SECRET.replace(chr(39), chr(39) * 2)}')",
    ):
        told = desk.runbook("sql", "latest", "-c", words, "--as", "ann", "--reason", "by hand", **env)
        assert_no_part_anywhere(desk, told.text)
    desk.playbook("checks", f"""runbook: 1
name: checks
title: Checks
inputs: {{token: {{secret: true, required: true}}}}
steps:
  - {{id: make, type: sql, text: 'CREATE TABLE t2 (brief text, cut text)'}}
  - id: put
    type: sql
    text: INSERT INTO t2 VALUES (:brief, :cut)
    params: {{brief: "{'_' * (192 - half)}{{{{ token }}}}{'_' * 200}", cut: "{'_' * (200 - half)}{{{{ token }}}}{'_' * 5000}"}}
success_criteria:
  - {{id: brief, check: query, query: SELECT brief FROM t2, record_only: shown}}
  - {{id: cut, check: query, query: SELECT cut FROM t2, record_only: shown}}
  - {{id: program, check: command, argv: [{program}, '50', '{4096 - half}', '1'], env_from: [RUNBOOK_INPUT_TOKEN]}}
  - {{id: suite, check: pytest, path: test_suite.py, env_from: [RUNBOOK_INPUT_TOKEN]}}
""")  # fmt: skip
    done = desk.runbook("exec", "checks.yaml", **env)
    assert done.code == 3, done.text
    assert_no_part_anywhere(desk, done.text)
    for words in (("status",), ("report",), ("trail", "show")):
        assert_no_part(desk.runbook(*words, "latest", **env).text, SECRET)


# ─── in the code ────────────────────────────────────────────────────────────────────────────────────────────────────
PLAIN = {  # what is cut here holds no secret: hashes, names of our own, numbers, or words of the playbook's own text
    "runner/target/search_path.py",
    "runner/playbook/yaml_advice.py",
    "runner/trail/trail.py",
    "runner/target/targets_file.py",
    "runner/target/runs.py",
    "runner/target/workplace.py",
    "runner/target/database.py",
    "runner/run/lease.py",
    "runner/monitor/units.py",
    "steps/sql/session_statements.py",
    "steps/types/rebuild/step.py",
    "steps/types/indexes.py",
    "steps/types/rebuild/parts.py",
    "runner/playbook/yaml_reader.py",
    "steps/sql/dialect.py",
    "runner/commands/options.py",
}


def test_texts_are_cut_in_one_place():
    """A slice by a number of 20 or more is a text that is shortened: it goes through steps/contract/cutting.py."""
    found = []
    for path in [*ROOT.glob("runner/**/*.py"), *ROOT.glob("steps/**/*.py")]:
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Slice) and name not in PLAIN | {"steps/contract/cutting.py"}:
                found += [f"{name}:{node.lineno}" for one in (node.lower, node.upper) if _large(one)]
    assert not found, f"use steps.contract.cutting, or say in PLAIN why no secret can be in it: {found}"


def _large(bound: ast.expr | None) -> bool:
    number = bound.operand if isinstance(bound, ast.UnaryOp) else bound
    return isinstance(number, ast.Constant) and isinstance(number.value, int) and number.value >= 20
