"""Keyboard and mouse of a display, as its user has them: XTEST, by a connection kept for moments.

Not by xcffib in a thread, though that has the requests ready. libxcb blocks while it connects and
while a reply is outstanding, and a client of the sandbox can hold the server for ever; it takes as
much memory as a reply's length field says, and the payload may have taken the server over. A thread
that hangs in it ends only if its socket is shut down under it. The few requests that are needed go
over the connection that is here already (``x11``), on the event loop, where a wait can be ended.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded, DisplayFailed, InvalidInput
from csb_mcp.host.display.act import PATIENCE, Act
from csb_mcp.host.display.chords import Chord, chords_of_keys, chords_of_text
from csb_mcp.host.display.x11 import Lost, NoServer
from csb_mcp.host.display.xtest import Driver
from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Geometry, Point

_UNDO_PATIENCE = 30.0  # after an act that failed, for a server that is held to release the keys
_LAST_PATIENCE = 0.2  # for the same when the display is closed
_KEEP = 2.0  # for which a connection is kept for the next act
_FOCUS = 0.03  # for the window manager to move the focus to where the pointer went
_CLICK_GAP = 0.03  # two clicks at the same millisecond are one to Chromium
_STEP, _STEP_TIME = 12, 0.004  # pixels and seconds of a drag's steps
_MAX_STEPS = 500  # of a drag
_BUTTONS = {"left": 1, "middle": 2, "right": 3}
_UP, _DOWN, _LEFT, _RIGHT = 4, 5, 6, 7  # the wheel, as buttons
_MAX_CLICKS, _MAX_NOTCHES, _MAX_POINTS = 3, 100, 100


class Input:
    """Drives the server whose socket is in ``folder``. One act at a time; the others wait.

    ``drawn`` beats when something was drawn on the display.
    """

    def __init__(self, folder: Path, cookie: bytes, geometry: Geometry, drawn: Pulse) -> None:
        self._folder = folder
        self._cookie = cookie
        self._geometry = geometry
        self._drawn = drawn
        self._lock = asyncio.Lock()
        self._focused = 0.0  # loop time from which on the focus is where the pointer is
        self._ending: set[asyncio.Task[None]] = set()  # connections that are being closed
        self._kept: Driver | None = None
        self._drop: asyncio.TimerHandle | None = None

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
        self._moved()

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
        self._moved()

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
        self._moved()

    async def close(self) -> None:
        """Stop waiting for a server that did not hear what was to be undone. Idempotent."""
        self._drop_kept()
        if not self._ending:
            return
        _, late = await asyncio.wait(self._ending, timeout=_LAST_PATIENCE)
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

    def _moved(self) -> None:
        self._focused = asyncio.get_running_loop().time() + _FOCUS

    async def _type(self, chords: Sequence[Chord]) -> None:
        async with self._acting() as act:
            await asyncio.sleep(max(0.0, self._focused - asyncio.get_running_loop().time()))
            await act.type(chords)

    @asynccontextmanager
    async def _acting(self) -> AsyncGenerator[Act]:
        """One act, with nothing pressed after it. Raises DisplayFailed, DeadlineExceeded."""
        driver, failed = None, True
        async with self._lock:
            try:
                async with asyncio.timeout(PATIENCE) as deadline:
                    driver = await self._connected()
                    yield Act(driver, deadline, self._drawn)
                failed = False
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"the X server did not answer within {PATIENCE:g} s",
                    hint="a program in the sandbox holds it (a grab), or is flooding it: end that",
                ) from error
            except (Lost, NoServer) as error:
                raise DisplayFailed(f"the X server took no input: {error}") from error
            finally:
                if driver:
                    self._let_go(driver, failed=failed)

    async def _connected(self) -> Driver:
        """The connection of the act before if there is one yet, else another."""
        if driver := self._take():
            try:
                await driver.sync()
                return driver
            except BaseException as error:
                await driver.close()
                if not isinstance(error, Lost):  # a client may have had it closed
                    raise
        return await Driver.start(self._folder, self._cookie)

    def _let_go(self, driver: Driver, *, failed: bool) -> None:
        if driver.disturbed:
            self._in_background(driver.leave(_UNDO_PATIENCE))
        elif failed or driver.listening:
            self._in_background(driver.close())
        else:
            # Not for long: what a client has the server send us meanwhile, nobody reads.
            self._kept = driver
            self._drop = asyncio.get_running_loop().call_later(_KEEP, self._drop_kept)

    def _take(self) -> Driver | None:
        driver, self._kept = self._kept, None
        if self._drop:
            self._drop.cancel()
        return driver

    def _drop_kept(self) -> None:
        if driver := self._take():
            self._in_background(driver.close())

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


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
