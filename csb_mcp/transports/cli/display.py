"""screenshot, click, drag, scroll, type."""

import os
import secrets
import stat
import sys
from collections.abc import Callable
from typing import Any

from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.transports.cli.client import Answer, reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import note, say, show_json

_UNCHANGED = 304
_SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}
_TYPE_SECONDS = 120.0  # an unusual script goes key by key


def screenshot(line: Line) -> int:
    """The picture into a file or down a pipe."""
    values = line.values
    query = {k: values[k] for k in ("region", "max_width", "format", "if_changed_since")}
    sandbox = str(values["sandbox"])
    answer = reach(line.settings).get(sandbox_path(sandbox, "screenshot"), query)
    told = _told(answer)
    if answer.status == _UNCHANGED:
        return _tell(line, {**told, "unchanged": True}, f"unchanged since {told['frame']}")
    target = values["output"] or _usual(line, told)
    if target == "-":
        _pour(answer.body)
        return 0
    write_file(target, answer.body)
    return _tell(line, {**told, "path": os.path.abspath(target)}, target)


def _told(answer: Answer) -> dict[str, Any]:
    headers = answer.headers
    region = [int(part) for part in headers.get("csb-region", "").split(",") if part]
    return {
        "frame": headers.get("csb-frame") or headers.get("etag", "").strip('"'),
        "region": region,
        "scale": float(headers.get("csb-scale", "1")),
        "tokens": int(headers.get("csb-tokens", "0")),
        "bytes": len(answer.body),
    }


def _usual(line: Line, told: dict[str, Any]) -> str:
    """Down a pipe; into a file of this folder where people, or JSON, are at the other end."""
    if not sys.stdout.isatty() and not line.values["json"]:
        return "-"
    suffix = _SUFFIXES[line.values["format"] or "png"]
    return f"{line.values['sandbox']}-{told['frame']}.{suffix}"


def write_file(path: str, data: bytes) -> None:
    """Put a file in the place that the command line named. Raises InvalidInput.

    The folder may be a project, where a payload puts links and FIFOs in the place of names that it
    foresees: nothing is opened there but a new file, which then takes the name.
    """
    try:
        if os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode):  # /dev/stdout, /dev/null
            with open(path, "wb") as file:
                file.write(data)
            return
        draft = f"{path}.{secrets.token_hex(6)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o666), "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}", field="output") from error


def _pour(data: bytes) -> None:
    if sys.stdout.isatty():
        raise HostUnable("a picture is no text for a terminal", hint="Give -o FILE, or a pipe")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def click(line: Line) -> int:
    """Click."""
    return _act(line, "click", ("x", "y", "button", "count", "frame"))


def drag(line: Line) -> int:
    """Drag along points."""
    path = [_point(word) for word in line.values["path"]]
    return _act(line, "drag", ("button", "frame"), path=path)


def scroll(line: Line) -> int:
    """Turn the wheel."""
    return _act(line, "scroll", ("x", "y", "dx", "dy", "frame"))


def type_(line: Line) -> int:
    """Type text."""
    text = line.values["text"]
    return _act(line, "type", (), text=sys.stdin.read() if text == "-" else text)


def _act(line: Line, verb: str, names: tuple[str, ...], **more: object) -> int:
    body = {name: line.values[name] for name in names} | more
    path = sandbox_path(line.values["sandbox"], verb)
    client = reach(line.settings)
    answer = client.post(path, body, timeout=_TYPE_SECONDS, doing="typing").json()
    return _tell(line, answer, f"frame: {answer['frame']}")


def _point(word: str) -> list[str]:
    parts = word.split(",")
    if len(parts) != 2:
        raise InvalidInput(f"{word!r} is not a point", field="path", hint="Give X,Y X,Y ...")
    return parts


def _tell(line: Line, value: dict[str, Any], text: str) -> int:
    if line.values["json"]:
        show_json(value)
    elif value.get("unchanged"):
        note(text)
    else:
        say(text)
    return 0


ACTIONS: dict[str, Callable[[Line], int]] = {
    "screenshot": screenshot,
    "click": click,
    "drag": drag,
    "scroll": scroll,
    "type": type_,
}
