"""One attempt to bring a sandbox up: its stages, what it has made so far, and how to undo that."""

import asyncio
import contextlib
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, cast

from csb_mcp.errors import CreateFailed, CsbError
from csb_mcp.model import Folders, Launch, Problem, Sandbox, resolved
from csb_mcp.ports import (
    Agent,
    Backend,
    Display,
    Displays,
    Enclosure,
    Gate,
    Gates,
    Helper,
    Keeper,
    Limiter,
    Prober,
    Program,
    Seed,
    Spools,
    Terminal,
    Terminals,
    Watcher,
)
from csb_mcp.service.policy import Project
from csb_mcp.service.registry import Live

_log = logging.getLogger(__name__)
_UNDO_SECONDS = 10.0
_KILL_SECONDS = 0.5
_BESIDE_LOOK_SECONDS = 0.1
_LAST_WORDS = 12  # lines of the launcher's in an error


@dataclass(frozen=True, slots=True)
class Pieces:
    """The host pieces that a sandbox is put together from."""

    backends: Mapping[str, Backend]
    displays: Displays
    terminals: Terminals
    limiter: Limiter
    keeper: Keeper
    watcher: Watcher
    gates: Gates
    prober: Prober
    spools: Spools
    agents: Mapping[str, Agent] = field(default_factory=dict[str, Agent])

    def problems(self) -> Sequence[Problem]:
        """What this host lacks, piece by piece. Starts short processes."""
        pieces = (*self.backends.values(), self.displays, self.terminals, self.limiter, self.gates)
        return [problem for piece in pieces for problem in piece.problems()]


