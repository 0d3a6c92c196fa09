"""One attempt to bring a sandbox up: its stages, what it has made so far, and how to undo that."""

import asyncio
import contextlib
from collections.abc import Generator, Mapping
from typing import NoReturn, cast

from csb_mcp.errors import CreateFailed, CsbError
from csb_mcp.model import Sandbox, resolved
from csb_mcp.ports import Display, Enclosure, Gate, Helper, Program, Seed, Terminal
from csb_mcp.service.ground import Ground
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.policy import Project
from csb_mcp.service.registry import Live

_BESIDE_LOOK_SECONDS = 0.1
_LAST_WORDS = 12  # lines of the launcher's in an error


class Creation:
    """Brings one sandbox up, stage by stage; :meth:`undo` leaves nothing of it.

    ``ground`` is what it stands on: a spare's, or made by :meth:`run`. ``stage`` names what is
    being done, for the error; ``warnings``: what its record has to tell.
    """

    def __init__(
        self, pieces: Pieces, sandbox: Sandbox, timeout: float, spare: Ground | None = None
    ) -> None:
        self._pieces = pieces
        self._sandbox = sandbox
        self._timeout = timeout
        self._backend = pieces.backends[sandbox.spec.backend]
        self._display: Display | None = None
        self._helper: Helper | None = None
        self._gate: Gate | None = None
        self.ground = spare or Ground(pieces, sandbox)
        self._stage = ""
        self.warnings: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """See the class."""
        return self._stage or self.ground.stage

    @stage.setter
    def stage(self, stage: str) -> None:
        self._stage = stage

    async def run(self, project: Project, program: Program | None = None) -> Live:
        """All stages, within the timeout. Whatever it raises, the caller then calls undo.

        ``program``: the agent's, if its spec names one that there is an adapter of.
        """
        async with asyncio.timeout(self._timeout):
            deadline = asyncio.get_running_loop().time() + self._timeout
            terminal, enclosure = await self._stand(project, program, deadline)
            self.stage = "display and launcher"
            await self._answers(terminal, deadline)
            return Live(
                id=self._sandbox.id,
                folders=self.ground.folders,
                terminal=terminal,
                display=self._display,
                helper=self._helper,
                enclosure=enclosure,
                gate=self._gate,
            )

    async def _stand(
        self, project: Project, program: Program | None, deadline: float
    ) -> tuple[Terminal, Enclosure]:
        """Everything up to the launcher, which waits for what is prepared while it starts."""
        ground = self.ground
        if ground.terminal is None:
            await ground.lay(project.fd)
        async with asyncio.TaskGroup() as group:
            self.stage = "prepare"
            if ground.terminal is None:
                self.stage = "terminal"
                group.create_task(self._start(deadline))
            group.create_task(self._prepare(project, program))
        if ground.terminal is None or ground.enclosure is None:
            raise CreateFailed("its terminal did not come up", stage="terminal")
        with self._in_stage("prepare"):
            await ground.show_project(project.fd)
        return ground.terminal, ground.enclosure

    async def _start(self, deadline: float) -> None:
        with self._in_stage("terminal"):
            await self.ground.start(deadline)

    async def _prepare(self, project: Project, program: Program | None) -> None:
        with self._in_stage("prepare"):
            folders = self.ground.folders
            way = await self._pieces.gates.prepare(self._sandbox, folders)
            self.warnings = way.warnings
            await self._backend.prepare(
                self._sandbox,
                folders,
                project.fd,
                way.environment,
                program=program,
                seed=self._seed(way.environment),
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

    async def _answers(self, terminal: Terminal, deadline: float) -> None:
        """All that was started, side by side; at once an error if one's program ends instead."""
        beside = self.ground.beside
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(self._launcher_ended(terminal))]
            watches += [group.create_task(self._ended_beside(terminal, name)) for name in beside]
            connects = {
                group.create_task(self._connect_helper(terminal, deadline)),
                group.create_task(self._connect_display(deadline)),
            }
            if "egress" in beside:
                connects.add(group.create_task(self._connect_gate(deadline)))
            await asyncio.wait(connects)
            for watch in watches:
                watch.cancel()

    async def _connect_display(self, deadline: float) -> None:
        with self._in_stage("display"):
            self._display = await self._pieces.displays.connect(
                self.ground.folders, self._sandbox.spec.geometry, deadline
            )

    async def _connect_helper(self, terminal: Terminal, deadline: float) -> None:
        with self._in_stage("launcher"):
            folders = self.ground.folders
            self._helper = await self._backend.begin(folders, terminal.pane_pid, deadline)

    async def _connect_gate(self, deadline: float) -> None:
        """With its rules in force: what the payload asks for first is allowed already."""
        with self._in_stage("egress"):
            self._gate = await self._pieces.gates.connect(
                self._sandbox, self.ground.folders, self._client_of, deadline
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
            self.stage, sandbox = stage, self._sandbox.id
            raise CreateFailed(
                error.message, stage=stage, sandbox=sandbox, hint=error.hint
            ) from error
        except Exception:  # a defect, which goes on; only where it happened is noted
            self.stage = stage
            raise

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

    async def undo(self) -> bool:
        """End what runs and remove what was made, as :meth:`Ground.undo`."""
        if self._helper is not None:
            self._helper.close()
        if self._gate is not None:
            self._gate.close()
        if self._display is not None:
            await self._display.close()
        return await self.ground.undo()

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
