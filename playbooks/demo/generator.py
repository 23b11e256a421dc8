"""Makes up the honeypot's rows from a seed: the same numbers give the same rows, for every database and for the oracle.

The shares are those of a real store; names, networks and addresses are invented. What is rare there and breaks naive
statements is here in every size: sessions without an address in seven ways, addresses that the inventory lacks, private
ones with and without a row, countries that are unknown, rows without an AS number or types, times that are missing.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

Shape = Literal["empty", "stored", "bad"]

START, END = datetime(2025, 1, 6, tzinfo=UTC), datetime(2025, 11, 5, tzinfo=UTC)
ADDRESSES_PER_SESSION = 38_864 / 1_682_827
COUNTRIES = {
    "CN": 18, "US": 18, "RU": 10, "NL": 8, "DE": 7, "IN": 6, "BR": 5, "VN": 5,
    "KR": 4, "SG": 4, "FR": 4, "GB": 3, "ID": 3, "HK": 3, "UA": 2,
}  # fmt: skip
TYPES = {
    "RESIDENTIAL": 38, "DATACENTER": 34, "SCANNER": 8, "VPN": 7, "MOBILE": 5, "PROXY": 3, "TOR": 3, "EDUCATION": 2,
}  # fmt: skip
SNOWSHOE_SHARE = 0.08  # one Chinese hoster spreads its attacks over this part of all addresses
SHARES = {  # of the sessions that are there at the start; the rest has an address of the inventory
    "empty": {"unknown": 0.010, "private": 0.005, "none": 0.005},
    "stored": {"unknown": 0.010, "private": 0.005, "none": 0.005},
    "bad": {"unknown": 0.080, "private": 0.005, "none": 0.005},
}
LATE_SHARE = 0.005  # arrives during the run; the shares above are of the whole with these
CUT = '{"session_metadata": {"source_ip": "203.'  # broken off while it was written


class Asn(NamedTuple):
    """A row of asn_inventory, in the order of its columns."""

    asn_number: int
    organization_name: str
    organization_country: str
    registry: str
    asn_type: str
    is_known_hosting: bool
    is_known_vpn: bool
    first_seen: str
    last_seen: str
    unique_ip_count: int
    total_session_count: int
    enrichment: str


class Address(NamedTuple):
    """A row of ip_inventory, in the order of its columns; the generated ones are the database's."""

    ip_address: str
    current_asn: int | None
    asn_last_verified: str
    first_seen: str
    last_seen: str
    session_count: int
    ip_types: list[str] | None
    enrichment: str
    enrichment_updated_at: str
    enrichment_version: str


class Session(NamedTuple):
    """A row of session_summaries, in the order of its columns; the snapshot columns and enrichment_at are left NULL."""

    session_id: str
    source_ip: str | None
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
    ssh_key_fingerprint: str | None
    password_hash: str | None
    command_signature: str | None
    enrichment: str | None
    created_at: str
    updated_at: str


