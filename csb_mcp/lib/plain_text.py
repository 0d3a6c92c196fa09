"""Text that a sandbox printed, made safe to show: no escapes, no controls, nothing invisible."""

import re

# Escape sequences, ECMA-48: CSI, then the string kinds (OSC, DCS, SOS, PM, APC) up to their end or
# the next escape, then the short ones. Every part is linear: no nested repetition.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)
# C0 but tab and newline, DEL, C1; bidirectional overrides and isolates (they make text read
# differently from what it is); the tag block (invisible ASCII, used to hide prompts).
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")  # not encodable; left by surrogateescape


def plain_text(text: str) -> str:
    """``text`` without escape sequences and control characters; tab and newline stay.

    Carriage returns become newlines, so that a progress bar's states do not run together.
    """
    text = _ESCAPES.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def one_line(text: str, limit: int) -> str:
    """:func:`plain_text` on one line of at most ``limit`` characters, an ellipsis if it was cut."""
    line = " ".join(plain_text(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
