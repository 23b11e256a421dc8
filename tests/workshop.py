"""A reader of the documentation: does what a page shows, in a directory and on databases of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psycopg
from documents import Command, Fence, Page, commands

from runner.cli import main

PLACE = "/home/you/app"  # where the pages work
SERVER = "postgresql://you@localhost/app"  # the PostgreSQL database of the pages
WIDTH = "100"
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
class Workshop:
    """Where a page's commands run; server: the URL of its PostgreSQL database, "" where there is none at hand."""

    directory: Path
    server: str

    def follow(self, page: Page) -> list[str]:
        """Write the page's files and type its commands; what it shows that isn't so."""
        wrong = []
        for fence in page.fences:
            if fence.not_run:
                continue
            if fence.title:
                (self.directory / fence.title).write_text(self._here(fence.text))
            if fence.language in {"console", "sh"}:
                wrong += [told for command in commands(fence) if (told := self._type(fence, command))]
        return wrong

    def _type(self, fence: Fence, command: Command) -> str:
        """What is wrong with what the page says of this command; "" where nothing is."""
        code, out = self._run(self._here(command.words))
        told = out.replace(self.server or "\0", SERVER).replace(str(self.directory), PLACE)
        if code != command.code:
            return f"{fence}: {command.words}\nends with {code}, not {command.code}:\n{told}"
        shown = [normal(line) for line in command.shown]
        if shown and not agree(shown, [normal(line) for line in told.splitlines()]):
            page = "\n".join(shown)
            return f"{fence}: {command.words}\nthe page shows:\n{page}\nit prints:\n{told}"
        return ""

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
            ["sh", "-c", words], cwd=self.directory, env={**os.environ, "PATH": path}, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def _runbook(self, words: list[str]) -> tuple[int, str]:
        """The command without a process of its own; what it says on both streams, in the order in which it is said."""
        told, code = io.StringIO(), 0
        here = contextlib.chdir(self.directory), mock.patch.dict(os.environ, COLUMNS=WIDTH, USER="you")
        with here[0], here[1], contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                main(words)
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


def agree(shown: list[str], printed: list[str]) -> bool:
    """Whether the output is as shown: a line `…` stands for any lines, `…` within a line for any signs, blanks don't count."""
    pattern = ""
    for line in filter(str.strip, shown):
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            parts = [r"\s+".join(map(re.escape, part.split())) for part in line.split("…")]
            pattern += r"\s*" + ".*".join(rf"\s*{part}\s*" if part else "" for part in parts).strip() + r"[ ]*\n"
    text = "".join(f"{line.strip()}\n" for line in printed if line.strip())
    return re.fullmatch(pattern, text) is not None
