"""Identifies a process for good: its pid together with the boot id, the pid namespace and the start time.

A host name and a pid do not suffice: containers may share both, and the kernel reuses pids.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SAME_START_S = 2.0  # tolerance of start times read from the wall clock, which may be adjusted between two readings
_PROC = Path("/proc")
_STATE, _START = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted from behind the command name
_GONE = "ZX"  # zombie or dead: no longer running, whether its parent has reaped it or not


@dataclass(frozen=True)
class ProcessId:
    """The identity of one process, which no later process with the same pid shares."""

    pid: int
    boot: str
    namespace: str
    ticks: int  # start time in clock ticks since boot: independent of the wall clock; 0 where the system has none
    started: float  # start time in seconds since the epoch, for display and for systems without ticks


def identify(pid: int) -> ProcessId:
    """The process that has this pid now, in this namespace; ticks and started are 0 where there is none."""
    stat = _stat(pid)
    return ProcessId(pid, boot(), namespace(), stat[1] if stat else 0, epoch_start(pid) or 0.0)


def alive(known: ProcessId) -> bool | None:
    """Whether that very process still runs; None where this process can't tell.

    It can't tell for another boot id or pid namespace: that may be another machine of the same name, or a container.
    """
    if not known.boot or (known.boot, known.namespace) != (boot(), namespace()):
        return None
    if not _PROC.is_dir():
        return _alive_by_clock(known)
    stat = _stat(known.pid)
    if stat is not None:
        state, ticks = stat
        return state not in _GONE and (not known.ticks or ticks == known.ticks)
    return None if _there(known.pid) else False


def boot() -> str:
    """The kernel's id of the current boot; "" where the system has none."""
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
    """The id of this process's pid namespace; "" where the system has none."""
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return "" if sys.platform != "linux" else "unknown"


def epoch_start(pid: int) -> float | None:
    """The start time of the process with this pid, in seconds since the epoch; None where there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter, and start in ticks since boot; None without such a process, or where /proc is another namespace's."""
    try:
        if str((_PROC / "self").readlink()) != str(os.getpid()):  # /proc was mounted in another pid namespace
            return None
        # split behind the last ")": the command name in parentheses may itself hold spaces and parentheses
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[_STATE].decode(), int(fields[_START])


def _there(pid: int) -> bool:
    """Whether any process has this pid, including one that /proc hides (hidepid)."""
    try:
        os.kill(pid, 0)  # signal 0 only tests for existence
    except ProcessLookupError:
        return False
    except OSError:  # EPERM: it exists, and belongs to another user
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
