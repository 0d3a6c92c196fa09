"""Conditions: what a supervisor waits for, answered by events wherever the kernel gives some.

Each condition in each sandbox is a task of its own that ends when it came true, with the evidence.
Terminal conditions wake on output, screen conditions on damage; only files and ports, of which the
kernel tells nobody outside, are looked at a few times a second.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import regex

from csb_mcp.errors import InvalidInput, SandboxEnded
from csb_mcp.lib.pulse import beat_within
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    Condition,
    CostOver,
    EgressAsked,
    Exited,
    FileExists,
    Match,
    PortOpen,
    QuestionAsked,
    Sandbox,
    SandboxState,
    ScreenChanged,
    ScreenStable,
    TerminalIdle,
    TerminalRegex,
    TerminalText,
    TokensOver,
    TurnFinished,
)
from csb_mcp.service.agents.budgets import used_up
from csb_mcp.service.agents.waits import AgentCondition, of_agent
from csb_mcp.service.cursor import Cursor, frame_name, parse_cursor, parse_frame
from csb_mcp.service.registry import Live, Registry, ended

_FILE_SECONDS = 0.05
_PORT_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # a look without a beat: a client that holds the X server delays its events
_REGEX_SECONDS = 0.1  # for all rows of one look
_EVIDENCE = 200  # characters


class Waiter:
    """One wait over several sandboxes. ``targets`` are (record, its live pieces or None)."""

    def __init__(self, registry: Registry, refs: Sequence[str], cursors: Mapping[str, str]) -> None:
        self._registry = registry
        self._sandboxes = [registry.find(ref) for ref in dict.fromkeys(refs)]
        self._live = {
            s.id: None if s.state.ended else registry.running(s.id) for s in self._sandboxes
        }
        self._since = self._parse(refs, cursors)

    def _parse(self, refs: Sequence[str], cursors: Mapping[str, str]) -> dict[str, Cursor]:
        by_ref = dict(zip(dict.fromkeys(refs), self._sandboxes, strict=True))
        unknown = [ref for ref in cursors if ref not in by_ref and ref not in self._live]
        if unknown:
            raise InvalidInput(
                f"{unknown[0]!r} is not among the sandboxes waited for", field="cursor"
            )
        found: dict[str, Cursor] = {}
        for ref, text in cursors.items():
            sandbox = by_ref[ref].id if ref in by_ref else ref
            found[sandbox] = parse_cursor(text, sandbox)
        return found

    @property
    def live(self) -> list[Live]:
        """Those that run."""
        return [live for live in self._live.values() if live is not None]

    async def run(self, until: Sequence[Condition], mode: str, timeout: float) -> list[Match]:
        """The conditions that came true by ``timeout`` (seconds).

        Raises Conflict if it waits for an agent that a budget paused, and SandboxEnded if it can no
        longer be satisfied because sandboxes ended.
        """
        checked = [_compiled(condition) for condition in until]
        tasks = {
            asyncio.create_task(self._check(sandbox, index, condition))
            for sandbox in self._sandboxes
            for index, condition in enumerate(checked)
        }
        try:
            return await self._collect(tasks, mode, time.monotonic() + timeout)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _collect(
        self, tasks: set[asyncio.Task[Match]], mode: str, deadline: float
    ) -> list[Match]:
        pending, found = tasks, list[Match]()
        failure: BaseException | None = None
        while pending and not (found and mode == "any"):
            left = max(0.0, deadline - time.monotonic())
            done, pending = await asyncio.wait(
                pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return found
            fatal: BaseException | None = None
            for task in done:
                if (error := task.exception()) is None:
                    found.append(task.result())
                elif mode == "all" or not isinstance(error, SandboxEnded):
                    fatal = error
                else:
                    failure = error
            if fatal is not None and (mode == "all" or not found):
                raise fatal
        if not found and failure is not None:
            raise failure
        return sorted(found, key=lambda match: (match.sandbox, match.index))

    async def _check(self, sandbox: Sandbox, index: int, condition: "_Checked") -> Match:
        live = self._live[sandbox.id]
        if live is None:
            evidence = _after_end(sandbox, condition)
        else:
            if isinstance(condition, FileExists):
                condition = FileExists(str(sandbox.spec.project_dir / condition.path))
            evidence = await self._until_end(live, sandbox, condition)
        return Match(sandbox.id, index, evidence[:_EVIDENCE])

    async def _until_end(self, live: Live, sandbox: Sandbox, condition: "_Checked") -> str:
        """The condition, or the sandbox's end, whichever comes first."""
        check = asyncio.ensure_future(self._look(live, condition))
        end = asyncio.ensure_future(live.ended.wait())
        try:
            await asyncio.wait({check, end}, return_when=asyncio.FIRST_COMPLETED)
            if check.done() and check.exception() is not None and live.ending:
                await end  # it failed because the sandbox is on its way down
            if check.done() and (check.exception() is None or not live.ended.is_set()):
                return check.result()
            return _in_last_words(live, condition) or _after_end(sandbox, condition, live)
        finally:
            check.cancel()
            end.cancel()
            await asyncio.gather(check, end, return_exceptions=True)

    async def _look(self, live: Live, condition: "_Checked") -> str:
        since = self._since.get(live.id)
        if isinstance(condition, EgressAsked):
            return await _asked(live, self._registry)
        if isinstance(condition, _OF_AGENTS):
            return await of_agent(live, condition, since and since.turns, lambda: self._held(live))
        return await _evidence(live, condition, since and since.generation)

    def _held(self, live: Live) -> str:
        """The budget for which it is paused; empty if it is not, or for something else."""
        record = self._registry.find(live.id)
        if live.agent is None or record.state is not SandboxState.PAUSED:
            return ""
        return used_up(live.agent, record.spec.budget)


