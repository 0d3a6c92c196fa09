"""Pictures from the file that Xvfb's -fbdir keeps: an XWD header (X Window Dump), then the pixels.

The server writes while we read, and it serves hostile clients. So the file is read by pread(2): of
a file that was cut short while it is mapped, a look is SIGBUS, and that ends the daemon.
"""

import math
import os
import struct
import threading
from pathlib import Path

from csb_mcp.errors import DisplayFailed
from csb_mcp.host.display import hugepages
from csb_mcp.lib.safe_open import open_regular
from csb_mcp.model import Frame, Geometry

_FILE = "Xvfb_screen0"
_HEADER = struct.Struct(">25I")  # XWDFileHeader of X11/XWDFile.h, always big-endian
_COLOR_SIZE = 12  # sz_XWDColor: an entry of the colour map between header and pixels
_MAX_START = 65536  # of header and colour map together; Xvfb's take 3232 bytes
_OFTEN = 4  # looks, after which there will be more
_PIECE = 128 * 1024  # bytes that are compared at once


class Framebuffer:
    """The framebuffer of one X server. Keeps the file open: it can be read after the server died.

    Raises DisplayFailed if the file is missing, a link, or no picture of that geometry.
    """

    def __init__(self, folder: Path, geometry: Geometry) -> None:
        self._geometry = geometry
        self._kept: Frame | None = None
        self._pending: bytes | None = None
        self._changed = 0  # offset of the piece in which a change was last found
        self._looks = 0
        self._speed_up_at: float = _OFTEN
        # A look may still run in its thread when its caller was cancelled: it must not find the
        # descriptor's number closed and given to another file.
        self._lock = threading.Lock()
        try:
            self._fd = open_regular(folder, _FILE)
        except OSError as error:
            raise DisplayFailed(f"the framebuffer cannot be opened: {error.strerror}") from error
        try:
            self._start, self._stride = self._layout()
        except DisplayFailed:
            self.close()
            raise

    @property
    def geometry(self) -> Geometry:
        """Size of the screen."""
        return self._geometry

    @property
    def size(self) -> int:
        """Bytes of one picture."""
        return self._stride * self._geometry.height

    def look(self, *, whole: bool = False) -> Frame | None:
        """Read once; gives a frame if that is known to be whole, None if it takes another look.

        It is if the caller says so (nobody could draw meanwhile), if it equals the kept frame, or
        if the look before read the same: nearly always, for a server that lost the processor while
        it drew leaves half a picture for longer than two looks. The kept frame itself is given as
        long as nothing changed. Raises DisplayFailed if the file is no picture of this geometry
        any more, or after close.
        """
        with self._lock:
            self._looks += 1
            pixels = self._read()
            if self._kept is not None and self._same(self._kept.pixels, pixels):
                self._pending = None
                return self._kept
            if whole or pixels == self._pending:
                return self._keep(pixels)
            self._pending = pixels
            return None

    def settle(self) -> Frame:
        """Take what the last look read for a frame, whole or not. Only after it gave None."""
        with self._lock:
            if self._pending is None:
                raise DisplayFailed("nothing was read")
            return self._keep(self._pending)

    def forget(self) -> None:
        """Let the next look be the first of its row."""
        self._pending = None

    @property
    def speed_up_due(self) -> bool:
        """Whether there are so many looks that it is time for :meth:`speed_up`."""
        return self._looks >= self._speed_up_at

    def speed_up(self) -> None:
        """Make later looks cheaper, if that can be. Takes milliseconds; nobody may look meanwhile.

        If it did not come about now, it is due again after as many looks once more.
        """
        with self._lock:
            done = self._fd >= 0 and hugepages.collapse(self._fd, self._start + self.size)
            self._speed_up_at = math.inf if done else 2 * self._looks

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _keep(self, pixels: bytes) -> Frame:
        number = self._kept.number + 1 if self._kept else 1
        width, height = self._geometry.width, self._geometry.height
        self._kept = Frame(number, width, height, self._stride, pixels)
        self._pending = None
        return self._kept

    def _same(self, known: bytes, pixels: bytes) -> bool:
        # What changed last is first: a prompt, a clock, a spinner changes again.
        if not _same_at(self._changed, known, pixels):
            return False
        if known == pixels:
            return True
        pieces = range(0, self.size, _PIECE)
        self._changed = next(at for at in pieces if not _same_at(at, known, pixels))
        return False

    def _read(self) -> bytes:
        if (self._start, self._stride) != self._layout():
            raise DisplayFailed("the framebuffer changed its layout")
        pixels = self._pread(self.size, self._start)
        if len(pixels) != self.size:
            raise DisplayFailed(f"the framebuffer is cut short: {len(pixels)} of {self.size} bytes")
        return pixels

    def _layout(self) -> tuple[int, int]:
        """Offset of the first pixel, and bytes of a row."""
        header = self._pread(_HEADER.size, 0)
        if len(header) != _HEADER.size:
            raise DisplayFailed("the framebuffer has no header")
        size, version, kind, depth, width, height, _, order, *_ = fields = _HEADER.unpack(header)
        bits, stride, colors = fields[11], fields[12], fields[19]
        # Version 7, ZPixmap, least significant byte first: BGRX in memory.
        if (version, kind, depth, order, bits) != (7, 2, 24, 0, 32):
            raise DisplayFailed("the framebuffer is not in the format BGRX")
        if (width, height) != (self._geometry.width, self._geometry.height):
            raise DisplayFailed(f"the framebuffer is {width}x{height}, not {self._geometry}")
        start = size + colors * _COLOR_SIZE
        if not (_HEADER.size <= start <= _MAX_START and width * 4 <= stride <= width * 4 + 64):
            raise DisplayFailed("the framebuffer has an impossible header")
        return start, stride

    def _pread(self, size: int, offset: int) -> bytes:
        if self._fd < 0:
            raise DisplayFailed("the display is closed")
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise DisplayFailed(f"the framebuffer cannot be read: {error.strerror}") from error


def _same_at(at: int, known: bytes, pixels: bytes) -> bool:
    """Whether the piece that begins there is the same; nothing is copied."""
    return pixels.startswith(memoryview(known)[at : at + _PIECE], at)
