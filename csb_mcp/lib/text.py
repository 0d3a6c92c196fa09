"""Text that somebody hostile may have written, made safe to show: no escapes, nothing invisible."""

import re

# Escape sequences, ECMA-48: CSI, then the string kinds (OSC, DCS, SOS, PM, APC) up to their end or
# the next escape, then the short ones. Every part is linear: no nested repetition.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)
# What acts on a reader instead of being seen: C0 but tab and newline, DEL and C1 controls; line and
# paragraph separators; direction marks and overrides (they show text in another order than it has);
# the tag block (text that only a model reads); byte order marks.
_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")  # not encodable; left by surrogateescape


def plain_text(text: str) -> str:
    """``text`` without escape sequences and control characters; tab and newline stay.

    Carriage returns become newlines, so that a progress bar's states do not run together.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPES.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATES.sub("\ufffd", _ACTIVE.sub("", text))


def one_line(text: str, limit: int) -> str:
    """:func:`plain_text` on one line of at most ``limit`` characters, an ellipsis if it was cut."""
    line = " ".join(plain_text(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def screen_row(raw: bytes) -> str:
    """One row of a terminal: no controls, no trailing blanks; bytes that are no UTF-8 are U+FFFD.

    The terminal has acted on the escapes, so what is left of any is shown as the text it is.
    """
    text = raw.decode(errors="replace")
    if not text.isascii() or not text.isprintable():
        text = _ACTIVE.sub("", text).replace("\t", "").replace("\n", "")
    return text.rstrip()
