"""Masks secrets by value, in all common encodings and escapes of them, before anything is written or shown."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from urllib.parse import quote, quote_plus

from runner.common.errors import BadInput
from runner.common.plain_data import Data

MASK = "***"
PART = 4  # characters that identify the remainder of a truncated secret
NAME_BYTES = 63  # PostgreSQL's limit for a name; cut before a multi-byte letter it is up to three bytes shorter
_CUTS = ("…", "...", "\\u2026")  # truncation marks: our own, those of servers and programs, our own in JSON
_ANY_CUT = re.compile("|".join(map(re.escape, _CUTS)))
# A name that the server truncated to 63 bytes: it is shown in quotes, without a truncation mark.
_CUT_NAME = re.compile(r'"(?P<name>[^"\n]{15,63})(?=")')
MIN_LENGTH = 6  # a shorter secret would match all over ordinary text, and give itself away by what is masked
_URLSAFE = str.maketrans("+/", "-_")


class SecretTooShort(BadInput):
    """The secret has fewer than MIN_LENGTH characters."""

    def __init__(self, length: int) -> None:
        self.length = length
        super().__init__(
            f"cannot mask a secret of {length} characters: it needs at least {MIN_LENGTH}; choose a longer one"
        )


class Masks:
    """The secrets of a run. `mask` is called on everything before it is written or shown. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found_by: dict[str, re.Pattern[str] | None] = {}  # form → pattern, if it must match more
        self._known = _Forms()

    def add(self, secret: str) -> None:
        """Mask this secret from now on.

        Raises:
            SecretTooShort: it has fewer than 6 characters.
        """
        if secret == MASK:  # an input that was read back from a trail, where it is masked already
            return
        if len(secret) < MIN_LENGTH:
            raise SecretTooShort(len(secret))
        with self._lock:
            for known in {secret, secret.strip()}:
                if len(known) >= MIN_LENGTH:
                    self._found_by |= _forms(known)
            self._known = _Forms.of(self._found_by)  # replaced as a whole, so that `mask` needs no lock

    @property
    def has_some(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._known.forms)

    def mask(self, text: str) -> str:
        """Replace every form of every secret in the text by ***."""
        known = self._known
        if not known.forms:
            return text
        # A substring search for each form is fifty times faster than one big pattern; nearly no text has any.
        for form, pattern in known.forms:
            if form in text:
                text = text.replace(form, MASK) if pattern is None else pattern.sub(MASK, text)
        return _without_parts(text, known)

    def mask_data(self, data: Data) -> Data:
        """Mask texts, keys and numbers in JSON-like data."""
        if isinstance(data, str):
            return self.mask(data)
        if isinstance(data, dict):
            return self._mask_dict(data)
        if isinstance(data, list | tuple):
            return [self.mask_data(item) for item in data]
        if isinstance(data, int | float) and self.mask(str(data)) != str(data):
            return MASK  # a secret that consists of digits
        return data

    def _mask_dict(self, data: dict[str, Data]) -> dict[str, Data]:
        masked: dict[str, Data] = {}
        for key, value in data.items():
            name = self.mask(key)
            while name in masked:  # keys that differ only in their secrets are all kept
                name += "'"
            masked[name] = self.mask_data(value)
        return masked


@dataclass(frozen=True)
class _Forms:
    """All forms, longest first, each with its pattern; and an index of them by their first and last PART characters."""

    forms: tuple[tuple[str, re.Pattern[str] | None], ...] = ()
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tails: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, found_by: Mapping[str, re.Pattern[str] | None]) -> _Forms:
        longest_first = sorted(found_by, key=len, reverse=True)
        heads, tails = defaultdict(list), defaultdict(list)
        for form in longest_first:
            heads[form[:PART]].append(form)
            tails[form[-PART:]].append(form)
        return cls(
            tuple((form, found_by[form]) for form in longest_first),
            {head: tuple(forms) for head, forms in heads.items()},
            {tail: tuple(forms) for tail, forms in tails.items()},
        )


