"""Rules of the house that no linter knows, checked on the source itself."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.common import errors
from steps.contract import RunTakenBack, running_figures
from steps.registry import step_types

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("runner", "steps") for path in (ROOT / package).rglob("*.py"))
RUNNER = [path for path in MODULES if path.is_relative_to(ROOT / "runner")]
WRITTEN = [path for path in MODULES if path.stat().st_size]  # an empty __init__.py says nothing
MAX_LINES = 500  # a ceiling; split by subject, never by count
HEAVY = ["jinja2", "psycopg", "sqlalchemy"]  # together more than the rest of a start
TEXT = {"", ".cfg", ".css", ".html", ".j2", ".json", ".md", ".py", ".sql", ".toml", ".txt", ".yaml", ".yml"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shipped() -> Iterator[Path]:
    """Every text file that people get: what is neither hidden, nor made by a tool, nor ignored by git."""
    made = {"__pycache__", "build", "dist", "runs"}
    for place, folders, files in os.walk(ROOT):
        folders[:] = [each for each in folders if each not in made and (not each.startswith(".") or each == ".ci")]
        yield from (Path(place, each) for each in files if Path(each).suffix in TEXT and each != "uv.lock")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_is_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES


@pytest.mark.parametrize("path", WRITTEN, ids=name)
def test_module_opens_with_docstring_and_future(path):
    docstring, first = ast.parse(path.read_text()).body[:2]
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    assert isinstance(first, ast.ImportFrom) and first.module == "__future__"
    assert [each.name for each in first.names] == ["annotations"]


def test_connections_are_opened_in_one_place():
    """Only there do timeouts, the application's name, the fence and the recording hold for every connection."""
    opening = re.compile(r"create_engine\(|\b(?:psycopg|sqlite3)\.connect\(|\b(?:psycopg|sqlite3)\.Connection\(")
    places = {name(path) for path in MODULES if opening.search(path.read_text())}
    plays = "runner/sandbox/demo.py"  # the application
    in_memory = {"steps/catalog/scratch.py", "runner/review/rules/runs.py"}  # an empty database that is nobody's
    assert places <= {"runner/target/database.py", "runner/target/drivers.py", plays, *in_memory}


def test_commits_are_in_one_place():
    """A crash may leave something to settle at Database.commit(label) and at trail.append, nowhere else."""
    committing = re.compile(r"\.commit\(\)|\bexecute\w*\(\s*[\"']COMMIT\b", re.IGNORECASE)
    places = {name(path) for path in MODULES if committing.search(path.read_text())}
    assert places <= {"runner/target/database.py", "runner/target/transactions.py"}


def _compared_words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Strings that something is compared with or matched against, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        for part in parts:
            for each in ast.walk(part):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.lineno, each.value


def test_runner_names_no_step_type():
    """What the engine must know of a step is an ability that the step declares; import-linter keeps the classes out."""
    kinds = set(step_types())
    found = []
    for path in RUNNER:
        if path.stem == "demo":  # it tells of its own playbooks
            continue
        tree = ast.parse(path.read_text())
        found += [f"{name(path)}:{line}: {word!r}" for line, word in _compared_words(tree) if word in kinds]
    words_of_sql = [one for one in found if "review/" in one and one.endswith("'analyze'")]  # EXPLAIN ANALYZE
    assert found == words_of_sql, "\n".join(found)


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every string, whatever it is for, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _keys(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Strings by which something is looked up, as x["key"] or x.get("key"), with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"get", "pop"}:
            parts = node.args[:1]
        else:
            continue
        yield from ((one.lineno, one.value) for one in parts if isinstance(one, ast.Constant))


