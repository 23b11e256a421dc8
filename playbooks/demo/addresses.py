"""Where the honeypot's sessions come from: networks and addresses, with what an enricher would find out about them."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

START, END = datetime(2025, 1, 6, tzinfo=UTC), datetime(2025, 11, 5, tzinfo=UTC)
COUNTRIES = {
    "CN": 18, "US": 18, "RU": 10, "NL": 8, "DE": 7, "IN": 6, "BR": 5, "VN": 5,
    "KR": 4, "SG": 4, "FR": 4, "GB": 3, "ID": 3, "HK": 3, "UA": 2,
}  # fmt: skip
TYPES = {
    "RESIDENTIAL": 38, "DATACENTER": 34, "SCANNER": 8, "VPN": 7, "MOBILE": 5, "PROXY": 3, "TOR": 3, "EDUCATION": 2,
}  # fmt: skip
SNOWSHOE_SHARE = 0.08  # one Chinese hoster spreads its attacks over this part of all addresses
ENRICHED_SHARE = 0.75  # of the addresses: those with the most sessions, which an enricher asks about first


class Asn(NamedTuple):
    """A network, as the enricher writes it into asn_inventory."""

    asn_number: int
    organization_name: str
    organization_country: str
    rir_registry: str
    asn_type: str
    is_known_hosting: bool
    is_known_vpn: bool


class Address(NamedTuple):
    """An address. said: what its sessions' JSON holds of its network, if anything; found: what the enricher adds."""

    ip: str
    network: int | None
    types: list[str]
    said: str
    found: dict[str, object]
    enriched: bool
    updated_at: str


class Networks:
    """All networks and addresses of one honeypot, the addresses with the most sessions first."""

    def __init__(self, rng: random.Random, public: int) -> None:
        self.by_country = _networks(max(40, public // 15))
        self.enriched = round(public * ENRICHED_SHARE)
        self.addresses = list(self._public(rng, public))
        self.private = _private()
        self.asns = [_asn(country, number) for country, numbers in self.by_country.items() for number in numbers]

    def unknown(self, rng: random.Random) -> Address:
        """A public address that only one session has seen, in no dshield report: they begin with 130 and above."""
        ip = f"{rng.randrange(130, 168)}.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        return Address(ip, None, [], _said("NL", self.by_country["NL"][0]), {}, enriched=False, updated_at="")

    def _public(self, rng: random.Random, count: int) -> Iterator[Address]:
        seen: set[str] = set()
        countries, weights = list(COUNTRIES), list(COUNTRIES.values())
        for number in range(count):
            country = rng.choices(countries, weights)[0]
            network, types = rng.choice(self.by_country[country]), _types(rng)
            if rng.random() < SNOWSHOE_SHARE:
                country, network, types = "CN", self.by_country["CN"][0], ["DATACENTER", "SNOWSHOE"]
            if number == self.enriched - 1:  # the rare pair: Iceland has one address
                country, network, types = "IS", self.by_country["IS"][0], ["TOR", "DATACENTER"]
            ip = _inside(rng, network, seen)
            country = "" if number % 100 == 50 else country
            asn = None if number % 200 == 120 else network
            before = ("RU", self.by_country["RU"][0]) if number % 200 == 77 else (country, asn)  # has moved since
            yield Address(
                ip=ip,
                network=asn,
                types=[] if number % 200 == 160 else types,
                said=_said(*before),
                found=_found(rng, ip, country, scanner="SCANNER" in types),
                enriched=number < self.enriched,
                updated_at=text(END - timedelta(seconds=rng.randrange(3600, 35 * 86_400))),
            )


def text(moment: datetime) -> str:
    """UTC to the second, as both databases read it: 2025-11-05 00:00:00."""
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")


def _networks(count: int) -> dict[str, list[int]]:
    """The AS numbers of every country: numbers for private use, so that no real network is blamed."""
    numbers = itertools.count(64_512)
    total = sum(COUNTRIES.values())
    sizes = {country: max(1, round(min(count, 900) * weight / total)) for country, weight in COUNTRIES.items()}
    return {country: [next(numbers) for _ in range(size)] for country, size in {**sizes, "IS": 1}.items()}


def _asn(country: str, number: int) -> Asn:
    registry = "apnic" if country in {"CN", "IN", "VN", "KR"} else "ripe"
    kind = "hosting" if number % 3 == 0 else "isp"
    name = f"Network {number} {country}"
    return Asn(number, name, country, registry, kind, kind == "hosting", number % 17 == 0)


def _private() -> list[Address]:
    """Private addresses that dshield reports name all the same; of the first the enricher finds all that a snapshot has."""
    found: dict[str, object] = {"maxmind": {"country": "US"}}
    first = Address("10.0.0.1", 64_512, ["DATACENTER"], "", found, enriched=True, updated_at=text(END))
    return [first, Address("10.0.0.2", None, [], "", {}, enriched=False, updated_at="")]


def _said(country: str, network: int | None) -> str:
    """What a session's JSON holds where its own enrichment worked; nothing of a country is nothing at all."""
    if not country:
        return ""
    maxmind = f'"maxmind": {{"country": "{country}"}}'
    return maxmind if network is None else f'"cymru": {{"asn": {network}, "country": "{country.lower()}"}}, {maxmind}'


def _found(rng: random.Random, ip: str, country: str, *, scanner: bool) -> dict[str, object]:
    """What the enricher adds to the inventory's JSON: the country from one of three sources, in either case."""
    found: dict[str, object] = {"greynoise": {"noise": scanner}}
    source = rng.random()
    if not country:
        return found | {"maxmind": {"country": ""}}
    if source < 0.80:
        return found | {"maxmind": {"country": country, "city": None}, "cymru": {"country": country}}
    if source < 0.92:
        return found | {"maxmind": {"country": None}, "cymru": {"country": country.lower()}}
    return found | {"dshield": {"ip": {"number": ip, "ascountry": country, "count": 3}}}


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
