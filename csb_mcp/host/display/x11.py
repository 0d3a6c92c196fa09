"""An X11 client of a few requests, on the event loop: learn of drawing, hold the screen still.

By hand, because the server serves hostile clients: one of them may hold it grabbed, kill our
connection, or have taken it over. libxcb blocks while it connects and while the rest of a reply is
outstanding, and takes memory for what a reply's length field says. Here nothing blocks, and what
comes in is bounded. Sources: X Window System Protocol (chapters 8 and 9, appendix B), and
damageproto 1.1.
"""

import asyncio
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Self

from csb_mcp.lib.text import one_line
from csb_mcp.lib.xauth import PROTOCOL

_SOCKET = "X0"
_LISTEN_DELAY = 0.05
_LITTLE_ENDIAN = 0x6C
_GRAB_SERVER, _UNGRAB_SERVER, _GET_INPUT_FOCUS, _QUERY_EXTENSION = 36, 37, 43, 98
_DAMAGE_QUERY_VERSION, _DAMAGE_CREATE, _DAMAGE_SUBTRACT = 0, 1, 3
_REPORT_NON_EMPTY = 3  # one event when something is drawn, none until the damage is subtracted
_ERROR, _REPLY, _GENERIC_EVENT = 0, 1, 35
_PACKET = 32
_REASON = 80  # characters of why it refuses, which a payload may have written
_MAX_EXTRA = 65536  # bytes after a reply's first 32; the usual keymap has 7 KiB
_MAX_STRANGE = 1000  # events that nobody asked for: clients can cause some (MappingNotify)
_MAX_CLIENTS = b"Maximum number of clients"  # what the server says then, in ProcEstablishConnection


class NoServer(Exception):
    """Nothing listens, or it refuses us for good. Says why."""


class Lost(Exception):
    """The connection broke, or cannot be made now; another may work. Says why."""


