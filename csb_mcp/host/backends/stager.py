"""How a root daemon has trees started under a uid of their own, by ``host/stage.py``."""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.host.identity import STAGE, Identities
from csb_mcp.model import Folders

_SECONDS = 10.0


class Stager:
    """Says what goes before a tree, or shows its project later. ``keep``: what it sees of ours."""

    def __init__(self, settings: Settings, identities: Identities, keep: Path) -> None:
        self._settings = settings
        self._identities = identities
        self._keep = keep

    def start(
        self, uid: int, folders: Folders, project_fd: int | None, *, gain: bool
    ) -> tuple[str, ...]:
        """The words before a tree that runs as ``uid``; ``project_fd`` None: shown later."""
        words = [*self._stage(uid)]
        words += [f"hide={self._settings.runtime_dir}", f"hide={self._settings.state_dir}"]
        words += [f"keep={path}" for path in (self._keep, folders.runtime, folders.state)]
        if project_fd is not None:
            words += self._project(uid, folders, project_fd)
        return (*words, *(["gain=pasta"] if gain else ()), "--")

    async def show(self, uid: int, folders: Folders, project_fd: int, namespace: int) -> None:
        """Show the project in ``namespace``, a descriptor of one that :meth:`start` made.

        Raises HostUnable.
        """
        try:
            project = [*self._project(uid, folders, project_fd)]
            await _run([*self._stage(uid), f"into={namespace}", *project], namespace)
        except OSError as error:
            raise HostUnable(f"the project cannot be shown: {error.strerror}") from error

    def _stage(self, uid: int) -> Iterator[str]:
        # The plain interpreter: a virtual environment's costs two more milliseconds.
        yield from (os.path.realpath(sys.executable), "-I", "-S", str(STAGE))
        yield from (f"uid={uid}", f"gid={self._identities.group(uid)}")

    def _project(self, uid: int, folders: Folders, project_fd: int) -> Iterator[str]:
        yield from (f"project={held(project_fd)}", f"at={place(folders)}")
        if self._identities.owns(uid):
            owner = os.stat(project_fd)
            yield f"map={owner.st_uid}:{owner.st_gid}"


def held(fd: int) -> str:
    """A folder that this daemon holds open, for others: no path to it could be swapped."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def place(folders: Folders) -> Path:
    """Where the project is shown to the launcher."""
    return folders.runtime / "project"


async def _run(words: Sequence[str], namespace: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=[namespace],
    )
    try:
        async with asyncio.timeout(_SECONDS):
            _, said = await process.communicate()
    except TimeoutError as error:
        raise HostUnable(f"the project could not be shown within {_SECONDS:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise HostUnable(said.decode(errors="replace").strip() or "the project cannot be shown")
