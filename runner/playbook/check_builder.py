"""Builds a playbook's checks and guards, and verifies that their expressions use only names known at that point."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from runner.common.plain_data import Data
from runner.playbook.model import ID, Check, Entry, Guard, GuardAction, Requirement
from runner.playbook.sources import Place, Sources, validated
from runner.playbook.yaml_reader import Fault, Mark, near
from steps import registry
from steps.catalog.shape import DeclaredShape
from steps.contract import RESERVED, Gate, Probe, Query, RunningFigures, Step, running_figures
from steps.expressions.evaluate import Expression, check_kinds, check_names, parse
from steps.expressions.grammar import BadExpression, ValueKind

_PLAIN = ("why", "due", "record_only", "otherwise", "judge", "within", "every", "still")
OWN = frozenset({"id", "check", "that", "warn", *_PLAIN})
NOT_OF_CONDITIONS = frozenset({"warn", *_PLAIN} - {"why"})
GUARD = ("for", "else", "resume", "critical", "hibernate", "last", "every", "longest_hold")
_GUARD_FIELDS = {"for": "hold_for", "else": "action"}  # where the key is no name for a field
CHANGES = ("grown", "per_min")  # prefixes of a figure's changes while a step runs
STATUS_AGE = "status_age_s"  # of the run's status files, the one that was written longest ago
ALWAYS = ("elapsed_s", "eta_s", "window_left_s", "done", "total", STATUS_AGE)  # what guards may read of every step


class Builder:
    """Builds checks in the order of the playbook, tracking the ids and names that expressions may use so far."""

    def __init__(
        self,
        sources: Sources,
        queries: Mapping[str, Query],
        *,
        limits: Mapping[str, Data],
        inputs: Mapping[str, object],
        shapes: Mapping[str, DeclaredShape],
    ) -> None:
        self.sources = sources
        self.queries = queries
        self.shapes = shapes
        self.requires: tuple[Requirement, ...] = ()
        self._known: set[str] = {f"limits.{name}" for name in limits} | {f"inputs.{name}" for name in inputs}
        self._kinds = {f"limits.{name}": kind_of(type(value)) for name, value in limits.items()}
        self._kinds |= {f"inputs.{name}": kind_of(type(value)) for name, value in inputs.items()}
        self._ids: dict[str, Place] = {}
        self._untold: dict[Mark, set[str]] = {}  # by guard: the figures that its step's type doesn't tell

    def claim(self, name: object, path: Place) -> None:
        """Register the id of a step or check; ids are unique within a playbook."""
        if not isinstance(name, str) or not re.match(ID, name):
            self.sources.fault(
                (*path, "id"), f"cannot use the id {name!r}: small letters, digits and _, beginning with a letter"
            )
        elif not self.sources.kept and (name in RESERVED or name in {one.short for one in self.requires}):
            whose = "the word is reserved" if name in RESERVED else f"`requires` has `as: {name}`"
            self.sources.fault((*path, "id"), f"cannot use the id {name!r}: {whose}")
        elif name in self._ids:
            self.sources.fault(
                (*path, "id"),
                f"cannot use the id {name!r} twice: it stands in {self.sources.mark(self._ids[name])} already",
            )
        else:
            self._ids[name] = path

    def after_the_run(self, steps: Mapping[str, str]) -> Builder:
        """A builder for one check that is asked after the run: it knows limits, inputs, and the run's figures as run.x.

        steps: the step of each check, so that its figures can also be named with the step.
        """
        later = Builder(self.sources, self.queries, limits={}, inputs={}, shapes=self.shapes)
        later._ids = self._ids
        for name in self._known:
            for known in _after(name, steps):
                later._known.add(known)
                if name in self._kinds:
                    later._kinds[known] = self._kinds[name]
        return later

    def done(self, name: str, kind: type[Step]) -> None:
        """Make the figures of a step's result available to later expressions."""
        self._known |= {f"{name}.{field}" for field in kind.Result.model_fields}
        self._kinds |= {f"{name}.{field}": one for field, one in kinds_of(kind.Result).items()}

    def must_know(self, name: str, path: Place) -> None:
        """Report a fault if no earlier step or check has a figure of this name."""
        root = name.partition(".")[0]
        if name not in self._known and f"{root}.*" not in self._known:
            self.sources.fault(path, f"unknown name {name!r}: no earlier step or check has it{near(name, self._known)}")

    def knows(self, name: str) -> bool:
        """Whether a step or check of this name has figures."""
        return any(known.startswith(f"{name}.") for known in self._known)

    def step_names(self, kind: type[Step]) -> Mapping[str, ValueKind]:
        """The figures that the criteria of a step of this type may name."""
        return {**kinds_of(kind.Result), STATUS_AGE: ValueKind.NUMBER}

    def checks(self, data: Data, path: Place, *, own: Mapping[str, ValueKind] | None = None) -> tuple[Check, ...]:
        """Build a list of checks. own: figures of the step's own result, for criteria without `check:`."""
        if not isinstance(data, list):
            self.sources.fault(path, f"cannot read {path[-1]}: it must be a list of checks")
            return ()
        found = [self.check(one, (*path, index), own=own) for index, one in enumerate(data)]
        return tuple(check for check in found if check is not None)

    def condition(self, data: Data, path: Place, *, step: str) -> Check | None:
        """Build the condition of a step, which has an id made of the step's unless it says one."""
        if not isinstance(data, dict):
            self.sources.fault(path, "cannot read `when`: it must be one check, a mapping with `check:`")
            return None
        for key in sorted(NOT_OF_CONDITIONS & set(data)):
            self.sources.fault(
                (*path, key),
                f"cannot use `{key}` here: a condition is asked once, and decides by pass or fail",
                key=True,
            )
        named = {"id": f"{step}_when", **{key: data[key] for key in data if key not in NOT_OF_CONDITIONS}}
        check = self.check(named, path, own=None)
        if check is not None and check.probe is not None and not check.probe.conditional:
            fit = sorted(name for name, kind in registry.probe_types().items() if kind.conditional)
            self.sources.fault(
                (*path, "check"), f"cannot make a step depend on {check.probe.kind}: `when` takes {' or '.join(fit)}"
            )
        return check

    def guards(self, data: Data, path: Place, kind: type[Step]) -> tuple[Guard, ...]:
        """Build the guards of a step of this type."""
        guards = []
        if not isinstance(data, list):
            self.sources.fault(path, "cannot read guards: it must be a list of checks")
        for index, one in enumerate(data if isinstance(data, list) else []):
            if not isinstance(one, dict):
                self.sources.fault(
                    (*path, index), "cannot read this guard: it must be a mapping with `id:` and `check:`"
                )
                continue
            guard = self._guard(one, (*path, index), running_figures(kind))
            guards += [guard] if guard else []
        return tuple(guards)

    def _guard(self, data: dict[str, Data], path: Place, told: RunningFigures) -> Guard | None:
        plain = {key: value for key, value in data.items() if key not in GUARD}
        own = dict.fromkeys((*ALWAYS, *told.names), ValueKind.NUMBER)
        check = self.check(plain, path, own=own, changes=CHANGES, sampled="a guard")
        if check is None:
            return None
        own_names = self.own_names(check.probe) if check.probe else frozenset(own)
        names = changing_names(check.probe, own_names, CHANGES)
        values: dict[str, object] = {_GUARD_FIELDS.get(key, key): data[key] for key in GUARD if key in data}
        kinds = kinds_of(check.probe.Result) if isinstance(check.probe, Probe) else {}
        values |= {key: self.expression(data, key, path, names, kinds) for key in ("resume", "critical") if key in data}
        guard = validated(
            self.sources, Guard, {"check": check, **values}, path=path, aliases={"hold_for": "for", "action": "else"}
        )
        if guard is not None:
            for key, why in _idle_keys(guard, data):
                self.sources.fault((*path, key), f"cannot use `{key}` here: {why}", key=True)
        return guard

    def check(
        self,
        data: Data,
        path: Place,
        *,
        own: Mapping[str, ValueKind] | None,
        changes: Collection[str] = (),
        sampled: str = "",
        decided: bool = False,
    ) -> Check | None:
        """Build one check.

        own: figures of the step's own result. changes: prefixes under which its numbers have changes as further names.
        sampled: "a guard" or "a monitor", which is asked again by itself. decided: another key decides.
        """
        if not isinstance(data, dict):
            self.sources.fault(path, "cannot read this check: it must be a mapping with `id:` and `check:`")
            return None
        self.claim(data.get("id"), path)
        for key in sorted({"judge", "within", "otherwise"} & set(data)) if sampled else []:
            self.sources.fault(
                (*path, key), f"cannot use `{key}` here: {sampled} is asked again and again by itself", key=True
            )
        if "every" in data and "within" not in data:
            self.sources.fault((*path, "every"), "cannot use `every` without `within`: it is asked once", key=True)
        probe, names = self._probe(data, path, own=own)
        if isinstance(probe, Probe) and probe.default_that:
            data = {"that": probe.default_that, **data}
        names = changing_names(probe, names, changes)
        kinds = kinds_of(probe.Result) if isinstance(probe, Probe) else own or {}
        check: dict[str, object] = {
            "id": data.get("id"),
            "probe": probe,
            "that": self.expression(data, "that", path, names, kinds),
            "warn": self.expression(data, "warn", path, names, kinds),
            "mark": self.sources.mark(path),
            **{key: data[key] for key in _PLAIN if key in data},
        }
        built = validated(self.sources, Check, check, path=path)
        if built is not None:
            if not decided:
                self._must_decide(built, data, path)
            self._known |= {f"{built.id}.{name}" for name in self.own_names(probe)}
            self._kinds |= {f"{built.id}.{name}": kind for name, kind in kinds.items()} if probe is not None else {}
        return built

    def _probe(
        self, data: dict[str, Data], path: Place, *, own: Mapping[str, ValueKind] | None
    ) -> tuple[Probe | None, frozenset[str]]:
        kinds = registry.probe_types()
        kind = data.get("check")
        if kind is None:
            if own is None and "due" not in data:
                self.sources.fault(
                    path, "cannot do without `check:` here: only a step's own criteria speak of the step's result"
                )
            unknown = set(data) - OWN
            for key in sorted(unknown):
                self.sources.fault((*path, key), f"unknown key {key!r}{near(key, OWN)}", key=True)
            return None, frozenset(own or ())
        if not isinstance(kind, str) or kind not in kinds:
            self.sources.fault(
                (*path, "check"), f"unknown probe {kind!r}{near(str(kind), kinds)}; `runbook steps` lists them"
            )
            return None, frozenset({"*"})
        fields = {key: value for key, value in data.items() if key not in OWN}
        known = {"queries": self.queries, "shapes": self.shapes}
        probe = validated(self.sources, kinds[kind], fields, path=path, known=known, also=OWN)
        return probe, self.own_names(probe) if probe is not None else frozenset({"*"})

    def own_names(self, probe: BaseModel | None) -> frozenset[str]:
        if not isinstance(probe, Probe):
            return frozenset()
        return frozenset({"*"} if probe.open_names else set()) | frozenset(probe.Result.model_fields)

    def expression(
        self, data: dict[str, Data], key: str, path: Place, names: frozenset[str], kinds: Mapping[str, ValueKind]
    ) -> Expression | None:
        text = data.get(key)
        if text is None:
            return None
        if isinstance(text, bool):
            text = "True" if text else "False"
        try:
            expression = parse(str(text))
            check_kinds(expression, {**self._kinds, **kinds})
        except BadExpression as error:
            self.sources.fault((*path, key), str(error))
            return None
        self._check_names(expression, (*path, key), names)
        return expression

    def _check_names(self, expression: Expression, path: Place, names: frozenset[str]) -> None:
        known = set(names) | self._known | {f"{one.short}.*" for one in self.requires if one.short}
        open_names = "*" in names
        no_more = {name for name in names if "." not in name} == set(ALWAYS)  # the guarded step tells nothing else
        for name, close in check_names(expression, known):
            if open_names and "." not in name:
                continue  # a column of the query: the dry run describes it
            if no_more and _of_another_type(name):
                self._untold.setdefault(self.sources.mark(path[:-1]), set()).add(_figure(name))
                continue
            advice = f" (did you mean {close[0]!r}?)" if close else f"; known here: {', '.join(sorted(known)[:12])}"
            self.sources.fault(path, f"unknown name {name!r} in {expression.text!r}{advice}")

    def _must_decide(self, check: Check, data: dict[str, Data], path: Place) -> None:
        decides = (
            check.that is not None
            or check.due
            or check.record_only
            or (check.probe is not None and check.probe.decides())
        )
        broken = "that" in data and check.that is None  # already reported
        if not decides and not broken and (check.probe is not None or "check" not in data):
            self.sources.fault(
                path, "cannot decide anything: write `that:`, a typed field, or `record_only: the reason`"
            )

    def still(self, found: Iterable[Check]) -> None:
        """Refuse `still:` outside of gates: only a gate's checks are asked again before later steps."""
        for check in found:
            if check.still:
                self.sources.faults.append(
                    Fault(check.mark, "cannot use `still` here: it belongs to checks of a checkpoint")
                )

    def finish(self, entries: Iterable[Entry]) -> None:
        """Checks that need the whole playbook."""
        for entry in entries:
            if not isinstance(entry.step, Gate):
                self.still((*entry.preconditions, *entry.success_criteria, *(guard.check for guard in entry.guards)))
            if not entry.step.changes and entry.guards:
                self.sources.faults.append(Fault(entry.mark, "cannot guard a step that changes nothing"))
            self.sources.faults += [
                Fault(guard.check.mark, fault)
                for guard in entry.guards
                for fault in self._not_of_its_type(entry, guard)
            ]

    def _not_of_its_type(self, entry: Entry, guard: Guard) -> Iterator[str]:
        """What a guard asks of its step that the step's type doesn't have."""
        if guard.action is GuardAction.SMALLER_BATCHES and not running_figures(entry.step).batch_ms:
            yield f"cannot use smaller_batches: {entry.step.kind} has no batches"
        for name in sorted(self._untold.get(guard.check.mark, ())):
            yield f"unknown name {name!r}: while it runs, {entry.step.kind} tells {', '.join(ALWAYS)}"


