"""Names of keys. ``keysyms.txt`` has those of X11/keysymdef.h and XF86keysym.h, with their numbers.

The numbers are facts of the X protocol (appendix A), so no X headers are needed while we run.
"""

import difflib
from functools import cache
from importlib.resources import files

from csb_mcp.errors import InvalidInput

SHIFT, CONTROL, ALT, SUPER = 0xFFE1, 0xFFE3, 0xFFE9, 0xFFEB
RETURN, TAB, CAPS_LOCK = 0xFF0D, 0xFF09, 0xFFE5
MODIFIERS = {
    "ctrl": CONTROL,
    "control": CONTROL,
    "shift": SHIFT,
    "alt": ALT,
    "option": ALT,
    "meta": ALT,
    "super": SUPER,
    "cmd": SUPER,
    "win": SUPER,
}
"""What may stand before a ``+``, in any case, to the keysym of its left key."""

_ALIASES = {
    "enter": "Return",
    "esc": "Escape",
    "pageup": "Page_Up",
    "pgup": "Page_Up",
    "pagedown": "Page_Down",
    "pgdn": "Page_Down",
    "pgdown": "Page_Down",
    "del": "Delete",
    "ins": "Insert",
    "backspace": "BackSpace",
    "arrowup": "Up",
    "arrowdown": "Down",
    "arrowleft": "Left",
    "arrowright": "Right",
    "spacebar": "space",
    "capslock": "Caps_Lock",
    "numlock": "Num_Lock",
    "scrolllock": "Scroll_Lock",
    "printscreen": "Print",
    "prtsc": "Print",
    "contextmenu": "Menu",
    "plus": "plus",
    "minus": "minus",
}
_UNICODE = 0x1000000  # a character beyond Latin-1 has this much more than its code point
_SUGGESTIONS = 5


def keysym_of(character: str) -> int:
    """The keysym of one character that can be printed."""
    point = ord(character)
    return point if point <= 0xFF else _UNICODE + point


def printable(character: str) -> bool:
    """Whether it is neither a control character nor half a character."""
    point = ord(character)
    return not (point < 0x20 or 0x7F <= point < 0xA0 or 0xD800 <= point <= 0xDFFF)


def named(name: str) -> int:
    """The keysym of a key's name, or of a single character.

    A name in another case than X writes it is taken too, unless two keys differ by case alone.
    Raises InvalidInput with the names that come nearest.
    """
    if len(name) == 1 and printable(name):
        return keysym_of(name)
    exact, folded = _tables()
    lower = name.lower()
    if found := exact.get(name) or exact.get(_ALIASES.get(lower, "")) or folded.get(lower):
        return found
    if found := MODIFIERS.get(lower):
        return found
    raise InvalidInput(
        f"no key is named {name[:60]!r}",
        field="keys",
        choices=_nearest(lower),
        hint="names are X keysyms (Return, F5, Page_Up) or one character; ctrl+shift+t combines",
    )


def _nearest(lower: str) -> list[str]:
    exact, _ = _tables()
    usual = {name.lower(): name for name in exact if not name.startswith(("XF86", "braille"))}
    near = difflib.get_close_matches(lower[:60], [*usual, *_ALIASES], n=_SUGGESTIONS, cutoff=0.6)
    return list(dict.fromkeys(usual.get(name) or _ALIASES[name] for name in near))


@cache
def _tables() -> tuple[dict[str, int], dict[str, int]]:
    """Keysyms by name, and by name in lower case where that is clear."""
    text = files("csb_mcp.host.display").joinpath("keysyms.txt").read_text("ascii")
    exact = {name: int(number, 16) for name, number in map(str.split, text.splitlines())}
    folded: dict[str, int] = {}
    for name, number in exact.items():
        lower = name.lower()
        folded[lower] = number if folded.get(lower, number) == number else 0
    return exact, folded
