"""Which process a pid means: with the boot, the pid namespace and the start time it names one process for ever.

A host's name and a pid are no proof: containers share both, and a pid is given out again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SAME_START_S = 2.0  # where only the system's clock tells a start: two readings may lie this far apart
_PROC = Path("/proc")
_STATE, _START = 0, 19  # in /proc/PID/stat, counted behind the name: fields 3 and 22
_GONE = "ZX"  # a zombie works no more, whether its parent has reaped it or not


@dataclass(frozen=True)
class ProcessId:
    """One process: where its pid counts, and since when it has it. ticks: since boot, which no change of the clock moves."""

    pid: int
    boot: str
    namespace: str
    ticks: int
    started: float  # seconds since the epoch, for people, and for systems that don't tell ticks


def identify(pid: int) -> ProcessId:
    """The process that has this pid here and now; ticks and started are 0 where there is none."""
    found = _stat(pid)
    return ProcessId(pid, boot(), namespace(), found[1] if found else 0, epoch_start(pid) or 0.0)


def alive(known: ProcessId) -> bool | None:
    """Whether that very process still runs; None where that can't be seen from here.

    Another boot or pid namespace may be another machine of the same name, or a container on this one.
    """
    if not known.boot or (known.boot, known.namespace) != (boot(), namespace()):
        return None
    if not _PROC.is_dir():
        return _alive_by_clock(known)
    found = _stat(known.pid)
    if found is not None:
        state, ticks = found
        return state not in _GONE and (not known.ticks or ticks == known.ticks)
    return None if _there(known.pid) else False


def boot() -> str:
    """What this boot of the system is called; "" where the system doesn't say."""
    return _boot()


@functools.cache
def _boot() -> str:
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS
        asked = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return ""


def namespace() -> str:
    """In which pid namespace this process counts; "" where the system has none."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return "" if sys.platform != "linux" else "unknown"


def epoch_start(pid: int) -> float | None:
    """When this pid's process began by the system's clock, for people; None where there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _stat(pid: int) -> tuple[str, int] | None:
    """State and start in ticks since boot; None where there is no such process, or /proc shows another namespace's."""
    try:
        if str((_PROC / "self").readlink()) != str(os.getpid()):
            return None
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[_STATE].decode(), int(fields[_START])


def _there(pid: int) -> bool:
    """Whether any process has this number, also one that /proc doesn't show to us."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _alive_by_clock(known: ProcessId) -> bool:
    import psutil

    try:
        process = psutil.Process(known.pid)
        same = abs(process.create_time() - known.started) <= SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
