"""Spares: sandboxes that are half made before anybody asks, so that a create need not wait for it.

A spare is the ground of a sandbox (``ground.py``): display, terminal, perhaps a proxy, and a
launcher that waits. It has no project, no payload and no name; no face shows it. The create that
takes it gives it all of that, and nobody else can have it any more. Spares are like the last
sandbox that was created, and end with the daemon; one that is killed leaves them in the store, for
the next one to end.
"""

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.model import Limits, Sandbox, SandboxSpec, SandboxState
from csb_mcp.service.calls import finish
from csb_mcp.service.core import Core
from csb_mcp.service.events import Events
from csb_mcp.service.ground import Ground
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Registry

_log = logging.getLogger(__name__)
_CALM_SECONDS = 1.0  # without a create, before spares are made: whoever creates comes first
_SOUND_SECONDS = 0.5
_LEFT_SECONDS = 2.0  # of a start are spent on what an earlier daemon left
_CLOSE_SECONDS = 5.0
_NOWHERE = Path("/")


class Spares(Core):
    """Keeps as many as the settings say, once a first sandbox was created."""

    def __init__(
        self, settings: Settings, pieces: Pieces, registry: Registry, events: Events
    ) -> None:
        super().__init__(settings, pieces, registry, events)
        self._standing: list[Ground] = []
        self._last: SandboxSpec | None = None
        self._asked = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[bool]] = set()
        self._closed = False

    async def take(self, spec: SandboxSpec, project: Path) -> Ground | None:
        """One that such a sandbox can stand on, now the caller's; None if there is none."""
        for ground in [one for one in self._standing if self._fits(one.sandbox, spec, project)]:
            if ground not in self._standing:  # somebody was quicker
                continue
            self._standing.remove(ground)
            try:
                if await _sound(ground):
                    return ground
            except BaseException:
                self.give_back(ground)
                raise
            self._end_soon(ground)
        return None

    def give_back(self, ground: Ground) -> None:
        """Nothing was done with it."""
        if self._closed or len(self._standing) >= self._settings.spares:
            self._end_soon(ground)
        else:
            self._standing.append(ground)

    def expect(self, spec: SandboxSpec) -> None:
        """Somebody created such a one, or tried to: soon have spares like it."""
        if self._settings.spares and not self._closed:
            # No more of it: its environment and its task are nobody's matter any more.
            self._last = replace(_likeness(spec), project_dir=spec.project_dir)
            self._asked.set()
            if self._keeping is None:
                self._keeping = asyncio.create_task(self._keep())

    async def end(self, ground: Ground) -> bool:
        """End one that nobody took, or whose taker failed; whether it is gone. Never raises.

        If it is not, it stays in the store, for the next daemon to try again.
        """
        spare = ground.sandbox.id
        try:
            if await ground.undo():
                await self._registry.store.delete_spare(spare)
                self._registry.release(spare)
                return True
            _log.warning("spare %s is not ended: something of it still runs", spare)
        except Exception as error:  # noqa: BLE001 - logged; it must keep nobody from anything
            _log.warning("spare %s is not ended: %r", spare, error)
        return False

    async def end_left(self) -> None:
        """End those that an earlier daemon left, side by side; what takes long goes on alone."""
        for sandbox_id, uid in (await self._registry.store.spares()).items():
            sandbox = _placeholder(sandbox_id, uid, SandboxSpec(project_dir=_NOWHERE))
            self._registry.reserve(sandbox_id, uid)
            ground = Ground(self._pieces, sandbox)
            ground.enclosure = self._pieces.limiter.adopt(sandbox)
            self._end_soon(ground)
        await self._all_ended(_LEFT_SECONDS)

    async def close(self) -> None:
        """End all, and make no more. After some seconds the rest is left to the next daemon."""
        self._closed = True
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping], timeout=_CLOSE_SECONDS)
        while self._standing:
            self._end_soon(self._standing.pop())
        await self._all_ended(_CLOSE_SECONDS)
        for task in self._ending:
            task.cancel()

    def _end_soon(self, ground: Ground) -> None:
        """Nobody has to wait for it."""
        task = asyncio.create_task(self.end(ground))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _all_ended(self, seconds: float) -> None:
        if self._ending:
            await asyncio.wait(self._ending, timeout=seconds)

    async def _keep(self) -> None:
        while await self._asked.wait():
            while self._asked.is_set():
                self._asked.clear()
                await asyncio.sleep(_CALM_SECONDS)
            try:
                await self._fill()
            except (CsbError, TimeoutError) as error:  # not anybody's: the next create tries again
                _log.warning("no spare was made: %s", error)
            except Exception:  # noqa: BLE001 - logged
                _log.exception("no spare was made")  # a defect; creates do without

    async def _fill(self) -> None:
        spec = self._last
        if spec is None:
            return
        for ground in list(self._standing):
            if not self._fits(ground.sandbox, spec, spec.project_dir):
                self._standing.remove(ground)
                self._end_soon(ground)
        while len(self._standing) < self._settings.spares and not self._asked.is_set():
            self._standing.append(await self._make(spec))

    async def _make(self, spec: SandboxSpec) -> Ground:
        backend = self._pieces.backends[spec.backend]
        uid = backend.choose_uid(spec.project_dir, self._registry.uids())
        sandbox = _placeholder(self._registry.new_id(), uid, _likeness(spec))
        self._registry.reserve(sandbox.id, uid)
        ground = Ground(self._pieces, sandbox)
        try:
            await self._registry.store.insert_spare(sandbox.id, uid)
            async with asyncio.timeout(self._settings.create_timeout) as limit:
                await ground.lay(None)
                await ground.start(limit.when() or 0.0)
        except BaseException:
            await finish(self.end(ground))
            raise
        return ground

    def _fits(self, spare: Sandbox, spec: SandboxSpec, project: Path) -> bool:
        if spare.spec != _likeness(spec):
            return False
        backend = self._pieces.backends[spec.backend]
        try:
            return backend.choose_uid(project, self._registry.uids(), spare.uid) == spare.uid
        except CsbError:
            return False  # the create says why


def _likeness(spec: SandboxSpec) -> SandboxSpec:
    """What a ground is made by."""
    return SandboxSpec(
        project_dir=_NOWHERE,
        backend=spec.backend,
        network=spec.network,
        geometry=spec.geometry,
        gl=spec.gl,
        memory=spec.memory,
        cpus=spec.cpus,
        pids=spec.pids,
    )


def _placeholder(sandbox_id: str, uid: int, spec: SandboxSpec) -> Sandbox:
    return Sandbox(
        id=sandbox_id,
        name=None,
        spec=spec,
        state=SandboxState.CREATING,
        uid=uid,
        created_at=time.time(),
        limits=Limits(asked={}, enforced_by={}),
        unguarded=(),
        attach="",
    )


async def _sound(ground: Ground) -> bool:
    try:
        async with asyncio.timeout(_SOUND_SECONDS):
            return await ground.sound()
    except TimeoutError:
        return False
