"""Where a sandbox hands over the socket that its clients connect to.

The payload may knock, too, with anything in its hands: what is no listening TCP socket is closed.
"""

from _collections_abc import Callable

from csb_mcp.host.network.proxy.loop import READ, Loop
from csb_mcp.host.network.proxy.sockets import (
    Socket,
    accept,
    listening_tcp,
    received_fds,
    unix_listener,
)

_MOST_FDS = 8  # of one message
_MOST_GUESTS = 16  # then who has said nothing for longest has to leave


class Door:
    """``take`` gets each listening socket. Whoever gave one is told ``ok``, else ``no``."""

    def __init__(self, path: str, loop: Loop, take: Callable[[Socket], None]) -> None:
        self._loop, self._take = loop, take
        self._door = unix_listener(path)
        self._guests: list[Socket] = []
        loop.watch(self._door.fileno(), READ, self._open)

    def _open(self, _: int) -> None:
        try:
            guest = accept(self._door)[0]
        except OSError:
            return
        if len(self._guests) >= _MOST_GUESTS:
            self._leave(self._guests[0])
        self._guests.append(guest)
        self._loop.watch(guest.fileno(), READ, lambda _: self._hear(guest))
        self._hear(guest)  # before others can crowd it out

    def _hear(self, guest: Socket) -> None:
        try:
            data, fds = received_fds(guest, _MOST_FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        found = [one for one in map(listening_tcp, fds) if one]
        for one in found:
            self._take(one)
        if fds:
            try:
                guest.send(b"ok\n" if found else b"no\n")
            except OSError:
                pass  # it did not wait for that
        if not data or not found:
            self._leave(guest)

    def _leave(self, guest: Socket) -> None:
        if guest in self._guests:
            self._guests.remove(guest)
            self._loop.forget(guest.fileno())
            guest.close()
