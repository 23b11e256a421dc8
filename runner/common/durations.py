"""Progress rates, time estimates, and durations and times formatted for people."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

WINDOW_S = 10.0


@dataclass
class Rate:
    """Measures a rate from samples of a growing count: over the last 10 s, and since the first sample."""

    clock: Callable[[], float] = time.monotonic
    _points: deque[tuple[float, int]] = field(default_factory=deque)
    _first: tuple[float, int] | None = None

    def add(self, done: int) -> None:
        """Record the count as of now."""
        point = (self.clock(), done)
        self._first = self._first or point
        self._points.append(point)
        while len(self._points) > 2 and point[0] - self._points[0][0] > WINDOW_S:
            self._points.popleft()

    @property
    def now(self) -> float:
        """Units per second over the last 10 s; 0.0 if unknown."""
        return _per_second(self._points[0], self._points[-1]) if len(self._points) > 1 else 0.0

    @property
    def mean(self) -> float:
        """Units per second since the first sample; 0.0 if unknown."""
        return _per_second(self._first, self._points[-1]) if self._first and self._points else 0.0

    def seconds_left(self, total: int | None) -> float | None:
        """Seconds until `total` is reached at the mean rate; None if that can't be estimated."""
        if total is None or not self._points or self.mean <= 0:
            return None
        return max(total - self._points[-1][1], 0) / self.mean

    def time_left(self, total: int | None) -> str:
        """The time left as a range between the estimates by current and by mean rate: '4 to 6 min'; "" if unknown."""
        mean = self.seconds_left(total)
        if mean is None:
            return ""
        now = mean * self.mean / self.now if self.now > 0 else mean
        low, high = format_duration(min(now, mean)), format_duration(max(now, mean))
        same_unit = low.split(" ")[1:] == high.split(" ")[1:] and low.count(" ") == 1
        return high if low == high else f"{low.split(' ')[0] if same_unit else low} to {high}"


def _per_second(one: tuple[float, int], other: tuple[float, int]) -> float:
    seconds = other[0] - one[0]
    return (other[1] - one[1]) / seconds if seconds > 0 else 0.0


def when(moment: datetime, *, seconds: bool = False) -> str:
    """Format a time for people, always in UTC and saying so: '2026-11-30 21:15 UTC'."""
    return f"{moment.astimezone(UTC):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}} UTC"


def format_duration(seconds: float) -> str:
    """Format seconds: '300 ms', '45 s', '12 min', '1 h 40 min'."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def ago(seconds: float) -> str:
    """Format an age in seconds: 'just now', '3 min ago', '2 days ago'. A negative age (the clock was set back) is 'just now'."""
    return "just now" if seconds < 1 else f"{age(seconds)} ago"


def age(seconds: float) -> str:
    """Format a duration that may be days long: '45 s', '12 min', '5 h 20 min', '3 days'."""
    days = seconds / 86400
    return format_duration(seconds) if days < 2 else f"{days:.1f}".removesuffix(".0") + " days"
