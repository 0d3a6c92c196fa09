"""Text that somebody hostile may have written, made safe to show."""

import re

# What acts on a reader instead of being seen: C0, DEL and C1 controls; line and paragraph
# separators; direction marks and overrides (they show text in another order than it has); the
# invisible tag block (text that only a model reads); byte order marks; lone surrogates.
_ACTIVE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def clean_line(raw: bytes) -> str:
    """One line of UTF-8 as plain text: no controls, no trailing blanks; wrong bytes are U+FFFD."""
    text = raw.decode(errors="replace")
    if not text.isascii() or not text.isprintable():
        text = _ACTIVE.sub("", text)
    return text.rstrip()
