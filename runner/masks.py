"""Secrets masked by value, in every form in which they travel, before anything is written."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from threading import Lock
from urllib.parse import quote, quote_plus

from runner.source import BadInput, Data

MASK = "***"
MIN_LENGTH = 6  # a shorter one would mask half of every line, and tell by that what it is
_URLSAFE = str.maketrans("+/", "-_")


class SecretTooShort(BadInput):
    """A secret is too short to be masked without masking everything."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(
            f"cannot mask a secret of {length} characters: it needs at least {MIN_LENGTH}; choose a longer one"
        )


class Masks:
    """All secrets of a run; `mask` is called on everything before it is written or shown."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._forms: dict[str, str] = {}  # each form as text, and the pattern that finds it
        self._compiled: tuple[tuple[str, ...], re.Pattern[str]] | None = None

    def add(self, secret: str) -> None:
        """Mask this from now on.

        Raises:
            SecretTooShort: it has fewer than 6 characters.
        """
        if secret == MASK:  # a run's own copy of an input that it never knew
            return
        if len(secret) < MIN_LENGTH:
            raise SecretTooShort(len(secret))
        with self._lock:
            for known in {secret, secret.strip()}:
                if len(known) >= MIN_LENGTH:
                    self._forms |= _forms(known)
            longest_first = sorted(self._forms, key=len, reverse=True)
            pattern = re.compile("|".join(self._forms[form] for form in longest_first))
            self._compiled = (tuple(longest_first), pattern)

    def mask(self, text: str) -> str:
        """The text with every form of every secret replaced by ***."""
        compiled = self._compiled
        # Looking for each form is fifty times faster than the pattern, and nearly every text has none.
        if compiled is None or not any(form in text for form in compiled[0]):
            return text
        return compiled[1].sub(MASK, text)

    def mask_data(self, data: Data) -> Data:
        """JSON-like data with its texts, keys, and numbers masked."""
        if isinstance(data, str):
            return self.mask(data)
        if isinstance(data, dict):
            return self._mask_dict(data)
        if isinstance(data, list | tuple):
            return [self.mask_data(item) for item in data]
        if isinstance(data, int | float) and self.mask(str(data)) != str(data):
            return MASK  # a secret of digits
        return data

    def _mask_dict(self, data: dict[str, Data]) -> dict[str, Data]:
        masked: dict[str, Data] = {}
        for key, value in data.items():
            name = self.mask(key)
            while name in masked:  # two keys that differ only in their secrets are both kept
                name += "'"
            masked[name] = self.mask_data(value)
        return masked


def _forms(secret: str) -> dict[str, str]:
    """Every form of a secret with the pattern that finds it."""
    found = {form: re.escape(form) for form in _texts(secret) if len(form) >= MIN_LENGTH}
    for form in _base64_cores(secret):
        # The letters at the two ends hold bits of the secret and of its neighbours.
        found.setdefault(form, rf"[A-Za-z0-9+/_-]?{re.escape(form)}[A-Za-z0-9+/_-]?={{0,2}}")
    return found


def _texts(secret: str) -> Iterator[str]:
    in_json = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
    yield from (secret, *in_json, *(json.dumps(form)[1:-1] for form in in_json))
    yield from (repr(secret)[1:-1], ascii(secret)[1:-1], repr(_bytes(secret))[2:-1])
    both = secret + "\"'"  # as Python writes it where the text around it has both quotes
    yield from (repr(both)[1:-4], ascii(both)[1:-4], repr(_bytes(both))[2:-4])
    import html  # its table of entities is large, and a run without secrets needs none

    yield from (secret.replace("'", "''"), html.escape(secret), html.escape(secret, quote=False))
    yield from (shlex.quote(secret), shlex.quote(secret).removeprefix("'").removesuffix("'"))
    for quoted in (quote(_bytes(secret)), quote(_bytes(secret), safe=""), quote_plus(_bytes(secret))):
        yield quoted
        yield re.sub("%..", lambda code: code[0].lower(), quoted)
    whole = base64.b64encode(_bytes(secret)).decode()
    yield from (whole, whole.translate(_URLSAFE))
    yield from _byte_by_byte(secret)


def _byte_by_byte(secret: str) -> Iterator[str]:
    """Hexadecimal as databases, programs and people write it, and escapes of every character."""
    data = _bytes(secret)
    for code in (data.hex(), data.hex(":"), data.hex(" ")):
        yield from (code, code.upper())
    for prefix in ("\\x", "%", "\\\\x", "=", "0x"):
        yield from ("".join(f"{prefix}{byte:{kind}}" for byte in data) for kind in ("02x", "02X"))
    yield "".join(f"\\{byte:03o}" for byte in data)
    yield "".join(f"&#{ord(sign)};" for sign in secret)
    units = secret.encode("utf-16-be", errors="surrogatepass")
    wide = [f"{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2)]
    yield from ("".join(f"\\u{unit}" for unit in wide), "".join(f"\\u{unit.upper()}" for unit in wide))
    little = secret.encode("utf-16-le", errors="surrogatepass")
    yield from (little.hex(), base64.b64encode(little).decode(), base64.b32encode(data).decode().rstrip("="))


def _base64_cores(secret: str) -> Iterator[str]:
    """What base64 makes of the secret at the three places that it can have in a longer text."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + _bytes(secret)).decode()
        bits = 8 * (before + len(_bytes(secret)))
        core = encoded[-(-8 * before // 6) : bits // 6]
        yield from (core, core.translate(_URLSAFE))


def _bytes(secret: str) -> bytes:
    return secret.encode(errors="surrogatepass")
