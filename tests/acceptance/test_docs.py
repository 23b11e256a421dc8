"""The documentation holds: each link leads somewhere, each command and playbook shown runs, and prints what is shown."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import persisted_words
import psycopg
import pytest
from databases import Databases
from documents import PAGES, README, ROOT, Fence, Page
from workshop import Workshop, Wrong, agree, made, normal, renewed

from runner.cli import GROUPS, cli
from runner.format.json_schema import schema
from runner.playbook.load import load_file
from runner.playbook.yaml_reader import parse
from runner.target.targets_file import load_targets

READ = [Page.read(path) for path in PAGES]
FENCES = [fence for page in READ for fence in page.fences]
LANGUAGES = {"console", "sh", "yaml", "python", "sql", "json", "text"}
MOST_NOT_RUN = 10  # fences that no test can run; each says why in its first line
PLACEHOLDER = re.compile(r"…|\b[A-Z][A-Z_]{2,}\b")


# ─── links and names ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Page) -> None:
    lost = []
    for link in page.links:
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        there = (page.path.parent / file).resolve() if file else page.path
        if not there.exists() or (anchor and anchor not in Page.read(there).anchors):
            lost.append(link)
    assert not lost


def test_every_page_is_linked_from_the_readme_or_an_index() -> None:
    linked = {
        (page.path.parent / link.partition("#")[0]).resolve()
        for page in READ
        for link in page.links
        if "://" not in link
    }
    assert not [page.name for page in READ if page.path != README and page.path not in linked]


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_files_and_tests_that_are_named_exist(page: Page) -> None:
    if page.path.name == "CHANGELOG.md":
        pytest.skip("it tells of what was")
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    missing = []
    for words in page.inline:
        if re.fullmatch(r"(docs|playbooks|runner|steps|tests|benchmarks)/[\w/.-]+", words):
            missing += [] if (ROOT / words).exists() or words in EXAMPLES_OF_NEW_FILES else [words]
        for one in re.findall(r"\btest_\w+", words):
            if not list((ROOT / "tests").rglob(f"{one}.py")) and one not in tests:
                missing.append(one)
    assert not missing


EXAMPLES_OF_NEW_FILES = {
    "steps/types/comments.py",
    "steps/probes/extensions.py",
}  # CONTRIBUTING.md shows how to write them


# ─── commands within sentences ──────────────────────────────────────────────────────────────────────────────────────
def _command_of(words: list[str]) -> tuple[click.Command | None, list[str]]:
    found = cli.get_command(click.Context(cli), words[0])
    if isinstance(found, click.Group) and len(words) > 1 and (below := found.commands.get(words[1])) is not None:
        return below, words[2:]
    return found, words[1:]


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_commands_within_sentences_have_these_options(page: Page) -> None:
    wrong = []
    for text in page.inline:
        words = text.split()
        if words[0] != "runbook" or len(words) < 2 or PLACEHOLDER.match(words[1]):
            continue
        command, rest = _command_of(words[1:])
        known = {"--help", "--version"}
        for one in command.params if command is not None else []:
            known |= {*one.opts, *one.secondary_opts}
        options = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        if (command is None and not words[1].startswith("-")) or options - known:
            wrong.append(text)
    assert not wrong


def test_readme_names_every_command() -> None:
    named = set(Page.read(README).inline)
    assert {name for group in GROUPS.values() for name in group} <= {word for one in named for word in one.split()}


# ─── blocks of code ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_blocks_say_their_language() -> None:
    assert not [str(fence) for fence in FENCES if fence.language not in LANGUAGES]


def test_few_blocks_are_not_run_and_say_why() -> None:
    skipped = [fence for fence in FENCES if fence.not_run]
    assert all(len(fence.not_run) > 10 for fence in skipped)
    assert len(skipped) <= MOST_NOT_RUN, [str(fence) for fence in skipped]


@pytest.mark.parametrize("fence", [one for one in FENCES if one.language == "yaml"], ids=str)
def test_yaml_is_valid(fence: Fence, tmp_path: Path) -> None:
    """A playbook loads; a part of one fits the schema; what is written to a file is used by the page's commands."""
    data = parse(fence.text, str(fence)).data
    if isinstance(data, dict) and "targets" in data:
        file = tmp_path / "targets.yaml"
        file.write_text(fence.text)
        assert load_targets(file).targets
    elif isinstance(data, dict) and "runbook" in data:
        shutil.copytree(ROOT / "playbooks", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("demo"))
        file = tmp_path / (fence.title or "shown.yaml")
        file.write_text(fence.text)
        assert load_file(file).entries
    else:
        _fits(data, fence)


