"""What is put where only somebody who got out of a sandbox can find it, and taken away again.

Each thing says a random word. It is given to the sandbox's own uid where that can be done, so that
nothing but the walls stands before it.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil

MARKER = "csb-canary-"
_SECONDS = 20  # so long the planted process lives, should nobody be left to end it
_MOST_ADDRESSES = 6
_IPC_CREAT, _IPC_EXCL, _IPC_RMID = 0o1000, 0o2000, 0

_libc = ctypes.CDLL(None, use_errno=True)


def word() -> str:
    """A word that nobody can guess."""
    return MARKER + secrets.token_hex(12)


@dataclass(slots=True)
class Plants:
    """What stands where, with the word it says."""

    files: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    sockets: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    servers: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])
    datagrams: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])
    process: tuple[int, str] | None = None
    segment: tuple[int, str] | None = None


@asynccontextmanager
async def planted(folders: list[Path], bash: Path | None, uid: int) -> AsyncGenerator[Plants]:
    """Plant everything. What cannot be planted is left out: its attack is untested then.

    ``folders`` are the daemon's own, ``bash`` runs the process, ``uid`` is the sandbox's.
    """
    plants = Plants()
    async with AsyncExitStack() as stack:
        files = stack.enter_context(ExitStack())
        for folder in folders:
            with contextlib.suppress(OSError):
                plants.files.append(files.enter_context(_file(folder, uid)))
        with contextlib.suppress(OSError):
            plants.segment = stack.enter_context(_segment())
        if bash:
            with contextlib.suppress(OSError):
                plants.process = stack.enter_context(_process(bash, uid))
        await _sockets(stack, plants)
        for host in _addresses():
            await _servers(stack, plants, host)
        yield plants


def _give(path: str, uid: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, uid, -1, follow_symlinks=False)


@contextmanager
def _file(folder: Path, uid: int) -> Generator[tuple[str, str]]:
    said = word()
    fd, path = tempfile.mkstemp(prefix=".csb-canary-", dir=folder)
    try:
        with open(fd, "w") as file:
            file.write(said)
            os.fchmod(file.fileno(), 0o444)
        _give(path, uid)
        yield path, said
    finally:
        os.unlink(path)


@contextmanager
def _segment() -> Generator[tuple[int, str]]:
    said, key = word(), secrets.randbelow(2**30) + 2**29
    segment = _libc.shmget(key, 4096, _IPC_CREAT | _IPC_EXCL | 0o666)
    if segment < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    _libc.shmat.restype = ctypes.c_void_p
    address = _libc.shmat(segment, None, 0)
    try:
        ctypes.memmove(address, said.encode(), len(said))
        yield key, said
    finally:
        _libc.shmdt(ctypes.c_void_p(address))
        _libc.shmctl(segment, _IPC_RMID, None)


@contextmanager
def _process(bash: Path, uid: int) -> Generator[tuple[int, str]]:
    said = word()
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        who = {"user": uid, "group": uid, "extra_groups": []}
    process = subprocess.Popen(
        [bash, "-pc", f"read -rt {_SECONDS}", said],
        stdin=subprocess.PIPE,
        env={"CANARY": said},
        cwd="/",
        **who,
    )
    try:
        yield process.pid, said
    finally:
        process.kill()
        process.communicate()


async def _sockets(stack: AsyncExitStack, plants: Plants) -> None:
    folder = tempfile.mkdtemp(prefix=".csb-canary-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)  # noqa: S103  only the walls stand before it
    abstract = f"csb-canary-{secrets.token_hex(6)}"
    for name, address in (
        (f"{folder}/socket", f"{folder}/socket"),
        (f"@{abstract}", f"\0{abstract}"),
    ):
        said = word()
        try:
            server = await asyncio.start_unix_server(_speaker(said), address)
        except OSError:
            continue
        stack.push_async_callback(_close, server)
        if not name.startswith("@"):
            os.chmod(name, 0o777)  # noqa: S103  as above
        plants.sockets.append((name, said))


async def _servers(stack: AsyncExitStack, plants: Plants, host: str) -> None:
    said = word()
    try:
        server = await asyncio.start_server(_speaker(said), host, 0)
    except OSError:
        return
    stack.push_async_callback(_close, server)
    port = server.sockets[0].getsockname()[1]
    plants.servers.append((host, port, said))
    with contextlib.suppress(OSError):
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Echo(said), (host, port)
        )
        stack.callback(transport.close)
        plants.datagrams.append((host, port, said))


def _speaker(
    said: str,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(said.encode())
            await writer.drain()
        writer.close()

    return speak


async def _close(server: asyncio.Server) -> None:
    server.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.wait_closed(), 1)


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, said: str) -> None:
        self._said = said.encode()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # by name only, in 3.11

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002
        if self._transport:
            self._transport.sendto(self._said, addr)


def _addresses() -> list[str]:
    """Of this host: the loopback's, then those of its interfaces."""
    found = ["127.0.0.1", "::1"]
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            plain = entry.address.partition("%")[0]
            if entry.family in (socket.AF_INET, socket.AF_INET6) and not plain.startswith("fe80"):
                found.append(plain)
    return list(dict.fromkeys(found))[: _MOST_ADDRESSES + 2]
