"""The door of a sandbox: a listener on its loopback, handed to the egress proxy outside.

``python -I -S door.py SOCKET``, inside, before anything of the payload runs. The proxy accepts on
the listener itself, so nothing is left running inside that a payload could end. Exits 1 with a line
on stderr if that cannot be done.

Standard library only, and little of it: this is on the way of every create.
"""

import _socket
import errno
import os
import sys
import time

PORT = 3128
BACKLOG = 128
SECONDS = 10.0  # the proxy is being started at the same time
PAUSE = 0.001
STARTING = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)


def listener() -> "_socket.socket":
    """Raises OSError if somebody inside listens there already."""
    door = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    door.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", PORT))
    door.listen(BACKLOG)
    return door


def connected(path: str) -> "_socket.socket":
    """A connection to the proxy, once it listens. Raises OSError."""
    deadline = time.monotonic() + SECONDS
    while True:
        proxy = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            proxy.settimeout(SECONDS)
            proxy.connect(path)
        except OSError as error:
            proxy.close()
            if error.errno not in STARTING or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)
        else:
            return proxy


def main(path: str) -> None:
    """Make the listener and hand it over; on failure one line on stderr and status 1."""
    try:
        door = listener()
    except OSError as error:
        sys.exit(f"csb: port {PORT} inside: {os.strerror(error.errno or 0)}")
    os.write(1, b"listening\n")  # from now on the payload may connect
    try:
        fd = door.fileno().to_bytes(4, sys.byteorder)
        right = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd)
        connected(path).sendmsg([b"."], [right])
    except OSError as error:
        sys.exit(f"csb: the egress proxy: {error}")
    os._exit(0)  # taking down the interpreter would take a quarter of the whole


if __name__ == "__main__":
    main(sys.argv[1])