def _after(name: str, steps: Mapping[str, str]) -> Iterator[str]:
    """The names of a limit, an input or a figure once the run has ended."""
    root = name.partition(".")[0]
    if root in {"limits", "inputs"}:
        yield name
        return
    yield f"run.{name}"
    if root in steps:
        yield f"run.{steps[root]}.{name}"


def _figure(name: str) -> str:
    """The figure that `grown.x` or `per_min.x` refers to; any other name itself."""
    return name.removeprefix("grown.").removeprefix("per_min.")


def _of_another_type(name: str) -> bool:
    """Whether a guard's name can only be a figure of other step types: no dot in it, and unlike those that all types have."""
    figure = _figure(name)
    return "." not in figure and figure not in ALWAYS and not near(figure, ALWAYS)


def _idle_keys(guard: Guard, data: dict[str, Data]) -> Iterator[tuple[str, str]]:
    """Keys without effect, which the author probably relies on, each with the reason."""
    holds = guard.critical is not None and not guard.stops
    if "hibernate" in data and not holds:
        yield "hibernate", "only a guard with `critical:` that does not end the run hibernates"
    if "resume" in data and not holds and (guard.stops or guard.action is GuardAction.WARN):
        yield "resume", f"a guard with `else: {guard.action}` holds nothing that could go on"


