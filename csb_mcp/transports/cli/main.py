"""One command line: parsed, done, and its failure told in one line and a status."""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from io import TextIOWrapper
from typing import cast

from csb_mcp import __version__
from csb_mcp.errors import CsbError
from csb_mcp.transports.cli.client import Refused, Unreachable
from csb_mcp.transports.cli.parser import Line, UsageError, find, overview, parse
from csb_mcp.transports.cli.render import note, put

FAILED, USAGE, NO_DAEMON = 1, 2, 3
NOT_RUN = 125
"""Status of ``run`` where the command did not run; others are the command's own."""
_PIPE = 128 + signal.SIGPIPE


def main(words: Sequence[str]) -> int:
    """Do what ``words`` say; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        cast("TextIOWrapper", stream).reconfigure(errors="replace")
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read has enough (head). What is still buffered goes nowhere, so that the
        # interpreter does not complain while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        put(overview(__version__))
        return 0 if words else USAGE
    if words[0] == "__sandboxes":  # what completions ask for
        from csb_mcp.transports.cli.completion import names

        return names()
    ours = NOT_RUN if words[0] == "run" else 0
    try:
        line = parse(find(words[0]), words[1:])
    except UsageError as error:
        verb = f" {words[0]}" if str(error).startswith("the following") or ours else ""
        note(f"csb-mcp{verb}: {error}\nTry: csb-mcp --help")
        return ours or USAGE
    _usual_end(line)
    try:
        return _action(line)(line)
    except CsbError as error:
        _tell(error, as_json=bool(line.values.get("json")))
        return ours or (NO_DAEMON if isinstance(error, Unreachable) else FAILED)


def _usual_end(line: Line) -> None:
    """Let ^C end us at once: there is nothing to clean up, but in a demo."""
    if line.verb.name != "demo" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _tell(error: CsbError, *, as_json: bool) -> None:
    if not as_json:
        note(f"csb-mcp: {error}")
        return
    values: Mapping[str, object] = {
        "code": error.kind if isinstance(error, Refused) else error.code,
        "detail": error.message,
        "field": error.field,
        "sandbox": error.sandbox,
        "choices": list(error.choices),
        "hint": error.hint,
    }
    note(json.dumps({key: value for key, value in values.items() if value}))


def _action(line: Line) -> Callable[[Line], int]:
    """What does it; read only now, for each verb needs little."""
    match line.verb.module:
        case "lifecycle":
            from csb_mcp.transports.cli import lifecycle as found
        case "terminal":
            from csb_mcp.transports.cli import terminal as found
        case "waiting":
            from csb_mcp.transports.cli import waiting as found
        case "logs":
            from csb_mcp.transports.cli import logs as found
        case "display":
            from csb_mcp.transports.cli import display as found
        case "usage":
            from csb_mcp.transports.cli import usage as found
        case "egress":
            from csb_mcp.transports.cli import egress as found
        case "supervision":
            from csb_mcp.transports.cli import supervision as found
        case "demo":
            from csb_mcp.transports.cli import demo as found
        case _:
            from csb_mcp.transports.cli import completion as found
    return found.ACTIONS[line.verb.name]
