"""One output stream of a command: a FIFO that is drained, of which the first bytes are kept."""

import asyncio
import os

_READ_BYTES = 65536  # the size of a pipe
_DRAIN_READS = 32  # a background child may go on writing; its words are not waited for


class Output:
    """Reads ``fifo`` of the open ``folder``. Belongs to the running loop; the owner closes it."""

    def __init__(self, fifo: str, folder: int, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._kept = bytearray()
        self.truncated = False
        self.ended = asyncio.Event()  # all writers have gone
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(fifo, flags, dir_fd=folder)
        self._loop.add_reader(self._fd, self._read)

    @property
    def text(self) -> str:
        """What was kept; a character cut at the end, or bytes that are no UTF-8, as U+FFFD."""
        return self._kept.decode(errors="replace")

    def drain(self) -> None:
        """Take what is in the pipe now."""
        for _ in range(_DRAIN_READS):
            if not self._read():
                return

    def close(self) -> None:
        """Let go of it: whoever still writes gets SIGPIPE. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _read(self) -> bool:
        """One read; False if there is nothing (any more)."""
        if self._fd < 0 or self.ended.is_set():
            return False
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._fd)
            self.ended.set()
            return False
        room = self._limit - len(self._kept)
        self._kept += data[:room] if room > 0 else b""
        self.truncated = self.truncated or len(data) > room
        return True
