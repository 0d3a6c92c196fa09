"""Create, pause, resume, stop, delete, and the end by itself.

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
from typing import Any

from csb_mcp.config import Settings
from csb_mcp.errors import Conflict, CreateFailed, CsbError, HostUnable, TerminalFailed
from csb_mcp.lib.text import one_line
from csb_mcp.lib.units import size_text
from csb_mcp.model import (
    AgentState,
    Budget,
    Folders,
    Limits,
    Outcome,
    Region,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Verification,
)
from csb_mcp.ports import Backend, Enclosure, Meter, Program
from csb_mcp.service.agents.budgets import budget_words, used_up, with_budget
from csb_mcp.service.agents.needs import first_prompt, with_needs
from csb_mcp.service.agents.supervisor import Supervisor
from csb_mcp.service.agents.waits import watch_of
from csb_mcp.service.calls import finish
from csb_mcp.service.creation import Creation, Pieces
from csb_mcp.service.egress import VERIFY_SECONDS
from csb_mcp.service.events import Events
from csb_mcp.service.gatekeeper import Gatekeeper
from csb_mcp.service.policy import Project, check_spec, open_project
from csb_mcp.service.registry import Live, Registry
from csb_mcp.service.restart import Restart
from csb_mcp.service.rules import check_bound, normal_rules
from csb_mcp.service.sampler import Sampler
from csb_mcp.service.vigil import Vigil

_log = logging.getLogger(__name__)
_KILL_SECONDS = 1.0  # between SIGTERM and SIGKILL, for what the payload's end left behind
_LAST_ROWS = 2000  # of the terminal, kept after the end


class Lifecycle:
    """Brings sandboxes up and down. Holds no state of its own beside the registry."""

    def __init__(
        self,
        settings: Settings,
        pieces: Pieces,
        registry: Registry,
        events: Events,
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._pieces = pieces
        self._registry = registry
        self._events = events
        self._registering = asyncio.Lock()
        self._vigil = Vigil(registry, events, pieces.watcher, self.stop)
        self._gatekeeper = Gatekeeper(pieces, registry, events, self._vigil.warn)
        self._supervisor = Supervisor(settings, pieces, registry, events, self)
        self._sampler = Sampler(settings, registry, meter, self)
        self._restart = Restart(
            settings, pieces, registry, events, roll_back=self._roll_back, begin=self._begin
        )

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """See :meth:`~csb_mcp.ports.SandboxService.create`."""
        agents = self._pieces.agents
        check_spec(spec, self._settings, tuple(self._pieces.backends), tuple(agents))
        spec = with_needs(spec, agents.get(spec.agent), self._settings)
        allowed = normal_rules(spec.allow_hosts, "allow_hosts")
        check_bound(allowed, self._settings.egress_hosts, "allow_hosts")
        spec = replace(spec, allow_hosts=allowed)
        program = await self._program(spec)
        project = open_project(spec.project_dir, self._settings)
        try:
            async with self._registering:  # each takes a uid and a name that none other has
                sandbox = await self._register(spec, project)
            async with self._registry.lock(sandbox.id):
                running = await self._bring_up(sandbox, project, program)
        finally:
            os.close(project.fd)
        if spec.task is not None:
            await self._give(running, spec.task)
        return self._registry.find(running.id)

    async def _program(self, spec: SandboxSpec) -> Program | None:
        """Its agent's, found on this host before anything is made. Raises HostUnable."""
        agent = self._pieces.agents.get(spec.agent)
        if agent is None:
            return None
        try:
            return await asyncio.to_thread(agent.program, self._settings, spec.command)
        except HostUnable as error:
            hint = '; or give agent="shell"'
            raise HostUnable(error.message, field="agent", hint=f"{error.hint}{hint}") from error

    async def _give(self, sandbox: Sandbox, task: str) -> None:
        """Its first prompt. Its lock is not held: its watch must be able to see it ready."""
        try:
            await first_prompt(self._registry.running(sandbox.id), task)
        except BaseException as error:
            await finish(self._take_back(sandbox.id, error))
            if not isinstance(error, CsbError):
                raise
            raise CreateFailed(
                error.message, stage="task", sandbox=sandbox.id, hint=error.hint
            ) from error

    async def _take_back(self, sandbox_id: str, error: BaseException) -> None:
        why = error if isinstance(error, CsbError) else "cancelled"
        reason = f"create failed in stage 'task': {why}"
        async with self._registry.lock(sandbox_id):
            if (live := self._registry.live.get(sandbox_id)) is not None:
                await self._end(live, SandboxState.FAILED, reason, None)
            await self._pieces.keeper.remove(self._pieces.keeper.folders(sandbox_id))
            ended = replace(
                self._registry.find(sandbox_id),
                state=SandboxState.FAILED,
                name=None,
                reason=reason,
            )
            await self._registry.put_ended(ended)

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
            limits=_limits(spec, backend),
            unguarded=tuple(backend.unguarded(project.path)),
            attach=_attach(self._pieces.keeper.folders(made), uid),
            allowed_hosts=spec.allow_hosts,
            agent_state=(
                AgentState.STARTING if spec.agent in self._pieces.agents else AgentState.NONE
            ),
        )
        try:
            await finish(self._registry.add(sandbox))
        except asyncio.CancelledError:  # nobody is there to be told of it
            await finish(self._registry.remove(sandbox.id))
            raise
        return sandbox

    async def _bring_up(
        self, sandbox: Sandbox, project: Project, program: Program | None
    ) -> Sandbox:
        creation = Creation(self._pieces, sandbox, self._settings.create_timeout)
        try:
            live = await creation.run(project, program)
            if sandbox.spec.verify:
                creation.stage = "verify"
                await self._verify(live, sandbox)
            running = replace(
                sandbox,
                state=SandboxState.RUNNING,
                limits=_enforced(sandbox, live.enclosure),
                warnings=(*sandbox.warnings, *creation.warnings),
            )
            await self._registry.put(running)
        except BaseException as error:
            await finish(self._roll_back(sandbox, creation, error))
            if not isinstance(error, Exception):
                raise
            raise creation.failure(error) from error
        self._begin(live, running)
        await self._events.publish(sandbox.id, "created", backend=sandbox.spec.backend)
        return running

    async def _verify(self, live: Live, sandbox: Sandbox) -> None:
        """Attack it before anybody has it. Raises CreateFailed if it does not hold."""
        probe = self._pieces.prober.probe(sandbox, live.folders, live.need_helper())
        try:
            async with asyncio.timeout(VERIFY_SECONDS):
                found = await probe
        except TimeoutError as error:
            words = f"it was not verified within {VERIFY_SECONDS:g} s"
            raise CreateFailed(words, stage="verify", sandbox=sandbox.id) from error
        if not found.held:
            raise CreateFailed(_not_held(found), stage="verify", sandbox=sandbox.id)

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
        self._spawn(live, self._vigil.files(sandbox))
        for work in self._supervisor.watches(live, sandbox):
            self._spawn(live, work)
        if sandbox.spec.network == "allowlist":
            self._spawn(live, self._gatekeeper.watch(live))
        if sandbox.spec.ttl is not None:
            self._spawn(live, self._vigil.age(sandbox, sandbox.spec.ttl))
        if sandbox.spec.idle_timeout is not None:
            self._spawn(live, self._vigil.idleness(live, sandbox.spec.idle_timeout))

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
        if not live.ending and (hits := self._sampler.hits(live)):
            reason = "; ".join((reason, *hits))
        async with self._registry.lock(live.id):
            if not live.ended.is_set():
                await self._end(live, SandboxState.DEAD, reason, status)

    async def pause(self, sandbox_id: str) -> Sandbox:
        """Hold its payload still. Raises SandboxEnded, Conflict."""
        return await finish(self._turn(sandbox_id, SandboxState.PAUSED))

    async def resume(self, sandbox_id: str, budget: Budget) -> Sandbox:
        """Let it go on, with a larger budget. Raises SandboxEnded, Conflict (it is used up)."""
        await finish(self._grant(sandbox_id, budget))
        return await finish(self._turn(sandbox_id, SandboxState.RUNNING))

    async def _grant(self, sandbox_id: str, budget: Budget) -> None:
        async with self._registry.lock(sandbox_id):
            live = self._registry.running(sandbox_id)
            record = self._registry.find(sandbox_id)
            if budget.given and live.agent is None:
                watch_of(live)  # raises: there is nothing to count
            budget = record.spec.budget.over(budget)
            if live.agent is not None and (full := used_up(live.agent, budget)):
                raise Conflict(
                    f"its budget is used up: {full}",
                    sandbox=sandbox_id,
                    hint=f"resume it with a higher {full.split()[0]}, or stop it",
                )
            if budget != record.spec.budget:
                asked = {**record.limits.asked, **budget_words(budget)}
                limits = with_budget(record.limits, asked)
                spec = replace(record.spec, budget=budget)
                await self._registry.put(replace(record, spec=spec, limits=limits))

    async def _turn(self, sandbox_id: str, state: SandboxState) -> Sandbox:
        async with self._registry.lock(sandbox_id):
            live = self._registry.running(sandbox_id)
            record = self._registry.find(sandbox_id)
            pausing, same = state is SandboxState.PAUSED, record.state is state
            if not (pausing and same):
                # Thawed also if it should run: a daemon may have died between freezing it and
                # saying so.
                await self._hold(live, still=pausing)
            if same:
                return record
            record = replace(record, state=state)
            try:
                await self._registry.put(record)
            except BaseException:
                await self._hold(live, still=not pausing)
                raise
        await self._events.publish(sandbox_id, "paused" if pausing else "resumed")
        return record

    @staticmethod
    async def _hold(live: Live, *, still: bool) -> None:
        act = live.enclosure.freeze if still else live.enclosure.thaw
        await act(live.terminal.pane_pid)
        live.last_call = time.monotonic()  # no time passes for it while it is paused

    async def warn(self, sandbox_id: str, warning: str) -> None:
        """Put a warning into the record, once, and publish it."""
        await self._vigil.warn(sandbox_id, warning)

    async def stop(self, sandbox_id: str, reason: str = "stopped on request") -> Sandbox:
        """End it; what has ended already stays as it is."""
        return await finish(self._stop(sandbox_id, reason))

    async def _stop(self, sandbox_id: str, reason: str) -> Sandbox:
        async with self._registry.lock(sandbox_id):
            live = self._registry.live.get(sandbox_id)
            if live is not None:
                await self._end(live, SandboxState.STOPPED, reason, None)
            elif not (sandbox := self._registry.find(sandbox_id)).state.ended:
                await self._restart.end_unadopted(sandbox, reason)
            return self._registry.find(sandbox_id)

    async def _end(self, live: Live, state: SandboxState, reason: str, status: int | None) -> None:
        """Keep its last words, end its tree, remove what only the running need. Lock held."""
        await self._keep_last(live)
        live.ending = True
        patience = _KILL_SECONDS
        if self._registry.find(live.id).state is SandboxState.PAUSED:
            # Only what is thawed can die; it gets no time to do anything else.
            await live.enclosure.thaw(live.terminal.pane_pid)
            patience = 0.0
        elif state is SandboxState.STOPPED:
            await self._ask_to_end(live)
        await live.terminal.kill(asyncio.get_running_loop().time() + patience)
        await live.close()
        await live.enclosure.remove()
        await self._pieces.keeper.remove_runtime(live.folders)
        record = self._registry.find(live.id)
        ended = replace(
            record, state=state, reason=reason, exit_status=status, ended_at=time.time()
        )
        await self._registry.put_ended(ended)
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
        return await finish(self._delete(sandbox_id))

    async def _delete(self, sandbox_id: str) -> Sandbox:
        sandbox = await self._stop(sandbox_id, "deleted")
        async with self._registry.lock(sandbox_id):
            await self._pieces.limiter.adopt(sandbox).remove()  # what an undo may have left
            await self._pieces.keeper.remove(self._pieces.keeper.folders(sandbox_id))
            await self._registry.remove(sandbox_id)
        await self._events.publish(sandbox_id, "deleted")
        return sandbox

    async def restore(self) -> None:
        """After a start of the daemon: take up what an earlier one left."""
        await self._restart.run()
        self._sampler.start()

    @property
    def sampler(self) -> Sampler:
        """Histories of the host and, by way of it, of the sandboxes."""
        return self._sampler

    async def close(self) -> None:
        """Let go of all sandboxes; they go on."""
        await self._sampler.close()
        for live in list(self._registry.live.values()):
            await live.close()
        self._registry.live.clear()


