"""Loads a playbook from the copy that a run stores in its trail and in the ledger."""

from __future__ import annotations

from collections.abc import Mapping

from runner.common.errors import BadInput
from runner.playbook.load import load
from runner.playbook.model import Playbook


def stored(
    texts: Mapping[str, str],
    values: Mapping[str, str] | None = None,
    *,
    file: str = "",
    programs: Mapping[str, str] | None = None,
) -> Playbook:
    """Load a playbook from the copy that a run stores: the first text is the playbook, the others its includes."""
    main = next(iter(texts))

    def read(name: str) -> str:
        if name not in texts:
            raise BadInput(f"cannot read {name!r}: the run keeps no copy of it")
        return texts[name]

    return load(main, read, shown=file or main, values=values, kept=programs or {})