def _among(text: str, known: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The forms whose index key occurs in this text."""
    return [form for signs, forms in known.items() if signs in text for form in forms]


def _without_parts(text: str, known: _Forms) -> str:
    """Mask the remainders of truncated secrets: a beginning in front of a truncation, an end behind it."""
    cuts = list(_cuts(text))
    if not cuts:
        return text
    before, behind = _among(text, known.heads), _among(text, known.tails)
    spots = {(begin - _part_before(text, begin, form), begin) for begin, _ in cuts for form in before}
    spots |= {(end, end + _part_behind(text, end, form)) for _, end in cuts for form in behind}
    until = len(text)
    for begin, end in sorted(spots, reverse=True):
        if begin < end <= until:
            text, until = f"{text[:begin]}{MASK}{text[end:]}", begin
    return text


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each truncation mark; for a truncated name, its end twice."""
    if any(cut in text for cut in _CUTS):
        yield from (cut.span() for cut in _ANY_CUT.finditer(text))
    if '"' in text and len(text) >= NAME_BYTES:
        names = (found for found in _CUT_NAME.finditer(text) if len(_bytes(found["name"])) > NAME_BYTES - 4)
        yield from ((found.end(), found.end()) for found in names)


def _part_before(text: str, end: int, form: str) -> int:
    """Length of the longest prefix of `form` that ends at `end`; 0 if it is shorter than PART."""
    at = text.find(form[:PART], max(end - len(form), 0), end)
    while at >= 0 and not form.startswith(text[at:end]):
        at = text.find(form[:PART], at + 1, end)
    return end - at if at >= 0 else 0


def _part_behind(text: str, begin: int, form: str) -> int:
    """Length of the longest suffix of `form` that starts at `begin`; 0 if it is shorter than PART."""
    at = text.rfind(form[-PART:], begin, begin + len(form))
    while at >= 0 and not form.endswith(text[begin : at + PART]):
        at = text.rfind(form[-PART:], begin, at + PART - 1)
    return at + PART - begin if at >= 0 else 0


def _forms(secret: str) -> dict[str, re.Pattern[str] | None]:
    """Every form of a secret, with a pattern where more than the form itself must be masked."""
    spaced = " ".join(secret.split())
    texts = [*_texts(secret), *(_texts(spaced) if spaced != secret else ())]
    if len(lines := secret.split("\n")) > 1:  # a line may be shown alone, or prefixed
        lines = [line.strip() for line in lines]
        texts += [*lines, *(escape(line) for line in lines for escape in _ESCAPES)]
    found: dict[str, re.Pattern[str] | None] = {form: None for form in texts if len(form) >= MIN_LENGTH}
    for form in _base64_cores(secret):
        # The characters at both ends encode bits of the secret and of its neighbours.
        found.setdefault(form, re.compile(rf"[A-Za-z0-9+/_-]?{re.escape(form)}[A-Za-z0-9+/_-]?={{0,2}}"))
    return found


def _in_html(text: str) -> str:
    import html  # its table of entities is large, and a run without secrets needs none

    return html.escape(text)


# Escapes of a text within another one; a SQL literal within JSON has gone through two of them.
_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: text.replace("'", "''"),  # a literal of SQL
    lambda text: text.replace('"', '""'),  # a name of SQL, a value of CSV
    lambda text: text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t"),  # COPY
    lambda text: text.replace("\\", "\\\\"),  # arrays and records
    lambda text: text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
    _in_html,
)


def _texts(secret: str) -> Iterator[str]:
    once = [escape(secret) for escape in _ESCAPES]
    yield from (secret, *once, *(escape(form) for form in dict.fromkeys(once) for escape in _ESCAPES))
    yield from (secret.lower(), secret.upper())  # a server folds the case of names
    yield from (repr(secret)[1:-1], ascii(secret)[1:-1], repr(_bytes(secret))[2:-1])
    both = secret + "\"'"  # how repr() escapes when the text around it has both kinds of quotes
    yield from (repr(both)[1:-4], ascii(both)[1:-4], repr(_bytes(both))[2:-4])
    yield from (shlex.quote(secret), shlex.quote(secret).removeprefix("'").removesuffix("'"))
    for quoted in (quote(_bytes(secret)), quote(_bytes(secret), safe=""), quote_plus(_bytes(secret))):
        yield quoted
        yield re.sub("%..", lambda code: code[0].lower(), quoted)
    yield re.sub(r"([^\w@%+=:,./-])", r"\\\1", secret)  # a shell's backslash escapes
    whole = base64.b64encode(_bytes(secret)).decode()
    yield from (whole, whole.translate(_URLSAFE))
    for coded, widths in ((whole, (76, 64)), (_bytes(secret).hex(), (60,))):  # line widths of common programs
        for width in widths:
            lines = [coded[at : at + width] for at in range(0, len(coded), width)]
            yield from ("\n".join(lines), "\\n".join(lines), *lines)
    yield from _byte_by_byte(secret)


def _byte_by_byte(secret: str) -> Iterator[str]:
    """Hexadecimal in the notations of databases, programs and people, and escapes of every single character."""
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
    """Base64 of the secret at each of the three alignments that it can have within a longer text."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + _bytes(secret)).decode()
        bits = 8 * (before + len(_bytes(secret)))
        core = encoded[-(-8 * before // 6) : bits // 6]
        yield from (core, core.translate(_URLSAFE))


def _bytes(secret: str) -> bytes:
    return secret.encode(errors="surrogatepass")
