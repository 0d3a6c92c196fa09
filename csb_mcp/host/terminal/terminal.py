"""``Terminal`` (ports.py): one sandbox's tmux server, over its control connection."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from csb_mcp.errors import TerminalFailed
from csb_mcp.host.terminal.capture import Pane, RowText, capture, list_panes
from csb_mcp.host.terminal.control import Control
from csb_mcp.host.terminal.keys import check_text, parse_keys, typing_lines
from csb_mcp.host.terminal.rows import ANCHOR, HISTORY_LIMIT, KEEP, Look, Screen
from csb_mcp.host.terminal.tree import Tree
from csb_mcp.host.terminal.wake import Wake
from csb_mcp.lib.processes import ProcessHandle, children, hold
from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Rows

FIRST_REACH = 2 * ANCHOR + 8  # rows above the screen in a first look after output: mostly enough
FULL_REACH = KEEP + ANCHOR  # with so many, Screen.take never asks for more
ERROR_REACH = 200  # rows above the screen that a display's complaint may fill
SLICE = 500  # rows made into text before others get their turn: well below a millisecond
SETTLE_SECONDS = 0.5  # for last words on their way through tmux when a sandbox is ended
STATUS_SECONDS = 5.0
FIRST_DELAY, LAST_DELAY = 0.0005, 0.05  # between two questions whether tmux is done with a pane


class TmuxTerminal:
    """See the port. Made by ``TmuxTerminals``; the owner ends it by ``close`` or ``kill``."""

    def __init__(
        self,
        control: Control,
        server: ProcessHandle,
        panes: Mapping[str, Pane],
        text: RowText,
        wake: Wake,
    ) -> None:
        main = panes["main"]
        self._control = control
        self._text = text
        self._wake = wake
        self._main = main
        self._beside = {name: pane.id for name, pane in panes.items() if pane is not main}
        # One whose status is known was waited for: its pid may be another's by now. Nor is tmux's
        # word taken for it: it is below a hostile payload, and these will be killed, by root maybe.
        own = {pane.pid for pane in panes.values() if pane.status is None}
        own &= set(children(server.pid))
        self._payload = hold([main.pid] if main.pid in own else [])
        self._tree = Tree(server, [*self._payload, *hold(sorted(own - {main.pid}))])
        self._screen = Screen(text)
        self._beats = -1  # of output, before the last look
        self._looking = asyncio.Lock()
        self._ending = asyncio.Lock()
        self._open = True
        self._killed = False

    @property
    def server_pid(self) -> int:
        """See the port."""
        return self._tree.server.pid

    def mount_namespace(self) -> int:
        """See the port."""
        server = self._tree.server
        try:
            namespace = os.open(f"/proc/{server.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise TerminalFailed(f"its mounts cannot be entered: {error.strerror}") from error
        if not server.alive():  # the pid may have been another's by then
            os.close(namespace)
            raise TerminalFailed("the tmux server has ended")
        return namespace

    @property
    def pane_pid(self) -> int:
        """See the port."""
        return self._main.pid

    @property
    def running(self) -> bool:
        """See the port."""
        return any(handle.alive() for handle in self._payload)

    @property
    def output(self) -> Pulse:
        """See the port."""
        return self._wake.pulse

    @property
    def idle_seconds(self) -> float:
        """See the port."""
        return asyncio.get_running_loop().time() - self._wake.last

    async def send(self, text: str | None, keys: Sequence[str], *, paste: bool = False) -> None:
        """See the port. InvalidInput also for text with control characters or above 256 KiB."""
        text = check_text(text) if text else ""
        lines = typing_lines(self._main.id, text, parse_keys(keys), paste=paste)
        # All are on their way before anything is awaited, so two senders never mix.
        for answer in [self._control.request(line) for line in lines]:
            await answer

    async def rows(self, since: int | None) -> Rows:
        """See the port."""
        async with self._looking:
            quiet, self._beats = self._beats == self.output.count, self.output.count
            wanted = self._screen.take(await self._look(ANCHOR if quiet else FIRST_REACH))
            if wanted:  # some more than that: it may go on printing meanwhile; in a flood, all
                reach = FULL_REACH if wanted > SLICE else wanted + SLICE
                wanted = self._screen.take(await self._look(reach))
            if wanted:
                self._screen.take(await self._look(FULL_REACH))
            return self._screen.since(since)

    async def history(self, lines: int) -> Rows:
        """See the port."""
        async with self._looking:
            look = await self._look(max(min(lines, HISTORY_LIMIT), FULL_REACH))
            self._screen.take(look)
            # Taken inside, with the lock held: numbers, generation and rows belong together.
            first, answer = self._screen.top - look.above, self._screen.since(None)
        end = len(look.rows)
        while end and not look.rows[end - 1]:
            end -= 1
        begin = max(0, end - max(lines, 0))
        texts: list[str] = []
        for at in range(begin, end, SLICE):
            texts += map(self._text, look.rows[at : min(at + SLICE, end)])
            await asyncio.sleep(0)
        return replace(answer, rows=tuple(enumerate(texts, first + begin)))

    async def wait_exit(self) -> int:
        """See the port."""
        if self._payload:
            ends = (self._payload[0].wait(), self._tree.server.wait(), self._control.ended())
            await _first_of(*ends)
        pane = await self._settled(STATUS_SECONDS)
        if pane.status is None:
            raise TerminalFailed("tmux does not tell how the program ended")
        return pane.status

    async def error_beside(self, name: str) -> str | None:
        """See the port."""
        pane = self._beside[name]
        (dead, *_), rows = await capture(self._control, pane, ERROR_REACH, "#{pane_dead}")
        return "\n".join(filter(None, map(self._text, rows))) if dead else None

    async def restart_beside(self, name: str) -> None:
        """See the port."""
        if name not in self._beside:
            raise TerminalFailed(f"nothing named {name} runs beside the payload")
        await self._control.request([f"respawn-pane -k -t {self._beside[name]}"])

    async def close(self) -> None:
        """See the port."""
        self._open = False
        self._wake.close()
        await self._control.close()
        self._tree.close()

    async def kill(self, deadline: float) -> None:
        """See the port. TerminalFailed if this connection was closed without that."""
        async with self._ending:
            if self._killed:
                return
            if not self._open:
                raise TerminalFailed("the connection was closed; adopt the terminal again")
            self._wake.close()  # a waiter woken by its last words would ask a server that ends
            await self._tree.end(deadline, self._last_words)
            self._killed = True
            await self.close()

    async def _last_words(self) -> None:
        with suppress(TerminalFailed):  # the server is gone: there are none
            await self._settled(SETTLE_SECONDS)

    async def _settled(self, seconds: float) -> Pane:
        """The payload's pane, once tmux has read and logged all that was printed.

        Its program has ended, so this is a matter of a millisecond; there is no notice of it in
        control mode (hooks give none), so tmux is asked. After ``seconds``: the pane as it is.
        """
        loop = asyncio.get_running_loop()
        deadline, delay = loop.time() + seconds, FIRST_DELAY
        while True:
            # Dead is a pane whose pty is closed; its status comes by SIGCHLD, later or never:
            # libutempter, which Debian's tmux calls when a pane dies, resets that signal for a
            # moment, and the program that ends in it stays a zombie. Another signal is harmless.
            self._tree.server.kill(signal.SIGCHLD)
            pane = (await list_panes(self._control))["main"]
            if (pane.dead and pane.status is not None) or loop.time() > deadline:
                return pane
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_DELAY)

    async def _look(self, reach: int) -> Look:
        form = "#{pane_width} #{cursor_x} #{cursor_y}"
        numbers, rows = await capture(self._control, self._main.id, reach, form)
        width, x, y, history, height = numbers
        return Look(
            history=history,
            width=width,
            height=height,
            cursor_row=y,
            cursor_column=x,
            printed=self._wake.printed(),
            rows=rows,
        )


async def _first_of(*waits: Coroutine[Any, Any, None]) -> None:
    """Wait for any of them; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
