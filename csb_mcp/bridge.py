"""``csb-mcp stdio``: bytes between stdin/stdout and the daemon, which it starts if there is none.

An MCP client starts this for each session, often over ssh, so it must come up in milliseconds and
end with its client. It imports little, and knows nothing of MCP.
"""

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping

from csb_mcp import __version__

_CHUNK = 65536
_PIPE_BUF = 4096  # what a pipe or socket that polls as writable takes without blocking (pipe(7))
ANSWER_SECONDS = 10.0


def stdio(flags: Mapping[str, str], toolsets: str | None, *, read_only: bool) -> int:
    """Be the bridge until either side ends; gives the exit status.

    ``flags``: settings, as given on the command line; ``toolsets``: names with commas between.
    """
    # No state to clean up: the default action, death at once, is the right end.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    preface = {
        "version": __version__,
        "read_only": read_only,
        "toolsets": None if toolsets is None else toolsets.split(","),
    }
    connection = call(socket_path(flags), preface)
    if connection is None:
        # Heavier than all of this module, and needed once a day.
        from csb_mcp.autostart import start  # noqa: PLC0415

        connection = start(flags, lambda settings: call(str(settings.mcp_socket), preface))
    status, error = _Pump(connection.stream).run()
    if error:
        _say(error)
    return status


def _say(line: str) -> None:
    print(f"csb-mcp: {line}", file=sys.stderr)  # noqa: T201 the only way to tell a person


class Connection:
    """To the daemon, with its answer to the preface."""

    # Neither a dataclass nor a NamedTuple: importing those takes longer than connecting.
    __slots__ = ("answer", "stream")

    def __init__(self, connection: socket.socket, answer: dict[str, object]) -> None:
        self.stream = connection
        self.answer = answer


def socket_path(flags: Mapping[str, str]) -> str:
    """``Settings.mcp_socket``, without the cost of reading all settings where nothing sets it.

    A test holds this against :func:`csb_mcp.config.load_settings`.
    """
    env = os.environ
    runtime = env.get("CSB_MCP_RUNTIME_DIR", _default_runtime(env))
    if flags or "CSB_MCP_CONFIG" in env or not runtime.startswith("/") or _config_exists(env):
        from csb_mcp.config import load_settings  # noqa: PLC0415 costs 30 ms

        return str(load_settings(flags).mcp_socket)
    return f"{runtime.rstrip('/')}/daemon/mcp.sock"


def _default_runtime(env: Mapping[str, str]) -> str:
    if os.getuid() == 0:
        return "/run/csb-mcp"
    base = env.get("XDG_RUNTIME_DIR")
    return f"{base}/csb-mcp" if base else f"/dev/shm/csb-mcp-{os.getuid()}"


def _config_exists(env: Mapping[str, str]) -> bool:
    if os.getuid() == 0:
        return os.path.lexists("/etc/csb-mcp/config.toml")
    base = env.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.lexists(f"{base}/csb-mcp/config.toml")


def call(path: str, preface: Mapping[str, object]) -> Connection | None:
    """A connection on which MCP may begin; None if no daemon listens (any more).

    Raises as :func:`connect`, and HostUnable if the daemon refuses or does not answer.
    """
    connection = connect(path, ANSWER_SECONDS)
    if connection is None:
        return None
    try:
        connection.sendall(json.dumps(preface).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            if not (part := connection.recv(_CHUNK)):
                raise ConnectionResetError  # it is just ending, or was killed
            answer += part
    except TimeoutError:
        raise _unable(f"the daemon at {path} does not answer; end it by kill") from None
    except ConnectionError:
        connection.close()
        return None
    if "error" in (values := json.loads(answer)):
        raise _unable(values["error"])
    return Connection(connection, values)


def connect(path: str, timeout: float) -> socket.socket | None:
    """A connection to what listens at ``path``; None if nothing does (any more).

    Raises HostUnable: it is somebody else's, cannot be reached, or does not accept within
    ``timeout`` seconds, which stays the connection's own.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionError):
        connection.close()
        return None
    except OSError as error:  # another user's folder, or no folder at all; its backlog is full
        connection.close()
        raise _unable(f"{path} cannot be reached: {error}") from None
    # The folder's name can be known beforehand (/dev/shm/csb-mcp-UID), and be taken.
    if (uid := _listener_uid(connection)) != os.geteuid():
        connection.close()
        raise _unable(f"at {path} listens uid {uid}, which is not our daemon")
    return connection


def _unable(message: str) -> Exception:
    from csb_mcp.errors import HostUnable  # noqa: PLC0415 only what fails needs it

    return HostUnable(message)


def _listener_uid(connection: socket.socket) -> int:
    """Uid of the process that listens (SO_PEERCRED, unix(7): the second of three ints)."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(found[4:8], sys.byteorder)


class _Pump:
    """Two directions, each with a small buffer: a side is read only while its buffer has room."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._daemon = connection
        self._to_daemon = bytearray()
        self._to_client = bytearray()
        self._client_open = True
        self._daemon_open = True

    def run(self) -> tuple[int, str | None]:
        """Pump until the end; gives the exit status, and what to tell."""
        while self._daemon_open or self._to_client:
            ready = dict(self._poll().poll())
            if ready.get(1, 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                return 1, None  # the client is gone, and with it who would read why
            self._from_client(ready.get(0, 0))
            self._with_daemon(ready.get(self._daemon.fileno(), 0))
            if ready.get(1, 0) & select.POLLOUT and not self._write():
                return 1, None
        if self._client_open:
            return 1, "the daemon has ended; sandboxes go on, start csb-mcp stdio again"
        return 0, None

    def _poll(self) -> select.poll:
        poll = select.poll()
        # Unwanted ones are left out: an empty mask still reports a hang-up, and would spin.
        if self._client_open and len(self._to_daemon) < _CHUNK:
            poll.register(0, select.POLLIN)
        if self._daemon_open:
            wanted = select.POLLIN if len(self._to_client) < _CHUNK else 0
            poll.register(self._daemon, wanted | (select.POLLOUT if self._to_daemon else 0))
        # Always, so that a client's death is noticed while nothing is to be written.
        poll.register(1, select.POLLOUT if self._to_client else 0)
        return poll

    def _from_client(self, events: int) -> None:
        if not events:
            return
        try:
            data = os.read(0, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: a terminal that hung up
            data = b""
        self._to_daemon += data
        if not data:
            self._client_open = False
            self._half_close()

    def _with_daemon(self, events: int) -> None:
        try:
            if events & select.POLLOUT:
                del self._to_daemon[: self._daemon.send(self._to_daemon)]
                self._half_close()
            if events & ~select.POLLOUT:
                data = self._daemon.recv(_CHUNK)
                self._to_client += data
                self._daemon_open = bool(data)
        except BlockingIOError:
            return
        except OSError:
            self._daemon_open = False

    def _half_close(self) -> None:
        """Tell the daemon that nothing more comes; it answers what it was asked, then closes."""
        if not self._client_open and not self._to_daemon:
            try:
                self._daemon.shutdown(socket.SHUT_WR)
            except OSError:
                self._daemon_open = False

    def _write(self) -> bool:
        """Write a piece; whether somebody still reads."""
        try:
            # No more than this: stdin and stdout stay blocking, for others may share them.
            del self._to_client[: os.write(1, self._to_client[:_PIPE_BUF])]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True
