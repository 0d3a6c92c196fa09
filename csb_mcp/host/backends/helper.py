"""Commands inside a sandbox, and looks into it, from the daemon's side (``ports.Helper``).

A request is a folder ``exec/ID`` that is bound read-only inside: files ``command``, ``cwd`` and
``stdin``, FIFOs ``stdout`` and ``stderr``. What happened comes back over the channel. Everything
that comes from inside is the sandbox's word: it can lie about its own results, and no more.
"""

import asyncio
import errno
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from csb_mcp.errors import HelperFailed, InvalidInput, SandboxEnded
from csb_mcp.host.backends.channel import Channel, Request
from csb_mcp.host.backends.clients import client_of
from csb_mcp.host.backends.output import Output
from csb_mcp.lib.processes import ProcessHandle, children, hold
from csb_mcp.lib.safe_open import exists_in_root, is_full
from csb_mcp.model import BackgroundCommand, CommandResult, Folders

_COMMAND_BYTES = 100_000  # execve takes 128 KiB in one argument
_START_SECONDS = 10.0
_PATIENCE_SECONDS = 1.0
_KILL_SECONDS = 2.0
_DOOR_SECONDS = 15.0
_LINGER_SECONDS = 1.0  # between the end of both streams and the exit line
_KILLED = 128 + 9
_BOUNDED = {"tmp": "/tmp", "shm": "/dev/shm"}
_TCP_LISTEN = b"0A"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_TABLE_BYTES = 1 << 20  # some 7,000 sockets; those that listen come first


class SandboxHelper:
    """``init`` is PID 1 inside and ``root`` an O_PATH descriptor of its root: both become ours."""

    def __init__(self, channel: Channel, folders: Folders, init: ProcessHandle, root: int) -> None:
        self._channel = channel
        self._folders = folders
        self._init = init
        self._root = root
        self._watch = asyncio.create_task(self._fail_when_ended())

    @property
    def init_pid(self) -> int:
        """Host pid of PID 1 inside."""
        return self._init.pid

    async def run(
        self, command: str, *, cwd: str | None, stdin: bytes, timeout: float, max_output: int
    ) -> CommandResult:
        """See ``ports.Helper.run``. Raises also InvalidInput (a command too long)."""
        self._check_alive()
        with self._folder(command, cwd, stdin) as (name, folder):
            outputs = [Output(fifo, folder, max_output) for fifo in ("stdout", "stderr")]
            try:
                return await self._result(name, outputs, timeout)
            finally:
                for output in outputs:
                    output.close()

    async def start(self, command: str, *, cwd: str | None) -> BackgroundCommand:
        """See ``ports.Helper.start``."""
        self._check_alive()
        with self._folder(command, cwd, b"") as (name, _):
            request = self._channel.request("start", name)
            try:
                pid = await self._started(request, _START_SECONDS)
            finally:
                self._channel.forget(request)
            place = f"/tmp/csb-commands/{name}"
            return BackgroundCommand(pid, f"{place}.out", f"{place}.err")

    async def terminate(self) -> None:
        """See ``ports.Helper.terminate``."""
        self._check_alive()
        self._channel.send("terminate")

    def path_exists(self, path: str) -> bool:
        """See ``ports.Helper.path_exists``."""
        # The descriptor would go on showing the tree of a sandbox that has ended.
        return self._init.alive() and exists_in_root(self._root, path)

    def full(self) -> Sequence[str]:
        """See ``ports.Helper.full``."""
        return [name for name, path in _BOUNDED.items() if is_full(self._root, path)]

    def port_open(self, port: int) -> bool:
        """See ``ports.Helper.port_open``."""
        return self._init.alive() and any(
            _listens(Path(f"/proc/{self.init_pid}/net/{name}"), port) for name in ("tcp", "tcp6")
        )

    def client_of(self, port: int) -> str | None:
        """See ``ports.Helper.client_of``."""
        return client_of(self.init_pid, port) if self._init.alive() else None

    async def open_way_out(self) -> None:
        """See ``ports.Helper.open_way_out``."""
        self._check_alive()
        request = self._channel.request("door", secrets.token_hex(8))
        try:
            status = await asyncio.wait_for(asyncio.shield(request.done), _DOOR_SECONDS)
        except TimeoutError:
            raise HelperFailed("the way out was not opened in time") from None
        finally:
            self._channel.forget(request)
        if status:
            raise HelperFailed(
                "the way out could not be opened",
                hint="something inside may listen on port 3128: end it through its terminal",
            )

    def close(self) -> None:
        """See ``ports.Helper.close``."""
        self._watch.cancel()
        self._channel.fail(HelperFailed("the helper was let go of"))
        self._channel.close()
        self._init.close()
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    async def _result(
        self, request_id: str, outputs: list[Output], timeout: float
    ) -> CommandResult:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        request = self._channel.request("run", request_id)
        timed_out = False
        try:
            await self._started(request, min(timeout, _START_SECONDS))
            async with asyncio.timeout_at(deadline):
                code = await self._exit(request, outputs)
        except TimeoutError:
            timed_out = True
            code = await self._killed(request)
        finally:
            if not request.done.done():
                self._channel.kill(request)
            self._channel.forget(request)
        for output in outputs:
            output.drain()
        out, err = outputs
        return CommandResult(code, out.text, err.text, out.truncated or err.truncated, timed_out)

    async def _started(self, request: Request, seconds: float) -> int:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0:
            try:
                return await asyncio.wait_for(
                    asyncio.shield(request.started), min(left, _PATIENCE_SECONDS)
                )
            except TimeoutError:
                self._nudge()
        self._channel.kill(request)
        raise HelperFailed(
            f"the helper did not start the command within {seconds:g} s",
            hint="the sandbox may be out of processes or memory; look at its terminal",
        )

    def _nudge(self) -> None:
        """Wake a bash that sleeps between two tries to fork (for 15 s in all): it then gives up.

        SIGCHLD: each bash catches it, and it means nothing to whom it does not concern.
        """
        for handle in hold([self.init_pid, *children(self.init_pid)]):
            handle.kill(signal.SIGCHLD)
            handle.close()

    async def _exit(self, request: Request, outputs: list[Output]) -> int:
        """Wait for the exit line; if both streams end without one, its keeper was killed."""
        silent = asyncio.create_task(_all_ended(outputs))
        try:
            await asyncio.wait([request.done, silent], return_when=asyncio.FIRST_COMPLETED)
            return await asyncio.wait_for(asyncio.shield(request.done), _LINGER_SECONDS)
        except TimeoutError:
            raise HelperFailed("the command ended without a word: something killed it") from None
        finally:
            silent.cancel()

    async def _killed(self, request: Request) -> int:
        self._channel.kill(request)
        try:
            return await asyncio.wait_for(asyncio.shield(request.done), _KILL_SECONDS)
        except (TimeoutError, HelperFailed):
            return _KILLED

    async def _fail_when_ended(self) -> None:
        await self._init.wait()
        self._channel.fail(SandboxEnded("the sandbox has ended"))

    def _check_alive(self) -> None:
        if not self._init.alive():
            raise SandboxEnded("the sandbox has ended")

    @contextmanager
    def _folder(self, command: str, cwd: str | None, stdin: bytes) -> Generator[tuple[str, int]]:
        """Name and descriptor of a request's folder, while it is there."""
        files = {"command": _encoded("command", command), "stdin": stdin}
        if cwd:
            files["cwd"] = _encoded("cwd", cwd)
        name = secrets.token_hex(8)
        with ExitStack() as stack:
            try:
                requests = os.open(self._folders.exec, _FOLDER)
                stack.callback(os.close, requests)
                os.mkdir(name, 0o700, dir_fd=requests)
                stack.callback(shutil.rmtree, name, ignore_errors=True, dir_fd=requests)
                folder = os.open(name, _FOLDER, dir_fd=requests)
                stack.callback(os.close, folder)
                _write_request(folder, files)
            except OSError as error:
                raise HelperFailed(f"the request cannot be written: {error.strerror}") from error
            yield name, folder


