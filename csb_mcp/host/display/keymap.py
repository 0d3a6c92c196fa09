"""The keymap of an X server: which key gives a keysym, and which keys are spare.

It is what the server said, and clients may change it at any time: nothing of it is trusted further
than that a key may come out wrong.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby

FIRST_KEYCODE, LAST_KEYCODE = 8, 255
_GROUPS, _PER_GROUP = 2, 2  # columns of a group: without and with Shift


class Keymap:
    """Keysyms by keycode, as GetKeyboardMapping gives them: a row for each keycode."""

    def __init__(self, rows: Mapping[int, tuple[int, ...]]) -> None:
        self._rows = rows
        self._keys: dict[int, Mapping[int, tuple[int, bool]]] = {}

    def row(self, keycode: int) -> tuple[int, ...]:
        """Its keysyms, as the server has them."""
        return self._rows.get(keycode, ())

    def keys(self, group: int) -> Mapping[int, tuple[int, bool]]:
        """Keysym to keycode, and whether Shift is held for it, in this group (0 to 3).

        Of a group beyond the second, which the server does not tell this way, only keys that are
        no characters: those are the same in all groups.
        """
        if group not in self._keys:
            common = self._find_keys(0).items()
            found = {keysym: key for keysym, key in common if not _is_character(keysym)}
            self._keys[group] = found | (self._find_keys(group) if group < _GROUPS else {})
        return self._keys[group]

    def _find_keys(self, group: int) -> dict[int, tuple[int, bool]]:
        start = group * _PER_GROUP
        found: dict[int, tuple[int, bool]] = {}
        for keycode, row in self._rows.items():
            plain, shifted, *_ = (*row[start : start + _PER_GROUP], 0, 0)
            found.setdefault(plain, (keycode, False))
            if _is_character(shifted):
                # Of other keys the second column may need something else than Shift: Print with
                # Alt is Sys_Rq, Pause with Control is Break, the keypad looks at Num_Lock.
                found.setdefault(shifted, (keycode, True))
        found.pop(0, None)
        return found

    def spare(self) -> list[int]:
        """Keycodes without a keysym.

        Not those of rare keys (media, browser): a program that does not know a keysym may go by
        the keycode, and go back a page (Chromium does) when it was to write a character.
        """
        return [code for code, row in self._rows.items() if not any(row)]


@lru_cache(maxsize=4)  # reading one takes longer than asking for it, and it seldom changes
def parse(width: int, data: bytes) -> Keymap:
    """Of ``width`` keysyms a row, from FIRST_KEYCODE on. What is cut short has no keysyms."""
    row = struct.Struct(f"<{width}I")
    whole = memoryview(data)[: len(data) // row.size * row.size] if width else b""
    rows = row.iter_unpack(whole) if width else ()
    return Keymap(dict(zip(range(FIRST_KEYCODE, LAST_KEYCODE + 1), rows, strict=False)))


def _is_character(keysym: int) -> bool:
    return 0x20 <= keysym < 0xFD00 or 0x1000000 <= keysym <= 0x110FFFF


def runs(keycodes: Iterable[int]) -> list[Sequence[int]]:
    """Keycodes in rows without a gap: each of these is changed by one request."""
    ordered = sorted(keycodes)
    numbered = groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])
    return [[code for _, code in run] for _, run in numbered]
