"""``Terminals`` (ports.py): a tmux server for each sandbox, started, found again, rolled back."""

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from shutil import which

from csb_mcp.errors import CsbError, DeadlineExceeded, TerminalFailed
from csb_mcp.host.distribution import here
from csb_mcp.host.terminal.capture import list_panes, row_text
from csb_mcp.host.terminal.control import Control
from csb_mcp.host.terminal.server import (
    ENVIRONMENT,
    TOOL_PATH,
    attach_argv,
    runs,
    start_argv,
)
from csb_mcp.host.terminal.terminal import TmuxTerminal
from csb_mcp.host.terminal.tree import Tree
from csb_mcp.host.terminal.wake import LogFolders, Wake
from csb_mcp.lib.lock_file import take_lock
from csb_mcp.lib.processes import ProcessHandle, peer_pid
from csb_mcp.model import Folders, Launch, Problem

OLDEST_TMUX = (3, 3)  # pane_dead_signal; root may attach to another user's server
RETRY_SECONDS = 0.02
ROLL_BACK_SECONDS = 5.0


class TmuxTerminals:
    """Makes terminals with the program at ``tmux`` (absolute), or the one in the usual places."""

    def __init__(self, tmux: Path | None = None) -> None:
        self._tmux = tmux or _tool("tmux")
        self._dd = _tool("dd")
        self._setpriv = _tool("setpriv")
        self._log_folders = LogFolders()

    def problems(self) -> Sequence[Problem]:
        """See the port. Asks tmux for its version once."""
        return self._problems

    @cached_property
    def _problems(self) -> tuple[Problem, ...]:
        found: list[Problem] = []
        version = _version(self._tmux)
        if version is None:
            found.append(Problem("tmux", f"{self._tmux} does not run", here().install("tmux")))
        elif version < OLDEST_TMUX:
            found.append(Problem("tmux", "it is older than 3.3", "install tmux 3.3 or newer"))
        if not os.access(self._dd, os.X_OK):
            found.append(Problem("dd", f"{self._dd} does not run", here().install("dd")))
        return tuple(found)

    async def start(
        self, folders: Folders, payload: Launch, beside: Mapping[str, Launch], deadline: float
    ) -> TmuxTerminal:
        """See the port. InvalidInput if the programs' arguments are too long for tmux."""
        argv = start_argv(self._tmux, self._dd, folders, payload, beside)
        lifeline = _lifeline(folders)
        try:
            return await self._start(argv, lifeline, folders, deadline)
        except BaseException:
            await asyncio.shield(_roll_back(folders))
            raise

    async def adopt(self, folders: Folders, deadline: float) -> TmuxTerminal | None:
        """See the port."""
        trouble: CsbError = TerminalFailed("it has not made its socket")
        while _runs(folders):
            if folders.tmux_socket.exists():
                try:
                    return await self._attach(folders, deadline)
                except (TerminalFailed, DeadlineExceeded) as error:
                    trouble = error  # it may be about to start, or to end
            if asyncio.get_running_loop().time() + RETRY_SECONDS > deadline:
                raise TerminalFailed(f"tmux runs and does not answer: {trouble.message}")
            await asyncio.sleep(RETRY_SECONDS)
        return None

    async def _attach(self, folders: Folders, deadline: float) -> TmuxTerminal:
        runtime = os.open(folders.runtime, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            argv = attach_argv(self._tmux, self._setpriv, runtime)
            control = await Control.open(argv, env=ENVIRONMENT, inherit=[runtime])
        finally:
            os.close(runtime)
        try:
            return await self._connect(control, folders, deadline)
        except BaseException:
            await asyncio.shield(control.close())
            raise

    async def _start(
        self, argv: Sequence[str], lifeline: int, folders: Folders, deadline: float
    ) -> TmuxTerminal:
        try:
            control = await Control.open(argv, env=ENVIRONMENT, inherit=[lifeline])
        finally:
            os.close(lifeline)  # held by the children from here on
        try:
            return await self._connect(control, folders, deadline)
        except BaseException:
            await asyncio.shield(control.close(force=True))
            raise

    async def _connect(self, control: Control, folders: Folders, deadline: float) -> TmuxTerminal:
        """Wait for the server's first answer. Raises TerminalFailed, DeadlineExceeded."""
        try:
            async with asyncio.timeout_at(deadline):
                panes, text = await list_panes(control), await row_text(control)
        except TimeoutError as error:
            hint = control.complaints()
            raise DeadlineExceeded("tmux did not start in time", hint=hint) from error
        except TerminalFailed as error:
            raise TerminalFailed(error.message, hint=control.complaints() or error.hint) from error
        if not panes.keys() >= {"main", "display"}:
            raise TerminalFailed(f"tmux did not make its panes: {control.trouble()}")
        wake = Wake(self._log_folders, folders.log)
        try:
            server = ProcessHandle(peer_pid(folders.tmux_socket))
        except OSError as error:
            wake.close()
            raise TerminalFailed(f"{folders.tmux_socket}: {error.strerror}") from error
        return TmuxTerminal(control, server, panes, text, wake)


async def _roll_back(folders: Folders) -> None:
    """End a half-made tree. It is gone when nobody holds its lifeline any more.

    Our client has been killed by now; it may have left a server that does not listen yet.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ROLL_BACK_SECONDS
    while _runs(folders) and loop.time() < deadline:
        with suppress(OSError):  # it has not got so far as to listen, or listens no more
            tree = Tree(ProcessHandle(peer_pid(folders.tmux_socket)), [])
            await tree.end(loop.time())
            tree.close()
        await asyncio.sleep(RETRY_SECONDS)


def _lifeline(folders: Folders) -> int:
    try:
        lifeline = take_lock(folders.lifeline)
    except OSError as error:
        raise TerminalFailed(f"{folders.lifeline}: {error.strerror}") from error
    if lifeline is None:
        raise TerminalFailed("a terminal of this sandbox runs already")
    return lifeline


def _runs(folders: Folders) -> bool:
    try:
        return runs(folders)
    except OSError as error:
        raise TerminalFailed(f"{folders.lifeline}: {error.strerror}") from error


def _tool(name: str) -> Path:
    return Path(which(name, path=TOOL_PATH) or f"/usr/bin/{name}")


def _version(tmux: Path) -> tuple[int, int] | None:
    try:
        said = subprocess.run(
            [tmux, "-V"], env=ENVIRONMENT, capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (99, 0)  # a build of tmux's main branch