async def _all_ended(outputs: list[Output]) -> None:
    for output in outputs:
        await output.ended.wait()


def _encoded(field: str, text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("half a surrogate pair is no text", field=field) from error
    if b"\0" in data:
        raise InvalidInput("a NUL cannot be passed", field=field)
    if len(data) > _COMMAND_BYTES:
        raise InvalidInput(
            f"{len(data)} bytes are too many; {_COMMAND_BYTES} can be passed",
            field=field,
            hint="write it to a file in the project and run that",
        )
    return data


def _write_request(folder: int, files: dict[str, bytes]) -> None:
    """Readable by the payload's uid; nobody else can pass the runtime folder above.

    That uid owns the folder above, and root may be writing: so by descriptor, and only if this is
    the folder that we made. Raises OSError.
    """
    made = os.fstat(folder)
    if made.st_uid != os.geteuid() or stat.S_IMODE(made.st_mode) != 0o700:
        raise PermissionError(errno.EPERM, "another one was put in its place")
    for name, data in files.items():
        with open(os.open(name, _NEW_FILE, 0o400, dir_fd=folder), "wb") as file:
            os.fchmod(file.fileno(), 0o444)
            file.write(data)
    for name in ("stdout", "stderr"):
        os.mkfifo(name, dir_fd=folder)
        os.chmod(name, 0o666, dir_fd=folder)  # noqa: S103  the folder above lets nobody pass
    os.fchmod(folder, 0o755)


def _listens(table: Path, port: int) -> bool:
    try:
        with table.open("rb") as file:  # a payload may have any number of sockets
            *rows, _ = file.read(_TABLE_BYTES).split(b"\n")
    except OSError:
        return False
    ending = b":%04X" % port
    return any(
        (field := row.split(maxsplit=4))[1].endswith(ending) and field[3] == _TCP_LISTEN
        for row in rows[1:]
    )
