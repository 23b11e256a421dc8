"""How fast something goes: now, on the whole, and how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

WINDOW_S = 10.0


@dataclass
class Rate:
    """Done so far over time, with a window for the rate of now."""

    clock: Callable[[], float] = time.monotonic
    _points: deque[tuple[float, int]] = field(default_factory=deque)
    _first: tuple[float, int] | None = None

    def add(self, done: int) -> None:
        """Note how much is done now."""
        point = (self.clock(), done)
        self._first = self._first or point
        self._points.append(point)
        while len(self._points) > 2 and point[0] - self._points[0][0] > WINDOW_S:
            self._points.popleft()

    @property
    def now(self) -> float:
        """Per second, over the last ten."""
        return _per_second(self._points[0], self._points[-1]) if len(self._points) > 1 else 0.0

    @property
    def mean(self) -> float:
        """Per second, since this process began to count."""
        return _per_second(self._first, self._points[-1]) if self._first and self._points else 0.0

    def seconds_left(self, total: int | None) -> float | None:
        """By the mean rate; None while nothing can be said."""
        if total is None or not self._points or self.mean <= 0:
            return None
        return max(total - self._points[-1][1], 0) / self.mean

    def time_left(self, total: int | None) -> str:
        """In words, from the rate of now to the mean one: '4 to 6 min'; "" while nothing can be said."""
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
    """A moment for people, always with its zone: '2026-11-30 21:15 UTC'."""
    return f"{moment.astimezone(UTC):{'%Y-%m-%d %H:%M:%S' if seconds else '%Y-%m-%d %H:%M'}} UTC"


def format_duration(seconds: float) -> str:
    """'300 ms', '45 s', '12 min', '1 h 40 min'."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def ago(seconds: float) -> str:
    """'just now', '3 min ago', '2 days ago'; a clock that was set back makes nothing younger than now."""
    return "just now" if seconds < 1 else f"{age(seconds)} ago"


def age(seconds: float) -> str:
    """A span that may be one of days: '45 s', '12 min', '5 h 20 min', '3 days'."""
    days = seconds / 86400
    return format_duration(seconds) if days < 2 else f"{days:.1f}".removesuffix(".0") + " days"