def _fits(data: object, fence: Fence) -> None:
    """A part of a playbook: keys of its header or of a step, steps, checks or guards."""
    jsonschema = pytest.importorskip("jsonschema")
    whole = schema()
    refs = {name: {"$ref": f"#/$defs/{name}"} for name in ("step", "check", "criterion", "guard")}
    shapes: list[dict[str, object]] = [{"type": "array", "items": one} for one in refs.values()]
    shapes.append({"type": "object", "properties": whole["properties"], "additionalProperties": False})
    of_steps: dict[str, list[object]] = {}
    for each in (one["properties"] for name, one in whole["$defs"].items() if name.startswith("step.")):
        for key, one in each.items():
            of_steps.setdefault(key, []).append(one)
    of_any = {key: {"anyOf": each} for key, each in of_steps.items()}
    shapes.append({"type": "object", "properties": of_any, "additionalProperties": False})
    shapes += refs.values()
    faults = []
    for shape in shapes:
        validator = jsonschema.Draft202012Validator({**shape, "$defs": whole["$defs"]})
        faults.append([error.message[:150] for error in validator.iter_errors(data)])
        if not faults[-1]:
            return
    raise AssertionError(f"{fence} is no part of a playbook: {min(faults, key=len)}")


@pytest.mark.parametrize("fence", [one for one in FENCES if one.language == "python"], ids=str)
def test_python_compiles(fence: Fence) -> None:
    ast.parse(fence.text)


# ─── commands ───────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Read:
    """The directory and the databases as the README leaves them; wrong: what the README shows that isn't so."""

    workshop: Workshop
    wrong: list[Wrong]


@pytest.fixture(scope="module")
def readme(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Somebody who has done all that the README shows: every other page goes on from there."""
    try:
        databases.kind("pg18")
    except LookupError as missing:
        pytest.skip(str(missing))
    with made(databases, tmp_path_factory.mktemp("app")) as workshop:
        yield Read(workshop, workshop.follow(Page.read(README)))


@pytest.fixture
def workshop(readme: Read) -> Workshop:
    return readme.workshop


TYPED = [page for page in READ if any(one.language in {"console", "sh"} and not one.not_run for one in page.fences)]


@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.name)
def test_commands_print_what_is_shown(page: Page, readme: Read) -> None:
    wrong = readme.wrong if page.path == README else readme.workshop.follow(page)
    assert not wrong, "\n\n".join(map(str, wrong))


@pytest.mark.parametrize("fence", [one for one in FENCES if one.language == "sql"], ids=str)
def test_sql_runs_on_both_databases(fence: Fence, workshop: Workshop) -> None:
    """Queries over the ledger; SQLite's names of its tables differ by one sign."""
    statements = [one for one in re.sub(r"--[^\n]*", "", fence.text).split(";") if one.strip()]
    with psycopg.connect(workshop.server) as connection:
        for one in statements:
            connection.execute(one)
    with contextlib.closing(sqlite3.connect(workshop.directory / "app.db")) as connection:
        for one in statements:
            connection.execute(re.sub(r"\brunbook\.(\w+)", r"runbook_\1", one))


def test_status_file_of_a_run_has_the_frozen_keys(workshop: Workshop) -> None:
    """As the run has written it, which knows what the list was derived without."""
    frozen = {key for key in persisted_words.frozen()["status.json"] if "." not in key}
    for file in (workshop.directory / "runs").glob("*/status.json"):
        assert set(json.loads(file.read_text())) == frozen


# ─── the reader itself ──────────────────────────────────────────────────────────────────────────────────────────────
def test_output_that_differs_is_seen() -> None:
    assert agree(["a  b", "…", "c"], ["a b", "x", "y", "c"])
    assert agree(["a … c"], ["a b c"])
    assert not agree(["a", "c"], ["a", "b", "c"])
    assert not agree(["a … c"], ["a b d"])
    assert not agree(["a"], ["a", "b"])
    assert normal("x-20261122-130326-6b0b in 1.2 s") == "x-RUN in SPAN"


def test_page_is_written_anew_where_words_have_changed() -> None:
    shown = ["…", "rolled back: x", "           3 rows", "…", "next  runbook report"]
    printed = ["run x", "rolled back: x", "state  3 rows", "call  nobody", "next  runbook report x", "bye"]
    new = renewed(shown, printed)
    assert new == ["…", "rolled back: x", "state  3 rows", "…", "next  runbook report x", "bye"]
    assert agree(new, printed)


def test_changelog_has_one_section_a_release() -> None:
    """Keep a Changelog's form: what is so now, grouped by kind, and no diary."""
    page = Page.read(ROOT / "CHANGELOG.md")
    headings = re.findall(r"^(#+) (.+)$", page.text, re.MULTILINE)
    releases = [words for rank, words in headings if rank == "##"]
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", words) for words in releases[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for release in releases:
        found = re.findall(r"^### (.+)$", page.section(release), re.MULTILINE)
        assert len(found) == len(set(found)) and set(found) <= kinds
