"""What a command of a person did, as text and as JSON: a sentence, facts under a label each, and the next commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = str | tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result of a command that prints no document of its own.

    done: the sentence; run: its run, "" where none is meant; facts: label → what is said under it; next: commands to copy;
    when: the condition under which they make sense.
    """

    done: str
    run: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    next: tuple[str, ...] = ()
    when: str = ""

    def labelled(self) -> list[tuple[str, str]]:
        """The lines below the sentence: label and text."""
        lines = [(label, _words(fact)) for label, fact in self.facts.items() if fact or not isinstance(fact, str)]
        onward = "\n".join([*self.next, *([f"({self.when})"] if self.when else [])])
        return lines + ([("next", onward)] if onward else [])

    def document(self) -> dict[str, object]:
        """The same for machines."""
        given = {"run": self.run} if self.run else {}
        return given | {"done": self.done, **self.facts, "next": self.next, "when": self.when}


def _words(fact: Fact) -> str:
    return fact if isinstance(fact, str) else ", ".join(fact) or "nothing"