def test_runner_names_no_figure_of_a_step():
    """What a figure is to guards, report and rollback is declared by the step type, or by the contract's results."""
    told = [running_figures(kind) for kind in step_types().values()]
    running = {name for one in told for name in (*one.names, *one.counted, one.set_aside, one.batch_ms) if name}
    assert {"visited", "batch_ms"} <= running
    taken_back = set(RunTakenBack.model_fields) - {"run", "steps"}
    found = []
    for path in RUNNER:
        tree = ast.parse(path.read_text())
        named = [
            (line, word) for line, word in _strings(tree) if word in running or re.search(r"\bskipped_row\b", word)
        ]
        named += [(line, word) for line, word in _keys(tree) if word in taken_back]
        found += [f"{name(path)}:{line}: {word!r}" for line, word in named]
    assert not found, "\n".join(found)


def _loaded_by(*arguments: str, among: list[str] = HEAVY) -> list[str]:
    """Which of some modules a command has loaded; the command must succeed."""
    script = (
        "import json, sys\n"
        "from runner.cli import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        f"print(json.dumps([code or 0, [each for each in {among} if each in sys.modules]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stdout + done.stderr
    return loaded


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "adr007-phase3.yaml"]], ids=" ".join)
def test_start_loads_nothing_heavy(arguments):
    assert _loaded_by(*arguments) == []


def test_guard_loads_no_step_type_that_the_playbook_does_not_name(tmp_path):
    """What a guard may name is asked of its step's own type."""
    playbook = tmp_path / "guarded.yaml"
    playbook.write_text(
        "runbook: 1\nname: guarded\ntitle: Guarded\nsuccess_criteria: {none: it only reads}\n"
        "steps:\n- {id: count, type: analyze, table: t, guards: [{id: slow, that: elapsed_s < 60}]}\n"
    )
    types = ["steps.types.upkeep", "steps.types.backfill.step", "steps.types.sql.step"]
    assert _loaded_by("validate", str(playbook), among=types) == ["steps.types.upkeep"]


def test_shipped_files_hold_no_path_of_this_machine():
    places = [re.escape(str(place)) for place in {ROOT, Path.home()} if len(place.parts) > 1]
    ours = re.compile(rf"(?<![\w.~)}}>])(?:{'|'.join(places)})(?![\w.-])|/(?:home|Users)/(?!you\b|user\b)\w+/")
    found = [
        f"{name(path)}:{number}: {line.strip()[:100]}"
        for path in shipped()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ours.search(line)
    ]
    assert not found, "\n".join(found)


def test_constraints_hold_versions_only():
    """An address would send every user to the registry of whoever made the file."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.match(r"[a-z0-9-]+==[\w.]+( ; .+)?$", line)] == []
    assert "://" not in "".join(lines)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def _error_classes(base: type[errors.RunbookError] = errors.RunbookError) -> Iterator[type[errors.RunbookError]]:
    yield base
    for each in base.__subclasses__():
        yield from _error_classes(each)


def test_exit_codes_are_unique():
    for path in RUNNER:
        importlib.import_module(name(path).removesuffix(".py").replace("/", "."))
    owned = [(vars(each)["exit_code"], each.__name__) for each in _error_classes() if "exit_code" in vars(each)]
    codes = [code for code, _ in owned]
    assert len(set(codes)) == len(codes), sorted(owned)
    assert set(codes) | {0, 2} == set(errors.EXIT_CODES)  # 0 is no error, and 2 belongs to click


def test_task_runner_explains_itself():
    """Without a set-up: whoever has just cloned reads this first."""
    done = subprocess.run([ROOT / "dev"], cwd="/", capture_output=True, text=True, check=True)
    named = re.findall(r"^  (\w+)", done.stdout, re.MULTILINE)
    handled = re.search(r"^((?:\w+ \| )+\w+)\) set_up", (ROOT / "dev").read_text(), re.MULTILINE)
    assert handled is not None and sorted(named) == sorted(handled[1].split(" | "))
    assert done.stderr == ""


def test_a_name_of_a_class_means_one_thing():
    """The same public name in two modules would make a reader look twice."""
    found: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            alias = isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation)
            if isinstance(node, ast.ClassDef) or alias:
                word = node.name if isinstance(node, ast.ClassDef) else ast.unparse(node.target)
                found.setdefault(word, []).append(name(path))
    twice = {word: places for word, places in found.items() if len(places) > 1 and not word.startswith("_")}
    assert not twice
