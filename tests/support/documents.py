"""Markdown pages of the project, read for the tests: headings, links, code fences, and commands within sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    {README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")},
    key=lambda path: (path != README, str(path)),
)
NOT_RUN = "# not run in tests: "  # the first line of a fence that can't be run there, with the reason behind it

_FENCE = re.compile(r"^( *)```([\w-]*)([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)\)")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Fence:
    """A block of code. title: the file that it is written to, from `title=NAME` behind the language."""

    page: Page
    line: int
    language: str
    info: str
    text: str

    @property
    def title(self) -> str:
        found = re.search(r"title=(\S+)", self.info)
        return found[1] if found else ""

    @property
    def not_run(self) -> str:
        """Why it isn't run in tests; "" where it is."""
        first = self.text.partition("\n")[0]
        return first.removeprefix(NOT_RUN) if first.startswith(NOT_RUN) else ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a console fence, what the page shows of its output, and the exit code that it promises."""

    words: str
    shown: tuple[str, ...] = ()
    code: int = 0


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def fences(self) -> list[Fence]:
        """All blocks of code, in order."""
        return [
            Fence(self, self.text.count("\n", 0, found.start()) + 1, found[2], found[3].strip(), _dedent(found))
            for found in _FENCE.finditer(self.text)
        ]

    @cached_property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return _FENCE.sub("", self.text)

    @cached_property
    def anchors(self) -> set[str]:
        """What `#…` may lead to, as GitHub names the headings."""
        found: dict[str, int] = {}
        for heading in _HEADING.findall(self.prose):
            found[slug(heading)] = found.get(slug(heading), -1) + 1
        return {f"{name}-{n}" if n else name for name, count in found.items() for n in range(count + 1)}

    @property
    def links(self) -> Iterator[str]:
        yield from _LINK.findall(self.prose)

    @property
    def inline(self) -> Iterator[str]:
        """Code within sentences and tables."""
        yield from (one.replace("\\|", "|") for one in _INLINE.findall(self.prose))

    def section(self, heading: str) -> str:
        """The text below a heading, to the next one of its rank or above."""
        found = re.search(rf"^(#+) +{re.escape(heading)} *$", self.text, re.MULTILINE)
        assert found is not None, f"{self.name} has no heading {heading!r}"
        rest = self.text[found.end() :]
        end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
        return rest[: end.start()] if end else rest

    def table(self, heading: str) -> dict[str, str]:
        """The rows of the tables below a heading: the code of the first cell → the text of the last one."""
        rows = re.findall(r"^\| *`([^`]+)` *\|(.*)\| *$", self.section(heading), re.MULTILINE)
        doubled = {word for word, _ in rows if [one for one, _ in rows].count(word) > 1}
        assert not doubled, f"{self.name}, {heading}: twice: {sorted(doubled)}"
        return {word: rest.rpartition("|")[2].strip() for word, rest in rows}


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


def commands(fence: Fence) -> list[Command]:
    """The commands of a fence: in `console` behind `$ `, what follows is output; in `sh` every line is one.

    A line that ends in a backslash goes on in the next. `# exit code 5` behind a command is a promise.
    """
    found: list[tuple[str, list[str]]] = []
    going_on = False
    for line in fence.text.splitlines():
        if going_on:
            words, shown = found[-1]
            found[-1] = (words[:-1].rstrip() + " " + line.strip(), shown)
        elif fence.language == "sh" and line.strip() and not line.startswith("#"):
            found.append((line.strip(), []))
        elif line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
        going_on = bool(found) and found[-1][0].endswith("\\")
    return [_command(words, shown) for words, shown in found]


def _command(words: str, shown: list[str]) -> Command:
    code = re.search(r" +# exit code (\d+)$", words)
    plain = re.sub(r" +#.*$", "", words) if re.search(r" {2,}#", words) else words
    return Command(plain, tuple(shown), int(code[1]) if code else 0)


def _dedent(found: re.Match[str]) -> str:
    return "\n".join(line.removeprefix(found[1]) for line in found[4].splitlines()) + "\n"
