"""Names of keys, as tmux has them (tmux(1), KEY BINDINGS), checked before anything is sent.

tmux itself types a name that it does not know letter by letter, and drops combinations that a
terminal has no bytes for; both would look like success. What is accepted was tried on tmux 3.3.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from csb_mcp.errors import InvalidInput
from csb_mcp.model import MAX_TEXT

MAX_KEYS = 1000
TEXT_CHUNK = 16 * 1024  # characters in one command line
_BUFFER = "csb-typed"

_FUNCTION = (
    "Up", "Down", "Left", "Right", "Home", "End", "PPage", "NPage", "IC", "DC",
    *(f"F{n}" for n in range(1, 13)),
)  # fmt: skip
_EDITING = ("Enter", "Tab", "BTab", "Space", "BSpace", "Escape")
KEY_NAMES = _FUNCTION + _EDITING
"""The named keys, in tmux's own words; any single character is a key as well."""

# What people and models write instead; compared in lower case, without "-" and "_".
_ALIASES = {
    "return": "Enter", "ret": "Enter", "cr": "Enter", "newline": "Enter",
    "esc": "Escape", "backspace": "BSpace", "bs": "BSpace", "backtab": "BTab",
    "del": "DC", "delete": "DC", "ins": "IC", "insert": "IC", "spacebar": "Space",
    "pageup": "PPage", "pgup": "PPage", "prior": "PPage",
    "pagedown": "NPage", "pgdn": "NPage", "pgdown": "NPage", "next": "NPage",
    "arrowup": "Up", "uparrow": "Up", "arrowdown": "Down", "downarrow": "Down",
    "arrowleft": "Left", "leftarrow": "Left", "arrowright": "Right", "rightarrow": "Right",
    "minus": "-", "plus": "+",
}  # fmt: skip
_NAMES = {name.lower(): name for name in KEY_NAMES} | _ALIASES
_MODIFIERS = {
    "c": "C", "ctrl": "C", "control": "C",
    "m": "M", "alt": "M", "meta": "M", "option": "M", "opt": "M",
    "s": "S", "shift": "S",
}  # fmt: skip
# Controls but tab and newline, and lone surrogates, which have no bytes.
_UNTYPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_SIGNS = "@[\\]^_?/-"  # with C- these have a byte of their own, beside letters and Space


def parse_keys(keys: Sequence[str]) -> list[str]:
    """``keys`` in tmux's own words (``ctrl+c`` is ``C-c``, ``Return`` is ``Enter``).

    Raises InvalidInput (``keys``) at the first that is unknown or that no terminal can send.
    """
    if len(keys) > MAX_KEYS:
        raise InvalidInput(f"more than {MAX_KEYS} keys at once", field="keys")
    return [_parse_key(key) for key in keys]


def check_text(text: str) -> str:
    """``text`` with its lines ended by LF. Raises InvalidInput (``text``)."""
    if len(text) > MAX_TEXT or len(text.encode(errors="replace")) > MAX_TEXT:
        raise InvalidInput(
            f"is longer than {MAX_TEXT} bytes (256 KiB)",
            field="text",
            hint="Write it to a file and name the file",
        )
    text = text.replace("\r\n", "\n")
    if found := _UNTYPED.search(text):
        raise InvalidInput(
            f"has the control character U+{ord(found[0]):04X}",
            field="text",
            hint="Press keys by name in `keys` instead, such as Escape, Enter or C-c",
        )
    return text


def typing_lines(pane: str, text: str, keys: Sequence[str], *, paste: bool) -> Iterator[list[str]]:
    """Lines of tmux commands that type checked ``text``, then press parsed ``keys``.

    Text goes through a paste buffer: its bytes arrive as they are (LF as CR, which is what Enter
    sends), where ``send-keys -l`` would look each character up.
    """
    for at in range(0, len(text), TEXT_CHUNK):
        append = "-a " if at else ""
        yield [f"set-buffer {append}-b {_BUFFER} -- {_quoted(text[at : at + TEXT_CHUNK])}"]
    if text:
        yield [f"paste-buffer -d {'-p ' if paste else ''}-b {_BUFFER} -t {pane}"]
    if keys:
        # A person who looks back in copy mode would get the keys instead of the program.
        names = " ".join(map(_quoted, keys))
        yield [f"copy-mode -q -t {pane}", f"send-keys -t {pane} -- {names}"]


def _quoted(text: str) -> str:
    """``text`` as one word of a tmux command line, which itself must not have line ends."""
    return "'" + text.replace("'", "'\\''").replace("\n", "'\"\\n\"'") + "'"


@lru_cache(256)  # the same few, mostly: a tenth of what a key costs
def _parse_key(key: str) -> str:
    modifiers, base = _split(key)
    if len(base) == 1:
        name = "Space" if base == " " else base if base.isprintable() else None
    else:
        name = _NAMES.get(base.lower().replace("-", "").replace("_", ""))
    if name is None:
        raise _unknown(key, base)
    return _combine(key, modifiers, name)


def _split(key: str) -> tuple[set[str], str]:
    """Modifiers and the key itself; ``-`` and ``+`` between them, as in ``C-c`` and ``Ctrl+C``."""
    modifiers: set[str] = set()
    if len(key) == 2 and key[0] == "^":
        return {"C"}, key[1]
    while True:
        for position, sign in enumerate(key):
            if sign in "-+" and 0 < position < len(key) - 1:
                break
        else:
            return modifiers, key
        modifier = _MODIFIERS.get(key[:position].lower())
        if modifier is None:
            return modifiers, key
        modifiers.add(modifier)
        key = key[position + 1 :]


def _combine(key: str, modifiers: set[str], name: str) -> str:
    if name in _FUNCTION:
        return _prefix(modifiers) + name
    if "S" in modifiers and name == "Tab":
        name, modifiers = "BTab", modifiers - {"S"}
    elif "S" in modifiers and len(name) == 1 and name.isalpha():
        name, modifiers = name.upper(), modifiers - {"S"}
    if "S" in modifiers:
        raise _impossible(key, "Shift with it", "Name the character that Shift gives, such as `!`")
    if "C" in modifiers and not _has_control_byte(name):
        raise _impossible(key, "Ctrl with it", "Ctrl goes with letters, Space and arrow-like keys")
    if "C" in modifiers and len(name) == 1:
        name = name.lower()
    return _prefix(modifiers) + name


def _prefix(modifiers: set[str]) -> str:
    return "".join(f"{modifier}-" for modifier in "CMS" if modifier in modifiers)


def _has_control_byte(name: str) -> bool:
    if len(name) > 1:
        return name == "Space"
    return name in _CONTROL_SIGNS or (name.isascii() and name.isalpha())


def _impossible(key: str, what: str, hint: str) -> InvalidInput:
    return InvalidInput(f"{key!r}: a terminal has no bytes for {what}", field="keys", hint=hint)


def _unknown(key: str, base: str) -> InvalidInput:
    close = difflib.get_close_matches(base.lower(), _NAMES, n=5, cutoff=0.5)
    return InvalidInput(
        f"{key[:40]!r} is not a key name",
        field="keys",
        choices=list(dict.fromkeys(_NAMES[name] for name in close)) or KEY_NAMES,
        hint="Words to be typed go into `text`; C-, M- and S- go before a name, such as C-c",
    )
