"""Makes up the honeypot's rows from a seed: the same numbers give the same rows, for every database and for the oracle.

The shares are those of a real store; names, networks and addresses are invented. What is rare there and breaks naive
statements is here in every size: sessions without an address in seven ways, addresses that the inventory lacks, private
ones with and without a row, countries that are unknown in two ways, networks and types that are missing, times that are
missing, and JSON that PostgreSQL stores and can't read.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from playbooks.demo.addresses import END, START, Address, Networks, text

Store = Literal["raw", "enriched", "rich", "bad"]

ADDRESSES_PER_SESSION = 38_864 / 1_682_827
SHARES = {
    "unknown": 0.010,
    "private": 0.005,
    "none": 0.005,
}  # of the sessions; the rest has an address of the inventory
BAD_SHARES = SHARES | {"unknown": 0.075}
LATE_SHARE = 0.005  # arrives during the run; the shares above are of the whole with these
LATER_SHARE = 0.01  # came after v16, which has therefore left no trace in them
UNREADABLE_SHARE = 0.0003
RARE_SHARE = 0.01  # of the sessions: from addresses that no enricher has asked about
NETWORK_SHARE = 0.60  # of a rich store's sessions: their own enrichment has found the network
CUT = '{"session_metadata": {"source_ip": "203.'  # broken off while it was written


class Session(NamedTuple):
    """A row of session_summaries, in the order of its columns in v15; those of v16 are left NULL."""

    session_id: str
    first_event_at: str | None
    last_event_at: str | None
    event_count: int
    command_count: int
    file_downloads: int
    login_attempts: int
    ssh_key_injections: int
    unique_ssh_keys: int
    vt_flagged: bool
    dshield_flagged: bool
    risk_score: int | None
    matcher: str | None
    source_files: str
    enrichment: str | None
    created_at: str
    updated_at: str


class World:
    """One honeypot: its networks and addresses, and its sessions as often as they are asked for."""

    def __init__(
        self, sessions: int, *, store: Store = "enriched", seed: int = 7, width: int = 768, documented: bool = False
    ) -> None:
        """documented: as the documents believe it to be, without JSON that can't be read."""
        self.size, self.store, self.seed, self.documented = sessions, store, seed, documented
        rng = self._random("inventory")
        self.networks = Networks(rng, max(200, round(sessions * ADDRESSES_PER_SESSION)))
        self._fillers = _fillers(rng, width)
        self._hashes = [f"{rng.getrandbits(256):064x}" for _ in range(500)]

    def sessions(self) -> tuple[Iterator[Session], Iterator[Session]]:
        """The sessions that v16 finds, in the order of their insertion, and then those that came after it."""
        every = self._all()
        return itertools.islice(every, self.size - self._later), every

    def before(self) -> Iterator[Session]:
        """The sessions that v16 finds."""
        return self.sessions()[0]

    def late(self, count: int) -> Iterator[Session]:
        """Sessions that arrive during the run: newer than all others, with addresses of the inventory."""
        rng = self._random("late")
        for number in range(count):
            when = END + timedelta(hours=6, seconds=number)
            ip = self._address(rng).ip
            enrichment = f"{{{_session(ip)}, {_dshield(ip)}, {rng.choice(self._fillers)}}}"
            yield self._row(rng, when, enrichment, text(when))

    def files(self, ids: list[str]) -> Iterator[tuple[str, str, str, int]]:
        rng = self._random("files")
        for session_id in ids[::50]:
            yield session_id, rng.choice(self._hashes), rng.choice(("a.sh", "x86", "mips")), rng.randrange(200, 90_000)

    def events(self, ids: list[str]) -> Iterator[tuple[str, str]]:
        for number, session_id in enumerate(ids[::20]):
            yield session_id, json.dumps({"eventid": "login.failed", "session": session_id, "number": number})

    def passwords(self) -> Iterator[tuple[int, str]]:
        return enumerate(self._hashes, start=1)

    def uses(self, ids: list[str]) -> Iterator[tuple[int, str]]:
        """Which password was tried in which session."""
        for number, session_id in enumerate(ids[::40]):
            yield number % len(self._hashes) + 1, session_id

    def detections(self, ids: list[str]) -> Iterator[tuple[int, str]]:
        """Which session belongs to which of five detections."""
        for number, session_id in enumerate(ids[::200]):
            yield number % 5 + 1, session_id

    @property
    def _later(self) -> int:
        return round(self.size * LATER_SHARE)

    def _all(self) -> Iterator[Session]:
        rng = self._random("sessions")
        nowhere, private = itertools.cycle(_NOWHERE), itertools.cycle(_PRIVATE)
        created = ""
        for number, (kind, when) in enumerate(zip(self._kinds(rng), _moments(rng, self.size), strict=True)):
            if number % 256 == 0:
                created = text(END + timedelta(hours=6 * number / self.size))
            filler = rng.choice(self._fillers)
            if kind == "none":
                enrichment = next(nowhere)(filler)
            elif kind == "private":
                enrichment = _private(next(private), filler, reported=when is not None)
            else:
                enrichment = self._enrichment(rng, kind, filler, when)
            yield self._row(rng, when, enrichment, created)

    def _random(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")

    def _kinds(self, rng: random.Random) -> list[str]:
        shares = BAD_SHARES if self.store == "bad" else SHARES
        counts = {kind: round(self.size * share / (1 - LATE_SHARE)) for kind, share in shares.items()}
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        kinds += ["known"] * (self.size - len(kinds))
        rng.shuffle(kinds)
        unreadable = 0 if self.documented else max(1, round(self.size * UNREADABLE_SHARE))
        for number in range(unreadable):
            kinds[self.size - self._later + number * self._later // unreadable] = "unreadable"
        return kinds

    def _address(self, rng: random.Random) -> Address:
        """One that the enricher knows, some more often than others; seldom another."""
        known, all_ = self.networks.enriched, self.networks.addresses
        rare = rng.random() < RARE_SHARE
        return all_[rng.randrange(known, len(all_))] if rare else all_[int(known * rng.random() ** 1.3)]

    def _enrichment(self, rng: random.Random, kind: str, filler: str, when: datetime | None) -> str:
        """No report of dshield's without a time: v16 asks of each address when it was seen first."""
        if kind == "unreadable":
            return f'{{{_session(self._address(rng).ip)}, "login": {{"username": "root\\u0000"}}, {filler}}}'
        address = self.networks.unknown(rng) if kind == "unknown" else self._address(rng)
        if self.store == "rich" and address.said and rng.random() < NETWORK_SHARE:
            filler = f'"enriched_at": "{text(when or END)}+00:00", {address.said}, {filler}'
        if kind == "unknown" or when is None:
            return f"{{{_session(address.ip)}, {filler}}}"
        return self._known(rng, address.ip, filler)

    def _known(self, rng: random.Random, ip: str, filler: str) -> str:
        """The JSON names it in one place or in both; v16 looked into dshield's only, the documents look into the session's first."""
        place = rng.random()
        if place < 0.93:
            return f"{{{_session(ip)}, {_dshield(ip)}, {filler}}}"
        if place < 0.94:
            return f'{{"session_metadata": {{"source_ip": null}}, {_dshield(ip)}, {filler}}}'
        if place < 0.96:
            return f"{{{_dshield(ip)}, {filler}}}"
        if place < 0.97:  # they disagree
            return f"{{{_session(ip)}, {_dshield(self._address(rng).ip)}, {filler}}}"
        if place < 0.98:  # a backslash and the letters u0000, which is no \u0000
            return f'{{{_session(ip)}, "login": {{"username": "C:\\\\u0000"}}, {filler}}}'
        return f"{{{_session(ip)}, {filler}}}"

    def _row(self, rng: random.Random, when: datetime | None, enrichment: str | None, created: str) -> Session:
        bits = rng.getrandbits(64)
        commands, rare = bits & 15, bits >> 4 & 127
        first = None if when is None else text(when)
        last = None if when is None else text(when + timedelta(seconds=bits >> 11 & 1023))
        return Session(
            session_id=f"{rng.getrandbits(128):032x}",
            first_event_at=first,
            last_event_at=last,
            event_count=3 + commands * 2,
            command_count=commands,
            file_downloads=int(rare < 8),
            login_attempts=bits >> 21 & 31,
            ssh_key_injections=int(rare < 4),
            unique_ssh_keys=int(rare < 4),
            vt_flagged=rare < 6,
            dshield_flagged=rare < 50,
            risk_score=bits >> 26 & 63 if rare > 2 else None,
            matcher="commands" if commands else None,
            source_files='["cowrie.json"]',
            enrichment=enrichment,
            created_at=created,
            updated_at=created,
        )


def _moments(rng: random.Random, count: int) -> Iterator[datetime | None]:
    """First events in heap order: one writer loads the newer half while another loads the older, in turns.

    So the order of the heap and of time correlate by about a half. A few sessions have no time at all.
    """
    newer = bytearray()
    while len(newer) < count:
        newer += bytes([len(newer) and 1 - newer[-1]]) * rng.randrange(20, 200)
    newer = newer[:count]
    totals, done, half = (count - sum(newer), sum(newer)), [0, 0], (END - START).total_seconds() / 2
    for writer in newer:
        seconds = half * (writer + done[writer] / totals[writer]) + rng.random() * 3600
        done[writer] += 1
        yield None if rng.random() < 0.003 else START + timedelta(seconds=int(seconds))


def _fillers(rng: random.Random, width: int) -> list[str]:
    """The rest of an enrichment, for rows from two thirds to four thirds of `width` bytes."""
    texts = []
    for number in range(64):
        room = width * (2 / 3 + number / 96) - 190
        hashes = [f'"{rng.getrandbits(256):064x}"' for _ in range(max(0, int(room / 68)))]
        texts.append(f'"urlhaus": {{"status": "none"}}, "virustotal": {{"sha256": [{", ".join(hashes)}]}}')
    return texts


def _session(ip: str) -> str:
    return f'"session_metadata": {{"source_ip": "{ip}", "protocol": "ssh"}}'


def _dshield(ip: str) -> str:
    """A report that says nothing of the country, in one of two ways."""
    silent = "" if ip.endswith(("0", "5")) else ', "ascountry": ""'
    return f'"dshield": {{"ip": {{"number": "{ip}", "count": 12{silent}}}}}'


def _private(ip: str, filler: str, *, reported: bool) -> str:
    """Those that stand in dshield's reports stand in the inventory too."""
    return f"{{{_dshield(ip) if reported and ip.startswith('10.') else _session(ip)}, {filler}}}"


_PRIVATE = ("10.0.0.1", "192.168.7.9", "10.0.0.2", "172.16.4.4")
_NOWHERE: tuple[Callable[[str], str | None], ...] = (
    lambda _: None,
    lambda _: "null",
    lambda _: '["unreachable"]',
    lambda filler: f'{{"session_metadata": {{"source_ip": null}}, "dshield": {{"ip": null}}, {filler}}}',
    lambda filler: f'{{"session_metadata": "lost", {filler}}}',
    lambda filler: f"{{{filler}}}",
    lambda _: CUT,
)
