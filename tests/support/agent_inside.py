"""A real agent in a real sandbox, with an API of ours on its own loopback."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from csb_mcp.agents.spool import SPOOL
from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.host.terminal.terminal import TmuxTerminal
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import (
    AgentState,
    HookFact,
    Launch,
    Message,
    ModelUsage,
    Question,
    Sandbox,
    SandboxSpec,
    SandboxState,
    ScreenFact,
)
from csb_mcp.ports.agent import Agent, Stroke, Transcripts
from tests.support.launched import Host, told

DEADLINE = 30.0
_SERVE = 'python3 -I -B "$1" "$2" "$3" & shift 3; exec "$@"'


class Script(Protocol):
    """What a model says and was asked: see the fake APIs."""

    def say(self, *turns: Mapping[str, Any]) -> None: ...

    def asked(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Played:
    """An agent and the API that it speaks to. ``script`` makes that of a folder."""

    agent: Agent
    settings: Mapping[str, Any]
    key: str
    env: Mapping[str, str]
    api: Path
    port: int
    script: Callable[[Path], Script]


@dataclass(slots=True)
class Inside:
    """What a service would have of it: terminal, spool and transcripts; and the model's script."""

    agent: Agent
    terminal: TmuxTerminal
    spool: Path
    transcripts: Transcripts
    script: Script
    hooks: list[HookFact] = field(default_factory=list[HookFact])
    messages: list[Message] = field(default_factory=list[Message])
    prompts: list[str] = field(default_factory=list[str])
    faults: list[str] = field(default_factory=list[str])
    states: list[AgentState] = field(default_factory=list[AgentState])

    async def rows(self) -> list[str]:
        return [text for _, text in (await self.terminal.rows(None)).rows]

    async def look(self) -> ScreenFact:
        """Take in what is new; gives the screen."""
        for name in sorted(name for name in os.listdir(self.spool) if not name.startswith(".")):
            fact = self.agent.hook((self.spool / name).read_bytes())
            (self.spool / name).unlink()
            if fact:
                self.hooks.append(fact)
        found = self.transcripts.read()
        self.messages += found.messages
        self.prompts += found.prompts
        self.faults += [fault.kind for fault in found.faults]
        fact = self.agent.screen(await self.rows())
        if fact.state not in self.states[-1:]:
            self.states.append(fact.state)
        return fact

    async def until(
        self, holds: Callable[[ScreenFact], object], seconds: float = DEADLINE
    ) -> ScreenFact:
        """Look until ``holds``."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            fact = await self.look()
            if holds(fact):
                return fact
            if asyncio.get_running_loop().time() > deadline:
                screen = "\n".join(await self.rows())
                last = [f"{hook.kind} {hook.text[:80]!r}" for hook in self.hooks[-5:]]
                raise AssertionError(f"not in time; {fact}\n{last}\n{screen}")
            await asyncio.sleep(0.03)

    async def until_state(self, state: AgentState, seconds: float = DEADLINE) -> ScreenFact:
        return await self.until(lambda fact: fact.state is state, seconds)

    async def question(self, kind: str) -> Question:
        """The one that is asked now, once it is drawn whole."""
        fact = await self.until(lambda fact: fact.question and fact.question.kind == kind)
        assert fact.question
        return fact.question

    async def strike(self, strokes: "list[Stroke] | tuple[Stroke, ...]") -> None:
        for stroke in strokes:
            await asyncio.sleep(stroke.pause)
            await self.terminal.send(stroke.text or None, stroke.keys, paste=stroke.paste)

    async def submit(self, text: str) -> None:
        """Submit a prompt, and see that it was taken: by the hook, word for word."""
        before = len(self.hooks)
        await self.strike(tuple(self.agent.submit(text)))
        await self.until(
            lambda _: any(
                fact.kind == "prompt" and self.agent.is_prompt(text, fact.text)
                for fact in self.hooks[before:]
            )
        )

    async def answer(self, question: Question, option: str, text: str | None = None) -> None:
        """Choose, and see that the question is gone."""
        await self.strike(tuple(self.agent.answer(question, option, text)))
        await self.until(lambda fact: fact.question is None or fact.question.id != question.id)

    async def finished(self) -> HookFact:
        """Wait for the end of the turn."""
        before = len([fact for fact in self.hooks if fact.kind == "finished"])
        if not before or self.hooks[-1].kind != "finished":
            await self.until(
                lambda _: len([f for f in self.hooks if f.kind == "finished"]) > before
            )
        await self.until_state(AgentState.READY)
        return next(fact for fact in reversed(self.hooks) if fact.kind == "finished")

    def usage(self) -> ModelUsage:
        return sum((message.usage for message in self.messages), ModelUsage())

    def kinds(self) -> list[str]:
        return [fact.kind for fact in self.hooks]


@asynccontextmanager
async def agent_inside(
    base: Path,
    played: Played,
    *,
    project: Path,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> AsyncGenerator[Inside]:
    """Started in ``project``, a folder below ``base``, without any network."""
    host = Host.make(base, os.getuid())
    api = project / ".api"
    api.mkdir(parents=True)
    served = Path(shutil.copy(played.api, api))
    for path in (project, api):
        path.chmod(0o755)
    settings = Settings(
        state_dir=base / "state",
        runtime_dir=base / "run",
        config_file=base / "none",
        project_roots=(base,),
        **played.settings,
    )
    agent = played.agent
    seed = agent.seed(project, played.key)
    program = agent.program(settings, arguments)
    server = (str(served), str(api), str(played.port))
    spec = SandboxSpec(
        project_dir=project,
        agent="command",
        command=("/bin/sh", "-c", _SERVE, "sh", *server, *program.argv),
        env={**seed.environment, **played.env, **(env or {})},
    )
    uid = host.backend.choose_uid(project, ())
    sandbox = Sandbox(id="one", spec=spec, state=SandboxState.CREATING, uid=uid, created_at=0.0)
    folders = host.folders("one")
    folders.runtime.mkdir(mode=0o700)
    folders.x11.mkdir()
    folders.xauthority.touch()
    for path in (folders.x11, folders.xauthority):
        os.chown(path, uid, uid)
    fd = os.open(project, os.O_PATH)
    deadline = asyncio.get_running_loop().time() + DEADLINE
    try:
        launch = await host.backend.ground(sandbox, folders, fd)
        await host.backend.prepare(sandbox, folders, fd, {})
        for name, content in seed.files.items():
            _seeded(folders.home, name, content, uid)
        shown = [word for path in program.shown for word in ("--program", str(path))]
        told(folders, *shown)
        beside = {"display": Launch(("/bin/sleep", "infinity"))}
        terminal = await TmuxTerminals().start(folders, launch, beside, deadline)
        home = open_folder(folders.home)
        try:
            helper = await host.backend.begin(folders, terminal.pane_pid, deadline)
            helper.close()
            transcripts = agent.transcripts(home, project)
            yield Inside(agent, terminal, folders.home / SPOOL, transcripts, played.script(api))
        except CsbError as error:
            raise AssertionError(f"{error}\n{await terminal.history(50)}") from error
        finally:
            os.close(home)
            await terminal.kill(asyncio.get_running_loop().time() + 2)
    finally:
        os.close(fd)


def _seeded(home: Path, name: str, content: bytes, uid: int) -> None:
    path = home / name
    for folder in reversed(path.relative_to(home).parents[:-1]):
        (home / folder).mkdir(exist_ok=True)
        os.chown(home / folder, uid, uid)
    path.write_bytes(content)
    os.chown(path, uid, uid)
