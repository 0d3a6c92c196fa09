"""The watch over one agent: takes in hooks, transcripts and the screen, for a judge to judge.

Whoever waits for something of the agent waits for ``news`` and looks at ``view`` and ``usage``.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from csb_mcp.config import Price
from csb_mcp.errors import CsbError
from csb_mcp.lib.changed import changed_below
from csb_mcp.lib.pulse import Pulse, beat_within
from csb_mcp.lib.threads import to_its_end
from csb_mcp.model import (
    AgentUsage,
    AgentView,
    Counted,
    HookFact,
    Rows,
    ScreenFact,
    Source,
    Transcript,
)
from csb_mcp.ports import Agent, Spool, Terminal, Transcripts
from csb_mcp.service.agents.careful import hook_of, read_of, screen_of
from csb_mcp.service.agents.changes import Change
from csb_mcp.service.agents.judge import Judge
from csb_mcp.service.agents.memory import Memory
from csb_mcp.service.agents.proof import Proof
from csb_mcp.service.agents.queue import Queue

_log = logging.getLogger(__name__)
_TICK = 0.5  # a look at the transcripts, and a new judgement, without a beat
_SLOW_TICK = 2.0  # a look at screen and spool, of which there is word if they change
_SCREEN_PAUSE = 0.05  # between two readings of a screen that changes all the time
_TRANSCRIPT_PAUSE = 0.25
_FLOOD_PAUSE = 0.5
_READS = 256  # of 1 MiB, one after another
_FIRST_READS = 4096  # by then, whoever writes so fast does it to be in the way
_FILES = 4000  # looked at, should nothing else move


class AgentWatch:
    """See the module. :meth:`close` ends nothing.

    ``speaking``: held by whoever types a prompt, ``answering`` by whoever answers. ``queue``:
    prompts that wait for their turn. ``caught_up`` is set once all was read that was there before.
    ``under_way``: requests to the model that the proxy has seen, and not yet the whole answer.
    """

    def __init__(
        self,
        agent: Agent,
        terminal: Terminal,
        spool: Spool,
        transcripts: Transcripts,
        *,
        project: Path,
        prices: Mapping[str, Price],
        memory: Memory,
        queue: Queue,
    ) -> None:
        self.agent = agent
        self._terminal = terminal
        self._spool = spool
        self._transcripts = transcripts
        self._project = project
        self._judge = Judge(prices, memory)
        self._reading = asyncio.Lock()
        self.under_way = 0
        self.news = Pulse()
        self.proof = Proof(agent.is_prompt)
        self.speaking = asyncio.Lock()
        self.answering = asyncio.Lock()
        self.caught_up = asyncio.Event()
        self.budgets = memory.budgets
        self.queue = queue
        if (typed := queue.typed) is not None:
            self.proof.expect(typed.text, typed.typed or 0)

    @property
    def memory(self) -> Memory:
        """What the next daemon shall know."""
        return replace(self._judge.memory, budgets=self.budgets)

    @property
    def view(self) -> AgentView:
        """What it does."""
        return self._judge.view

    @property
    def usage(self) -> AgentUsage:
        """What it has used."""
        return self._judge.usage

    @property
    def screen(self) -> ScreenFact:
        """What the last reading of the terminal gave."""
        return self._judge.screen

    @property
    def changes(self) -> deque[Change]:
        """Events to publish, oldest first; whoever does so takes them out."""
        return self._judge.changes

    @property
    def in_turn(self) -> bool:
        """A turn has begun and not ended."""
        return self._judge.turns.on

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            await self._look_first()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_hooks())
                group.create_task(self._follow_screen())
                group.create_task(self._follow_transcripts())
        finally:
            self.close()

    def count(self, counted: Counted, under_way: int) -> None:
        """Take in what the proxy counted, of all so far."""
        self._judge.count(counted)
        self.under_way = under_way
        self.news.beat()

    def close(self) -> None:
        """Let go of what it reads. Idempotent."""
        self._spool.close()
        self._transcripts.close()

    async def _look_first(self) -> None:
        """Before anything else is judged: of what was before, the screen alone shows what is."""
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(_TICK):
                await self.look()

    async def _follow_hooks(self) -> None:
        await self.caught_up.wait()  # or what was used before would count for the turn they begin
        while True:
            seen = self._spool.news.count
            contents, flood = await self._spool.take()
            if contents:
                await self._take_hooks(contents)
                await self.read_transcripts()
            if flood:
                _log.warning("an agent's spool is flooded; the oldest files are passed over")
                await asyncio.sleep(_FLOOD_PAUSE)
            await beat_within(self._spool.news, seen, _SLOW_TICK)

    async def _take_hooks(self, contents: Iterable[bytes]) -> None:
        for content in contents:
            if (fact := hook_of(self.agent, content)) is not None:
                await self._take_hook(fact)
            await asyncio.sleep(0)  # whoever fills the spool does not fill our time
        self._settle()

    async def _take_hook(self, fact: HookFact) -> None:
        if fact.kind == "prompt" and not self._judge.turns.whole:
            # First what the turn before it used: that is written late, and counted for its turn.
            await self.read_transcripts()
        self._judge.hook(fact)
        if fact.kind == "prompt":
            self._judge.settle()  # whoever is told of it must find it at work
            self.proof.saw(Source.HOOK, fact.text)

    async def _follow_screen(self) -> None:
        while True:
            seen = self._terminal.output.count
            try:
                await self.look()
            except CsbError as error:  # it ends, or it is so busy that it does not answer
                _log.debug("a terminal was not read: %s", error)
                await asyncio.sleep(_TICK)
            await asyncio.sleep(_SCREEN_PAUSE)
            await beat_within(self._terminal.output, seen, _SLOW_TICK)

    async def look(self) -> Rows:
        """Read the screen as it is now, and take it in. Raises TerminalFailed."""
        rows = await self._terminal.rows(None)
        self._judge.look(rows, screen_of(self.agent, rows))
        self._settle()
        return rows

    async def _follow_transcripts(self) -> None:
        while True:
            await self.read_transcripts()
            await self._look_at_files()
            await asyncio.sleep(_TRANSCRIPT_PAUSE)
            await beat_within(self._terminal.output, self._terminal.output.count, _TICK)

    async def read_transcripts(self) -> None:
        """Take in all that is new in them."""
        async with self._reading:
            for _ in range(_READS if self.caught_up.is_set() else _FIRST_READS):
                found = await to_its_end(lambda: read_of(self._transcripts))
                if not (found.more or found.messages or found.prompts or found.faults):
                    break
                self._take_transcript(found)
            self._judge.caught_up()
            self.caught_up.set()
        self._settle()
        if self._judge.tell_ends():
            self.news.beat()

    def _take_transcript(self, found: Transcript) -> None:
        self._judge.transcript(found)
        for prompt in found.prompts:
            self.proof.saw(Source.TRANSCRIPT, prompt)

    async def _look_at_files(self) -> None:
        if (since := self._judge.suspicion()) is None:
            return
        changed = await to_its_end(lambda: changed_below(self._project, since, _FILES))
        self._judge.files(changed=changed)
        self._settle()

    def _settle(self) -> None:
        self._judge.settle()
        self.news.beat()
