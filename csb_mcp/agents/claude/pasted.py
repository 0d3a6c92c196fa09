"""What was typed, out of what became of it."""

import re

_PASTED = re.compile(
    r'\n\n<pasted_content id="(?P<id>\w{1,32})">\n(?P<text>.*?)\n</pasted_content id="(?P=id)">\n',
    re.DOTALL,
)


def as_typed(prompt: str) -> str:
    """``prompt`` without the marks that Claude Code puts around what was pasted and is long."""
    return _PASTED.sub(lambda match: match["text"], prompt)
