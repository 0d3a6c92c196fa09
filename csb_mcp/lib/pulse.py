"""A counter that tasks can wait on: many waiters, no queue, nothing kept for nobody."""

import asyncio


class Pulse:
    """Counts beats. A waiter that missed some is woken once; it looks at the state itself then.

    Belongs to one event loop; ``beat`` must be called in its thread.
    """

    __slots__ = ("_count", "_waiters")

    def __init__(self) -> None:
        self._count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """Beats so far."""
        return self._count

    def beat(self) -> None:
        """Wake all who wait."""
        self._count += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def beyond(self, count: int) -> int:
        """Wait until there were more than ``count`` beats; gives the count then."""
        while self._count <= count:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._count


async def beat_within(pulse: Pulse, count: int, seconds: float) -> None:
    """Wait until there were more than ``count`` beats, or ``seconds`` have passed."""
    try:
        async with asyncio.timeout(seconds):
            await pulse.beyond(count)
    except TimeoutError:
        return
