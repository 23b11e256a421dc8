"""The names that expressions may use: values given to the run, and figures of its checks and steps so far."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import cast

from runner.playbook.model import Playbook
from steps.contract import RESERVED, Value


class Scope(Mapping[str, Value]):
    """Dotted names → values. Given values (limits, inputs, figures of required runs) can't be overwritten by figures."""

    def __init__(
        self,
        given: Mapping[str, Value] | None = None,
        found: Mapping[str, Value] | None = None,
        skipped: Collection[str] = (),
    ) -> None:
        self.given: Mapping[str, Value] = dict(given or {})
        self._found: dict[str, Value] = dict(found or {})
        self._skipped = set(skipped)

    @classmethod
    def of(cls, names: Mapping[str, Value]) -> Scope:
        """A copy; figures learned by it are not visible elsewhere."""
        return names.tuned({}) if isinstance(names, Scope) else cls(names)

    def learn(self, name: str, figures: Mapping[str, object]) -> None:
        """Add the figures of a check or step. A figure with a dot in its name is ignored: it could pose as another's."""
        self._found |= {f"{name}.{key}": cast("Value", value) for key, value in figures.items() if "." not in key}

    def skip(self, step: str) -> None:
        """Remember that a step was skipped: figures of it will never be known."""
        self._skipped.add(step)

    def why_absent(self, name: str) -> str:
        """Why a figure isn't known, if its step was skipped; else ""."""
        step = name.partition(".")[0]
        return f"{name} is not available: step {step} was skipped" if step in self._skipped else ""

    def tuned(self, limits: Mapping[str, Value]) -> Scope:
        """A copy with other values for limits, as tuned by a person; unknown limits are ignored."""
        others = {name: value for name, value in limits.items() if name in self.given}
        return Scope({**self.given, **others}, self._found, self._skipped)

    def names(self, own: Mapping[str, Value]) -> dict[str, Value]:
        """All names for one expression. own: short names, which never hide given values or figures."""
        return {**own, **self._found, **self.given}

    def __getitem__(self, name: str) -> Value:
        return self.given[name] if name in self.given else self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._found, **self.given})

    def __bool__(self) -> bool:
        return True  # an empty scope is not "no scope"

    def __len__(self) -> int:
        return len({**self._found, **self.given})


def given(playbook: Playbook) -> dict[str, Value]:
    """The names that are known before the run begins: limits and inputs."""
    limits = {f"limits.{name}": cast("Value", value) for name, value in playbook.limits.items()}
    return limits | {f"inputs.{name}": cast("Value", value) for name, value in playbook.values.items()}


def misnamed(columns: Mapping[str, object]) -> str:
    """Why these can't be the column names of a result; "" if they can."""
    for name in columns:
        if "." in name or name in RESERVED:
            why = "with a dot it could be another's figure" if "." in name else "the word is reserved"
            return f"cannot use the column name {name!r}: {why}; name it otherwise with AS"
    return ""
