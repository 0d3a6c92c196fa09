"""The proxy: who listens inside, and the connections from there."""

import errno
import resource

from csb_mcp.host.network.proxy.client import Client, Keeper
from csb_mcp.host.network.proxy.loop import READ
from csb_mcp.host.network.proxy.rules import ASKED, FAILED
from csb_mcp.host.network.proxy.shared import Shared
from csb_mcp.host.network.proxy.sockets import Socket, accept

MOST_CLIENTS = 1024
MOST_LISTENERS = 4
_SPARE_DESCRIPTORS = 96  # ours, the resolver's, TLS's
_AT_ONCE = 64  # accepted before others get their turn
_PAUSE = 0.1  # seconds, when no more can be taken
_CLOSEST = 0.05  # seconds between two looks at what is due


class Proxy(Keeper):
    """Takes connections on every listener that it is given."""

    def __init__(self, shared: Shared) -> None:
        self._shared, self._loop = shared, shared.loop
        self._clients: set[Client] = set()
        self._listeners: list[Socket] = []
        self._most = min(MOST_CLIENTS, (_descriptors() - _SPARE_DESCRIPTORS) // 2)
        self._looks_at = float("inf")
        self._paused = False

    def add(self, listener: Socket) -> None:
        """Listen there, too. Of more than four the oldest goes."""
        if len(self._listeners) == MOST_LISTENERS:
            self._drop(self._listeners[0])
        self._listeners.append(listener)
        self._listen()

    def check(self) -> None:
        """The rules have changed."""
        self._shared.asks.keep(self._is_asked)
        for client in list(self._clients):
            client.check()

    def _is_asked(self, host: str, port: int) -> bool:
        return self._shared.verdict(host, port) == ASKED

    def end(self) -> None:
        """The program ends: each connection gets its line."""
        for client in list(self._clients):
            client.cut(FAILED, "cut off: the proxy ended")
        self._shared.journal.end()

    def _listen(self) -> None:
        full = self._paused or len(self._clients) >= self._most
        for one in self._listeners:
            self._loop.watch(
                one.fileno(), 0 if full else READ, lambda _, one=one: self._accept(one)
            )

    def _accept(self, listener: Socket) -> None:
        for _ in range(_AT_ONCE):
            if len(self._clients) >= self._most:
                break
            try:
                connection, peer = accept(listener)
            except BlockingIOError:
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._stumble(listener, error)
                break
            self._take(connection, peer[1])
        self._listen()

    def _stumble(self, listener: Socket, error: OSError) -> None:
        """Somebody ended its listening, and then it is of no use; or we lack something a while."""
        if error.errno == errno.EINVAL:
            self._drop(listener)
        elif not self._paused:
            self._paused = True
            self._loop.later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._paused = False
        self._listen()

    def _drop(self, listener: Socket) -> None:
        self._listeners.remove(listener)
        self._loop.forget(listener.fileno())
        listener.close()

    def _take(self, connection: Socket, port: int) -> None:
        client = Client(self._shared, connection, port, self)
        self._clients.add(client)
        client.start()

    def gone(self, client: Client) -> None:
        """That connection has ended."""
        was_full = len(self._clients) >= self._most
        self._clients.discard(client)
        if was_full:
            self._listen()

    def look_at(self, due: float) -> None:
        """Have a look then at who is due; who has more time by then is looked at again."""
        if due < self._looks_at:
            self._looks_at = due
            self._loop.later(max(due - self._loop.now, _CLOSEST), lambda: self._look(due))

    def _look(self, planned: float) -> None:
        if planned != self._looks_at:
            return  # another came before it
        now = self._loop.now
        for client in list(self._clients):
            if client.due <= now:
                client.late()
        self._looks_at = float("inf")
        self.look_at(min((client.due for client in self._clients), default=float("inf")))


def _descriptors() -> int:
    """As many as we may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CLIENTS + _SPARE_DESCRIPTORS
    soft = max(soft, min(wanted, hard if hard != resource.RLIM_INFINITY else wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
