"""Plain text from a log that is read in parts, which may be cut within a character or an escape."""

import codecs

from csb_mcp.lib.text import plain_text

_LONGEST_ESCAPE = 4096  # a longer one is not waited for
_Decoder = codecs.getincrementaldecoder("utf-8")


class PlainText:
    """Takes parts in order and gives what can be said for sure by now."""

    def __init__(self) -> None:
        self._decoder = _Decoder("replace")
        self._held = ""

    def feed(self, data: bytes, *, gap: bool = False) -> str:
        """The next part. After a ``gap`` nothing of before goes on."""
        before = self.rest() if gap else ""
        text = self._held + self._decoder.decode(data)
        cut = _finished(text)
        self._held = text[cut:]
        return before + plain_text(text[:cut])

    def rest(self) -> str:
        """What is left at the end."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        self._decoder.reset()
        return plain_text(text)


def whole(data: bytes) -> tuple[int, int]:
    """First and last offset in ``data`` between which no character and no escape is cut."""
    first = 0
    while first < min(3, len(data)) and data[first] & 0xC0 == 0x80:  # UTF-8's following bytes
        first += 1
    decoder = _Decoder("replace")
    decoder.decode(data[-8:])  # begins anew at each character
    last = len(data) - len(decoder.getstate()[0])
    tail = data[max(first, last - _LONGEST_ESCAPE) : last].decode("latin-1")
    last -= len(tail) - _finished(tail)
    # A part that is nothing but cut is given as it is: a reader has to get on.
    return (first, last) if last > first else (0, len(data))


def _finished(text: str) -> int:
    """Where an escape begins, or a CR (half of CRLF), that may go on in the next part; or the end.

    An escape that is over leaves alone what is put after it; one that goes on takes it in.
    """
    first = max(0, len(text) - _LONGEST_ESCAPE)
    escape = text.rfind("\x1b", first)
    end = len(text)
    if escape >= 0 and not plain_text(text[escape:] + "x").endswith("x"):
        end = escape
    carriage = text.rfind("\r", first, end)
    if carriage >= 0 and not plain_text(text[carriage + 1 : end]):
        return carriage
    return end