class World:
    """One honeypot: its networks and addresses, and its sessions as often as they are asked for."""

    def __init__(self, sessions: int, *, shape: Shape = "empty", seed: int = 7, width: int = 768) -> None:
        self.size, self.shape, self.seed, self.width = sessions, shape, seed, width
        rng = self._random("inventory")
        self.networks = _networks(max(40, self.public // 15))
        self.addresses = [*self._public(rng), *_bogons()]
        self.asns = _asn_rows(self.networks, self.addresses)
        self.known = {address.ip_address for address in self.addresses}
        self._fillers = _fillers(rng, width)
        self._hashes = [f"{rng.getrandbits(256):064x}" for _ in range(500)]

    @property
    def public(self) -> int:
        """How many public addresses the inventory has."""
        return max(200, round(self.size * ADDRESSES_PER_SESSION))

    def sessions(self) -> Iterator[Session]:
        """The sessions that are there at the start, in the order of their insertion."""
        rng = self._random("sessions")
        kinds = self._kinds(rng)
        nones, private = itertools.cycle(_NOWHERE), itertools.cycle(_PRIVATE)
        created = ""
        for number, (kind, when) in enumerate(zip(kinds, _moments(rng, self.size), strict=True)):
            if number % 256 == 0:
                created = _text(END + timedelta(hours=6 * number / self.size))
            if kind == "none":
                source, enrichment = None, next(nones)(rng.choice(self._fillers))
            else:
                ip = self._ip(rng) if kind == "known" else next(private) if kind == "private" else _unknown(rng)
                source, enrichment = self._enrichment(rng, ip)
            yield self._session(rng, when, enrichment, source if self.shape == "stored" else None, created)

    def late(self, count: int) -> Iterator[Session]:
        """Sessions that arrive during the run: newer than all others, with addresses of the inventory."""
        rng = self._random("late")
        for number in range(count):
            when = END + timedelta(hours=6, seconds=number)
            enrichment = self._enrichment(rng, self._ip(rng))[1]
            yield self._session(rng, when, enrichment, None, _text(when))

    def files(self, ids: list[str]) -> Iterator[tuple[str, str, str, int]]:
        rng = self._random("files")
        for session_id in ids[::50]:
            yield session_id, rng.choice(self._hashes), rng.choice(("a.sh", "x86", "mips")), rng.randrange(200, 90_000)

    def events(self, ids: list[str]) -> Iterator[tuple[str, str]]:
        for number, session_id in enumerate(ids[::20]):
            yield session_id, json.dumps({"eventid": "login.failed", "session": session_id, "number": number})

    def _random(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{purpose}")

    def _kinds(self, rng: random.Random) -> list[str]:
        counts = {kind: round(self.size * share / (1 - LATE_SHARE)) for kind, share in SHARES[self.shape].items()}
        kinds = [kind for kind, count in counts.items() for _ in range(count)]
        kinds += ["known"] * (self.size - len(kinds))
        rng.shuffle(kinds)
        return kinds

    def _ip(self, rng: random.Random) -> str:
        return self.addresses[int(self.public * rng.random() ** 1.3)].ip_address  # some come more often than others

    def _enrichment(self, rng: random.Random, ip: str) -> tuple[str | None, str]:
        """What v16 would have stored as the source, and the JSON that names it in one or in both places."""
        filler, place = rng.choice(self._fillers), rng.random()
        if place < 0.85:
            return self._stored(ip), f'{{"session_metadata": {{"source_ip": "{ip}", "protocol": "ssh"}}, {filler}}}'
        if place < 0.90:
            return self._stored(ip), f'{{"session_metadata": {{"source_ip": null}}, {_dshield(ip)}, {filler}}}'
        if place < 0.95:
            return self._stored(ip), f"{{{_dshield(ip)}, {filler}}}"
        other = self._ip(rng) if place > 0.99 else ip  # they disagree: v16 believed dshield, the documents the session
        return self._stored(other), f'{{"session_metadata": {{"source_ip": "{ip}"}}, {_dshield(other)}, {filler}}}'

    def _stored(self, ip: str) -> str | None:
        return ip if ip in self.known else None

    def _session(
        self, rng: random.Random, when: datetime | None, enrichment: str | None, source_ip: str | None, created: str
    ) -> Session:
        bits = rng.getrandbits(64)
        commands, rare = bits & 15, bits >> 4 & 127
        first = None if when is None else _text(when)
        last = None if when is None else _text(when + timedelta(seconds=bits >> 11 & 1023))
        return Session(
            session_id=f"{rng.getrandbits(128):032x}",
            source_ip=source_ip,
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
            ssh_key_fingerprint=f"SHA256:{self._hashes[rare][:43]}" if rare < 4 else None,
            password_hash=self._hashes[(bits >> 32) % 500] if rare > 90 else None,
            command_signature=f"uname;wget;chmod;{bits >> 32 & 63}" if 64 < rare < 90 else None,
            enrichment=enrichment,
            created_at=created,
            updated_at=created,
        )

    def _public(self, rng: random.Random) -> Iterator[Address]:
        seen: set[str] = set()
        countries, weights = list(COUNTRIES), list(COUNTRIES.values())
        for number in range(self.public):
            country = rng.choices(countries, weights)[0]
            network, types = rng.choice(self.networks[country]), _types(rng)
            if rng.random() < SNOWSHOE_SHARE:
                country, network, types = "CN", self.networks["CN"][0], ["DATACENTER", "SNOWSHOE"]
            if number == self.public - 1:  # the rare pair: Iceland has one address
                country, network, types = "IS", self.networks["IS"][0], ["TOR", "DATACENTER"]
            ip = _inside(rng, network, seen)
            share = ((number + 1) / self.public) ** (1 / 1.3) - (number / self.public) ** (1 / 1.3)
            yield Address(
                ip_address=ip,
                current_asn=None if number % 200 == 120 else network,
                asn_last_verified=_text(END - timedelta(days=2)),
                first_seen=_text(START + timedelta(hours=rng.randrange(4000))),
                last_seen=_text(END - timedelta(hours=rng.randrange(2000))),
                session_count=max(1, round(self.size * share)),
                ip_types=(None if number % 400 < 200 else []) if number % 200 == 160 else types,
                enrichment=_evidence(rng, "" if number % 100 == 50 else country, scanner="SCANNER" in types),
                enrichment_updated_at=_text(END - timedelta(seconds=rng.randrange(3600, 35 * 86_400))),
                enrichment_version="2.2",
            )


def _networks(count: int) -> dict[str, list[int]]:
    """The AS numbers of every country: numbers for private use, so that no real network is blamed."""
    numbers = itertools.count(64_512)
    total = sum(COUNTRIES.values())
    sizes = {country: max(1, round(min(count, 900) * weight / total)) for country, weight in COUNTRIES.items()}
    return {country: [next(numbers) for _ in range(size)] for country, size in {**sizes, "IS": 1}.items()}


def _asn_rows(networks: dict[str, list[int]], addresses: list[Address]) -> list[Asn]:
    grouped: dict[int | None, list[Address]] = {}
    for address in addresses:
        grouped.setdefault(address.current_asn, []).append(address)
    rows = []
    for country, number in ((country, number) for country, numbers in networks.items() for number in numbers):
        members = grouped.get(number, [])
        kind = "hosting" if number % 3 == 0 else "isp"
        rows.append(Asn(
            number, f"Network {number} {country}", country, "apnic" if country in {"CN", "IN", "VN", "KR"} else "ripe",
            kind, kind == "hosting", number % 17 == 0, _text(START), _text(END), len(members),
            sum(member.session_count for member in members), "{}",
        ))  # fmt: skip
    return rows


def _bogons() -> list[Address]:
    """Private addresses that have a row all the same, one of them with all that a snapshot could be copied from."""
    rows = []
    for number in range(1, 5):
        evidence = {"validation": {"is_bogon": True}} | ({"maxmind": {"country": "US"}} if number == 1 else {})
        rows.append(Address(
            f"10.0.0.{number}", 64_512 if number == 1 else None, _text(END), _text(START), _text(END), 1,
            ["DATACENTER"] if number == 1 else ["PRIVATE"], json.dumps(evidence), _text(END - timedelta(days=1)), "2.2",
        ))  # fmt: skip
    return rows


def _evidence(rng: random.Random, country: str, *, scanner: bool) -> str:
    """The inventory's JSON: the country from one of three sources, in either case; none of them when it is empty."""
    known: dict[str, object] = {"validation": {"is_bogon": False}, "greynoise": {"noise": scanner}}
    source = rng.random()
    if country and source < 0.80:
        known |= {"maxmind": {"country": country, "city": None}, "cymru": {"country": country}}
    elif country and source < 0.92:
        known |= {"maxmind": {"country": None}, "cymru": {"country": country.lower()}}
    elif country:
        known |= {"dshield": {"ip": {"ascountry": country, "count": 3}}}
    return json.dumps(known)


def _types(rng: random.Random) -> list[str]:
    first = rng.choices(list(TYPES), list(TYPES.values()))[0]
    return [first, *rng.sample([name for name in TYPES if name != first], rng.choice((0, 0, 0, 1, 1, 2)))]


def _inside(rng: random.Random, network: int, seen: set[str]) -> str:
    """A new address of the network; those of the inventory begin with 11 to 99, and a few are of version 6."""
    first, second = divmod(network * 7, 89)
    while True:
        ip = f"{11 + second}.{first % 256}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        if rng.random() < 0.01:
            ip = str(ipaddress.IPv6Address((0x2A00 << 112) + (network << 80) + rng.getrandbits(16)))
        if ip not in seen:
            seen.add(ip)
            return ip


def _unknown(rng: random.Random) -> str:
    """A public address that no inventory has: they begin with 130 and above."""
    return f"{rng.randrange(130, 168)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


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
        room = width * (2 / 3 + number / 96) - 130
        hashes = [f'"{rng.getrandbits(256):064x}"' for _ in range(max(0, int(room / 68)))]
        texts.append(f'"urlhaus": {{"status": "none"}}, "virustotal": {{"sha256": [{", ".join(hashes)}]}}')
    return texts


def _dshield(ip: str) -> str:
    return f'"dshield": {{"ip": {{"number": "{ip}", "count": 12}}}}'


def _text(moment: datetime) -> str:
    """UTC to the second, as both databases read it: 2025-11-05 00:00:00."""
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")


_PRIVATE = ("10.0.0.1", "192.168.7.9", "10.0.0.2", "172.16.4.4")  # the first and third have a row in the inventory
_NOWHERE: tuple[Callable[[str], str | None], ...] = (
    lambda _: None,
    lambda _: "null",
    lambda _: '["unreachable"]',
    lambda filler: f'{{"session_metadata": {{"source_ip": null}}, "dshield": {{"ip": null}}, {filler}}}',
    lambda filler: f'{{"session_metadata": "lost", {filler}}}',
    lambda filler: f"{{{filler}}}",
    lambda _: CUT,
)
