"""One connection from inside, from its first byte to its line in the log."""

import _thread
from _collections_abc import Callable

from csb_mcp.host.network.proxy import answers
from csb_mcp.host.network.proxy.addresses import is_own
from csb_mcp.host.network.proxy.bodies import body_of
from csb_mcp.host.network.proxy.heads import MOST_BYTES, RefusedError, Request, parsed
from csb_mcp.host.network.proxy.hello import asked_host
from csb_mcp.host.network.proxy.loop import READ, WRITE
from csb_mcp.host.network.proxy.resolver import Address, Answer
from csb_mcp.host.network.proxy.rules import ALLOWED, ASKED, DENIED, FAILED, FORBIDDEN
from csb_mcp.host.network.proxy.shared import Serve, Shared
from csb_mcp.host.network.proxy.sockets import (
    Socket,
    end_both,
    end_half,
    error_of,
    outgoing,
)
from csb_mcp.host.network.proxy.tunnel import BAD_BODY, Tunnel
from csb_mcp.lib.hosts import normal_host

HEAD_SECONDS, CONNECT_SECONDS, ATTEMPT_SECONDS = 10.0, 15.0, 4.0
IDLE_SECONDS, LINGER_SECONDS = 300.0, 2.0
RULES_SECONDS = 2.0  # a payload may be faster than those who send the first rules
_MOST_HELLO = 80 << 10
_MOST_THREADS = 32
_NEVER = float("inf")


class Keeper:
    """Whom a client tells that it has ended, and when it wants to be looked at again.

    A base that is always filled in, for a Protocol would make every start import typing.
    """

    def gone(self, client: "Client") -> None:
        """Once, at its end."""
        raise NotImplementedError

    def look_at(self, due: float) -> None:
        """No later than that, loop time."""
        raise NotImplementedError


