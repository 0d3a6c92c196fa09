"""Sockets without the module ``socket``: its import takes 9 ms, and a start may take 20 in all.

What is used here of ``_socket`` is what ``socket`` itself is made of.
"""

import _socket
import os
import struct

Socket = _socket.socket
_NO_LINGER = struct.pack("ii", 0, 0)


def unix_listener(path: str) -> Socket:
    """Listens on a new socket that its user alone may connect to, in the place of an old one.

    It has its name only once it listens: nobody who sees it is refused.
    """
    made = Socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    new = f"{path}.new"
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    mask = os.umask(0o177)
    try:
        made.bind(new)
    finally:
        os.umask(mask)
    made.listen(64)
    os.rename(new, path)
    return made


def accept(listener: Socket) -> tuple[Socket, tuple[str, int]]:
    """A connection that never blocks, not at its close either, and its peer. Raises OSError.

    The other holder of a listener may have set it to block, or given it a linger time, which is
    inherited and would hold up our close.
    """
    listener.setblocking(False)
    fd, peer = listener._accept()  # pyright: ignore  # noqa: SLF001, PGH003 - as socket does
    made = Socket(fileno=fd)  # pyright: ignore[reportUnknownArgumentType]
    made.setblocking(False)
    if made.family != _socket.AF_UNIX:
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _NO_LINGER)
        made.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return made, peer  # pyright: ignore[reportUnknownVariableType]


def outgoing(family: int) -> Socket:
    """A TCP socket to connect with."""
    made = Socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    made.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    return made


def error_of(connection: Socket) -> int:
    """The errno that waits there; 0: none."""
    return connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)


def received_fds(connection: Socket, most: int) -> tuple[bytes, list[int]]:
    """What came, and the descriptors with it; the kernel closes those beyond ``most``."""
    fds: list[int] = []
    data, more, _, _ = connection.recvmsg(
        64, _socket.CMSG_SPACE(4 * most), _socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, content in more:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(content) // 4}i", content[: len(content) // 4 * 4])
    return data, fds


def listening_tcp(fd: int) -> Socket | None:
    """The listening TCP socket (IPv4) that ``fd`` is; it is closed if it is anything else.

    A close must not wait for what somebody set there to linger.
    """
    try:
        found = Socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None
    try:
        found.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _NO_LINGER)
        kind = found.family, found.type & ~_socket.SOCK_NONBLOCK & ~_socket.SOCK_CLOEXEC
        listens = found.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
        if listens and kind == (_socket.AF_INET, _socket.SOCK_STREAM):
            return found
    except OSError:
        pass
    found.close()
    return None


def end_half(connection: Socket) -> None:
    """Say that no more will be sent."""
    try:
        connection.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # it is gone already


def end_both(connection: Socket) -> None:
    """Wake and fail whoever waits on it, in another thread, too."""
    try:
        connection.shutdown(_socket.SHUT_RDWR)
    except OSError:
        pass
