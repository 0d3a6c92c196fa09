"""An X client that presses keys and buttons (XTEST), and lends spare keys a keysym.

Sources: XTEST Extension Protocol 2.2; X Window System Protocol, chapter 9 (keyboard mapping).
"""

import asyncio
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from csb_mcp.host.display.keymap import FIRST_KEYCODE, LAST_KEYCODE, Keymap, parse, runs
from csb_mcp.host.display.ping import Pinger

_QUERY_POINTER, _CHANGE_KEYBOARD_MAPPING, _GET_KEYBOARD_MAPPING = 38, 100, 101
_FAKE_INPUT = 2
_KEY_PRESS, _KEY_RELEASE, _BUTTON_PRESS, _BUTTON_RELEASE, _MOTION = 2, 3, 4, 5, 6
_LOCK = 1 << 1  # Caps Lock, in the mask of modifiers
_GROUP_SHIFT, _GROUP_MASK = 13, 3  # where XKB puts the group into that mask
_LEFTOVER = 65536  # bytes that are read of a server after we are done with it


class Driver(Pinger):
    """A connection for acts of input. What it pressed and lent, it undoes when it is left.

    Nothing is sent before :meth:`flush` or :meth:`sync`: what was asked for in between goes out
    as one piece, so no key can stay down because we were stopped half-way.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._requests = bytearray()
        self._xtest = 0
        self._down: dict[tuple[int, int], None] = {}  # release event and its detail, in order
        self._lent: dict[int, tuple[int, ...]] = {}  # keycode to its own row

    @classmethod
    async def start(cls, folder: Path, cookie: bytes) -> Self:
        """Connect. Raises NoServer, Lost."""
        driver = await cls.open(folder, cookie)
        try:
            await driver.prepare()
        except BaseException:
            await driver.close()
            raise
        return driver

    async def prepare(self) -> None:
        """Find the extension. Raises NoServer, Lost."""
        self._xtest, _ = await self._extension(b"XTEST")

    def key(self, keycode: int, *, down: bool) -> None:
        """Press or release a key."""
        self._button_or_key(_KEY_PRESS, keycode, down=down)

    def button(self, number: int, *, down: bool) -> None:
        """Press or release a button of the mouse."""
        self._button_or_key(_BUTTON_PRESS, number, down=down)

    def move(self, x: int, y: int) -> None:
        """Put the pointer there."""
        self._fake(_MOTION, 0, x, y)

    async def keyboard(self) -> tuple[Keymap, bool, int]:
        """The keymap, whether Caps Lock is on, and the keyboard's group, 0 to 3. Raises Lost."""
        count = LAST_KEYCODE - FIRST_KEYCODE + 1
        keymap = struct.pack("<BxHBBxx", _GET_KEYBOARD_MAPPING, 2, FIRST_KEYCODE, count)
        reply = await self._ask(keymap + struct.pack("<BxHI", _QUERY_POINTER, 2, self._root))
        (mask,) = struct.unpack_from("<H", await self._answer(), 24)
        group = mask >> _GROUP_SHIFT & _GROUP_MASK
        return parse(reply[1], reply[32:]), bool(mask & _LOCK), group

    def lend(self, keymap: Keymap, keysyms: Mapping[int, int]) -> None:
        """Let each keycode give the keysym, whatever is held with it."""
        for keycode in keysyms:
            self._lent.setdefault(keycode, keymap.row(keycode))
        self._remap({keycode: (keysym, keysym) for keycode, keysym in keysyms.items()})

    def restore(self) -> None:
        """Give lent keys back what they had."""
        lent, self._lent = self._lent, {}
        self._remap(lent)

    def flush(self) -> None:
        """Send what was asked for. Does not wait."""
        requests, self._requests = self._requests, bytearray()
        self._writer.write(requests)

    async def sync(self) -> None:
        """Send what was asked for; wait until the server has done it. Raises Lost."""
        self._strange = 0  # each change of the keymap is told to everybody, us too
        self.flush()
        await self._sync()

    async def leave(self, patience: float) -> None:
        """Undo what is not undone, and see for so many seconds that it is heard; then close.

        A connection that is simply closed loses what the server has not read yet, when the server
        cannot deliver an answer. So it is kept until the server closes it.
        """
        try:
            async with asyncio.timeout(patience):
                self._undo()
                self._writer.write_eof()
                await self._reader.readexactly(_LEFTOVER)
        except (EOFError, OSError, TimeoutError):
            pass
        finally:
            await self.close()

    @property
    def disturbed(self) -> bool:
        """Whether something is pressed or lent."""
        return bool(self._down or self._lent)

    def _undo(self) -> None:
        # What was not sent will not be: it may press keys whose release is not among it.
        self._requests.clear()
        for event, detail in reversed(self._down):
            self._fake(event, detail)
        self._down.clear()
        self.restore()
        self.flush()

    def _button_or_key(self, press: int, detail: int, *, down: bool) -> None:
        release = press + 1
        if down:
            self._down[release, detail] = None
        else:
            self._down.pop((release, detail), None)
        self._fake(press if down else release, detail)

    def _fake(self, event: int, detail: int, x: int = 0, y: int = 0) -> None:
        # No delay, the root window that the pointer is on, any device.
        packed = struct.pack("<BBHBB18xhh8x", self._xtest, _FAKE_INPUT, 9, event, detail, x, y)
        self._requests += packed

    def _remap(self, rows: Mapping[int, tuple[int, ...]]) -> None:
        for run in runs(rows):
            width = max(1, *(len(rows[keycode]) for keycode in run))
            head = struct.pack(
                "<BBHBBxx", _CHANGE_KEYBOARD_MAPPING, len(run), 2 + width * len(run), run[0], width
            )
            keysyms = [rows[keycode] + (0,) * (width - len(rows[keycode])) for keycode in run]
            flat = [keysym for row in keysyms for keysym in row]
            self._requests += head + struct.pack(f"<{len(flat)}I", *flat)
