"""Names of people: how they are recorded, and when two of them count as the same person."""

from __future__ import annotations

import re
import unicodedata

from runner.common.errors import RunRefused

GUARD = "guard "  # prefix of a guard's id where the trail has the name of whoever acted

# Scripts that one name may mix, because they are written together.
_TOGETHER = (frozenset({"CJK", "HIRAGANA", "KATAKANA", "HIRAGANA-KATAKANA"}), frozenset({"CJK", "HANGUL"}))
# Letters of other scripts that look like Latin ones: names that differ in nothing else count as the same.
_LOOKS_LIKE = str.maketrans(
    "\u0251\u0261\u0131\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u0501\u04cf\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "agiabekmhopctyxijsdlaeikvoptux",
)


# Invisible characters that Unicode classes as marks, letters or symbols: fillers, joiners, variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def named(text: str, *, option: str = "--as") -> str:
    """Normalise a person's name for the record: surrounding blanks removed, Unicode form NFKC.

    Raises RunRefused if it is empty or a placeholder, or could be mistaken for another name by eye.
    """
    name = " ".join(unicodedata.normalize("NFKC", text).split())
    reason = _unfit(name)
    if reason:
        raise RunRefused(
            f"cannot take {text!r} as a name: {reason}",
            state="nothing was recorded",
            then=f"{option} NAME, or leave {option} away for the system's user",
        )
    return name


def reasoned(text: str) -> str:
    """Check a person's reason for the record. Raises RunRefused if it is empty or a placeholder copied from a hint."""
    reason = text.strip()
    if not reason or is_placeholder(reason):
        raise RunRefused(
            f"cannot take {text!r} as a reason: it is " + ("the place for one" if reason else "empty"),
            state="nothing was recorded",
            then="--reason with why you do it, in your own words",
        )
    return text


def is_placeholder(text: str) -> bool:
    """Whether this is a placeholder from our own hints and docs: NAME, '…', <reason>."""
    bare = unicodedata.normalize("NFKC", text).strip(" '\"`")
    return bare in _PLACEHOLDERS or bool(_BRACKETED.fullmatch(bare))


_PLACEHOLDERS = frozenset({"NAME", "TEXT", "REASON", "ROLE", "WHO", "WHY", "YOU", "...", "…", "YOUR NAME", "YOUR_NAME"})
_BRACKETED = re.compile(r"<[^<>]*>|\{\{?[^{}]*\}?\}|\[[^\[\]]*\]|\.{2,}")


def key(name: str) -> str:
    """The comparison key of a name: ignores case, blanks, and look-alike letters of other scripts."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(plain.translate(_LOOKS_LIKE).split())


def same(one: str, other: str) -> bool:
    """Whether two names belong to the same person; an empty name matches none."""
    return bool(key(one)) and key(one) == key(other)


def _unfit(name: str) -> str:
    if not any(char.isalnum() for char in name):
        return "it names nobody"
    if is_placeholder(name):
        return "it is the place for one"
    if name.casefold().startswith(GUARD):
        return "so begin the names of guards"
    if _UNSEEN.search(name) or any(unicodedata.category(char).startswith("C") for char in name):
        return "it has signs in it that can't be seen"
    scripts = sorted({_script(char) for char in name if char.isalpha()} - {""})
    if len(scripts) > 1 and not any(scripts_fit >= set(scripts) for scripts_fit in _TOGETHER):
        return f"it mixes {' and '.join(script.capitalize() for script in scripts)} letters"
    return ""


def _script(char: str) -> str:
    """The script of a letter: the first word of its Unicode name."""
    return unicodedata.name(char, "").partition(" ")[0]
