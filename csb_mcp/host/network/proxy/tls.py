"""Connections to a secret's host: TLS ended here, and begun anew to the host itself.

The sandbox sees a certificate of its own authority; the host's is verified as anybody would do it.
Requests and answers pass one after the other, by HTTP/1.1 only, with placeholders replaced by
secrets on the way out and secrets by placeholders on the way back.
"""

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from csb_mcp.host.network.proxy.channel import BOUND, Channel, GoneError, wait
from csb_mcp.host.network.proxy.exchange import Answer, RefusedError, Request
from csb_mcp.host.network.proxy.mask import Mask, Pair, spellings
from csb_mcp.host.network.proxy.messages import BadMessageError, Head, take_head
from csb_mcp.host.network.proxy.tally import Tally
from csb_mcp.host.network.proxy.usage import Reading
from csb_mcp.lib.hosts import normal_host

HANDSHAKE_SECONDS = 15.0
HEAD_SECONDS = 10.0
REST_SECONDS = 30.0  # between two requests: such a connection keeps a thread
IDLE_SECONDS = 300.0
LINGER_SECONDS = 1.0
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """A host that secrets are put in for: placeholder and value of each, and both ends' TLS.

    ``authorities``: certificates (PEM) to trust instead of the system's, if any. ``counted``: it is
    an agent's API, whose answers tell what was used.
    """

    host: str
    secrets: tuple[Pair, ...]
    inside: ssl.SSLContext
    authorities: str = ""
    counted: bool = False


def entries(message: Mapping[str, Any]) -> dict[str, Entry]:
    """The hosts of a control message ``secrets``. Raises ValueError, never with a value in it."""
    made: dict[str, Entry] = {}
    try:
        authorities = dict(message.get("authorities", {}))
        counted = frozenset(message.get("counted", ()))
        for item in message["secrets"]:
            host = normal_host(item["host"])
            pair = (item["placeholder"].encode("ascii"), item["value"].encode("ascii"))
            known = made.get(host)
            inside = known.inside if known else _inside(host, item["certificate"], item["key"])
            pairs = (*(known.secrets if known else ()), pair)
            trusted = str(authorities.get(host, ""))
            made[host] = Entry(host, pairs, inside, trusted, host in counted)
            if made[host].authorities:
                outside(made[host].authorities)
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"wrong secrets: {type(error).__name__}") from None
    return made


def serve(
    client: socket.socket, upstream: socket.socket, entry: Entry, tally: Tally | None = None
) -> tuple[int, int, str]:
    """Serve one connection to its end. Blocks for as long as something moves.

    Gives the bytes of content that went to the host and that came from it, and why it failed, if it
    did. Both sockets stay the caller's, set to not block; shutting one down from another thread
    ends this soon. ``tally`` gets what was used, if that is counted.
    """
    inner = Channel(client, entry.inside, None)
    outer = Channel(upstream, outside(entry.authorities), entry.host)
    why = ""
    try:
        _Relay(inner, outer, entry, tally).run()
    except (GoneError, RefusedError, BadMessageError) as error:
        why = str(error)
    for channel in (inner, outer):
        channel.close()
    told = Mask(_masks(entry)).whole(why.encode()).decode(errors="replace")
    return outer.given, outer.taken, told


