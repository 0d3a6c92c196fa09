"""The service that every face translates: looks sandboxes up, checks ranges, asks the pieces."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from csb_mcp.config import Settings
from csb_mcp.errors import (
    CsbError,
    DeadlineExceeded,
    DisplayFailed,
    InvalidInput,
    SandboxEnded,
    TerminalFailed,
)
from csb_mcp.model import (
    MAX_COMMAND,
    MAX_ROWS,
    MAX_WAIT,
    BackgroundCommand,
    CommandResult,
    Condition,
    Event,
    Frame,
    Image,
    KeysSent,
    Metrics,
    Region,
    Rows,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Screenshot,
    TerminalView,
    WaitResult,
)
from csb_mcp.ports import Meter, Store
from csb_mcp.service.creation import Pieces
from csb_mcp.service.cursor import Cursor, frame_name, frame_number, parse_cursor
from csb_mcp.service.events import Events
from csb_mcp.service.lifecycle import Lifecycle
from csb_mcp.service.registry import Live, Registry
from csb_mcp.service.waits import Waiter

_MAX_OUTPUT = 256 * 1024  # bytes of stdout, and of stderr, that one command may give back
_ANSWER_SECONDS = 10.0  # for what needs no more than the terminal or the display
_PIXELS_PER_TOKEN = 750  # what a vision model pays, by its maker's rule of thumb


class Manager:
    """The :class:`~csb_mcp.ports.SandboxService`."""

    def __init__(self, settings: Settings, pieces: Pieces, store: Store, meter: Meter) -> None:
        self._store = store
        self._meter = meter
        self._pieces = pieces
        self._registry = Registry(store)
        self._events = Events(store)
        self._lifecycle = Lifecycle(settings, pieces, self._registry, self._events)

    async def restore(self) -> None:
        """Take up what an earlier daemon left. Called once, before the first request."""
        await self._lifecycle.restore()

    async def close(self) -> None:
        """Let go of everything; sandboxes go on."""
        await self._lifecycle.close()
        await self._store.close()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.create(spec)

    async def list(self, state: SandboxState | None = None) -> list[Sandbox]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return [s for s in self._registry.all() if state is None or s.state is state]

    async def get(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return self._registry.find(sandbox)

    async def stop(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.stop(self._registry.find(sandbox).id)

    async def delete(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.delete(self._registry.find(sandbox).id)

    async def send_keys(
        self, sandbox: str, *, text: str | None, keys: Sequence[str], target: str, paste: bool
    ) -> KeysSent:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if target != "terminal":
            raise InvalidInput(
                f"{target!r} is not available here", field="target", choices=("terminal",)
            )
        if not text and not keys:
            raise InvalidInput("nothing to send: give text, keys or both", field="keys")
        live = self._registry.running(sandbox)
        async with _answering(live):
            before = await live.terminal.rows(None)
            await live.terminal.send(text, keys, paste=paste)
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
        async with _answering(live):
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
        live = self._registry.running(sandbox)
        helper = live.need_helper()
        if background:
            if stdin is not None:
                raise InvalidInput("a background command has no stdin", field="stdin")
            return await helper.start(command, cwd=cwd)
        return await helper.run(
            command,
            cwd=cwd,
            stdin=(stdin or "").encode(),
            timeout=timeout,
            max_output=_MAX_OUTPUT,
        )

    async def screenshot(
        self,
        sandbox: str,
        *,
        region: Region | None,
        max_width: int,
        format: str,
        if_changed_since: str | None,
    ) -> Screenshot:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        record = self._registry.find(sandbox)
        if record.state.ended:
            return await self._last_screen(record)
        live = self._registry.running(record.id)
        known = frame_number(if_changed_since, "if_changed_since") if if_changed_since else None
        async with _answering(live):
            frame = await live.need_display().capture()
            part = _inside(region, frame)
            if frame.number == known:
                return Screenshot(frame_name(frame.number), None, part)
            image = await live.need_display().encode(
                frame, part, max_width=max_width, format=format
            )
        return Screenshot(frame_name(frame.number), image, part, _tokens(image))

    async def _last_screen(self, record: Sandbox) -> Screenshot:
        data = await self._pieces.keeper.last_screen(self._pieces.keeper.folders(record.id))
        if data is None:
            raise InvalidInput(
                "no last screen of it was kept", field="sandbox", hint="it may never have had one"
            )
        size = record.spec.geometry
        image = Image(data, "png", size.width, size.height, 1.0)
        return Screenshot("last", image, Region(0, 0, size.width, size.height), _tokens(image))

    async def wait(
        self,
        sandboxes: Sequence[str],
        until: Sequence[Condition],
        *,
        mode: str,
        timeout: float,
        cursor: Mapping[str, str],
    ) -> WaitResult:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        _check_wait(sandboxes, until, mode, timeout)
        began = time.monotonic()
        waiter = Waiter(self._registry, sandboxes, cursor)
        matches = await waiter.run(until, mode, timeout)
        wanted = 1 if mode == "any" else len(until) * len(set(sandboxes))
        cursors = {live.id: await self._cursor_now(live) for live in waiter.live}
        return WaitResult(
            satisfied=len(matches) >= wanted,
            matches=tuple(matches),
            cursors={key: text for key, text in cursors.items() if text},
            waited=time.monotonic() - began,
        )

    async def _cursor_now(self, live: Live) -> str:
        """Empty if it has ended meanwhile: the answer to a wait does not fail for that."""
        try:
            async with _answering(live):
                return self._cursor(live, await live.terminal.rows(None))
        except CsbError:
            return ""

    def _cursor(self, live: Live, rows: Rows) -> str:
        return str(Cursor(live.id, self._events.last, rows.generation))

    async def metrics(self, sandbox: str | None) -> Metrics:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        pid = None if sandbox is None else self._registry.running(sandbox).terminal.server_pid
        host = replace(self._meter.host(), sandboxes_running=len(self._registry.live))
        return Metrics(host, None if pid is None else self._meter.tree(pid))

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return self._events.follow(after)


@asynccontextmanager
async def _answering(live: Live) -> AsyncGenerator[None]:
    """A deadline for what should take milliseconds, with an error that names the sandbox."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            yield
    except (TerminalFailed, DisplayFailed) as error:
        if not live.ending:
            raise
        raise SandboxEnded("it ended meanwhile", sandbox=live.id) from error
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"it did not answer within {_ANSWER_SECONDS:g} s", sandbox=live.id
        ) from error


