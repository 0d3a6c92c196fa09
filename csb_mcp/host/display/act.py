"""One act of input: a connection, and how chords are struck whether the keymap has them or not."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from csb_mcp.errors import DisplayFailed
from csb_mcp.host.display.chords import Chord
from csb_mcp.host.display.keymap import Keymap
from csb_mcp.host.display.keysyms import CAPS_LOCK, SHIFT
from csb_mcp.host.display.xtest import Driver
from csb_mcp.lib.pulse import Pulse

PATIENCE = 2.0
"""Seconds for each answer of the server: under a flood of drawing it takes 0.02."""

_LIMIT = 60.0  # for one act, though the server answers each time
_SETTLE = 0.03  # for a program to hear of a change of the keymap, or to look up its keys
_ECHO = 0.8  # for a program that cannot be asked to show what was typed
_CHUNK = 200  # chords that are sent before the server is waited for


class Act:
    """What is done with one connection. ``deadline`` moves on with each answer.

    ``drawn`` beats when something was drawn on the display.
    """

    def __init__(self, driver: Driver, deadline: asyncio.Timeout, drawn: Pulse) -> None:
        self.driver = driver
        self._drawn = drawn
        self._deadline = deadline
        self._end = asyncio.get_running_loop().time() + _LIMIT

    async def done(self) -> None:
        """Wait until the server has done what was asked for."""
        await self.driver.sync()
        now = asyncio.get_running_loop().time()
        self._deadline.reschedule(min(now + PATIENCE, self._end))

    def tap(self, button: int) -> None:
        """Press and release a button."""
        self.driver.button(button, down=True)
        self.driver.button(button, down=False)

    async def type(self, chords: Sequence[Chord]) -> None:
        """Strike all of them, whether the keymap has them or not."""
        keymap, caps, group = await self.driver.keyboard()
        keys = keymap.keys(group)
        lock = keys.get(CAPS_LOCK) if caps else None
        self._tap_key(lock)
        await self._strike_all(chords, keymap, keys)
        self._tap_key(lock)
        await self.done()

    async def _strike_all(
        self, chords: Sequence[Chord], keymap: Keymap, keys: Mapping[int, tuple[int, bool]]
    ) -> None:
        spare = keymap.spare()
        if any(keysym not in keys for chord in chords for keysym in _all(chord)):
            await self.driver.meet()
        for batch in _batches(chords, keys, len(spare)):
            missing = dict.fromkeys(
                sym for chord in batch for sym in _all(chord) if sym not in keys
            )
            lent = dict(zip(spare, missing, strict=False))
            await self._lend(keymap, lent)
            known = {**keys, **{keysym: (code, False) for code, keysym in lent.items()}}
            beats = self._drawn.count
            for start in range(0, len(batch), _CHUNK):
                for chord in batch[start : start + _CHUNK]:
                    self._strike(chord, known)
                await self.done()
            if lent:
                await self._looked_up(beats)
        self.driver.restore()

    async def _lend(self, keymap: Keymap, keysyms: Mapping[int, int]) -> None:
        """Give spare keys a keysym, and the program that has the focus the time to hear of it.

        A key that comes after a change is not always looked up after it: Chromium hears of keys by
        one connection, and of the keymap by another.
        """
        if not keysyms:
            return
        self.driver.lend(keymap, keysyms)
        await self.done()
        await self.driver.caught_up()
        await self.done()
        await asyncio.sleep(_SETTLE)
        await self.driver.caught_up()
        await self.done()

    async def _looked_up(self, beats: int) -> None:
        """Wait until the keys so far were looked up, so that they may be given to others."""
        if not await self.driver.caught_up():
            await asyncio.sleep(_SETTLE)
            await self._echoed(beats)
        await self.done()

    async def _echoed(self, beats: int) -> None:
        """Wait until something was drawn, and then no more: a program shows what it has read.

        Not for long: it may show nothing, or something else may move on the screen.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_ECHO):
                beats = await self._drawn.beyond(beats)
                with suppress(TimeoutError):
                    while True:
                        beats = await asyncio.wait_for(self._drawn.beyond(beats), _SETTLE)

    def _strike(self, chord: Chord, known: Mapping[int, tuple[int, bool]]) -> None:
        keycode, shifted = known[chord.keysym]
        held = [known[modifier][0] for modifier in chord.modifiers]
        if shifted and (shift := known.get(SHIFT)) and shift[0] not in held:
            held.append(shift[0])
        for modifier in held:
            self.driver.key(modifier, down=True)
        self.driver.key(keycode, down=True)
        self.driver.key(keycode, down=False)
        for modifier in reversed(held):
            self.driver.key(modifier, down=False)

    def _tap_key(self, key: tuple[int, bool] | None) -> None:
        if key:
            self.driver.key(key[0], down=True)
            self.driver.key(key[0], down=False)


def _all(chord: Chord) -> tuple[int, ...]:
    return (chord.keysym, *chord.modifiers)


def _batches(
    chords: Sequence[Chord], keys: Mapping[int, object], spare: int
) -> list[Sequence[Chord]]:
    """``chords`` in parts that need at most ``spare`` keysyms that are not among ``keys``."""
    batches: list[Sequence[Chord]] = []
    missing: set[int] = set()
    start = 0
    for index, chord in enumerate(chords):
        more: set[int] = {keysym for keysym in _all(chord) if keysym not in keys}
        if len(more) > spare:
            raise DisplayFailed("the keymap of the X server has no key to spare for it")
        if len(missing | more) > spare:
            batches.append(chords[start:index])
            start = index
            missing = set()
        missing |= more
    return [*batches, chords[start:]]