class _Relay:
    """Requests of one connection, one after the other."""

    def __init__(self, inner: Channel, outer: Channel, entry: Entry, tally: Tally | None) -> None:
        self._inner, self._outer, self._entry = inner, outer, entry
        self._tally = tally if entry.counted else None
        self._requests = 0

    def run(self) -> None:
        failure = self._reach()
        self._inner.handshake(time.monotonic() + HEAD_SECONDS)
        while (head := self._next_head(failure)) is not None:
            if failure:
                self._refuse("502 Bad Gateway", failure)
                raise GoneError(failure)
            self._requests += 1
            if self._exchange(head):
                return
        if self._inner.fault and not self._requests:
            raise GoneError(self._inner.fault)

    def _reach(self) -> str:
        """Why the host cannot be spoken to; the sandbox is told in an answer that it can read."""
        try:
            self._outer.handshake(time.monotonic() + HANDSHAKE_SECONDS)
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of {self._entry.host} is not valid: {error.verify_message}"
        except GoneError as error:
            return f"{self._entry.host} does not answer: {error}"
        return ""

    def _next_head(self, failure: str) -> Head | None:
        """The next request's; None if the sandbox or, between requests, the host ended."""
        begun = None if self._requests else time.monotonic()
        rest = time.monotonic() + REST_SECONDS
        while True:
            try:
                head = take_head(self._inner.buffer)
            except BadMessageError as error:
                self._refuse("400 Bad Request", str(error))
                raise
            if head or (self._inner.ended and not self._inner.buffer):
                return head
            if self._inner.ended or (self._outer_over() and self._requests):
                return None
            begun = begun or (time.monotonic() if self._inner.buffer else None)
            self._receive(begun + HEAD_SECONDS if begun else rest, failure)

    def _receive(self, deadline: float, failure: str) -> None:
        over = failure or self._outer_over()
        watched = (self._inner,) if over else (self._inner, self._outer)
        try:
            ready = wait(dict.fromkeys(watched, select.POLLIN), deadline)
        except GoneError:
            if self._requests and not self._inner.buffer:
                self._inner.ended = True  # it rested for long enough: nobody's failure
                return
            raise
        for channel in ready:
            channel.receive()

    def _outer_over(self) -> bool:
        """Whether the host has ended this while it rested, perhaps with a last word (408)."""
        return self._outer.ended or bool(self._outer.buffer)

    def _exchange(self, head: Head) -> bool:
        """One request and its answer; whether the connection is to end after it."""
        try:
            request = Request(head, self._entry.host, self._entry.secrets)
        except (RefusedError, BadMessageError) as error:
            self._refuse(getattr(error, "status", "400 Bad Request"), str(error))
            raise
        request.reading = self._reading(request)
        answer = Answer(request)
        try:
            if self._outer.buffer:
                raise BadMessageError("it answers what nobody asked")
            self._outer.write(request.head)
            self._pump(request, answer)
        except (GoneError, BadMessageError) as error:
            # A connection that rested may end as the next request is on its way: the client knows
            # that, and tries again by itself if it is told by an end without an answer.
            rested = self._requests > 1 and self._outer.ended
            if not answer.begun and not rested and not self._inner.ended:
                self._refuse("502 Bad Gateway", f"{self._entry.host}: {error}")
            raise
        finally:
            self._count(request, answer)
        if not request.done:
            self._inner.linger(time.monotonic() + LINGER_SECONDS)
        return answer.last or not request.done

    def _reading(self, request: Request) -> Reading | None:
        return self._tally and Reading(
            self._tally, request.method, request.target, self._entry.host
        )

    def _count(self, request: Request, answer: Answer) -> None:
        """Also what has come and the sandbox did not take any more."""
        if request.reading:
            if answer.begun and not answer.done:
                with contextlib.suppress(BadMessageError):
                    answer.feed(self._outer.buffer)
            request.reading.end(whole=answer.done)

    def _pump(self, request: Request, answer: Answer) -> None:
        inner, outer = self._inner, self._outer
        while not answer.done:
            if outer.queued < BOUND:
                outer.write(request.feed(inner.buffer))
            if inner.queued < BOUND:
                inner.write(self._answered(answer))
                self._ended(answer)
            if answer.done:
                break
            if inner.ended:
                raise GoneError("the sandbox ended the connection before the answer was whole")
            self._move()
        inner.drain(time.monotonic() + IDLE_SECONDS)

    def _answered(self, answer: Answer) -> bytes:
        found = bytearray()
        while not answer.begun:
            head = take_head(self._outer.buffer)
            if head is None:
                break
            found += answer.head(head)
        return bytes(found + answer.feed(self._outer.buffer))

    def _ended(self, answer: Answer) -> None:
        if self._outer.ended and not self._outer.buffer and not answer.done:
            if not self._outer.clean:
                raise GoneError(self._outer.fault or "it ended in the middle of an answer")
            self._inner.write(answer.end())

    def _move(self) -> None:
        """Wait until something can come or go, and let it."""
        wanted: dict[Channel, int] = {}
        for channel in (self._inner, self._outer):
            takes = not channel.ended and len(channel.buffer) < BOUND
            mask = (select.POLLIN if takes else 0) | (select.POLLOUT if channel.queued else 0)
            if mask:
                wanted[channel] = mask
        for channel in wait(wanted, time.monotonic() + IDLE_SECONDS):
            channel.flush()
            if wanted[channel] & select.POLLIN:
                channel.receive()

    def _refuse(self, status: str, why: str) -> None:
        text = Mask(_masks(self._entry)).whole(f"csb-mcp: {why}\n".encode())
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        head += f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        self._inner.write(head.encode() + text)
        self._inner.drain(time.monotonic() + HEAD_SECONDS)
        self._inner.linger(time.monotonic() + LINGER_SECONDS)


def _masks(entry: Entry) -> list[Pair]:
    return [pair for holder, value in entry.secrets for pair in spellings(value, holder)]


def _inside(host: str, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # OpenSSL reads both from a file only: this one has no name anywhere.
    fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, (certificate + key).encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)

    def named(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> int | None:
        if name is None or name.lower().removesuffix(".") == host:
            return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = named  # pyright: ignore[reportAttributeAccessIssue]  # typed for sockets
    return context


@lru_cache(maxsize=64)
def outside(authorities: str) -> ssl.SSLContext:
    """To speak to hosts with. ``authorities`` empty: the system's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if authorities:
        context.load_verify_locations(cadata=authorities)
        return context
    context.load_default_certs()
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):
        for bundle in filter(os.path.exists, _BUNDLES):
            context.load_verify_locations(bundle)
    return context
