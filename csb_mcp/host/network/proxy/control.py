"""The daemon's socket: lines of JSON both ways. The newest client is the one."""

from csb_mcp.host.network.proxy.lines import decoded, encoded
from csb_mcp.host.network.proxy.loop import READ, WRITE
from csb_mcp.host.network.proxy.proxy import Proxy
from csb_mcp.host.network.proxy.shared import Serve, Shared
from csb_mcp.host.network.proxy.sockets import Socket, accept, unix_listener
from csb_mcp.host.network.proxy.tally import Send, Tally

_MOST_BYTES = 1 << 20  # of a line; of what waits to be sent, too


class Control:
    """Listens on ``path``. Who is inside cannot reach it: its folder is not bound there."""

    def __init__(self, path: str, shared: Shared, proxy: Proxy) -> None:
        self._shared, self._proxy, self._loop = shared, proxy, shared.loop
        self._listener = unix_listener(path)
        self._client: Socket | None = None
        self._read, self._unsent = bytearray(), bytearray()
        self._loop.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            client = accept(self._listener)[0]
        except OSError:
            return
        self._drop()
        self._client = client
        self._shared.asks.send = self._send
        self._loop.watch(client.fileno(), READ, self._ready)
        tally = self._shared.tally
        used = tally.message() if tally else {}
        self._send({"hello": 1, "asked": self._shared.asks.known(), **used})
        self._listens(self._send)

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client:
            self._loop.forget(client.fileno())
            client.close()
        self._read, self._unsent = bytearray(), bytearray()
        self._shared.asks.deaf()
        self._listens(None)

    def _listens(self, send: Send | None) -> None:
        if self._shared.tally:
            self._shared.tally.send = send

    def _ready(self, events: int) -> None:
        client = self._client
        if client and events & WRITE:
            self._flush(client)
        if client and client is self._client and events & ~WRITE:
            self._hear(client)

    def _hear(self, client: Socket) -> None:
        try:
            data = client.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._read += data
        while client is self._client and (end := self._read.find(b"\n")) >= 0:
            line, self._read = bytes(self._read[:end]), self._read[end + 1 :]
            self._send(self._answer(line))
        if client is self._client and (not data or len(self._read) > _MOST_BYTES):
            self._drop()

    def _send(self, message: dict[str, object]) -> None:
        client = self._client
        if client and message:
            self._unsent += f"{encoded(message)}\n".encode()
            self._flush(client)

    def _flush(self, client: Socket) -> None:
        try:
            del self._unsent[: client.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop()
            return
        if len(self._unsent) > _MOST_BYTES:  # it does not read: another may come
            self._drop()
            return
        self._loop.watch(client.fileno(), READ | (WRITE if self._unsent else 0), self._ready)

    def _answer(self, line: bytes) -> dict[str, object]:
        """Empty: none is due. What an error says never has a value of a secret in it."""
        try:
            message = decoded(line)
            what = message.get("do")
            if what == "seen":
                self._shared.asks.seen(message.get("id"))
                return {}
            return self._do(what, message)
        except ImportError:
            return {"error": "this proxy has no TLS"}
        except (ValueError, KeyError, TypeError) as error:
            told = str(error) if isinstance(error, ValueError) else "that is not understood"
            return {"error": told[:300]}

    def _do(self, what: object, message: dict[str, object]) -> dict[str, object]:
        if what == "rules":
            self._shared.rules.replace(_list(message["allow"]), _list(message["deny"]))
            self._proxy.check()
        elif what == "once":
            shared, now = self._shared, self._loop.now
            once = shared.rules.add_once(message["host"], message["port"], now)
            shared.asks.keep(lambda host, port: (host, port) != once)
        elif what == "secrets":
            self._shared.secrets = _serving(message, self._tally(message))
            self._proxy.check()
        else:
            raise ValueError("there is no such thing to do")
        return {"done": str(what)}

    def _tally(self, message: dict[str, object]) -> Tally:
        """It outlives the daemon that asked for it first; and what it has is told at once."""
        shared = self._shared
        tally = shared.tally or Tally(self._loop)
        if message.get("counted") and not shared.tally:
            shared.tally = tally
            self._listens(self._send)
            self._send(tally.message())
        return tally


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value  # pyright: ignore[reportUnknownVariableType]


def _serving(message: dict[str, object], tally: Tally) -> dict[str, Serve]:
    if not _list(message["secrets"]):
        return {}
    # TLS costs 20 ms and several MiB: only who has a secret pays for it.
    from csb_mcp.host.network.proxy.ending import serving  # noqa: PLC0415

    return serving(message, tally)
