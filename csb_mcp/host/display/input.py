"""Keyboard and mouse of a display, as its user has them: XTEST, by a connection for each act.

Not by xcffib in a thread, though that has the requests ready. libxcb blocks while it connects and
while a reply is outstanding, and a client of the sandbox can hold the server for ever; it takes as
much memory as a reply's length field says, and the payload may have taken the server over. A thread
that hangs in it ends only if its socket is shut down under it. The few requests that are needed go
over the connection that is here already (``x11``), on the event loop, where a wait can be ended.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded, DisplayFailed, InvalidInput
from csb_mcp.host.display.act import PATIENCE, Act
from csb_mcp.host.display.chords import Chord, chords_of_keys, chords_of_text
from csb_mcp.host.display.x11 import Lost, NoServer
from csb_mcp.host.display.xtest import Driver
from csb_mcp.model import Geometry, Point

_UNDO_PATIENCE = 30.0  # after an act that failed, for a server that is held to release the keys
_LAST_PATIENCE = 0.2  # for the same when the display is closed
_FOCUS = 0.03  # for the window manager to move the focus to where the pointer went
_CLICK_GAP = 0.03  # two clicks at the same millisecond are one to Chromium
_STEP, _STEP_TIME = 12, 0.004  # pixels and seconds of a drag's steps
_MAX_STEPS = 500  # of a drag
_BUTTONS = {"left": 1, "middle": 2, "right": 3}
_UP, _DOWN, _LEFT, _RIGHT = 4, 5, 6, 7  # the wheel, as buttons
_MAX_CLICKS, _MAX_NOTCHES, _MAX_POINTS = 3, 100, 100


class Input:
    """Drives the server whose socket is in ``folder``. One act at a time; the others wait."""

    def __init__(self, folder: Path, cookie: bytes, geometry: Geometry) -> None:
        self._folder = folder
        self._cookie = cookie
        self._geometry = geometry
        self._lock = asyncio.Lock()
        self._focused = 0.0  # loop time from which on the focus is where the pointer is
        self._undoing: set[asyncio.Task[None]] = set()

    async def press(self, keys: Sequence[str]) -> None:
        """See Display."""
        await self._type(chords_of_keys(keys))

    async def type_text(self, text: str) -> None:
        """See Display."""
        if chords := chords_of_text(text):
            await self._type(chords)

    async def click(self, at: Point, *, button: str, count: int) -> None:
        """See Display."""
        number = _button(button)
        if not 1 <= count <= _MAX_CLICKS:
            raise InvalidInput(f"{count} is not 1 to {_MAX_CLICKS}", field="count")
        self._check(at, "x", "y")
        async with self._acting() as act:
            act.driver.move(at.x, at.y)
            for turn in range(count):
                if turn:
                    await asyncio.sleep(_CLICK_GAP)
                act.tap(number)
                await act.done()

    async def drag(self, path: Sequence[Point], *, button: str) -> None:
        """See Display."""
        number = _button(button)
        if not 2 <= len(path) <= _MAX_POINTS:
            raise InvalidInput(f"{len(path)} points are not 2 to {_MAX_POINTS}", field="path")
        for index, point in enumerate(path):
            self._check(point, f"path[{index}]", f"path[{index}]")
        async with self._acting() as act:
            act.driver.move(path[0].x, path[0].y)
            act.driver.button(number, down=True)
            for point in _steps(path):
                await act.done()
                await asyncio.sleep(_STEP_TIME)
                act.driver.move(point.x, point.y)
            await act.done()
            await asyncio.sleep(_STEP_TIME)  # a program that sees both at once takes it for a throw
            act.driver.button(number, down=False)
            await act.done()

    async def scroll(self, at: Point, dx: int, dy: int) -> None:
        """See Display."""
        self._check(at, "x", "y")
        for name, notches in (("dx", dx), ("dy", dy)):
            if abs(notches) > _MAX_NOTCHES:
                why = f"{notches} is not -{_MAX_NOTCHES} to {_MAX_NOTCHES}"
                raise InvalidInput(why, field=name)
        async with self._acting() as act:
            act.driver.move(at.x, at.y)
            for notches, back, forth in ((dy, _UP, _DOWN), (dx, _LEFT, _RIGHT)):
                for _ in range(abs(notches)):
                    act.tap(forth if notches > 0 else back)
            await act.done()

    async def close(self) -> None:
        """Stop waiting for a server that did not hear what was to be undone. Idempotent."""
        if not self._undoing:
            return
        _, late = await asyncio.wait(self._undoing, timeout=_LAST_PATIENCE)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    def _check(self, at: Point, x: str, y: str) -> None:
        for name, value, size in (
            (x, at.x, self._geometry.width),
            (y, at.y, self._geometry.height),
        ):
            if not 0 <= value < size:
                why = f"({at.x}, {at.y}) is not on the screen, which is {self._geometry}"
                raise InvalidInput(why, field=name, hint=f"0 to {size - 1} is")

    async def _type(self, chords: Sequence[Chord]) -> None:
        async with self._acting() as act:
            await asyncio.sleep(max(0.0, self._focused - asyncio.get_running_loop().time()))
            await act.type(chords)

    @asynccontextmanager
    async def _acting(self) -> AsyncGenerator[Act]:
        """One act, with nothing pressed after it. Raises DisplayFailed, DeadlineExceeded."""
        loop = asyncio.get_running_loop()
        driver = None
        async with self._lock:
            try:
                async with asyncio.timeout(PATIENCE) as deadline:
                    driver = await Driver.start(self._folder, self._cookie)
                    yield Act(driver, deadline)
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"the X server did not answer within {PATIENCE:g} s",
                    hint="a program in the sandbox holds it (a grab), or is flooding it: end that",
                ) from error
            except (Lost, NoServer) as error:
                raise DisplayFailed(f"the X server took no input: {error}") from error
            finally:
                self._focused = loop.time() + _FOCUS
                if driver:
                    await self._let_go(driver)

    async def _let_go(self, driver: Driver) -> None:
        if not driver.disturbed:
            await driver.close()
            return
        task = asyncio.create_task(driver.leave(_UNDO_PATIENCE))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)


def _button(name: str) -> int:
    if name not in _BUTTONS:
        raise InvalidInput("no such button", field="button", choices=tuple(_BUTTONS))
    return _BUTTONS[name]


def _steps(path: Sequence[Point]) -> list[Point]:
    """Where the pointer goes after the first point, each a small step from the one before."""
    legs = list(pairwise(path))
    whole = sum(max(abs(b.x - a.x), abs(b.y - a.y)) for a, b in legs)
    size = max(_STEP, whole / _MAX_STEPS)
    steps: list[Point] = []
    for a, b in legs:
        count = max(1, round(max(abs(b.x - a.x), abs(b.y - a.y)) / size))
        ways = ((turn / count) for turn in range(1, count + 1))
        steps += [Point(round(a.x + (b.x - a.x) * w), round(a.y + (b.y - a.y) * w)) for w in ways]
    return steps
