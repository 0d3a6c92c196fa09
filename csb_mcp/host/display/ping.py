"""Asking the program that has the focus whether it has read its keys yet (_NET_WM_PING).

Source: Extended Window Manager Hints 1.5. A program that takes part sends the message back when it
comes to it, after the events before it. Chromium, GTK and Qt do; xterm does not.
"""

import asyncio
import secrets
import struct

from csb_mcp.host.display.x11 import Connection, padded

_CHANGE_WINDOW_ATTRIBUTES, _INTERN_ATOM, _GET_PROPERTY, _SEND_EVENT = 2, 16, 20, 25
_GET_INPUT_FOCUS = 43
_CLIENT_MESSAGE = 33
_SUBSTRUCTURE_NOTIFY = 1 << 19
_EVENT_MASK = 1 << 11  # in the mask of a window's attributes
_ATOM = 4  # the type of WM_PROTOCOLS
_MAX_PROTOCOLS = 64
_NO_WINDOW = 1  # the greatest of what stands for none (0) and for the pointer's (1)
_PATIENCE = 1.5  # a browser that starts is busy for as long


class Pinger(Connection):
    """A connection that can wait for the program that has the focus."""

    _window = 0  # which takes part, and has the focus; 0 if none
    listening = False
    """Whether the server tells it of windows, too: it is better not kept then."""

    async def meet(self) -> None:
        """Find out who has the focus, and whether it takes part. Raises Lost."""
        self._protocols = await self._atom(b"WM_PROTOCOLS")
        self._ping = await self._atom(b"_NET_WM_PING")
        (window,) = struct.unpack_from(
            "<I", await self._ask(struct.pack("<BxH", _GET_INPUT_FOCUS, 1)), 8
        )
        if window > _NO_WINDOW and self._ping in await self._takes_part_in(window):
            self._window = window
            self.listening = True
            select = (_CHANGE_WINDOW_ATTRIBUTES, 4, self._root, _EVENT_MASK, _SUBSTRUCTURE_NOTIFY)
            self._writer.write(struct.pack("<BxHIII", *select))

    async def caught_up(self) -> bool:
        """Wait until that program has read what was sent to it so far.

        False if it does not take part, or is too slow; it is not asked again then. Raises Lost.
        """
        if not self._window:
            return False
        token = secrets.randbits(32)
        data = struct.pack("<5I", self._ping, token, self._window, 0, 0)
        event = struct.pack("<BBHII", _CLIENT_MESSAGE, 32, 0, self._window, self._protocols) + data
        self._writer.write(struct.pack("<BBHII", _SEND_EVENT, 0, 11, self._window, 0) + event)
        try:
            async with asyncio.timeout(_PATIENCE):
                while not self._is_answer(await self._packet(), token):
                    pass
        except TimeoutError:
            self._window = 0
        return bool(self._window)

    def _is_answer(self, packet: bytes, token: int) -> bool:
        kind = packet[0] & 0x7F  # the top bit: another client sent it
        return kind == _CLIENT_MESSAGE and struct.unpack_from("<I", packet, 16) == (token,)

    async def _takes_part_in(self, window: int) -> tuple[int, ...]:
        request = (_GET_PROPERTY, 0, 6, window, self._protocols, _ATOM, 0, _MAX_PROTOCOLS)
        reply = await self._ask(struct.pack("<BBHIIIII", *request))
        (count,) = struct.unpack_from("<I", reply, 16)
        whole = reply[1] == 32 and 32 + count * 4 <= len(reply)  # else it is not a list of atoms
        return struct.unpack_from(f"<{count}I", reply, 32) if whole else ()

    async def _atom(self, name: bytes) -> int:
        size = 2 + (len(name) + 3) // 4
        request = struct.pack("<BBHHxx", _INTERN_ATOM, 0, size, len(name)) + padded(name)
        (atom,) = struct.unpack_from("<I", await self._ask(request), 8)
        return atom