class Connection:
    """One connection. Every wait lasts for as long as the server does not answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._root = 0
        self._damage = 0
        self._opcode = 0
        self._event: int | None = None
        self._drawn = False
        self._strange = 0

    @classmethod
    async def open(cls, folder: Path, cookie: bytes) -> Self:
        """Connect to the socket in ``folder``. Raises NoServer, Lost."""
        reader, writer = await asyncio.open_unix_connection(sock=await _connect(folder))
        connection = cls(reader, writer)
        try:
            connection._root, connection._damage = await connection._introduce(cookie)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def watch(self) -> None:
        """Have drawing reported, anywhere on the screen. Raises NoServer, Lost."""
        self._opcode, self._event = await self._extension(b"DAMAGE")
        await self._ask(struct.pack("<BBHII", self._opcode, _DAMAGE_QUERY_VERSION, 3, 1, 1))
        create = (_DAMAGE_CREATE, 4, self._damage, self._root, _REPORT_NON_EMPTY)
        self._writer.write(struct.pack("<BBHIIBxxx", self._opcode, *create))
        await self.rearm()

    async def drawn(self) -> None:
        """Wait until something was drawn since :meth:`rearm`. Raises Lost."""
        while not self._drawn:
            await self._packet()

    async def rearm(self) -> None:
        """Have the next drawing reported; what was drawn before is in the framebuffer on return.

        Raises Lost.
        """
        self._drawn = False
        subtract = (_DAMAGE_SUBTRACT, 4, self._damage, 0, 0)
        self._writer.write(struct.pack("<BBHIII", self._opcode, *subtract))
        # The server takes requests in order. What it draws after the subtraction gives an event;
        # what it drew before can be seen once it has answered.
        await self._sync()

    async def grab(self) -> None:
        """Have the server do nothing for other clients until :meth:`ungrab` or the end of us.

        On return no request of another client is half done. Raises Lost.
        """
        self._writer.write(struct.pack("<BxH", _GRAB_SERVER, 1))
        await self._sync()

    def ungrab(self) -> None:
        """Let the server go on. Does not wait for it."""
        self._writer.write(struct.pack("<BxH", _UNGRAB_SERVER, 1))

    async def close(self) -> None:
        """Close it; what the server has not taken is dropped. Idempotent."""
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _introduce(self, cookie: bytes) -> tuple[int, int]:
        """Connection set-up; gives the root window, and the first id that is ours to use."""
        sizes = len(PROTOCOL), len(cookie)
        hello = struct.pack("<BxHHHHxx", _LITTLE_ENDIAN, 11, 0, *sizes)
        self._writer.write(hello + padded(PROTOCOL) + padded(cookie))
        status, reason_size, length = struct.unpack("<BBxxxxH", await self._read(8))
        body = await self._read(length * 4)
        if status != 1:
            reason = body[:reason_size]
            words = f"it says {one_line(reason.decode('ascii', 'replace'), _REASON)!r}"
            raise (Lost if reason.startswith(_MAX_CLIENTS) else NoServer)(words)
        try:
            first_id, vendor_size, formats = struct.unpack_from("<4xI8xH3xB", body)
            screens = 32 + vendor_size + -vendor_size % 4 + formats * 8
            (root,) = struct.unpack_from("<I", body, screens)
        except struct.error as error:
            raise Lost("its answer to the connection set-up is too short") from error
        return root, first_id

    async def _extension(self, name: bytes) -> tuple[int, int]:
        """Its first opcode and event. Raises NoServer if the server has not got it."""
        query = struct.pack("<BxHHxx", _QUERY_EXTENSION, 2 + (len(name) + 3) // 4, len(name))
        present, opcode, event = (await self._ask(query + padded(name)))[8:11]
        if not present:
            raise NoServer(f"it has no {name.decode()} extension")
        return opcode, event

    async def _sync(self) -> None:
        await self._ask(struct.pack("<BxH", _GET_INPUT_FOCUS, 1))

    async def _ask(self, request: bytes) -> bytes:
        """The whole reply. Nothing else that is answered may be outstanding."""
        self._writer.write(request)
        return await self._answer()

    async def _answer(self) -> bytes:
        """The next reply, whole; events before it are left out."""
        while (packet := await self._packet())[0] != _REPLY:
            pass
        return packet

    async def _packet(self) -> bytes:
        """The next reply or event, whole. Notes whether it says that something was drawn."""
        packet = await self._read(_PACKET)
        kind = packet[0] & 0x7F  # the top bit: another client sent the event
        if kind == _ERROR:
            raise Lost(f"it answered with error {packet[1]}")
        if kind in (_REPLY, _GENERIC_EVENT):
            (extra,) = struct.unpack_from("<I", packet, 4)
            if extra * 4 > _MAX_EXTRA:
                raise Lost("it sent more than was asked for")
            packet += await self._read(extra * 4)
        self._drawn |= kind == self._event
        self._strange += kind not in (_REPLY, self._event)
        if self._strange > _MAX_STRANGE:
            raise Lost("it sends what nobody asked for")
        return packet

    async def _read(self, size: int) -> bytes:
        try:
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Lost("it closed the connection") from error


async def _connect(folder: Path) -> socket.socket:
    try:
        try:
            return _connected(folder / _SOCKET)
        except ConnectionRefusedError:
            # A server that is just starting may be between bind(2) and listen(2).
            await asyncio.sleep(_LISTEN_DELAY)
            return _connected(folder / _SOCKET)
    except BlockingIOError as error:  # the queue of those that wait to be accepted is full
        raise Lost("it accepts no connection") from error
    except OSError as error:
        raise NoServer(f"it cannot be connected to: {error.strerror}") from error


def _connected(path: Path) -> socket.socket:
    # By way of a descriptor: a link is not followed (connect(2) refuses it), and no path is longer
    # than an address can hold.
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        endpoint.setblocking(False)
        endpoint.connect(f"/proc/self/fd/{fd}")
    except BaseException:
        endpoint.close()
        raise
    finally:
        os.close(fd)
    return endpoint


def padded(data: bytes) -> bytes:
    """With zeros to a multiple of four, as requests have it."""
    return data + bytes(-len(data) % 4)
