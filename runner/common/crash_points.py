"""Named points at which a test may kill the process; without effect unless RUNBOOK_FAULT names one."""

from __future__ import annotations

import os
import signal
import threading

_WANTED = os.environ.get("RUNBOOK_FAULT", "")
_count = 0


def point(name: str) -> None:
    """Kill this process with SIGKILL if RUNBOOK_FAULT is "name" or "name:N" (the N-th call).

    Called only in Trail.append and RunDatabase.commit*: nowhere else can a crash leave an open outcome.
    """
    global _count  # noqa: PLW0603 - one process, one fault
    # The heartbeat commits at its own pace; counting its commits would make "the N-th" a different one in each run.
    if not _WANTED or threading.current_thread().name == "heartbeat":
        return
    wanted, _, nth = _WANTED.partition(":")
    if wanted == name:
        _count += 1
        if _count == int(nth or "1"):
            os.kill(os.getpid(), signal.SIGKILL)
