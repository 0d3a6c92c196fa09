"""attach, send, read, run."""

import os
import shlex
import sys
from collections.abc import Callable
from typing import Any

from csb_mcp.errors import HostUnable, InvalidInput, SandboxEnded
from csb_mcp.lib.text import one_line
from csb_mcp.lib.units import parse_duration
from csb_mcp.transports.cli.client import reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import give, note, put, say, show_json

TIMED_OUT = 124
"""Exit status as of timeout(1)."""
_ENDED = ("stopped", "dead", "failed")
_RUN_SECONDS = 30.0
_MARGIN = 30.0  # beyond the deadline that the daemon keeps


def attach(line: Line) -> int:
    """Become the tmux client of its terminal."""
    record = reach(line.settings).get(sandbox_path(line.values["sandbox"])).json()
    if record["state"] in _ENDED:
        raise SandboxEnded(
            f"it is {record['state']}: {record.get('reason', 'nothing runs in it')}",
            sandbox=record["id"],
            hint=f"csb-mcp read {record['id']} and csb-mcp logs {record['id']} show its last words",
        )
    argv = shlex.split(record["attach"])
    if line.values["json"]:
        show_json({"command": argv})
        return 0
    if not argv:
        raise HostUnable("it has no terminal yet", sandbox=record["id"])
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise HostUnable("attach needs a terminal", hint="Else use csb-mcp read and csb-mcp send")
    # Set, it makes tmux refuse: it would not want to show itself within itself.
    os.environ.pop("TMUX", None)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  no shell is what is wanted
    except OSError as error:
        raise HostUnable(f"{argv[0]} cannot be started: {error.strerror}") from error


def send(line: Line) -> int:
    """Type text, press keys."""
    values = line.values
    keys = [key for word in values["keys"] or () for key in word.split()]
    body = {"text": values["text"], "keys": keys or None, "target": values["target"]}
    answer = reach(line.settings).post(sandbox_path(values["sandbox"], "keys"), body).json()
    if values["json"]:
        show_json(answer)
        return 0
    say("sent: " + ", ".join(answer["sent"]))
    say(f"cursor: {answer['cursor']}")
    return 0


def read(line: Line) -> int:
    """The terminal's rows to stdout, what is to be said of them to stderr."""
    values = line.values
    query = {"cursor": values["cursor"], "lines": values["lines"]}
    view = reach(line.settings).get(sandbox_path(values["sandbox"], "terminal"), query).json()
    if values["json"]:
        show_json(view)
        return 0
    rows = [one_row(text) for _, text in view["rows"]]
    while rows and not view["changed_only"] and not rows[-1]:
        rows.pop()
    for row in rows:
        put(row + "\n")
    if view["gap"]:
        note("gap: rows were lost since that cursor; this is the whole screen")
    if view["cut"]:
        note(f"{view['cut']} older rows left out; --lines shows more")
    note(f"cursor: {view['cursor']}")
    return 0


def one_row(text: str) -> str:
    """A row, safe to show, its blanks kept."""
    return "".join(char for char in text if char.isprintable()).rstrip()


def run(line: Line) -> int:
    """Run a command; its output is ours, and so is its exit status."""
    values = line.values
    if not line.rest:
        raise InvalidInput("is required", field="command", hint="Give it after --: run ID -- ls")
    timeout = _seconds(values["timeout"])
    body: dict[str, object] = {
        "command": line.rest[0] if len(line.rest) == 1 else shlex.join(line.rest),
        **{name: values[name] for name in ("timeout", "cwd", "stdin")},
        "background": values["background"] or None,
    }
    if body["stdin"] == "-":
        body["stdin"] = sys.stdin.read()
    path = sandbox_path(values["sandbox"], "commands")
    client = reach(line.settings)
    result = client.post(path, body, timeout=timeout + _MARGIN, doing="running").json()
    if values["json"]:
        show_json(result)
    else:
        _show(result)
    return _status(result)


def _show(result: dict[str, Any]) -> None:
    if "pid" in result:
        say(f"pid {result['pid']}, inside")
        say(f"stdout: {result['stdout_path']}")
        say(f"stderr: {result['stderr_path']}")
        return
    give(result["stdout"])
    give(result["stderr"], sys.stderr)
    if result["truncated"]:
        note("csb-mcp: more was printed; the rest is lost")
    if result["timed_out"]:
        note("csb-mcp: its time was over; it was killed")


def _status(result: dict[str, Any]) -> int:
    if "pid" in result:
        return 0
    return TIMED_OUT if result["timed_out"] else int(result["exit_code"])


def _seconds(text: str | None) -> float:
    try:
        return _RUN_SECONDS if text is None else parse_duration(text)
    except ValueError as error:
        raise InvalidInput(one_line(str(error), 200), field="timeout") from error


ACTIONS: dict[str, Callable[[Line], int]] = {
    "attach": attach,
    "send": send,
    "read": read,
    "run": run,
}
