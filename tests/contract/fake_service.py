"""A service in memory, for tests of how the faces translate.

What it translates to is tested elsewhere, on real sandboxes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import Conflict, CreateFailed, NotFound, SandboxEnded
from csb_mcp.lib.pulse import Pulse, beat_within
from csb_mcp.model import (
    NO_BUDGET,
    AgentFault,
    AgentState,
    AgentUsage,
    AgentView,
    Answered,
    BackgroundCommand,
    Budget,
    CommandResult,
    Condition,
    Connection,
    Counted,
    Egress,
    EgressAsked,
    EgressRequest,
    Event,
    Evidence,
    HostUsage,
    Image,
    KeysSent,
    Limits,
    LogPart,
    Match,
    Metrics,
    ModelUsage,
    Observation,
    Option,
    Outcome,
    Point,
    Probe,
    Problem,
    PromptSent,
    Question,
    Region,
    Sample,
    Sandbox,
    SandboxSpec,
    SandboxState,
    SandboxUsage,
    ScreenChanged,
    Screenshot,
    Source,
    TerminalText,
    TerminalView,
    TokensOver,
    TriedHost,
    Verdict,
    Verification,
    WaitResult,
)

PIXELS = b"\x89PNG not really"


class FakeService:
    """What a test sets is what it gives. ``calls``: which were made; ``arguments``: of the last."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, Sandbox] = {}
        self.calls: list[str] = []
        self.arguments: dict[str, object] = {}
        options = (Option("1", "Yes"), Option("2", "No\x1b[31m"))
        self.question = Question(
            id="q1", kind="permission", tool="Bash", detail="rm -rf x", options=options, free=True
        )
        self.view = TerminalView(((0, "$ ls"), (1, "README"), (2, "")), "ab.1", False, False)
        self.result: CommandResult | BackgroundCommand = CommandResult(0, "out\n", "")
        self.error: Exception | None = None
        self.waits_cancelled = 0
        self.waiting = asyncio.Event()
        self.log = b"one\r\n\x1b[31mtwo\x1b[0m\r\n"
        self.log_start = 0  # what lies before it is no longer kept
        self.happened: list[Event] = []
        self.readers = self.followers = self.watched = 0  # of the log, of events, of changes
        self.news, self.printed, self.drawn, self.spent = Pulse(), Pulse(), Pulse(), Pulse()
        self.used = ModelUsage(input=10, output=20)

    def print(self, data: bytes) -> None:
        """Add to the log that all sandboxes share; who follows it is woken."""
        self.log += data
        self.printed.beat()

    def spend(self, tokens: int) -> None:
        """Its agent uses tokens."""
        self.used += ModelUsage(output=tokens)
        self.spent.beat()

    def happen(self, kind: str, sandbox: str = "x", **data: str) -> None:
        """Something happens."""
        event = Event(
            sequence=len(self.happened) + 1,
            time=1_700_000_000.5,
            sandbox=sandbox,
            kind=kind,
            data=data,
        )
        self.happened.append(event)
        self.news.beat()

    def _called(self, name: str, **arguments: object) -> None:
        self.calls.append(name)
        self.arguments = arguments
        if self.error is not None:
            raise self.error

    def _find(self, sandbox: str) -> Sandbox:
        for record in self.sandboxes.values():
            if record.id.startswith(sandbox) or record.name == sandbox:
                return record
        raise NotFound(f"no sandbox is called {sandbox!r}", choices=tuple(self.sandboxes))

    async def create(self, spec: SandboxSpec) -> Sandbox:
        self._called("create", spec=spec)
        if spec.name == "fails":
            raise CreateFailed("the display did not come up", stage="display")
        sandbox = Sandbox(
            id=f"{len(self.sandboxes):08d}",
            spec=spec,
            state=SandboxState.RUNNING,
            uid=1000,
            created_at=1_700_000_000.25,
            name=spec.name,
            limits=Limits(asked={"ttl": "60 s"} if spec.ttl else {}, enforced_by={"ttl": "daemon"}),
            attach="tmux -S /x attach",
            allowed_hosts=spec.allow_hosts,
            agent_state=AgentState.READY if spec.agent == "claude" else AgentState.NONE,
        )
        self.sandboxes[sandbox.id] = sandbox
        return replace(sandbox, cursor="ab.0") if spec.task else sandbox

    async def list(self, state: SandboxState | None = None) -> list[Sandbox]:
        self._called("list", **self.arguments)  # tools/list looks, too
        found = [s for s in self.sandboxes.values() if state is None or s.state is state]
        return found[::-1]

    async def get(self, sandbox: str) -> Sandbox:
        return self._find(sandbox)

    async def pause(self, sandbox: str) -> Sandbox:
        self._called("pause")
        return self._set_state(sandbox, SandboxState.PAUSED)

    async def resume(self, sandbox: str, budget: Budget = NO_BUDGET) -> Sandbox:
        self._called("resume", budget=budget)
        return self._set_state(sandbox, SandboxState.RUNNING)

    def _set_state(self, sandbox: str, state: SandboxState) -> Sandbox:
        record = self._find(sandbox)
        if record.state.ended:
            raise SandboxEnded(f"it is {record.state}", sandbox=record.id)
        self.sandboxes[record.id] = replace(record, state=state)
        return self.sandboxes[record.id]

    async def stop(self, sandbox: str) -> Sandbox:
        self._called("stop")
        record = replace(
            self._find(sandbox),
            state=SandboxState.STOPPED,
            ended_at=1_700_000_060.0,
            reason="stopped on request",
            exit_status=143,
        )
        self.sandboxes[record.id] = record
        self.printed.beat()
        return record

    async def delete(self, sandbox: str) -> Sandbox:
        self._called("delete")
        return self.sandboxes.pop(self._find(sandbox).id)

    async def send_keys(
        self, sandbox: str, *, text: str | None, keys: Sequence[str], target: str, paste: bool
    ) -> KeysSent:
        self._called("send_keys", text=text, keys=keys, target=target, paste=paste)
        self._find(sandbox)
        return KeysSent((*([text] if text else []), *keys), "ab.1")

    async def click(
        self, sandbox: str, at: Point, *, button: str, count: int, frame: str | None
    ) -> str:
        self._called("click", at=at, button=button, count=count, frame=frame)
        return self._touched(sandbox)

    async def drag(
        self, sandbox: str, path: Sequence[Point], *, button: str, frame: str | None
    ) -> str:
        self._called("drag", path=path, button=button, frame=frame)
        return self._touched(sandbox)

    async def scroll(self, sandbox: str, at: Point, dx: int, dy: int, *, frame: str | None) -> str:
        self._called("scroll", at=at, dx=dx, dy=dy, frame=frame)
        return self._touched(sandbox)

    async def type_text(self, sandbox: str, text: str) -> str:
        self._called("type_text", text=text)
        return self._touched(sandbox)

    def _touched(self, sandbox: str) -> str:
        self._find(sandbox)
        return "e-2"

    async def observe(self, sandbox: str, *, cursor: str | None) -> Observation:
        self._called("observe", cursor=cursor)
        record = self._find(sandbox)
        said = (
            Evidence(source=Source.HOOK, says=AgentState.QUESTION, detail="ask\x1b[1m", since=1.0),
            Evidence(source=Source.SCREEN, says=AgentState.WORKING, detail="busy", since=2.0),
        )
        state, asked = AgentState.QUESTION, self.question
        fault = AgentFault(kind="network", words="no\x07 way out", hint="allow its host")
        used = self.used
        return Observation(
            record=record,
            agent=AgentView(state=state, since=1.5, evidence=said, question=asked, fault=fault),
            usage=AgentUsage(
                models={"model-a": used},
                cost=0.25,
                turns=1,
                tool_calls=2,
                turn=used,
                counted=Counted(models={"model-a": used + used}, uncounted=3, estimated=40),
                counted_cost=0.75,
            ),
            terminal=self.view,
            queued=1,
        )

    async def send_prompt(self, sandbox: str, text: str, *, queue: bool) -> PromptSent:
        self._called("send_prompt", text=text, queue=queue)
        self._find(sandbox)
        proof = "" if queue else "hook"
        return PromptSent(proof=proof, retried=False, cursor="ab.1", waited=0.25, queued=queue)

    async def answer(
        self, sandbox: str, question: str, option: str, *, text: str | None
    ) -> Answered:
        self._called("answer", question=question, option=option, text=text)
        self._find(sandbox)
        if question != self.question.id:
            raise Conflict("that question is not on its screen now", sandbox=sandbox)
        return Answered(
            question=question,
            option=option,
            state=AgentState.QUESTION,
            next=self.question,
            cursor="ab.1",
        )

    async def read_terminal(
        self, sandbox: str, *, cursor: str | None, lines: int | None
    ) -> TerminalView:
        self._called("read_terminal", cursor=cursor, lines=lines)
        self._find(sandbox)
        return self.view

    async def read_log(self, sandbox: str, *, offset: int | None, limit: int) -> LogPart:
        self._called("read_log", offset=offset, limit=limit)
        return self._log_part(self._find(sandbox), offset, limit)

    def _log_part(self, sandbox: Sandbox, offset: int | None, limit: int) -> LogPart:
        end = self.log_start + len(self.log)
        asked = max(end - limit, self.log_start) if offset is None else offset
        start = min(max(asked, self.log_start), end)
        data = self.log[start - self.log_start :][:limit]
        return LogPart(data, start, start + len(data), start > asked, sandbox.state.ended)

    async def follow_log(self, sandbox: str, offset: int) -> AsyncIterator[LogPart]:
        """In parts of 16 bytes at most, so that characters and escapes are cut."""
        self._called("follow_log", offset=offset)
        self.readers += 1
        try:
            while True:
                part = self._log_part(self._find(sandbox), offset, 16)
                if part.data:
                    offset = part.next
                    yield part
                elif part.ended:
                    return
                else:
                    await self.printed.beyond(self.printed.count)
        finally:
            self.readers -= 1

    async def run_command(
        self,
        sandbox: str,
        command: str,
        *,
        timeout: float,
        cwd: str | None,
        stdin: str | None,
        background: bool,
    ) -> CommandResult | BackgroundCommand:
        self._called("run_command", command=command, timeout=timeout, cwd=cwd, stdin=stdin)
        self._find(sandbox)
        if command.startswith("ask "):  # for tests that have no more than a face
            self.ask(sandbox, command.removeprefix("ask "))
        return BackgroundCommand(7, "/tmp/o", "/tmp/e") if background else self.result

    async def screenshot(
        self,
        sandbox: str,
        *,
        region: Region | None,
        max_width: int,
        format: str,
        if_changed_since: str | None,
    ) -> Screenshot:
        self._called("screenshot", region=region, max_width=max_width, format=format)
        self._find(sandbox)
        area = region or Region(0, 0, 1280, 800)
        if if_changed_since == "e-1":
            return Screenshot("e-1", None, area)
        return Screenshot("e-1", Image(PIXELS, format, 640, 400, 0.5), area, tokens=341)

    async def wait(
        self,
        sandboxes: Sequence[str],
        until: Sequence[Condition],
        *,
        mode: str,
        timeout: float,
        cursor: Mapping[str, str],
    ) -> WaitResult:
        """Satisfied at once by any TerminalText; else it takes the whole timeout.

        An empty text, which stands in every row, waits for ``printed``; a screen for ``drawn``;
        tokens for ``spent``.
        """
        self._called("wait", until=until, mode=mode, cursor=cursor)
        found = [self._find(sandbox).id for sandbox in sandboxes]
        cursors = {sandbox: f"{sandbox}.2" for sandbox in found}
        condition = until[0]
        if condition == TerminalText("") or isinstance(condition, (ScreenChanged, TokensOver)):
            return await self._change(found[0], condition, timeout)
        for index, condition in enumerate(until):
            if isinstance(condition, EgressAsked):
                match = Match(found[0], index, "h.example:443 (x1)")
                return WaitResult(True, (match,), cursors, 0.1)
            if isinstance(condition, TerminalText):
                match = Match(found[0], index, condition.text)
                return WaitResult(True, (match,), cursors, 0.1)
        self.waiting.set()
        try:
            await asyncio.sleep(timeout)
        except asyncio.CancelledError:
            self.waits_cancelled += 1
            raise
        return WaitResult(False, (), cursors, timeout)

    async def _change(self, sandbox: str, condition: Condition, timeout: float) -> WaitResult:
        pulse = self.printed
        if isinstance(condition, ScreenChanged):
            pulse = self.drawn
        elif isinstance(condition, TokensOver):
            pulse = self.spent
        self.watched += 1
        seen = pulse.count
        try:
            await beat_within(pulse, seen, timeout)
        finally:
            self.watched -= 1
        matches = (Match(sandbox, 0, ""),) if pulse.count > seen else ()
        return WaitResult(bool(matches), matches, {sandbox: f"{sandbox}.{pulse.count}"}, 0.1)

    def ask(self, sandbox: str, host: str, count: int = 1, port: int = 443) -> None:
        """It asks for a host."""
        record = self._find(sandbox)
        asked = EgressRequest(
            host=host, port=port, count=count, first=1.0, last=2.5, program="cu\x1b[31mrl"
        )
        self.sandboxes[record.id] = replace(record, pending=(asked,))
        self.happen("egress_request", record.id, host=host, port=str(port))

    async def egress(self, sandbox: str) -> Egress:
        self._called("egress")
        return self._egress(self._find(sandbox))

    def _egress(self, record: Sandbox) -> Egress:
        line = Connection(
            time=3.0, host="h.example", port=443, verdict=Verdict.FORBIDDEN, why="an\x07 address"
        )
        tried = TriedHost(
            host="h.example", port=443, allowed=2, refused=1, sent=10, received=20, last=3.0
        )
        return Egress(
            network="allowlist",
            open=True,
            allowed=record.allowed_hosts,
            denied=record.denied_hosts,
            pending=record.pending,
            hosts=(tried,),
            connections=(line,),
        )

    async def allow_host(self, sandbox: str, host: str, *, once: bool) -> Egress:
        self._called("allow_host", host=host, once=once)
        record = self._find(sandbox)
        hosts = record.allowed_hosts if once else (*record.allowed_hosts, host)
        return self._answered(replace(record, allowed_hosts=hosts), "egress_allowed", host)

    async def deny_host(self, sandbox: str, host: str) -> Egress:
        self._called("deny_host", host=host)
        record = self._find(sandbox)
        hosts = (*record.denied_hosts, host)
        return self._answered(replace(record, denied_hosts=hosts), "egress_denied", host)

    def _answered(self, record: Sandbox, kind: str, host: str) -> Egress:
        left = tuple(asked for asked in record.pending if asked.host != host)
        record = replace(record, pending=left)
        if record.id in self.sandboxes:
            self.sandboxes[record.id] = record
        self.happen(kind, record.id, host=host)
        return self._egress(record)

    async def verify_isolation(self, sandbox: str) -> Verification:
        self._called("verify_isolation")
        record = self._find(sandbox)
        outcome = Outcome.BROKEN if record.name == "weak" else Outcome.HELD
        probes = (
            Probe(name="loopback", protects="the host's ports", outcome=outcome, detail="a\x07b"),
            Probe(name="raw", protects="the network", outcome=Outcome.HELD),
        )
        return Verification(sandbox=record.id, probes=probes, seconds=1.25)

    async def metrics(self, sandbox: str | None) -> Metrics:
        self._called("metrics")
        host = HostUsage(
            cpu_percent=12.5,
            cpu_count=2,
            load=(0.1, 0.2, 0.3),
            memory_total=8 << 30,
            memory_available=4 << 30,
            disk_total=100 << 30,
            disk_free=50 << 30,
            network_received=1000,
            network_sent=2000,
            sandboxes_running=1,
        )
        history = (Sample(1_700_000_000.0, 5.0, 1 << 20, 3), Sample(1_700_000_001.0, 6.0, 2, 3))
        if sandbox is None:
            return Metrics(host, history=history)
        self._find(sandbox)
        return Metrics(host, SandboxUsage(5, 64 << 20, 1.5, io_read=4096), history)

    def problems(self) -> Sequence[Problem]:
        self._called("problems")
        return [Problem("bwrap", "is not installed", "apt install bubblewrap")]

    async def recent_events(self, sandbox: str, count: int) -> Sequence[Event]:
        self._called("recent_events")
        found = self._find(sandbox).id
        return [event for event in self.happened if event.sandbox == found][-count:]

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        self._called("events", after=after)
        position = len(self.happened) if after is None else after
        self.followers += 1
        try:
            while True:
                for event in self.happened[position:]:
                    position = event.sequence
                    yield event
                await self.news.beyond(self.news.count)
        finally:
            self.followers -= 1


class FakeApp:
    """As :func:`csb_mcp.app.build` gives it."""

    def __init__(self) -> None:
        self.service = FakeService()

    async def close(self) -> None:
        Path(os.environ["CSB_MCP_STATE_DIR"], "closed").touch()


async def build(settings: Settings) -> FakeApp:
    assert settings.state_dir.is_dir()
    if os.environ.get("CSB_MCP_RUN_AS") == "broken":
        raise RuntimeError("the piece that broke")
    return FakeApp()
