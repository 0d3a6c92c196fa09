"""The restart of the daemon: adopt what lives, mark what died, undo what was half made."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError, EgressFailed, HelperFailed
from csb_mcp.model import Sandbox, SandboxState
from csb_mcp.ports import ClientOf, Enclosure, Gate, Terminal
from csb_mcp.service.agents.queue import GONE, give_up
from csb_mcp.service.core import Core
from csb_mcp.service.creation import Creation
from csb_mcp.service.creator import Begin
from csb_mcp.service.events import Events
from csb_mcp.service.gatekeeper import client_of, opened
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ADOPT_SECONDS = 10.0
_GATE_SECONDS = 2.0  # one that does not answer by then is started anew

RollBack = Callable[[Sandbox, Creation, BaseException], Awaitable[None]]


class Restart(Core):
    """Takes up what an earlier daemon left. ``roll_back`` undoes a create."""

    def __init__(
        self,
        settings: Settings,
        pieces: Pieces,
        registry: Registry,
        events: Events,
        *,
        roll_back: RollBack,
        begin: Begin,
    ) -> None:
        super().__init__(settings, pieces, registry, events)
        self._roll_back = roll_back
        self._begin = begin

    async def run(self) -> None:
        """All sandboxes of the store, side by side. Called once, before the first request."""
        left = await self._registry.restore()
        await self._events.restore()
        async with asyncio.TaskGroup() as group:
            for sandbox in left:
                group.create_task(self._one(sandbox))

    async def _one(self, sandbox: Sandbox) -> None:
        try:
            await self._take_up(sandbox)
        except Exception:  # noqa: BLE001 - logged; see below
            # One sandbox that cannot be taken up must not keep the daemon from the others. Nothing
            # is ended on a guess: stop and delete try again, and so does the next start.
            _log.exception("sandbox %s cannot be taken up", sandbox.id)

    async def _take_up(self, sandbox: Sandbox) -> None:
        deadline = asyncio.get_running_loop().time() + _ADOPT_SECONDS
        folders = self._pieces.keeper.folders(sandbox.id)
        terminal = await self._pieces.terminals.adopt(folders, deadline)
        if sandbox.state is SandboxState.CREATING:
            await self._abandon(sandbox, terminal)
        elif terminal is None:
            await self._lost(sandbox)
        else:
            await self._adopt(sandbox, terminal, deadline)

    async def _abandon(self, sandbox: Sandbox, terminal: Terminal | None) -> None:
        """Nobody was ever told of it: what its create began is undone."""
        creation = Creation(self._pieces, sandbox, self._settings.create_timeout)
        creation.ground.terminal = terminal
        creation.ground.enclosure = self._pieces.limiter.adopt(sandbox)
        error = HelperFailed("the daemon ended while it was being created")
        await self._roll_back(sandbox, creation, error)

    async def _lost(self, sandbox: Sandbox) -> None:
        await self._pieces.limiter.adopt(sandbox).remove()
        await self._pieces.keeper.remove_runtime(self._pieces.keeper.folders(sandbox.id))
        reason = "lost: its processes ended while no daemon ran (killed, or the host restarted)"
        dead = replace(sandbox, state=SandboxState.DEAD, reason=reason, ended_at=time.time())
        await self._registry.put_ended(dead)
        await give_up(self._events, self._registry.store, sandbox.id, GONE)
        await self._events.publish(sandbox.id, "dead", reason=reason)

    async def _adopt(self, sandbox: Sandbox, terminal: Terminal, deadline: float) -> None:
        folders, geometry = self._pieces.keeper.folders(sandbox.id), sandbox.spec.geometry
        backend = self._pieces.backends[sandbox.spec.backend]
        enclosure = self._pieces.limiter.adopt(sandbox)
        paused = sandbox.state is SandboxState.PAUSED
        # The helper has to answer once. An earlier daemon may have died with it frozen and not said
        # so; but a thaw by signals wakes what the payload itself had stopped, too.
        if paused or not enclosure.walks:
            await enclosure.thaw(terminal.pane_pid)
        # Side by side, and each may be missing: a payload that ended, or that broke its helper or
        # its display, is adopted all the same, so that it can be looked at and stopped.
        display, helper = await asyncio.gather(
            _or_none(self._pieces.displays.connect(folders, geometry, deadline)),
            _or_none(backend.connect(folders, terminal.pane_pid, deadline)),
        )
        if paused:
            sandbox = await self._freeze_again(sandbox, enclosure, terminal.pane_pid)
        live = Live(
            id=sandbox.id,
            folders=folders,
            terminal=terminal,
            display=display,
            helper=helper,
            enclosure=enclosure,
        )
        if sandbox.spec.network == "allowlist":
            live.gate = await _or_none(self._gate(sandbox, client_of(live)))
        self._begin(live, sandbox)
        await self._events.publish(sandbox.id, "adopted")

    async def _gate(self, sandbox: Sandbox, client: ClientOf) -> Gate:
        """Its proxy, which went on without us; a rule may have been kept and not put in force."""
        deadline = asyncio.get_running_loop().time() + _GATE_SECONDS
        folders = self._pieces.keeper.folders(sandbox.id)
        try:
            async with asyncio.timeout(_GATE_SECONDS):
                return await opened(self._pieces, sandbox, folders, client, deadline)
        except TimeoutError as error:
            raise EgressFailed("its egress proxy does not answer", sandbox=sandbox.id) from error

    async def _freeze_again(self, sandbox: Sandbox, enclosure: Enclosure, pane_pid: int) -> Sandbox:
        """If that fails it runs, and its record says so."""
        try:
            await enclosure.freeze(pane_pid)
        except CsbError as error:
            _log.warning("sandbox %s was paused and runs: %s", sandbox.id, error)
            sandbox = replace(sandbox, state=SandboxState.RUNNING)
            await self._registry.put(sandbox)
        return sandbox


async def _or_none(work: Coroutine[Any, Any, _T]) -> _T | None:
    try:
        return await work
    except CsbError as error:
        _log.warning("not adopted: %s", error)
        return None
