"""Named points at which a test may kill the process; free of cost and of effect unless RUNBOOK_FAULT names one."""

from __future__ import annotations

import os
import signal
import threading

_WANTED = os.environ.get("RUNBOOK_FAULT", "")
_count = 0


def point(name: str) -> None:
    """Die by SIGKILL here when RUNBOOK_FAULT is "name" or "name:N" (the N-th time).

    Called only in trail.append and Database.commit: nowhere else can a crash leave something to settle.
    """
    global _count  # noqa: PLW0603 - one process, one fault
    if not _WANTED or threading.current_thread().name == "heartbeat":  # it would make the N-th another one each time
        return
    wanted, _, nth = _WANTED.partition(":")
    if wanted == name:
        _count += 1
        if _count == int(nth or "1"):
            os.kill(os.getpid(), signal.SIGKILL)
