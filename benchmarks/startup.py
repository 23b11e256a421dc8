"""What a start costs: the CPU of `runbook --help` and of `runbook validate`, as multiples of `python -c pass`.

CPU is user + system of the whole process, from wait4; the interpreter is the same, and all bytecode is compiled before
the first round. Each round measures all three, one after the other; a figure is the median of the rounds' quotients.
"""

from __future__ import annotations

import sys

from measuring import RUNBOOK, Figure, Options, Report, spend

ROUNDS = 15
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "runbook --help": [RUNBOOK, "--help"],
    "runbook validate adr007-phase1": [RUNBOOK, "validate", "playbooks/adr007-phase1.yaml"],
}
LIMITS = (6.0, 20.0)


def run(options: Options) -> Report:
    for argv in COMMANDS.values():
        spend(argv)
    rounds = [[spend(argv).cpu for argv in COMMANDS.values()] for _ in range(options.pairs or ROUNDS)]
    bare, *others = zip(*rounds, strict=True)
    names = list(COMMANDS)
    report = Report([Figure(f"CPU of {names[0]}", [seconds * 1000 for seconds in bare], "ms")])
    for name, limit, spent in zip(names[1:], LIMITS, others, strict=True):
        report.figures.append(Figure(f"CPU of {name}", [seconds * 1000 for seconds in spent], "ms"))
        quotients = [mine / base for mine, base in zip(spent, bare, strict=True)]
        report.figures.append(Figure(f"{name} / {names[0]}", quotients, "×", limit))
    return report
