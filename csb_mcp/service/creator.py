"""Create: from what was asked for to a sandbox that runs, with its first prompt submitted.

A row says ``creating`` before the first process starts. What fails is rolled back whole, also when
the caller is cancelled in the middle.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace

from csb_mcp.config import Settings
from csb_mcp.errors import CreateFailed, CsbError, HostUnable
from csb_mcp.lib.text import one_line
from csb_mcp.lib.units import size_text
from csb_mcp.model import (
    AgentState,
    Folders,
    Limits,
    Outcome,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Verification,
)
from csb_mcp.ports import Backend, Enclosure, Program
from csb_mcp.service.agents.budgets import budget_words
from csb_mcp.service.agents.needs import first_prompt, with_needs
from csb_mcp.service.calls import finish
from csb_mcp.service.core import Core
from csb_mcp.service.creation import Creation
from csb_mcp.service.egress import VERIFY_SECONDS
from csb_mcp.service.ender import Ender
from csb_mcp.service.events import Events
from csb_mcp.service.ground import Ground
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.policy import Project, check_spec, open_project
from csb_mcp.service.registry import Live, Registry
from csb_mcp.service.rules import check_bound, normal_rules
from csb_mcp.service.spares import Spares

_log = logging.getLogger(__name__)

Begin = Callable[[Live, Sandbox], None]


class Creator(Core):
    """Brings sandboxes up. ``begin`` has one watched that runs; ``ender`` ends it again."""

    def __init__(
        self,
        settings: Settings,
        pieces: Pieces,
        registry: Registry,
        events: Events,
        *,
        begin: Begin,
        ender: Ender,
        spares: Spares,
    ) -> None:
        super().__init__(settings, pieces, registry, events)
        self._begin = begin
        self._ender = ender
        self._spares = spares

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
            spare = await self._spares.take(spec, project.path)
            try:
                sandbox = await self._register(spec, project, spare)
            except BaseException:
                if spare is not None:
                    await finish(self._spares.end(spare))
                raise
            async with self._registry.lock(sandbox.id):
                running = await self._bring_up(sandbox, project, program, spare)
        finally:
            os.close(project.fd)
        self._spares.expect(running)
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
                await self._ender.end(live, SandboxState.FAILED, reason, None)
            await self._pieces.keeper.remove(self._pieces.keeper.folders(sandbox_id))
            ended = replace(
                self._registry.find(sandbox_id),
                state=SandboxState.FAILED,
                name=None,
                reason=reason,
            )
            await self._registry.put_ended(ended)

    async def _register(self, spec: SandboxSpec, project: Project, spare: Ground | None) -> Sandbox:
        backend = self._pieces.backends[spec.backend]
        if spare is not None:
            made, uid = spare.sandbox.id, spare.sandbox.uid
        else:
            made = self._registry.new_id()
            uid = backend.choose_uid(project.path, self._registry.uids())
            self._registry.reserve(made, uid)
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
        finally:
            if spare is None:
                self._registry.release(made)
        return sandbox

    async def _bring_up(
        self,
        sandbox: Sandbox,
        project: Project,
        program: Program | None,
        spare: Ground | None,
    ) -> Sandbox:
        creation = Creation(self._pieces, sandbox, self._settings.create_timeout, spare)
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
            await finish(self.roll_back(sandbox, creation, error))
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

    async def roll_back(self, sandbox: Sandbox, creation: Creation, error: BaseException) -> None:
        """Undo what was begun; its record says why. Its lock is held, or nobody knows of it."""
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


def _not_held(found: Verification) -> str:
    """The rows that say so: attacks that succeeded, else those that could not be tried."""
    broken = [row for row in found.probes if row.outcome is Outcome.BROKEN]
    rows = broken or [row for row in found.probes if row.outcome is Outcome.UNTESTED]
    told = "; ".join(f"{row.name} ({row.protects}): {row.detail}".rstrip(": ") for row in rows)
    what = "isolation does not hold" if broken else "isolation could not be tested"
    return f"{what}: {one_line(told, 1000) or 'no attack was tried'}"


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
