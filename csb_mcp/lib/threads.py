"""Work in a thread that whoever is cancelled does not leave behind."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def to_its_end(work: Callable[[], _T]) -> _T:
    """Run ``work`` in a thread; if cancelled, go on with that only once it is done.

    So the caller may close what it uses. It must be short.
    """
    task = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
