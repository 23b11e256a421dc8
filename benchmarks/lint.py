"""What `runbook lint` adds to loading: 100 playbooks of 50 steps, for the rules of our own.

The playbooks are mixed: statements with a way back, backfills with a guard, indexes, columns, gates with a query. squawk is a
program of its own, and its time isn't in it. The processor's time counts, since the limit is for the rules' own work.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator

from measuring import ROOT, Figure, Options, Report

sys.path.insert(0, str(ROOT))

from runner.playbook.load import WrittenPlaybook, load_written
from runner.review import lint
from runner.review.rule import apply_rules
from runner.review.subject import LintSubject

PLAYBOOKS, STEPS, PAIRS = 100, 50, 3
_FIVE = """\
  - id: mark_{i}
    type: sql
    text: UPDATE t{n}_{i} SET a = 1, b = 'x' WHERE id = {i} AND seen_at > '2026-01-01 00:00:00+00'
    revert: UPDATE t{n}_{i} SET a = NULL WHERE id = {i} AND a = 1
  - {{id: index_{i}, type: create_index, table: t{i}, name: i{n}_{i}, columns: [a, b]}}
  - id: fill_{i}
    type: backfill
    table: t{i}
    source: SELECT ip, country AS c{n} FROM addresses{i}
    match: source.ip = target.ip
    fill: [country]
    guards: [{{id: guard_{i}, that: dead_pct <= limits.dead_pct}}]
  - id: go_{i}
    type: checkpoint
    success_criteria:
      - id: all_{i}
        check: query
        query: SELECT count(*) AS n, count(nullif(a, 'XX')) AS m FROM t{n}_{i} WHERE id > {i}
        that: n >= m
  - {{id: column_{i}, type: add_column, column: t{i}.c{n}, of_type: text}}
"""
_HEAD = "runbook: 1\nname: b{n}\ntitle: B\nschema: public\nlimits: {{dead_pct: 1}}\ncontacts: {{on_call: somebody}}\nsteps:\n"


def run(options: Options) -> Report:
    loads, rules = [], []
    for turn in range(options.pairs or PAIRS):
        began = time.process_time()
        written = list(_written(turn * PLAYBOOKS))  # other texts each time, since what was parsed is kept
        loads.append(time.process_time() - began)
        rules.append(_linted(written))
    what = f"{PLAYBOOKS} playbooks of {STEPS} steps"
    figures = [Figure(f"{what}: load", loads, "s"), Figure(f"{what}: lint, beyond loading", rules, "s", limit=1.0)]
    return Report(figures, [])


def _written(first: int) -> Iterator[WrittenPlaybook]:
    for n in range(first, first + PLAYBOOKS):
        steps = (_FIVE.format(i=i, n=n) for i in range(STEPS // 5))
        text = _HEAD.format(n=n) + "".join(steps)
        yield load_written(f"b{n}.yaml", lambda _name, text=text: text)


def _linted(written: list[WrittenPlaybook]) -> float:
    known = list(lint.load_rules().values())
    gc.disable()  # as the command does
    began = time.process_time()
    for one in written:
        list(apply_rules(LintSubject(one, lint.today()), known))
    taken = time.process_time() - began
    gc.enable()
    return taken
