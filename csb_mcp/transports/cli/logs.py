"""logs: what was printed so far, and, if wished, what is printed from now on."""

import json
import sys
from collections.abc import Callable
from urllib.parse import urlencode

from csb_mcp import bridge
from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.transports.cli.client import (
    PATIENCE,
    Answer,
    Client,
    Unreachable,
    reach,
    refused,
    sandbox_path,
)
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import give, show_json
from csb_mcp.transports.cli.websocket import WebSocket

_PART = 1024 * 1024  # bytes of one answer
_ENDED = 1000  # the code with which the daemon takes its leave from a log that is complete


def logs(line: Line) -> int:
    """Print the log, or a part of it."""
    values = line.values
    if values["raw"] and (sys.stdout.isatty() or values["json"]):
        raise HostUnable(
            "raw bytes could act on your terminal, and are no JSON", hint="Give them to a pipe"
        )
    client = reach(line.settings)
    if values["follow"]:
        if values["limit"]:
            raise InvalidInput("what is followed has no end", field="limit")
        return _follow(client, line)
    part = values["limit"] or values["offset"]
    return _part(client, line) if part else _whole(client, line)


def _whole(client: Client, line: Line) -> int:
    """From the first byte that is kept to the last one."""
    texts: list[str] = []
    offset, following = 0, 0
    while True:
        answer = _read(client, line, str(following), str(_PART))
        if not texts:
            offset = int(answer.headers.get("csb-offset", "0"))
        if line.values["json"]:
            texts.append(answer.body.decode(errors="replace"))
        else:
            _print(line, answer.body)
        before, following = following, int(answer.headers.get("csb-next", following))
        if not answer.body or following <= before:
            break
    if line.values["json"]:
        show_json({"offset": offset, "next": following, "text": "".join(texts)})
    return 0


def _part(client: Client, line: Line) -> int:
    answer = _read(client, line, line.values["offset"], line.values["limit"])
    if not line.values["json"]:
        _print(line, answer.body)
        return 0
    offset, following = (int(answer.headers.get(f"csb-{end}", "0")) for end in ("offset", "next"))
    text = answer.body.decode(errors="replace")
    show_json({"offset": offset, "next": following, "text": text})
    return 0


def _read(client: Client, line: Line, offset: str | None, limit: str | None) -> Answer:
    raw = "true" if line.values["raw"] else None
    query = {"offset": offset, "limit": limit, "raw": raw}
    return client.get(sandbox_path(line.values["sandbox"], "logs"), query)


def _print(line: Line, data: bytes | str) -> None:
    if isinstance(data, bytes) and line.values["raw"]:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    text = data if isinstance(data, str) else data.decode(errors="replace")
    if line.values["json"]:
        give(json.dumps({"text": text}) + "\n")
    else:
        give(text)


def _follow(client: Client, line: Line) -> int:
    """Until the sandbox has ended: status 0; whatever else ends it is an error."""
    query = {"offset": line.values["offset"] or "0"}
    query |= {"raw": "true"} if line.values["raw"] else {}
    path = sandbox_path(line.values["sandbox"], "logs").replace("/api/", "/ws/", 1)
    connection = bridge.connect(client.path, PATIENCE)
    if connection is None:
        raise Unreachable("the daemon ended meanwhile")
    with connection:
        socket = WebSocket(connection)
        status, body = _asked(socket, f"{path}?{urlencode(query)}")
        if status != 101:
            raise refused(Answer(status, {}, body))
        _all(socket, line)
    return 0


def _asked(socket: WebSocket, path: str) -> tuple[int, bytes]:
    try:
        return socket.open(path)
    except (OSError, ValueError, IndexError):
        raise Unreachable("the daemon does not answer") from None


def _all(socket: WebSocket, line: Line) -> None:
    frames = socket.frames()
    while True:
        try:
            frame = next(frames, None)
        except OSError:
            frame = None
        if frame is None:
            break
        _print(line, frame)  # outside of the try: a reader of ours that is gone is no daemon's end
    if socket.closed.code != _ENDED:
        why = socket.closed.reason or "the daemon ended"
        raise Unreachable(why, hint="Sandboxes go on: follow once more")


ACTIONS: dict[str, Callable[[Line], int]] = {"logs": logs}
