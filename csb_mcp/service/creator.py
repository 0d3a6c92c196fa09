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
from csb_mcp.model import (
    Sandbox,
    SandboxSpec,
    SandboxState,
)
from csb_mcp.ports import Program
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
from csb_mcp.service.records import attach_line, enforced, new_record, not_held
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
            running = await self._made(spec, project, program)
        finally:
            os.close(project.fd)
        if spec.task is not None:
            await self._give(running, spec.task)
        return self._registry.find(running.id)

    async def _made(self, spec: SandboxSpec, project: Project, program: Program | None) -> Sandbox:
        """On a spare, if one fits. The next one is wanted soon, whatever comes of this."""
        spare = await self._spares.take(spec, project.path)
        try:
            sandbox = await self._register(spec, project, spare)
            async with self._registry.lock(sandbox.id):
                return await self._bring_up(sandbox, project, program, spare)
        finally:
            self._spares.expect(replace(spec, project_dir=project.path))

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
        spec = replace(spec, project_dir=project.path)
        attach = attach_line(self._pieces.keeper.folders(made), uid)
        supervised = spec.agent in self._pieces.agents
        sandbox = new_record(made, uid, spec, backend, attach, supervised=supervised)
        try:
            await finish(self._registry.add(sandbox))
        except BaseException as error:
            await finish(self._forget(made, spare, unused=isinstance(error, CsbError)))
            raise
        return sandbox

    async def _forget(self, made: str, spare: Ground | None, *, unused: bool) -> None:
        """One that was not added, or was when nobody was there any more to be told of it.

        The row goes last: as long as anything runs, the next daemon finds it by that.
        """
        if unused and spare is not None:
            self._spares.give_back(spare)
            return
        if spare is None:
            self._registry.release(made)
        elif not await self._spares.end(spare):
            return
        if not unused:
            await self._registry.remove(made)

    async def _bring_up(
        self,
        sandbox: Sandbox,
        project: Project,
        program: Program | None,
        spare: Ground | None,
    ) -> Sandbox:
        creation, live = await self._up(sandbox, project, program, spare)
        try:
            if sandbox.spec.verify:
                creation.stage = "verify"
                await self._verify(live, sandbox)
            running = replace(
                sandbox,
                state=SandboxState.RUNNING,
                limits=enforced(sandbox, live.enclosure),
                warnings=(*sandbox.warnings, *creation.warnings),
            )
            await self._registry.put(running)
            await self._events.publish(sandbox.id, "created", backend=sandbox.spec.backend)
        except BaseException as error:
            await self._fail(sandbox, creation, error)
            raise
        self._begin(live, running)
        return running

    async def _up(
        self,
        sandbox: Sandbox,
        project: Project,
        program: Program | None,
        spare: Ground | None,
    ) -> tuple[Creation, Live]:
        """What runs. If it failed on a spare, that may have been at fault: once more without.

        But not for another ``create_timeout``.
        """
        while True:
            creation = Creation(self._pieces, sandbox, self._settings.create_timeout, spare)
            try:
                return creation, await creation.run(project, program)
            except BaseException as error:
                expired = isinstance(error, TimeoutError) or not isinstance(error, Exception)
                if spare is None or expired or not await finish(creation.undo()):
                    await self._fail(sandbox, creation, error)
                    raise
                _log.warning("sandbox %s, on a spare: %s", sandbox.id, creation.failure(error))
                spare = None

    async def _fail(self, sandbox: Sandbox, creation: Creation, error: BaseException) -> None:
        """Roll back, and raise what its caller is told; return if nobody is there any more."""
        await finish(self.roll_back(sandbox, creation, error))
        if isinstance(error, Exception):
            raise creation.failure(error) from error

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
            raise CreateFailed(not_held(found), stage="verify", sandbox=sandbox.id)

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
