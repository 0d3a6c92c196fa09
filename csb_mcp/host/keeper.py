"""The folders of sandboxes on disk."""

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from csb_mcp.errors import HostUnable
from csb_mcp.host.launchers import TRUSTED
from csb_mcp.host.log import read_log
from csb_mcp.lib.safe_open import read_regular
from csb_mcp.model import Folders, LogPart

_LAST_TERMINAL_BYTES = 1 << 20
_LAST_SCREEN_BYTES = 64 << 20
_NIXOS = Path("/run/current-system/sw/bin")  # where it has what others have in /usr/bin


class DiskKeeper:
    """The :class:`~csb_mcp.ports.Keeper` on local file systems."""

    def __init__(self, runtime_dir: Path, state_dir: Path) -> None:
        self._runtime = runtime_dir
        self._state = state_dir / "sandboxes"

    def folders(self, sandbox_id: str) -> Folders:
        """See :class:`~csb_mcp.ports.Keeper`."""
        return Folders(self._runtime / sandbox_id, self._state / sandbox_id)

    async def make(self, folders: Folders, uid: int) -> None:
        """See :class:`~csb_mcp.ports.Keeper`."""
        try:
            self._state.mkdir(mode=0o700, exist_ok=True)
            for path in (folders.runtime, folders.state):
                path.mkdir(mode=0o700)
                if uid != os.geteuid():
                    os.chown(path, uid, uid, follow_symlinks=False)
        except OSError as error:
            raise HostUnable(f"{error.filename} cannot be made: {error.strerror}") from error

    async def keep_last(
        self, folders: Folders, *, terminal: str | None, screen: bytes | None
    ) -> None:
        """See :class:`~csb_mcp.ports.Keeper`. A full disk loses them, nothing else."""
        with contextlib.suppress(OSError):
            if terminal is not None:
                await asyncio.to_thread(_write, folders.last_terminal, terminal.encode())
            if screen is not None:
                await asyncio.to_thread(_write, folders.last_screen, screen)

    async def last_terminal(self, folders: Folders) -> str:
        """See :class:`~csb_mcp.ports.Keeper`."""
        data = await asyncio.to_thread(_read, folders.last_terminal, _LAST_TERMINAL_BYTES)
        return (data or b"").decode(errors="replace")

    async def last_screen(self, folders: Folders) -> bytes | None:
        """See :class:`~csb_mcp.ports.Keeper`."""
        return await asyncio.to_thread(_read, folders.last_screen, _LAST_SCREEN_BYTES)

    async def read_log(self, folders: Folders, offset: int | None, limit: int) -> LogPart:
        """See :class:`~csb_mcp.ports.Keeper`."""
        try:
            return await asyncio.to_thread(read_log, folders.log, offset, limit)
        except OSError as error:
            raise HostUnable(f"the log cannot be read: {error.strerror}") from error

    async def remove_runtime(self, folders: Folders) -> None:
        """See :class:`~csb_mcp.ports.Keeper`."""
        await asyncio.to_thread(shutil.rmtree, folders.runtime, ignore_errors=True)

    async def remove(self, folders: Folders) -> None:
        """See :class:`~csb_mcp.ports.Keeper`."""
        await self.remove_runtime(folders)
        if folders.state.exists():
            await _remove_hostile(folders.state)


def _write(path: Path, data: bytes) -> None:
    """Write beside it first: a half-written picture is never read as a whole one.

    The folder may belong to a sandbox's uid, and we be root: no link that lies there is followed.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    part, flags = f"{path.name}.part", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        with open(os.open(part, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(data)
        os.rename(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _read(path: Path, limit: int) -> bytes | None:
    try:
        return read_regular(path.parent, path.name, limit)
    except OSError:
        return None


async def _remove_hostile(path: Path) -> None:
    """Remove a tree that a payload filled.

    By rm(1): it walks trees of any depth, where shutil's recursion ends at Python's limit; and
    after chmod(1), since a folder without permissions cannot be emptied by its owner. Neither
    follows links.
    """
    await _run("chmod", "-R", "u+rwX", "--", str(path))
    status, words = await _run("rm", "-rf", "--one-file-system", "--", str(path))
    if status:
        raise HostUnable(
            f"{path} could not be removed: {words}", hint="remove it by hand, then delete again"
        )


async def _run(*argv: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        # Never our own PATH: npx and direnv put folders of a project in it, which sandboxes write.
        env={"PATH": ":".join(map(str, (*TRUSTED, _NIXOS))), "LC_ALL": "C"},
    )
    _, words = await process.communicate()
    return process.returncode or 0, words[-500:].decode(errors="replace").strip()
