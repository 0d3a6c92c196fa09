"""What was typed, and what a tool shall do, as text."""

import json
import re

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


def as_line(arguments: object) -> str:
    """A tool's arguments, decoded from JSON, as JSON again; empty if nested too deep for that."""
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except RecursionError:
        return ""
