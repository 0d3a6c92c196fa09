"""Wakes those who wait for a change on a display, without looking at its pixels."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from csb_mcp.errors import DisplayFailed
from csb_mcp.host.display.x11 import Connection, Lost, NoServer
from csb_mcp.lib.pulse import Pulse

_PAUSE = 0.008  # least time between two beats: a flood of drawing does not flood the daemon
_SLOW = 0.25  # between beats while the server does not answer us


class Damage:
    """Beats ``pulse`` within milliseconds after something was drawn (XDamage).

    While the server does not answer (a client may hold it grabbed, kill our connection, or take all
    connections there are) it beats slowly instead, and tries again. Moving the pointer is not
    damage, though it changes the picture.
    """

    def __init__(self, folder: Path, cookie: bytes) -> None:
        self.pulse = Pulse()
        self._folder = folder
        self._cookie = cookie
        self._settled = asyncio.Event()
        self._failure: str | None = None
        self._task = asyncio.create_task(self._run())

    async def started(self, patience: float) -> bool:
        """Wait until the server has accepted us; False if it has not after so many seconds.

        Raises DisplayFailed if there is no server, or it refuses the cookie.
        """
        try:
            async with asyncio.timeout(patience):
                await self._settled.wait()
        except TimeoutError:
            return False
        if self._failure:
            raise DisplayFailed(f"the X server is of no use: {self._failure}")
        return True

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except NoServer as error:
                self._failure = str(error)
                self._settled.set()
                self.pulse.beat()
                return
            except Lost:
                await asyncio.sleep(_SLOW)
                self.pulse.beat()

    async def _follow(self) -> None:
        with self._beating_slowly():
            connection = await Connection.open(self._folder, self._cookie)
        try:
            with self._beating_slowly():
                await connection.watch()
            self._settled.set()
            self.pulse.beat()
            while True:
                await connection.drawn()
                with self._beating_slowly():
                    await connection.rearm()
                self.pulse.beat()
                await asyncio.sleep(_PAUSE)
        finally:
            await connection.close()

    @contextmanager
    def _beating_slowly(self) -> Generator[None]:
        loop = asyncio.get_running_loop()

        def beat() -> None:
            nonlocal timer
            self.pulse.beat()
            timer = loop.call_later(_SLOW, beat)

        timer = loop.call_later(_SLOW, beat)
        try:
            yield
        finally:
            timer.cancel()
