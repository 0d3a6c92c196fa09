"""Create, stop, delete, the end by itself, and the restart of the daemon.

One rule holds it together: a row says ``creating`` before the first process starts, and whoever
changes a sandbox's state holds its lock. What is rolled back is rolled back whole, also when the
caller is cancelled in the middle.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError, HelperFailed, TerminalFailed
from csb_mcp.model import Folders, Limits, Region, Sandbox, SandboxSpec, SandboxState
from csb_mcp.ports import Terminal
from csb_mcp.service.creation import Creation, Pieces
from csb_mcp.service.events import Events
from csb_mcp.service.policy import Project, check_spec, open_project
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ADOPT_SECONDS = 10.0
_KILL_SECONDS = 1.0  # between SIGTERM and SIGKILL, for what the payload's end left behind
_LAST_ROWS = 2000  # of the terminal, kept after the end


class Lifecycle:
    """Brings sandboxes up and down. Holds no state of its own beside the registry."""

    def __init__(
        self, settings: Settings, pieces: Pieces, registry: Registry, events: Events
    ) -> None:
        self._settings = settings
        self._pieces = pieces
        self._registry = registry
        self._events = events
        self._registering = asyncio.Lock()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """See :meth:`~csb_mcp.ports.SandboxService.create`."""
        check_spec(spec, self._settings, tuple(self._pieces.backends))
        project = open_project(spec.project_dir, self._settings)
        try:
            async with self._registering:  # each takes a uid and a name that none other has
                sandbox = await self._register(spec, project)
            async with self._registry.lock(sandbox.id):
                return await self._bring_up(sandbox, project)
        finally:
            os.close(project.fd)

    async def _register(self, spec: SandboxSpec, project: Project) -> Sandbox:
        backend = self._pieces.backends[spec.backend]
        made = self._registry.new_id()
        uid = backend.choose_uid(project.path, self._registry.uids())
        sandbox = Sandbox(
            id=made,
            name=spec.name,
            spec=replace(spec, project_dir=project.path),
            state=SandboxState.CREATING,
            uid=uid,
            created_at=time.time(),
            limits=_limits(spec),
            unguarded=tuple(backend.unguarded(project.path)),
            attach=_attach(self._pieces.keeper.folders(made), uid),
        )
        await self._registry.add(sandbox)
        return sandbox

    async def _bring_up(self, sandbox: Sandbox, project: Project) -> Sandbox:
        creation = Creation(self._pieces, sandbox, self._settings.create_timeout)
        try:
            live = await creation.run(project)
            running = replace(sandbox, state=SandboxState.RUNNING)
            await self._registry.put(running)
        except BaseException as error:
            await _finish(self._roll_back(sandbox, creation, error))
            if not isinstance(error, Exception):
                raise
            raise creation.failure(error) from error
        self._begin(live, running)
        await self._events.publish(sandbox.id, "created", backend=sandbox.spec.backend)
        return running

    async def _roll_back(self, sandbox: Sandbox, creation: Creation, error: BaseException) -> None:
        why = creation.failure(error) if isinstance(error, Exception) else "cancelled"
        reason = f"create failed in stage {creation.stage!r}: {why}"
        _log.warning("sandbox %s: %s", sandbox.id, reason)
        try:
            await creation.undo()
        finally:
            failed = replace(
                sandbox, state=SandboxState.FAILED, name=None, reason=reason, ended_at=time.time()
            )
            await self._registry.put(failed)
        await self._events.publish(sandbox.id, "failed", reason=reason)

    def _begin(self, live: Live, sandbox: Sandbox) -> None:
        self._registry.live[live.id] = live
        self._spawn(live, self._watch(live))
        self._spawn(live, self._guard(sandbox))
        if sandbox.spec.ttl is not None:
            self._spawn(live, self._expire(live.id, sandbox.created_at + sandbox.spec.ttl))

    @staticmethod
    def _spawn(live: Live, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        live.tasks.add(task)
        task.add_done_callback(live.tasks.discard)
        task.add_done_callback(_log_defect)

    async def _watch(self, live: Live) -> None:
        try:
            status: int | None = await live.terminal.wait_exit()
            reason = f"its program exited with status {status}"
        except TerminalFailed as error:
            status, reason = None, f"lost: {error.message}"
        async with self._registry.lock(live.id):
            if not live.ended.is_set():
                await self._end(live, SandboxState.DEAD, reason, status)

    async def _expire(self, sandbox_id: str, at: float) -> None:
        while (left := at - time.time()) > 0:
            await asyncio.sleep(min(left, 60.0))  # in slices: the wall clock may be set meanwhile
        await self.stop(sandbox_id, "its ttl has passed")

    async def _guard(self, sandbox: Sandbox) -> None:
        """Warn when the payload makes a file that the host may execute unasked."""
        watched = self._pieces.watcher.appearing(sandbox.spec.project_dir, sandbox.unguarded)
        async for path in watched:
            warning = f"{path} appeared in the project: programs on the host may execute it unasked"
            async with self._registry.lock(sandbox.id):
                record = self._registry.find(sandbox.id)
                if warning in record.warnings:
                    continue
                await self._registry.put(replace(record, warnings=(*record.warnings, warning)))
            await self._events.publish(sandbox.id, "warning", warning=warning)

    async def stop(self, sandbox_id: str, reason: str = "stopped on request") -> Sandbox:
        """End it; what has ended already stays as it is."""
        return await _finish(self._stop(sandbox_id, reason))

    async def _stop(self, sandbox_id: str, reason: str) -> Sandbox:
        async with self._registry.lock(sandbox_id):
            live = self._registry.live.get(sandbox_id)
            if live is not None:
                await self._end(live, SandboxState.STOPPED, reason, None)
            elif not (sandbox := self._registry.find(sandbox_id)).state.ended:
                await self._end_unadopted(sandbox, reason)
            return self._registry.find(sandbox_id)

    async def _end_unadopted(self, sandbox: Sandbox, reason: str) -> None:
        """End one that did not answer when this daemon started. Lock held.

        Raises TerminalFailed if it still does not: then a person has to look.
        """
        folders = self._pieces.keeper.folders(sandbox.id)
        now = asyncio.get_running_loop().time()
        terminal = await self._pieces.terminals.adopt(folders, now + _ADOPT_SECONDS)
        if terminal is not None:
            await terminal.kill(asyncio.get_running_loop().time() + _KILL_SECONDS)
        await self._pieces.keeper.remove_runtime(folders)
        stopped = replace(sandbox, state=SandboxState.STOPPED, reason=reason, ended_at=time.time())
        await self._registry.put(stopped)
        await self._events.publish(sandbox.id, "stopped", reason=reason)

    async def _end(self, live: Live, state: SandboxState, reason: str, status: int | None) -> None:
        """Keep its last words, end its tree, remove what only the running need. Lock held."""
        await self._keep_last(live)
        live.ending = True
        if state is SandboxState.STOPPED:
            await self._ask_to_end(live)
        await live.terminal.kill(asyncio.get_running_loop().time() + _KILL_SECONDS)
        await live.close()
        await self._pieces.keeper.remove_runtime(live.folders)
        record = self._registry.find(live.id)
        ended = replace(
            record, state=state, reason=reason, exit_status=status, ended_at=time.time()
        )
        await self._registry.put(ended)
        del self._registry.live[live.id]
        live.ended.set()
        await self._events.publish(live.id, state.value, reason=reason)

    async def _ask_to_end(self, live: Live) -> None:
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout):
                await live.need_helper().terminate()
                await live.terminal.wait_exit()

    async def _keep_last(self, live: Live) -> None:
        """A sandbox that no longer answers has no last words; that must not keep it from ending."""
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout):
                rows = await live.terminal.history(_LAST_ROWS)
                live.last_rows = tuple(text for _, text in rows.rows)
        screen: bytes | None = None
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout):
                screen = await _whole_screen(live)
        text = "\n".join(live.last_rows)
        await self._pieces.keeper.keep_last(live.folders, terminal=text, screen=screen)

    async def delete(self, sandbox_id: str) -> Sandbox:
        """End it if it runs, then remove its folders and its record."""
        return await _finish(self._delete(sandbox_id))

    async def _delete(self, sandbox_id: str) -> Sandbox:
        sandbox = await self._stop(sandbox_id, "deleted")
        async with self._registry.lock(sandbox_id):
            await self._pieces.keeper.remove(self._pieces.keeper.folders(sandbox_id))
            await self._registry.remove(sandbox_id)
        await self._events.publish(sandbox_id, "deleted")
        return sandbox

    async def restore(self) -> None:
        """After a start of the daemon: adopt what lives, mark what died, remove what it left."""
        left = await self._registry.restore()
        await self._events.restore()
        async with asyncio.TaskGroup() as group:
            for sandbox in left:
                group.create_task(self._restore_one(sandbox))

    async def _restore_one(self, sandbox: Sandbox) -> None:
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
        creation.terminal = terminal
        error = HelperFailed("the daemon ended while it was being created")
        await self._roll_back(sandbox, creation, error)

    async def _lost(self, sandbox: Sandbox) -> None:
        await self._pieces.keeper.remove_runtime(self._pieces.keeper.folders(sandbox.id))
        reason = "lost: its processes ended while no daemon ran (killed, or the host restarted)"
        dead = replace(sandbox, state=SandboxState.DEAD, reason=reason, ended_at=time.time())
        await self._registry.put(dead)
        await self._events.publish(sandbox.id, "dead", reason=reason)

    async def _adopt(self, sandbox: Sandbox, terminal: Terminal, deadline: float) -> None:
        folders, geometry = self._pieces.keeper.folders(sandbox.id), sandbox.spec.geometry
        backend = self._pieces.backends[sandbox.spec.backend]
        # Side by side, and each may be missing: a payload that ended, or that broke its helper or
        # its display, is adopted all the same, so that it can be looked at and stopped.
        display, helper = await asyncio.gather(
            _or_none(self._pieces.displays.connect(folders, geometry, deadline)),
            _or_none(backend.connect(folders, terminal.pane_pid, deadline)),
        )
        self._begin(Live(sandbox.id, folders, terminal, display, helper), sandbox)
        await self._events.publish(sandbox.id, "adopted")

    async def close(self) -> None:
        """Let go of all sandboxes; they go on."""
        for live in list(self._registry.live.values()):
            await live.close()
        self._registry.live.clear()


def _log_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a watch over a sandbox failed", exc_info=error)


async def _finish(work: Coroutine[Any, Any, _T]) -> _T:
    """Run ``work`` to its end even if we are cancelled meanwhile; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - the work's own; result() raises it below
            break
    if cancelled is not None and not task.cancelled():
        task.exception()  # retrieved, so that it is not reported as lost
        raise cancelled
    return task.result()


async def _or_none(work: Coroutine[Any, Any, _T]) -> _T | None:
    try:
        return await work
    except CsbError as error:
        _log.warning("not adopted: %s", error)
        return None


async def _whole_screen(live: Live) -> bytes:
    display = live.need_display()
    frame = await display.capture()
    region = Region(0, 0, frame.width, frame.height)
    image = await display.encode(frame, region, max_width=frame.width, format="png")
    return image.data


def _attach(folders: Folders, uid: int) -> str:
    """A line for a person. Never as root: a tmux client does what its server says."""
    attach = f"tmux -S {folders.tmux_socket} attach -t main"
    if uid == os.geteuid():
        return attach
    return f"setpriv --reuid={uid} --regid={uid} --clear-groups {attach}"


def _limits(spec: SandboxSpec) -> Limits:
    if spec.ttl is None:
        return Limits()
    return Limits(asked={"ttl": f"{spec.ttl:g}s"}, enforced_by={"ttl": "csb-mcp"})