class _Pattern:
    """A text or a regular expression, looked for row by row."""

    def __init__(self, condition: TerminalText | TerminalRegex) -> None:
        self._text = condition.text if isinstance(condition, TerminalText) else None
        self._regex = None
        if isinstance(condition, TerminalRegex):
            try:
                self._regex = regex.compile(condition.pattern)
            except regex.error as error:
                raise InvalidInput(
                    f"not a regular expression: {error}", field="until.terminal_regex"
                ) from error

    def found(self, rows: Iterable[str]) -> str | None:
        """The first of ``rows`` with it. Raises InvalidInput if the expression takes too long."""
        if self._regex is None:
            return next((row for row in rows if self._text is not None and self._text in row), None)
        deadline = time.monotonic() + _REGEX_SECONDS
        try:
            for row in rows:
                # re has no limit, and one catastrophic pattern would stop the whole daemon.
                left = max(deadline - time.monotonic(), 0.001)
                if self._regex.search(row, timeout=left) is not None:
                    return row
                if time.monotonic() > deadline:
                    raise TimeoutError
            return None
        except TimeoutError as error:
            raise InvalidInput(
                "the expression takes too long (nested repetition?)", field="until.terminal_regex"
            ) from error


_Told = _Pattern | TerminalIdle | ScreenChanged | ScreenStable | Exited | FileExists | PortOpen
"""By the pieces themselves."""
_Checked = _Told | EgressAsked | AgentCondition  # by the record; by the agent's watch
_OF_AGENTS = (AgentStateIs, QuestionAsked, TurnFinished, TokensOver, CostOver)


def _compiled(condition: Condition) -> _Checked:
    if isinstance(condition, TerminalText | TerminalRegex):
        return _Pattern(condition)
    return condition


def _after_end(sandbox: Sandbox, condition: _Checked, live: Live | None = None) -> str:
    if isinstance(condition, Exited):
        return f"{sandbox.state if live is None else 'ended'}: {sandbox.reason or ''}".rstrip(": ")
    if condition == AgentStateIs(AgentState.EXITED):
        return "its program has ended"
    if live is not None:
        raise SandboxEnded(
            "it ended before the condition came true",
            sandbox=sandbox.id,
            hint="list_sandboxes tells why; read_terminal gives its last words",
        )
    raise ended(sandbox)


def _in_last_words(live: Live, condition: _Checked) -> str | None:
    """What was printed together with the end must not be missed."""
    if isinstance(condition, _Pattern):
        return condition.found(reversed(live.last_rows))
    return None


async def _asked(live: Live, registry: Registry) -> str:
    while True:
        seen = live.asked.count
        if pending := registry.find(live.id).pending:
            # The newest first, for there may be too many to tell.
            return ", ".join(f"{it.host}:{it.port} (x{it.count})" for it in reversed(pending))
        await live.asked.beyond(seen)


async def _evidence(live: Live, condition: _Told, since: int | None) -> str:
    match condition:
        case _Pattern():
            return await _terminal(live, condition, since)
        case TerminalIdle(seconds):
            return await _idle(live, seconds)
        case ScreenChanged(frame):
            return await _changed(live, frame)
        case ScreenStable(seconds):
            return await _stable(live, seconds)
        case Exited():
            await live.ended.wait()
            return "ended"
        case FileExists(path):
            while not live.need_helper().path_exists(path):
                await asyncio.sleep(_FILE_SECONDS)
            return path
        case PortOpen(port):
            while not live.need_helper().port_open(port):
                await asyncio.sleep(_PORT_SECONDS)
            return str(port)
    assert_never(condition)


async def _terminal(live: Live, pattern: _Pattern, since: int | None) -> str:
    output = live.terminal.output
    while True:
        seen = output.count  # before the look: what comes during it wakes us again
        rows = await live.terminal.rows(since)
        if (found := pattern.found(text for _, text in rows.rows)) is not None:
            return found
        since = rows.generation
        # Output is heard of through the log: if its disk is full, by a look now and then.
        await beat_within(output, seen, _LOOK_SECONDS)


async def _idle(live: Live, seconds: float) -> str:
    while (left := seconds - live.terminal.idle_seconds) > 0:
        await asyncio.sleep(left)
    return f"nothing was printed for {seconds:g} s"


async def _changed(live: Live, frame: str) -> str:
    display, known = live.need_display(), parse_frame(frame, "until.screen_changed").number
    while True:
        seen = display.damage.count
        now = (await display.capture()).number
        if now != known:
            return f"frame {frame_name(now)}"
        await beat_within(display.damage, seen, _LOOK_SECONDS)


async def _stable(live: Live, seconds: float) -> str:
    display = live.need_display()
    number, since = (await display.capture()).number, time.monotonic()
    while (left := since + seconds - time.monotonic()) > 0:
        await beat_within(display.damage, display.damage.count, min(left, _LOOK_SECONDS))
        frame = await display.capture()
        if frame.number != number:
            number, since = frame.number, time.monotonic()
    return f"frame {frame_name(number)} for {seconds:g} s"