class Client:
    """``due``: when (loop time) ``late`` has to be called; its keeper is told. Owns its sockets."""

    def __init__(self, shared: Shared, connection: Socket, peer: int, keeper: "Keeper") -> None:
        self._shared, self._loop, self._keeper = shared, shared.loop, keeper
        self._client, self._peer = connection, peer
        self._upstream: Socket | None = None
        self._request: Request | None = None
        self._tunnel: Tunnel | None = None
        self._addresses: list[Address] = []
        self._address = ""
        self._once: tuple[str, int, float] | None = None
        self._overall = _NEVER
        self._surplus = self._held = False
        self._buffer = bytearray()
        self._began = self._loop.now
        self._open, self._allowed, self._served, self._logged = True, False, False, False
        self.due, self.late = _NEVER, self.close

    def start(self) -> None:
        """Wait for the head of its request."""
        self._wait(HEAD_SECONDS, self._no_head)
        self._loop.watch(self._client.fileno(), READ, self._hear_head)

    def check(self) -> None:
        """The rules have changed: it may be over."""
        request = self._request
        if not request or self._logged:
            return
        if self._held:
            if not self._shared.rules.awaited:
                self._judge(request)
            return
        verdict = self._shared.verdict(request.host, request.port)
        if verdict == DENIED or (verdict == ASKED and self._allowed and not self._once):
            self.cut(DENIED, "cut off: the rules have changed")

    def cut(self, verdict: str, why: str) -> None:
        """End it now."""
        self._log(verdict, why)
        if self._served:  # a thread has both: it ends, and then they are closed
            end_both(self._client)
            if self._upstream:
                end_both(self._upstream)
        else:
            self.close()

    def close(self) -> None:
        """Let go of both sockets. Idempotent."""
        if not self._open:
            return
        self._open, self.due = False, _NEVER
        self._drop_upstream()
        self._loop.forget(self._client.fileno())
        self._client.close()
        self._keeper.gone(self)

    def _wait(self, seconds: float, late: Callable[[], None]) -> None:
        self.due, self.late = self._loop.now + seconds, late
        self._keeper.look_at(self.due)

    def _no_head(self) -> None:
        if self._buffer:
            self._refuse(408, FORBIDDEN, "no whole request came")
        else:
            self.close()  # a browser connects ahead of need

    def _hear_head(self, _: int) -> None:
        data = self._received(MOST_BYTES + 1 - len(self._buffer))
        if data is None:
            return
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", searched) + 4
        if end > 3:
            self._loop.forget(self._client.fileno())
            head, self._buffer = bytes(self._buffer[:end]), self._buffer[end:]
            self._read(head)
        elif len(self._buffer) > MOST_BYTES:
            self._refuse(431, FORBIDDEN, "the head of the request is too long")
        elif self._buffer.find(b"\n\n", searched) >= 0:
            self._refuse(400, FORBIDDEN, "lines end with CR and LF")

    def _received(self, most: int) -> bytes | None:
        """None: nothing yet, or it has gone and was closed."""
        try:
            data = self._client.recv(most)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            if self._request:
                self._log(FAILED, "the client broke off")
            self.close()
        return data or None

    def _read(self, head: bytes) -> None:
        try:
            request = parsed(head)
        except RefusedError as error:
            self._shared.journal.write(FORBIDDEN, error.host, error.port, why=error.why)
            self._logged = True
            place = f"{error.host}:{error.port}" if error.host else "this"
            self._answer(error.status, f"{place} is refused: {error.why}.")
            return
        self._request = request
        if self._shared.rules.awaited:
            self._held = True
            self._wait(RULES_SECONDS, lambda: self._judge(request))
        else:
            self._judge(request)

    def _judge(self, request: Request) -> None:
        shared, self._held = self._shared, False
        verdict = shared.verdict(request.host, request.port)
        if verdict == ASKED:
            self._once = shared.rules.take_once(request.host, request.port, self._loop.now)
        if verdict == ALLOWED or self._once:
            self._allowed = True
            self._wait(CONNECT_SECONDS, lambda: self._refuse(504, FAILED, "it did not answer"))
            shared.resolver.ask(request.host, lambda: self._open, self._found)
        elif verdict == DENIED:
            self._refuse(403, DENIED, "not in the rules" if shared.rules.fixed else "")
        else:
            self._wait(HEAD_SECONDS, self.close)
            shared.asks.ask(request.host, request.port, self._peer, self._loop.now, self._asked)

    def _asked(self) -> None:
        if self._open:
            self._refuse(403, ASKED, "")

    def _found(self, answer: Answer) -> None:
        if not self._open or self._logged:
            return
        if answer.addresses:
            self._addresses = answer.addresses
            self._overall = self._loop.now + CONNECT_SECONDS
            self._connect("")
        elif answer.refused:
            self._refuse(403, FORBIDDEN, answer.refused)
        else:
            self._refuse(502, FAILED, answer.failed)

    def _connect(self, error: str) -> None:
        """To the next address; ``error`` is why the one before would not do."""
        self._drop_upstream()
        if not self._addresses or self._loop.now >= self._overall:
            self._refuse(502, FAILED, error)
            return
        family, self._address = self._addresses.pop(0)
        request = self._request
        try:
            self._upstream = outgoing(family)
            self._upstream.connect((self._address, request.port if request else 0))
        except BlockingIOError:
            pass
        except OSError as problem:
            self._connect(problem.strerror or "no connection")
            return
        seconds = ATTEMPT_SECONDS if self._addresses else self._overall - self._loop.now
        self._wait(seconds, lambda: self._connect("it does not answer"))
        if self._upstream:
            self._loop.watch(self._upstream.fileno(), WRITE, self._connected)

    def _connected(self, _: int) -> None:
        upstream, request = self._upstream, self._request
        if not upstream or not request:
            return
        self._loop.forget(upstream.fileno())
        error = error_of(upstream)
        if error:
            self._connect(answers.of_errno(error))
        elif is_own(upstream.family, self._address):  # it has become ours since it was looked at
            self._refuse(403, FORBIDDEN, "its address is this host's own")
        elif request.tunnel:
            self._open_tunnel(upstream, request)
        else:
            self._forward(upstream, request)

    def _forward(self, upstream: Socket, request: Request) -> None:
        body = body_of(request.length)
        try:
            size = body.take(bytes(self._buffer))
        except ValueError as error:
            self._refuse(400, FORBIDDEN, str(error))
            return
        self._wait(IDLE_SECONDS, self._idle)
        sent = request.forwarded() + self._buffer[:size]
        self._surplus = len(self._buffer) > size
        self._start(Tunnel(self._loop, (self._client, upstream), sent, body, self._over))

    def _open_tunnel(self, upstream: Socket, request: Request) -> None:
        serve = self._shared.secrets.get(request.host) if request.port == 443 else None
        if serve and self._buffer:
            self._refuse(400, FORBIDDEN, "bytes came before the answer to CONNECT")
            return
        if serve and self._shared.threads >= _MOST_THREADS:
            self._refuse(503, FAILED, "too many connections to hosts of secrets")
            return
        try:
            whole = self._client.send(answers.ESTABLISHED) == len(answers.ESTABLISHED)
        except OSError:
            whole = False
        if not whole:
            self.cut(FAILED, "the client broke off")
        elif serve:
            self._serve(serve, upstream)
        elif request.port == 443:
            self._wait(HEAD_SECONDS, lambda: self.cut(FORBIDDEN, "no TLS hello came"))
            self._loop.watch(self._client.fileno(), READ, self._hear_hello)
            self._check_hello()
        else:
            self._relay()

    def _hear_hello(self, _: int) -> None:
        data = self._received(_MOST_HELLO + 1 - len(self._buffer))
        if data is not None:
            self._buffer += data
            self._check_hello()

    def _check_hello(self) -> None:
        try:
            name = asked_host(bytes(self._buffer))
            if name is None and len(self._buffer) > _MOST_HELLO:
                raise ValueError("a TLS hello that is too long")
            if name and self._request and normal_host(name.decode()) != self._request.host:
                raise ValueError(f"the TLS hello asks for {ascii(name.decode())[1:-1][:80]}")
        except ValueError as error:  # no UTF-8: one, too
            self.cut(FORBIDDEN, str(error))
            return
        if name is not None:
            self._relay()

    def _relay(self) -> None:
        if self._upstream:
            ends = (self._client, self._upstream)
            self._wait(IDLE_SECONDS, self._idle)
            self._start(Tunnel(self._loop, ends, bytes(self._buffer), None, self._over))

    def _start(self, tunnel: Tunnel) -> None:
        self._buffer = bytearray()
        self._tunnel = tunnel
        tunnel.start()

    def _idle(self) -> None:
        left = IDLE_SECONDS - (self._loop.now - (self._tunnel.touched if self._tunnel else 0.0))
        if left > 0:
            self._wait(left, self._idle)
        else:
            self.cut(ALLOWED, "cut off: nothing moved for too long")

    def _over(self, why: str) -> None:
        """The tunnel has ended."""
        tunnel = self._tunnel
        if why == BAD_BODY:
            if tunnel and not tunnel.moved[1]:
                self._refuse(400, FORBIDDEN, why)
            else:
                self.cut(FORBIDDEN, why)
            return
        if tunnel and (tunnel.surplus or self._surplus) and not why:
            why = "bytes behind the request were dropped"
        self._log(ALLOWED, why)
        self._linger()

    def _serve(self, serve: Serve, upstream: Socket) -> None:
        self._served, self.due = True, _NEVER
        self._shared.threads += 1
        ends = (self._client.fileno(), upstream.fileno())
        try:
            _thread.start_new_thread(self._in_thread, (serve, ends))
        except RuntimeError:  # those inside use up all that the sandbox may have
            self._was_served((0, 0), "the sandbox has too many processes")

    def _in_thread(self, serve: Serve, ends: tuple[int, int]) -> None:
        moved, why = (0, 0), "the connection broke"
        try:
            sent, received, why = serve(*ends)
            moved = sent, received
        except OSError as error:
            why = error.strerror or why
        finally:
            self._loop.tell(lambda: self._was_served(moved, why))

    def _was_served(self, moved: tuple[int, int], why: str) -> None:
        self._shared.threads -= 1
        self._served = False
        self._log(ALLOWED if any(moved) or not why else FAILED, why, moved)
        self.close()

    def _refuse(self, status: int, verdict: str, why: str) -> None:
        """Log it, tell the client in plain words, and let go of it."""
        self._log(verdict, why)
        if self._once and verdict == FAILED:
            self._shared.rules.give_back(self._once)
        request = self._request
        place = f"{request.host}:{request.port}" if request else "this"
        text = answers.text(place, verdict, why, fixed=self._shared.rules.fixed)
        self._answer(status, text, head_only=bool(request and request.method == b"HEAD"))

    def _answer(self, status: int, text: str, *, head_only: bool = False) -> None:
        try:
            self._client.send(answers.answer(status, text, head_only=head_only))
        except OSError:
            pass  # it has gone; so will we
        self._linger()

    def _linger(self) -> None:
        """Read on for a moment: a close with bytes unread would take the answer away again."""
        self._drop_upstream()
        end_half(self._client)
        self._wait(LINGER_SECONDS, self.close)
        self._loop.watch(self._client.fileno(), READ, self._drain)

    def _drain(self, _: int) -> None:
        try:
            if not self._client.recv(MOST_BYTES):
                self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if self._tunnel:
            self._tunnel.stop()
        if upstream:
            self._loop.forget(upstream.fileno())
            upstream.close()

    def _log(self, verdict: str, why: str, moved: tuple[int, int] | None = None) -> None:
        """Once; a client that never said what it wants is not worth a line, unless it is wrong."""
        if self._logged:
            return
        self._logged = True
        request = self._request
        if not moved:
            moved = self._tunnel.moved if self._tunnel else (0, 0)
        host, port = (request.host, request.port) if request else ("", 0)
        self._shared.journal.write(
            verdict,
            host,
            port,
            why=why,
            address=self._address,
            moved=moved,
            seconds=self._loop.now - self._began,
        )
