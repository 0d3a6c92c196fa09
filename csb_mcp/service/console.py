"""Calls to a sandbox's terminal, its log, and to the helper beside it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from csb_mcp.errors import InvalidInput
from csb_mcp.lib.pulse import beat_within
from csb_mcp.model import (
    MAX_COMMAND,
    MAX_ROWS,
    BackgroundCommand,
    CommandResult,
    KeysSent,
    LogPart,
    Sandbox,
    TerminalView,
)
from csb_mcp.ports import Display
from csb_mcp.service.calls import TYPING_SECONDS, Calls, answering
from csb_mcp.service.cursor import Cursor, parse_cursor

_MAX_OUTPUT = 256 * 1024  # bytes of stdout, and of stderr, that one command may give back
_LOG_PART = 64 * 1024
_LOOK_SECONDS = 1.0  # a look at the log without a beat: its disk may be full


class Console(Calls):
    """Terminal, log and commands; see :class:`~csb_mcp.ports.SandboxService`."""

    async def send_keys(
        self, sandbox: str, *, text: str | None, keys: Sequence[str], target: str, paste: bool
    ) -> KeysSent:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if target not in ("terminal", "display"):
            raise InvalidInput(
                f"{target!r} is unknown", field="target", choices=("terminal", "display")
            )
        if not text and not keys:
            raise InvalidInput("nothing to send: give text, keys or both", field="keys")
        live = self._registry.active(sandbox)
        async with answering(live, TYPING_SECONDS):
            before = await live.terminal.rows(None)
            if target == "terminal":
                await live.terminal.send(text, keys, paste=paste)
            else:
                await _to_display(live.need_display(), text, keys)
        sent = ([f"text of {len(text)} characters"] if text else []) + list(keys)
        return KeysSent(tuple(sent), self._cursor(live, before))

    async def read_terminal(
        self, sandbox: str, *, cursor: str | None, lines: int | None
    ) -> TerminalView:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if lines is not None and not 1 <= lines <= MAX_ROWS:
            raise InvalidInput(f"{lines} is not between 1 and {MAX_ROWS}", field="lines")
        record = self._registry.find(sandbox)
        if record.state.ended:
            return await self._last_words(record, lines)
        live = self._registry.running(record.id)
        since = parse_cursor(cursor, live.id).generation if cursor else None
        async with answering(live):
            if cursor is None and lines is not None:
                rows = await live.terminal.history(lines)
            else:
                rows = await live.terminal.rows(since)
        kept = rows.rows if lines is None else rows.rows[-lines:]
        gap = cursor is not None and (since is None or rows.gap)
        return TerminalView(
            rows=kept,
            cursor=self._cursor(live, rows),
            changed_only=cursor is not None and not gap,
            gap=gap,
            cut=len(rows.rows) - len(kept),
        )

    async def _last_words(self, record: Sandbox, lines: int | None) -> TerminalView:
        text = await self._pieces.keeper.last_terminal(self._pieces.keeper.folders(record.id))
        rows = tuple(enumerate(text.split("\n"))) if text else ()
        kept = rows if lines is None else rows[-lines:]
        cursor = Cursor(record.id, self._events.last, 0)
        return TerminalView(
            kept, str(cursor), changed_only=False, gap=False, cut=len(rows) - len(kept)
        )

    async def read_log(self, sandbox: str, *, offset: int | None, limit: int) -> LogPart:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if limit < 1:
            raise InvalidInput(f"{limit} is not a positive number", field="limit")
        record = self._registry.find(sandbox)
        folders = self._pieces.keeper.folders(record.id)
        part = await self._pieces.keeper.read_log(folders, offset, limit)
        # By the record from before the look: once that says so, nothing more is printed.
        return replace(part, ended=record.state.ended)

    async def follow_log(self, sandbox: str, offset: int) -> AsyncIterator[LogPart]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        sandbox = self._registry.find(sandbox).id
        while True:
            live = self._registry.live.get(sandbox)
            seen = live.terminal.output.count if live else 0
            part = await self.read_log(sandbox, offset=offset, limit=_LOG_PART)
            offset = part.next
            if part.data:
                yield part
            elif part.ended or live is None:
                return
            else:
                await beat_within(live.terminal.output, seen, _LOOK_SECONDS)

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
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if not 0 < timeout <= MAX_COMMAND:
            raise InvalidInput(
                f"{timeout:g} is not above 0 and at most {MAX_COMMAND:g} seconds",
                field="timeout",
                hint="use background=true for what takes longer",
            )
        if background and stdin is not None:
            raise InvalidInput("a background command has no stdin", field="stdin")
        live = self._registry.active(sandbox)
        helper = live.need_helper()
        with live.busy():
            if background:
                return await helper.start(command, cwd=cwd)
            return await helper.run(
                command,
                cwd=cwd,
                stdin=(stdin or "").encode(),
                timeout=timeout,
                max_output=_MAX_OUTPUT,
            )


async def _to_display(display: Display, text: str | None, keys: Sequence[str]) -> None:
    display.check_keys(keys)  # or a wrong one would be found after the text was typed
    if text:
        await display.type_text(text)
    if keys:
        await display.press(keys)
