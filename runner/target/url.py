"""The URL of a database taken apart, without a driver and without ever showing a password.

Not with libpq's own reader (psycopg.conninfo): it takes the last of a key that stands there twice, its errors repeat
what they could not read, and to load it costs every `status` and `runs` with a targets.yaml a third of a second. A test
holds this reading to libpq's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote

from runner.common.errors import BadInput
from runner.playbook.yaml_reader import near

Dialect = Literal["postgresql", "sqlite"]

_SCHEMES: dict[str, Dialect] = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "postgresql+psycopg": "postgresql",
    "postgresql+psycopg2": "postgresql",
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
}
_SECRET_KEYWORDS = frozenset({"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"})
_KEYWORDS = (  # libpq's, of PostgreSQL 14 to 18
    *("application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname"),
    *("fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives"),
    *("keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts"),
    *("max_protocol_version", "min_protocol_version", "options", "passfile", "port", "require_auth", "requirepeer"),
    *("service", "servicefile", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode"),
    *("sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation", "sslrootcert", "sslsni"),
    *("target_session_attrs", "tcp_user_timeout", "user"),
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
_SERVICE = re.compile(r"service=([^\s=]+)")
_LEAD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/*|/+")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.]{0,30}")
_PASSWORD_WORD = re.compile(r"(?:^|[\s?&;])(?:ssl)?(?:password|passwd|pwd|pass)\s*=", re.IGNORECASE)


class BadUrl(BadInput):
    """The URL of a database cannot be read; the reason never repeats what may hold a password."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class HoldsPassword(BadInput):
    """A URL holds a password; where it stood decides what to say."""


@dataclass(frozen=True)
class Url:
    """A database's address: `text` in its normal form, libpq's keywords for PostgreSQL, a path for SQLite."""

    text: str
    dialect: Dialect
    libpq: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def service(self) -> str | None:
        return self.libpq.get("service")


def holds_password(text: str) -> bool:
    """Whether there is a password in something that is, or was meant to be, the URL of a server.

    Answers yes in doubt, since what follows a no may be printed.
    """
    if _PASSWORD_WORD.search(text):
        return True
    rest = text.removeprefix(lead[0]) if (lead := _LEAD.match(text)) and "/" in lead[0] else text
    address, _, query = rest.partition("?")
    keys = {unquote(pair.partition("=")[0]) for pair in query.split("&")}
    if not keys.isdisjoint(_SECRET_KEYWORDS):
        return True
    if "@" in address:
        return ":" in address.rpartition("@")[0].rstrip(":")
    return "@" in query and not keys <= set(_KEYWORDS)  # a password with ? in it


def parse_url(text: str, *, base: Path) -> Url:
    """Take a URL (or `service=NAME`) apart; a relative path of SQLite starts at `base`.

    Raises:
        HoldsPassword: there is a password in it.
        BadUrl: it is no URL of PostgreSQL or SQLite.
    """
    if match := _SERVICE.fullmatch(text):
        return Url(text, "postgresql", {"service": match[1]})
    scheme, found, rest = text.partition("://")
    dialect = _SCHEMES.get(scheme.lower()) if found else None
    if dialect != "sqlite" and holds_password(text):
        raise HoldsPassword
    if dialect is None:
        shown = scheme if found and _PLAIN.fullmatch(scheme) else "this"
        raise BadUrl(
            f"cannot open {shown!r}{near(shown, _SCHEMES)}: a target is postgresql://user@host/database or "
            "sqlite:///file.db"
        )
    return _sqlite(rest, base=base) if dialect == "sqlite" else _postgresql(rest)


def sqlite_url(path: Path) -> Url:
    """The address of a SQLite file."""
    return Url(f"sqlite:///{path}", "sqlite", path=path)


def file_path(text: str, *, base: Path) -> Path:
    """A path as a person writes it: ~ is somebody's home, and a relative one starts at `base`.

    Raises:
        BadUrl: there is no such home directory.
    """
    try:
        return base / Path(text).expanduser()
    except RuntimeError:
        raise BadUrl(f"cannot find the home directory of {text.split('/', maxsplit=1)[0]!r}") from None


def _sqlite(rest: str, *, base: Path) -> Url:
    host, slash, name = rest.partition("/")
    if host or not slash:
        raise BadUrl("cannot read the URL of a SQLite file: write sqlite:///file.db, or sqlite:////absolute/file.db")
    if "?" in name:
        raise BadUrl("cannot use ? in the URL of a SQLite file: name the file alone")
    if not name or name == ":memory:":
        raise BadUrl("cannot use a SQLite database in memory: it ends with the run; name a file")
    return sqlite_url(file_path(name, base=base))


def _postgresql(rest: str) -> Url:
    address, _, query = rest.partition("?")
    netloc, _, database = address.partition("/")
    user, at, hosts = netloc.rpartition("@")
    keywords = _hosts(hosts)
    if user:
        keywords["user"] = unquote(user.rstrip(":"))
    if database:
        keywords["dbname"] = unquote(database)
    given = _query(query)
    if clash := sorted(keywords.keys() & given.keys()):
        raise BadUrl(f"cannot use {clash[0]!r} twice in one URL: it stands before and after the ?")
    text = "postgresql://" + (user.rstrip(":") + at if user else "") + hosts
    text += (f"/{database}" if database else "") + (f"?{query}" if query else "")
    return Url(text, "postgresql", keywords | given)


def _hosts(text: str) -> dict[str, str]:
    """Host and port, or several of them with commas, as libpq takes them."""
    hosts: list[str] = []
    ports: list[str] = []
    for part in text.split(","):
        match = _HOST.fullmatch(part)
        if not match:
            raise BadUrl("cannot read host and port of the URL: write host:5432, or [::1]:5432 for an IPv6 address")
        hosts.append(unquote(match["host"]).strip("[]"))
        ports.append(match["port"] or "")
    found = {"host": ",".join(hosts), "port": ",".join(ports)}
    return {key: value for key, value in found.items() if value.strip(",")}


def _query(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise BadUrl("cannot read the part of the URL after the ?: write key=value, joined by &") from None
    found: dict[str, str] = {}
    for key, value in pairs:
        if key not in _KEYWORDS:
            raise BadUrl(f"cannot use {key!r} in the URL{near(key, _KEYWORDS)}: libpq has no such keyword")
        if key in found:
            raise BadUrl(f"cannot use {key!r} twice in one URL")
        found[key] = value
    return found
