"""What is to be typed, as chords: a key, and the modifiers that are held while it is pressed."""

from collections.abc import Sequence
from dataclasses import dataclass

from csb_mcp.errors import InvalidInput
from csb_mcp.host.display.keysyms import (
    MODIFIERS,
    RETURN,
    TAB,
    keysym_of,
    named,
    printable,
)

MAX_KEYS = 1000
"""Keys of one call."""
MAX_TEXT = 10_000
"""Characters of one call; most take 0.05 ms, those that are not on the keymap about 4."""

_CONTROLS = {"\n": RETURN, "\t": TAB}


@dataclass(frozen=True, slots=True)
class Chord:
    """Keysyms: of one key, and of the modifiers before it."""

    keysym: int
    modifiers: tuple[int, ...] = ()


def chords_of_keys(keys: Sequence[str]) -> list[Chord]:
    """One chord for each of ``keys``. Raises InvalidInput, having looked at all of them."""
    if not 1 <= len(keys) <= MAX_KEYS:
        raise InvalidInput(f"{len(keys)} keys are not 1 to {MAX_KEYS}", field="keys")
    return [_chord(key) for key in keys]


def chords_of_text(text: str) -> list[Chord]:
    """One chord for each character of ``text``; a newline (CR LF too) is Return.

    Raises InvalidInput for other control characters, and for a text that is too long.
    """
    if len(text) > MAX_TEXT:
        hint = "type it in parts, or have the program read a file"
        why = f"{len(text)} characters are more than {MAX_TEXT}"
        raise InvalidInput(why, field="text", hint=hint)
    plain = text.replace("\r\n", "\n")
    for place, character in enumerate(plain):
        if not printable(character) and character not in _CONTROLS:
            why = f"U+{ord(character):04X}, at {place}, is not a character that can be typed"
            raise InvalidInput(why, field="text", hint="press keys instead: BackSpace, Escape, ...")
    return [Chord(_CONTROLS.get(character) or keysym_of(character)) for character in plain]


def _chord(key: str) -> Chord:
    if key == "+" or key.endswith("++"):
        *before, name = [*key[:-2].split("+"), "+"] if len(key) > 1 else ["+"]
    else:
        *before, name = key.split("+")
    if not name:
        raise InvalidInput(f"{key[:60]!r} names no key", field="keys")
    return Chord(named(name), tuple(_modifier(word, key) for word in before))


def _modifier(word: str, key: str) -> int:
    found = MODIFIERS.get(word.lower())
    if found is None:
        why = f"{word[:60]!r} in {key[:60]!r} is not a modifier"
        raise InvalidInput(why, field="keys", choices=("ctrl", "shift", "alt", "super"))
    return found
