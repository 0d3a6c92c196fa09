"""The daemon: one per state folder, until a signal (or, started by itself, until it is quiet)."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Protocol, TextIO

from csb_mcp import __version__
from csb_mcp.config import Settings, load_settings
from csb_mcp.errors import Conflict
from csb_mcp.lib.processes import default_signals
from csb_mcp.places import daemon_log, holder, prepare, try_lock
from csb_mcp.ports import SandboxService
from csb_mcp.transports.http.app import build_http_app
from csb_mcp.transports.http.server import HttpServer
from csb_mcp.transports.mcp.connections import Connections
from csb_mcp.transports.mcp.http import StreamableHttp

log = logging.getLogger(__name__)

_LOG_BYTES = 1024 * 1024  # of daemon.log, and of the one before it
_MAX_FILES = 65536
_CLOSE_SECONDS = 15.0
_LOCK_SECONDS = 20.0  # an auto-started daemon waits so long for the one before it to end


class App(Protocol):
    """What :func:`csb_mcp.app.build` gives."""

    @property
    def service(self) -> SandboxService:
        """What is to be served."""
        ...

    async def close(self) -> None:
        """Let go of everything; sandboxes go on."""
        ...


def serve(flags: Mapping[str, str], *, auto: bool) -> None:
    """Be the daemon. Returns after a graceful end.

    ``auto``: it was started by ``csb-mcp stdio``; so it logs to a file and ends when it is quiet.
    Raises InvalidInput (settings), HostUnable (folders), Conflict (another daemon runs).
    """
    settings = load_settings(flags)
    default_signals()
    os.umask(0o077)  # what others may read is said file by file, however we were started
    prepare(settings)
    _log_to(daemon_log(settings) if auto else None)
    with ExitStack() as locks:
        deadline = _LOCK_SECONDS if auto else 0.0
        for path in (settings.lock_file, settings.mcp_socket.with_name("lock")):
            locks.callback(os.close, _lock(path, deadline))
        _raise_file_limit()
        asyncio.run(_Daemon(settings, auto=auto).run())


def _lock(path: Path, seconds: float) -> int:
    """Take a lock and write our pid into it. Raises Conflict if it is not free by ``seconds``."""
    deadline = time.monotonic() + seconds
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise Conflict(
                f"another daemon runs (pid {holder(path)}), it holds {path}",
                hint="Use that one; or end it first, sandboxes go on",
            )
        time.sleep(0.05)
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _raise_file_limit() -> None:
    """Room for the descriptors of many sandboxes, some ten each.

    Not to the hard limit wherever it lies: programs that close every possible descriptor before an
    exec take minutes where that is a billion.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _CappedLog(RotatingFileHandler):
    """Rotates, and takes stderr along: a crash writes there."""

    def _open(self) -> TextIO:  # pyright: ignore[reportIncompatibleMethodOverride] text mode
        stream: TextIO = super()._open()
        os.dup2(stream.fileno(), sys.stderr.fileno())
        return stream


def _log_to(path: Path | None) -> None:
    handler: logging.Handler = logging.StreamHandler()
    if path is not None:
        handler = _CappedLog(path, maxBytes=_LOG_BYTES, backupCount=1)
    logging.basicConfig(
        level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(message)s"
    )
    # The SDK tells each refused call, with arguments that are the client's matter.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # and uvicorn each connection


class _Daemon:
    """From the first socket to the last."""

    def __init__(self, settings: Settings, *, auto: bool) -> None:
        self._settings = settings
        self._auto = auto

    async def run(self) -> None:
        """Serve until told to end."""
        # Late, for it imports every piece; by now errors go to the log.
        from csb_mcp.app import build  # noqa: PLC0415

        ending = _end_signal()
        app: App = await build(self._settings)
        connections = Connections(app.service, app.service.problems)
        web = _web(app.service)
        try:
            await self._serve(app, connections, web, ending)
        finally:
            await _bounded("connections", connections.close())
            await _bounded("HTTP", web.close())
            await _bounded("service", app.close())
        log.info("ended")

    async def _serve(
        self, app: App, connections: Connections, web: HttpServer, ending: asyncio.Future[str]
    ) -> None:
        paths = (self._settings.http_socket, self._settings.mcp_socket)
        # The bridge waits for mcp.sock: once it is there, all is.
        await web.start(_listener(paths[0]))
        server = await connections.listen(_listener(paths[1]))
        log.info("csb-mcp %s, pid %s, serves %s and %s", __version__, os.getpid(), *paths)
        waits: set[asyncio.Future[str]] = {ending}
        if self._auto:
            waits.add(asyncio.ensure_future(self._quiet(app.service, connections, web)))
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            log.info("ending: %s", done.pop().result())
        finally:
            server.close()
            for path in paths:
                path.unlink(missing_ok=True)
            for task in waits:
                task.cancel()

    async def _quiet(
        self, service: SandboxService, connections: Connections, web: HttpServer
    ) -> str:
        """Return after ``idle_exit`` seconds without sandboxes and clients."""
        loop = asyncio.get_running_loop()
        patience = self._settings.idle_exit
        since = loop.time()
        while loop.time() - since < patience:
            await asyncio.sleep(min(patience / 4, 15.0))
            clients = connections.count + web.count
            if clients or not all(s.state.ended for s in await service.list()):
                since = loop.time()
        return f"nobody needed it for {patience:g} s"


def _web(service: SandboxService) -> HttpServer:
    """REST and all that is served beside it."""
    mcp = StreamableHttp(service)
    return HttpServer(build_http_app(service, mounts=mcp.routes, lifespan=mcp.lifespan))


def _listener(path: Path) -> socket.socket:
    """The bound socket. What lies at ``path`` is stale, for we hold the lock."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _end_signal() -> asyncio.Future[str]:
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[str] = loop.create_future()

    def end(name: str) -> None:
        if not ending.done():
            ending.set_result(name)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end, number.name)
    return ending


async def _bounded(what: str, closing: Coroutine[None, None, None]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await closing
    except TimeoutError:
        log.warning("%s did not close within %g s", what, _CLOSE_SECONDS)