def _check_wait(
    sandboxes: Sequence[str], until: Sequence[Condition], mode: str, timeout: float
) -> None:
    if not sandboxes:
        raise InvalidInput("name at least one sandbox", field="sandboxes")
    if not until:
        raise InvalidInput("give at least one condition", field="until")
    if mode not in ("any", "all"):
        raise InvalidInput(f"{mode!r} is unknown", field="mode", choices=("any", "all"))
    if not 0 < timeout <= MAX_WAIT:
        raise InvalidInput(
            f"{timeout:g} is not above 0 and at most {MAX_WAIT:g} seconds",
            field="timeout",
            hint="wait again with the cursor for longer",
        )


def _inside(region: Region | None, frame: Frame) -> Region:
    if region is None:
        return Region(0, 0, frame.width, frame.height)
    fits = (
        0 <= region.x < region.x + region.width <= frame.width
        and 0 <= region.y < region.y + region.height <= frame.height
    )
    if not fits:
        raise InvalidInput(
            f"{[region.x, region.y, region.width, region.height]} is not inside the screen",
            field="region",
            hint=f"the screen is {frame.width}x{frame.height} pixels",
        )
    return region


def _tokens(image: Image) -> int:
    return round(image.width * image.height / _PIXELS_PER_TOKEN)
