"""What was typed, as Claude Code tells it."""

import re

from csb_mcp.agents.words import squeezed

_LONG = 5000  # characters, the least of a hook that was cut
_OPEN = re.compile(r'\n\n<pasted_content id="(\w{1,32})">\n')


def as_typed(prompt: str) -> str:
    """``prompt`` without the marks that Claude Code puts around what was pasted and is long."""
    parts: list[str] = []
    at = 0
    while found := _OPEN.search(prompt, at):
        close = f'\n</pasted_content id="{found[1]}">\n'
        end = prompt.find(close, found.end())
        if end < 0:  # nor is one looked for from the next: that would take long in hostile text
            break
        parts += [prompt[at : found.start()], prompt[found.end() : end]]
        at = end + len(close)
    return "".join([*parts, prompt[at:]])


def is_same(text: str, told: str) -> bool:
    """Whether ``told``, by a hook or a transcript, is the prompt ``text``, or a long beginning.

    White space does not count: tabs become spaces, and that at both ends is lost.
    """
    wanted = squeezed(text)
    got = squeezed(_OPEN.sub("", as_typed(told)))
    return got == wanted or (len(got) >= _LONG and wanted.startswith(got))
