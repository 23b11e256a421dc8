"""A reader of the documentation: does what a page shows, in a directory and on databases of its own.

`./dev pages` writes into the pages what is printed otherwise now.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from unittest import mock

import psycopg
from databases import Databases, fast_directory
from documents import PAGES, ROOT, Command, Fence, Page, commands

from runner import cli

PLACE = "/home/you/app"  # where the pages work
SERVER = "postgresql://you@localhost/app"  # the PostgreSQL database of the pages
WIDTH = "100"
ALIKE = 0.5  # from there on a printed line is the one that a page shows, in other words
_NORMAL = (  # what differs from run to run, and the word that stands for it on both sides
    (re.compile(r"\b([a-z][a-z0-9-]*)-\d{8}-\d{6}-[0-9a-f]{4}\b"), r"\1-RUN"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00)?"), "AT"),
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "HASH"),
    (re.compile(r"\b\d[\d,.]* (ms|s|min|h)\b"), "SPAN"),
    (re.compile(r"\b(seconds|rows_per_second) [\d,.]+"), r"\1 N"),
    (re.compile(r"\b(pid|epoch) \d+"), r"\1 N"),
    (re.compile(r"\b(SQLite|PostgreSQL) \d+(\.\d+)*"), r"\1 N"),
    (re.compile(r"\boperator \w+"), "operator WHO"),
    (re.compile(r" +$"), ""),
)


def normal(text: str) -> str:
    """A line of output without what differs from run to run."""
    for pattern, word in _NORMAL:
        text = pattern.sub(word, text)
    return text


@dataclass(frozen=True)
class Wrong:
    """A command that ends or prints otherwise than its page shows."""

    fence: Fence
    command: Command
    code: int
    printed: list[str]

    def __str__(self) -> str:
        shown, printed = "\n".join(self.command.shown), "\n".join(self.printed)
        ended = f"ends with {self.code}, not {self.command.code}\n" if self.code != self.command.code else ""
        return f"{self.fence}: {self.command.words}\n{ended}the page shows:\n{shown}\nit prints:\n{printed}\n"


@dataclass(frozen=True)
class Workshop:
    """Where a page's commands run; server: the URL of its PostgreSQL database, "" where there is none at hand."""

    directory: Path
    server: str

    def follow(self, page: Page) -> list[Wrong]:
        """Write the page's files and type its commands; what it shows that isn't so."""
        wrong = []
        for fence in page.fences:
            if fence.not_run:
                continue
            if fence.title:
                (self.directory / fence.title).write_text(self._here(fence.text))
            if fence.language in {"console", "sh"}:
                wrong += [one for one in (self._type(fence, command) for command in commands(fence)) if one]
        return wrong

    def _type(self, fence: Fence, command: Command) -> Wrong | None:
        code, out = self._run(self._here(command.words))
        printed = out.replace(self.server or "\0", SERVER).replace(str(self.directory), PLACE).splitlines()
        if code == command.code and (not command.shown or agree(command.shown, printed)):
            return None
        return Wrong(fence, command, code, printed)

    def _here(self, text: str) -> str:
        return text.replace(SERVER, self.server).replace(PLACE, str(self.directory))

    def _run(self, words: str) -> tuple[int, str]:
        """`runbook`, `sqlite3` and `psql` in this process, all else by the shell."""
        plain = not re.search(r"[|<>;&]", re.sub(r"'[^']*'|\"[^\"]*\"", "", words))
        split = shlex.split(words) if plain else [""]
        match split:
            case ["runbook", *rest]:
                return self._runbook(rest)
            case ["sqlite3", file, sql]:
                with contextlib.closing(sqlite3.connect(self.directory / file, isolation_level=None)) as connection:
                    return 0, _rows([sql], connection, separator="|")
            case ["psql", "-At", "-d", url, "-c", sql]:
                with psycopg.connect(url, autocommit=True) as connection:
                    return 0, _rows([sql], connection, separator="|")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", words], cwd=self.directory, env={**os.environ, "PATH": path}, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def _runbook(self, words: list[str]) -> tuple[int, str]:
        """The command without a process of its own; what it says on both streams, in the order in which it is said."""
        told, code = io.StringIO(), 0
        here = contextlib.chdir(self.directory), mock.patch.dict(os.environ, COLUMNS=WIDTH, USER="you")
        with here[0], here[1], contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                cli.main(words)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        return code, told.getvalue()