def changing_names(probe: BaseModel | None, names: frozenset[str], changes: Collection[str]) -> frozenset[str]:
    """Names for expressions of what is asked repeatedly: also `grown.x` (or another change) for each numeric figure x."""
    numbers = names if probe is None else {name for name, one in _result(probe).items() if _is_number(one.annotation)}
    if isinstance(probe, Probe) and probe.open_names:
        numbers = frozenset("*")
    return names | {f"{change}.{name}" for change in changes for name in numbers}


def _result(probe: BaseModel) -> Mapping[str, FieldInfo]:
    return probe.Result.model_fields if isinstance(probe, Probe) else {}


def _is_number(annotation: Any) -> bool:
    parts = get_args(annotation) or (annotation,)
    return any(part in {int, float, Decimal} or (get_args(part) and _is_number(part)) for part in parts)


_KINDS: Mapping[object, ValueKind] = {
    bool: ValueKind.TRUTH,
    int: ValueKind.NUMBER,
    float: ValueKind.NUMBER,
    Decimal: ValueKind.NUMBER,
    str: ValueKind.TEXT,
    list: ValueKind.LIST,
    tuple: ValueKind.LIST,
    datetime: ValueKind.TIME,
    date: ValueKind.TIME,
    timedelta: ValueKind.TIME,
}


def kind_of(annotation: Any) -> ValueKind:
    """The kind of value that an annotation stands for in expressions; ANY if it may be several."""
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        kinds = {kind_of(part) for part in get_args(annotation) if part is not NoneType}
        return kinds.pop() if len(kinds) == 1 else ValueKind.ANY
    return _KINDS.get(get_origin(annotation) or annotation, ValueKind.ANY)


def kinds_of(result: type[BaseModel]) -> dict[str, ValueKind]:
    return {name: kind_of(field.annotation) for name, field in result.model_fields.items()}
