"""What was typed, and what a tool shall do, as text."""

import json

from csb_mcp.lib.text import plain_text


def squeezed(text: str) -> str:
    """``text`` without any white space, which programs change, and without what is not seen."""
    return "".join(plain_text(text).split())


def as_line(arguments: object) -> str:
    """A tool's arguments, decoded from JSON, as JSON again; empty if nested too deep for that."""
    try:
        return json.dumps(arguments, ensure_ascii=False)
    except RecursionError:
        return ""