def _not_held(found: Verification) -> str:
    """The rows that say so: attacks that succeeded, else those that could not be tried."""
    broken = [row for row in found.probes if row.outcome is Outcome.BROKEN]
    rows = broken or [row for row in found.probes if row.outcome is Outcome.UNTESTED]
    told = "; ".join(f"{row.name} ({row.protects}): {row.detail}".rstrip(": ") for row in rows)
    what = "isolation does not hold" if broken else "isolation could not be tested"
    return f"{what}: {one_line(told, 1000) or 'no attack was tried'}"


def _log_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a watch over a sandbox failed", exc_info=error)


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


def _limits(spec: SandboxSpec, backend: Backend) -> Limits:
    """What was asked for, in words, by name; and what the backend bounds anyway."""
    asked = {"memory": size_text(spec.memory), "pids": str(spec.pids)}
    if spec.cpus is not None:
        asked["cpus"] = f"{spec.cpus:g}"
    if spec.ttl is not None:
        asked["ttl"] = f"{spec.ttl:g}s"
    if spec.idle_timeout is not None:
        asked["idle_timeout"] = f"{spec.idle_timeout:g}s"
    asked |= budget_words(spec.budget)
    bounds = backend.bounds(spec)
    asked |= {name: limit for name, (limit, _) in bounds.items()}
    return Limits(asked=asked, enforced_by={name: by for name, (_, by) in bounds.items()})


def _enforced(sandbox: Sandbox, enclosure: Enclosure) -> Limits:
    """With what enforces each limit that was asked for: the host's means, or this program."""
    asked, known = sandbox.limits.asked, sandbox.limits.enforced_by
    by = {name: known.get(name) or enclosure.enforced_by.get(name, "csb-mcp") for name in asked}
    return Limits(asked=asked, enforced_by=by)