class Creation:
    """Brings one sandbox up, stage by stage; :meth:`undo` leaves nothing of it.

    ``stage`` names what is being done, for the error; ``terminal`` is the root of what runs,
    ``enclosure`` what bounds it, ``warnings`` what its record has to tell.
    """

    def __init__(self, pieces: Pieces, sandbox: Sandbox, timeout: float) -> None:
        self._pieces = pieces
        self._sandbox = sandbox
        self._timeout = timeout
        self._backend = pieces.backends[sandbox.spec.backend]
        self._folders: Folders = pieces.keeper.folders(sandbox.id)
        self._display: Display | None = None
        self._helper: Helper | None = None
        self._gate: Gate | None = None
        self.stage = "folders"
        self.terminal: Terminal | None = None
        self.enclosure: Enclosure | None = None
        self.warnings: tuple[str, ...] = ()

    async def run(self, project: Project, program: Program | None = None) -> Live:
        """All stages, within the timeout. Whatever it raises, the caller then calls undo.

        ``program``: the agent's, if its spec names one that there is an adapter of.
        """
        async with asyncio.timeout(self._timeout):
            deadline = asyncio.get_running_loop().time() + self._timeout
            await self._pieces.keeper.make(self._folders, self._sandbox.uid)
            self.stage = "prepare"
            spec = self._sandbox.spec
            self.enclosure = await self._pieces.limiter.make(self._sandbox)
            way = await self._pieces.gates.prepare(self._sandbox, self._folders)
            self.warnings = way.warnings
            seed = self._seed(way.environment)
            payload = await self._backend.prepare(
                self._sandbox,
                self._folders,
                project.fd,
                way.environment,
                program=program,
                seed=seed,
            )
            screen = await self._pieces.displays.prepare(self._folders, spec.geometry, gl=spec.gl)
            # In this order they start: the proxy takes longest.
            beside = ({"egress": way.proxy} if way.proxy else {}) | {"display": screen}
            self.stage = "terminal"
            self.terminal = await self._pieces.terminals.start(
                self._folders, _enclosed(payload, self.enclosure), beside, deadline
            )
            self.stage = "display and launcher"
            await self._answers(self.terminal, beside, deadline)
            return Live(
                id=self._sandbox.id,
                folders=self._folders,
                terminal=self.terminal,
                display=self._display,
                helper=self._helper,
                enclosure=self.enclosure,
                gate=self._gate,
            )

    def _seed(self, given: Mapping[str, str]) -> Seed | None:
        """What its agent needs in its home. It is told its key, or the placeholder of that."""
        spec = self._sandbox.spec
        agent = self._pieces.agents.get(spec.agent)
        if agent is None:
            return None
        known = {**spec.env, **given}
        keys = [known[name] for name in agent.key_variables if name in known]
        return agent.seed(spec.project_dir, keys[0] if keys else None)

    async def _answers(
        self, terminal: Terminal, beside: Mapping[str, Launch], deadline: float
    ) -> None:
        """All that was started, side by side; at once an error if one's program ends instead."""
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(self._launcher_ended(terminal))]
            watches += [group.create_task(self._ended_beside(terminal, name)) for name in beside]
            connects = {
                group.create_task(self._connect_display(deadline)),
                group.create_task(self._connect_helper(terminal, deadline)),
            }
            if "egress" in beside:
                connects.add(group.create_task(self._connect_gate(deadline)))
            await asyncio.wait(connects)
            for watch in watches:
                watch.cancel()

    async def _connect_display(self, deadline: float) -> None:
        with self._in_stage("display"):
            self._display = await self._pieces.displays.connect(
                self._folders, self._sandbox.spec.geometry, deadline
            )

    async def _connect_helper(self, terminal: Terminal, deadline: float) -> None:
        with self._in_stage("launcher"):
            self._helper = await self._backend.connect(self._folders, terminal.pane_pid, deadline)

    async def _connect_gate(self, deadline: float) -> None:
        """With its rules in force: what the payload asks for first is allowed already."""
        with self._in_stage("egress"):
            self._gate = await self._pieces.gates.connect(
                self._sandbox, self._folders, self._client_of, deadline
            )
            await self._gate.rule(resolved(self._sandbox.allowed_hosts), ())

    def _client_of(self, port: int) -> str | None:
        return self._helper.client_of(port) if self._helper else None

    @contextlib.contextmanager
    def _in_stage(self, stage: str) -> Generator[None]:
        """Names the one of several stages at once that failed."""
        try:
            yield
        except CsbError as error:
            raise CreateFailed(error.message, stage=stage, hint=error.hint) from error

    async def _launcher_ended(self, terminal: Terminal) -> NoReturn:
        status = await terminal.wait_exit()
        rows = await terminal.history(_LAST_WORDS)
        words = "\n".join(text for _, text in rows.rows if text).strip()
        raise CreateFailed(
            f"the launcher ended with status {status}: {words or 'it said nothing'}",
            stage="launcher",
            hint="csb-mcp doctor shows what this host lacks",
        )

    async def _ended_beside(self, terminal: Terminal, name: str) -> NoReturn:
        while (words := await terminal.error_beside(name)) is None:
            await asyncio.sleep(_BESIDE_LOOK_SECONDS)
        raise CreateFailed(
            f"its {name} ended: {words.strip() or 'it said nothing'}",
            stage=name,
            hint="csb-mcp doctor shows what this host lacks",
        )

    async def undo(self) -> None:
        """End what runs and remove what was made. Every step is tried, whatever the others do."""
        deadline = asyncio.get_running_loop().time() + _UNDO_SECONDS
        terminal = self.terminal
        if terminal is None:  # cancelled, perhaps, while tmux was starting: the lifeline tells
            with contextlib.suppress(CsbError):
                terminal = await self._pieces.terminals.adopt(self._folders, deadline)
        if self._helper is not None:
            self._helper.close()
        if self._gate is not None:
            self._gate.close()
        if self._display is not None:
            await self._display.close()
        if terminal is not None:
            with contextlib.suppress(CsbError):
                await terminal.kill(asyncio.get_running_loop().time() + _KILL_SECONDS)
            await terminal.close()
        if self.enclosure is not None:
            try:
                await self.enclosure.remove()
            except Exception:  # noqa: BLE001 - logged; every step is tried, and delete tries again
                _log.exception("sandbox %s: its limits were not removed", self._sandbox.id)
        await self._pieces.keeper.remove(self._folders)

    def failure(self, error: BaseException) -> CsbError:
        """What the caller of create is told."""
        while isinstance(error, BaseExceptionGroup):
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        if isinstance(error, CreateFailed):
            return error
        told = {"sandbox": self._sandbox.id, "stage": self.stage}
        if isinstance(error, CsbError):
            return CreateFailed(error.message, hint=error.hint, **told)
        if isinstance(error, TimeoutError):
            return CreateFailed(f"it was not up within {self._timeout:g} s", **told)
        return CreateFailed(f"unexpected: {error!r}", hint="the daemon's log has more", **told)


def _enclosed(payload: Launch, enclosure: Enclosure) -> Launch:
    return replace(
        payload,
        argv=(*enclosure.payload_prefix, *payload.argv),
        prefix=(*enclosure.prefix, *payload.prefix),
    )
