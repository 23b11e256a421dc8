"""Names of people: how they are written down, and when two of them are the same person's."""

from __future__ import annotations

import re
import unicodedata

from runner.common.errors import RunRefused

GUARD = "guard "  # before a guard's id, where it speaks in the trail as people do

# Scripts of which one name may mix several, since they are written together.
_TOGETHER = (frozenset({"CJK", "HIRAGANA", "KATAKANA", "HIRAGANA-KATAKANA"}), frozenset({"CJK", "HANGUL"}))
# Letters of other scripts that look like a Latin one: a name that differs from another in nothing else is the same name.
_LOOKS_LIKE = str.maketrans(
    "\u0251\u0261\u0131\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u0501\u04cf\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "agiabekmhopctyxijsdlaeikvoptux",
)


# Signs without a picture that Unicode counts among marks, letters and symbols: fillers, joiners, variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def named(text: str, *, option: str = "--as") -> str:
    """A person's name as it is recorded: without blanks around it, in the one form that Unicode calls compatible.

    Raises RunRefused where it names nobody, or can't be told apart from another by eye.
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
    """A person's reason as it is recorded. Raises RunRefused where none is given, or the place for one that a hint showed."""
    reason = text.strip()
    if not reason or is_placeholder(reason):
        raise RunRefused(
            f"cannot take {text!r} as a reason: it is " + ("the place for one" if reason else "empty"),
            state="nothing was recorded",
            then="--reason with why you do it, in your own words",
        )
    return text


def is_placeholder(text: str) -> bool:
    """Whether this is what our hints and texts write where a person's own word belongs: NAME, '…', <reason>."""
    bare = unicodedata.normalize("NFKC", text).strip(" '\"`")
    return bare in _PLACEHOLDERS or bool(_BRACKETED.fullmatch(bare))


_PLACEHOLDERS = frozenset({"NAME", "TEXT", "REASON", "ROLE", "WHO", "WHY", "YOU", "...", "…", "YOUR NAME", "YOUR_NAME"})
_BRACKETED = re.compile(r"<[^<>]*>|\{\{?[^{}]*\}?\}|\[[^\[\]]*\]|\.{2,}")


def key(name: str) -> str:
    """What two names are compared by: neither case, nor blanks, nor letters that only look like others make two people."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(plain.translate(_LOOKS_LIKE).split())


def same(one: str, other: str) -> bool:
    """Whether two names are one person's; nobody's name is nobody's."""
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
    """The script of a letter, by its name in Unicode."""
    return unicodedata.name(char, "").partition(" ")[0]
