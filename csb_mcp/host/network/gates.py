"""Ways out of sandboxes, by network mode, and an egress proxy each where there is one."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from csb_mcp.config import NETWORKS, Settings
from csb_mcp.errors import DeadlineExceeded, EgressFailed, HostUnable
from csb_mcp.host.distribution import here
from csb_mcp.host.launchers import find_tool
from csb_mcp.host.network.gate import LINE_BYTES, meet
from csb_mcp.host.network.log import last_connections, tried_hosts
from csb_mcp.host.network.outlook import outlook
from csb_mcp.host.network.secrets import Apis, Secrets
from csb_mcp.lib.landlock import scopes
from csb_mcp.model import (
    Connection,
    Folders,
    Launch,
    Problem,
    Sandbox,
    TriedHost,
    resolved,
)
from csb_mcp.ports import Agent, ClientOf, Gate, WayOut

TUN = Path("/dev/net/tun")
_PAUSE_SECONDS = 0.002


class HostGates:
    """See :class:`~csb_mcp.ports.Gates`. ``launcher``: absolute path of a launcher by its name.

    Of ``agents`` it must know where their APIs are, to have counted there what is used.
    """

    def __init__(
        self, settings: Settings, launcher: Callable[[str], Path], agents: Iterable[Agent] = ()
    ) -> None:
        self._settings = settings
        self._launcher = launcher
        self._secrets = Secrets(settings, _apis(agents))

    def problems(self) -> Sequence[Problem]:
        """See :class:`~csb_mcp.ports.Gates`."""
        widest = NETWORKS.index(self._settings.max_network)
        found: dict[str, Problem] = {}
        for network in NETWORKS[1 : widest + 1]:
            for problem in self._lacking(network):
                found.setdefault(problem.what, problem)
        return (*found.values(), *self._secrets.problems())

    def _lacking(self, network: str) -> Iterator[Problem]:
        needed = {
            "allowlist": (("python3", None),),
            "full": (("pasta", self._settings.pasta), ("nft", self._settings.nft)),
            "host": (("python3", None),),
        }
        for name, configured in needed.get(network, ()):
            if find_tool(name, configured) is None:
                why = f"network {network!r} needs it"
                yield Problem(name, why, here().install(name), fatal=False)
        if network == "full" and (problem := tun_closed()):
            yield problem

    async def ground(self, sandbox: Sandbox, folders: Folders) -> Launch | None:
        """See :class:`~csb_mcp.ports.Gates`."""
        network = sandbox.spec.network
        for problem in self._lacking(network):
            raise HostUnable(f"{problem.what}: {problem.why}", hint=problem.repair)
        if network != "allowlist":
            return None
        try:
            for path in (folders.egress, folders.gate, folders.connections):
                path.mkdir(mode=0o700)
                group = os.stat(folders.runtime, follow_symlinks=False).st_gid
                os.chown(path, sandbox.uid, group, follow_symlinks=False)
        except OSError as error:
            raise HostUnable(f"{error.filename} cannot be made: {error.strerror}") from error
        words = ("--door", folders.egress, "--control", folders.gate, "--log", folders.connections)
        return Launch((str(self._launcher("egress")), *map(str, words)))

    def outlook(self, network: str) -> object:
        """See :class:`~csb_mcp.ports.Gates`."""
        return outlook(network)

    async def prepare(self, sandbox: Sandbox, folders: Folders) -> WayOut:
        """See :class:`~csb_mcp.ports.Gates`."""
        unscoped = sandbox.spec.network == "host" and not scopes()
        given = await self._secrets.prepare(sandbox, folders)
        return WayOut(environment=given, warnings=(_UNSCOPED,) if unscoped else ())

    async def connect(
        self, sandbox: Sandbox, folders: Folders, client_of: ClientOf, deadline: float
    ) -> Gate:
        """See :class:`~csb_mcp.ports.Gates`."""
        if sandbox.spec.network != "allowlist":
            raise EgressFailed("this network has no proxy", sandbox=sandbox.id)
        connection = await _connected(folders.gate / "control.sock", sandbox, deadline)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_BYTES)
        gate = await meet(reader, writer, sandbox.id, client_of, deadline)
        try:
            if message := await self._secrets.message(sandbox, folders):
                await gate.do(message)
        except BaseException:
            gate.close()
            raise
        return gate

    def connections(self, folders: Folders, limit: int) -> Sequence[Connection]:
        """See :class:`~csb_mcp.ports.Gates`."""
        return last_connections(folders.connections, limit)

    def tried(self, folders: Folders) -> Sequence[TriedHost]:
        """See :class:`~csb_mcp.ports.Gates`."""
        return tried_hosts(folders.connections)


def _apis(agents: Iterable[Agent]) -> Apis:
    every = tuple(agents)
    hosts = (host for agent in every for host in resolved(agent.hosts))
    variables = (variable for agent in every for variable in agent.key_variables)
    return Apis(frozenset(hosts), frozenset(variables))


async def _connected(path: Path, sandbox: Sandbox, deadline: float) -> socket.socket:
    """A connection to the proxy, which may be just starting."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:  # we have too many files open; they may be fewer soon
            raise EgressFailed(f"no socket: {error.strerror}", sandbox=sandbox.id) from error
        try:
            connection.setblocking(False)
            connection.connect(str(path))
            _check_peer(connection, sandbox)
        except OSError as error:
            connection.close()
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
                why = f"its socket: {error.strerror}"
                raise EgressFailed(why, sandbox=sandbox.id) from error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
        if loop.time() > deadline:
            raise DeadlineExceeded("the egress proxy did not listen in time")
        await asyncio.sleep(_PAUSE_SECONDS)


def _check_peer(connection: socket.socket, sandbox: Sandbox) -> None:
    """A proxy that was taken over may put a link there: to a socket of another's (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("3I", credentials)
    if uid != sandbox.uid:
        raise EgressFailed(f"uid {uid} listens in its place", sandbox=sandbox.id)


_UNSCOPED = (
    "network 'host': this kernel (before Linux 6.12) cannot keep abstract sockets apart: those of "
    "the host's programs, a desktop's among them, are in reach of this sandbox"
)


def tun_closed() -> Problem | None:
    """Pasta makes its interface from this device, as whoever the payload runs as."""
    try:
        mode = TUN.stat().st_mode
    except OSError:
        return Problem("tun", f"{TUN} is not there", "modprobe tun", fatal=False)
    if mode & 0o006 != 0o006:  # as udev makes it: the kernel asks for rights where they matter
        why = f"network 'full' needs {TUN} to be open to all"
        return Problem("tun", why, f"chmod 0666 {TUN}", fatal=False)
    return None