def _rows(statements: list[str], connection: sqlite3.Connection | psycopg.Connection, *, separator: str) -> str:
    lines = []
    for statement in [part for one in statements for part in one.split(";") if part.strip()]:
        cursor = connection.execute(statement)
        if cursor.description:
            lines += [separator.join("" if cell is None else str(cell) for cell in row) for row in cursor.fetchall()]
    return "\n".join(lines)


def agree(shown: Iterable[str], printed: Iterable[str]) -> bool:
    """Whether the output is as shown: a line `…` stands for any lines, `…` within a line for any text; blanks don't count."""
    pattern = ""
    for line in filter(str.strip, map(normal, shown)):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            parts = [r"\s+".join(map(re.escape, part.split())) for part in line.split("…")]
            pattern += r"\s*" + ".*".join(rf"\s*{part}\s*" if part else "" for part in parts).strip() + r"[ ]*\n"
    text = "".join(f"{line.strip()}\n" for line in map(normal, printed) if line.strip())
    return re.fullmatch(pattern, text) is not None


# ─── pages written anew, when the product's words have changed ──────────────────────────────────────────────────────
def renewed(shown: Sequence[str], printed: Sequence[str]) -> list[str]:
    """What a page should show: its lines as they are printed now, and what is printed between them where it left nothing out."""
    new: list[str] = []
    at, left_out = 0, False
    for line in filter(str.strip, shown):
        if line.strip() == "…":
            left_out = True
            continue
        place = _closest(line, printed, at)
        if place is None:  # it is printed no more
            continue
        new += ["…"] if left_out else printed[at:place]
        new.append(line if agree([line], [printed[place]]) else printed[place])
        at, left_out = place + 1, False
    return [*new, *(["…"] if left_out else printed[at:])]


def _closest(line: str, printed: Sequence[str], at: int) -> int | None:
    ratios = {
        place: 1.0 if agree([line], [one]) else SequenceMatcher(None, normal(line), normal(one)).ratio()
        for place, one in enumerate(printed[at:], at)
    }
    best = max(ratios, key=lambda place: ratios[place], default=None)
    return best if best is not None and ratios[best] >= ALIKE else None


def _write_anew(page: Page, wrong: Iterable[Wrong]) -> None:
    text = page.text
    for one in wrong:
        old = "\n".join(one.command.shown)
        text = text.replace(f"\n{old}\n", "\n" + "\n".join(renewed(one.command.shown, one.printed)) + "\n", 1)
    page.path.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def made(databases: Databases, directory: Path) -> Iterator[Workshop]:
    """An empty workshop; LookupError where this machine has no PostgreSQL for it."""
    with databases.kind("pg18").database() as database:
        (directory / "playbooks").symlink_to(ROOT / "playbooks")
        yield Workshop(directory, database.url)


def main() -> int:
    """Type every command of every page, and write what is printed otherwise into the pages; to be read before it is committed."""
    for name in [name for name in os.environ if name.startswith(("PG", "RUNBOOK_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as place, fast_directory(Path(place)) as fast:
        databases = Databases(fast)
        (fast / "app").mkdir()
        try:
            with made(databases, fast / "app") as workshop:
                for page in map(Page.read, PAGES):
                    if wrong := workshop.follow(page):
                        _write_anew(page, wrong)
                        sys.stdout.write(f"{page.name}: {len(wrong)} commands\n")
        finally:
            databases.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
