"""What a terminal printed, as a file that grows."""

from http import HTTPStatus

from csb_mcp import decode
from csb_mcp.decode.schemas import READ_LOG, Arguments
from csb_mcp.decode.values import named, truth
from csb_mcp.lib.text import plain_text
from csb_mcp.transports.http.answers import BOOLEAN, INTEGER, STRING
from csb_mcp.transports.http.plain import whole
from csb_mcp.transports.http.problems import Refused
from csb_mcp.transports.http.replies import Reply, as_text
from csb_mcp.transports.http.route import Answer, Request, Route

_RAW = {
    "raw": {"type": "boolean", "description": "The bytes as printed, escapes and all"},
}
READ = Arguments({**READ_LOG.properties, **_RAW})
FOLLOW = Arguments({"offset": READ_LOG.properties["offset"], **_RAW})
_TOKENS = {"connection": "Upgrade", "upgrade": "websocket"}


def whether(field: str, value: object) -> bool:
    """A truth, or None for false. Raises InvalidInput that names the field."""
    return value is not None and named(field, truth, value)


async def _read(request: Request) -> Reply:
    values = dict(request.arguments)
    raw = whether("raw", values.pop("raw", None))
    asked = decode.read_log(values)
    part = await request.service.read_log(asked.sandbox, offset=asked.offset, limit=asked.limit)
    first, last = (0, len(part.data)) if raw else whole(part.data)
    headers = {
        "csb-offset": str(part.offset + first),
        "csb-next": str(part.next - (len(part.data) - last)),
        "csb-gap": str(part.gap).lower(),
        "csb-ended": str(part.ended).lower(),
    }
    if raw:
        return Reply(part.data, 200, headers, "application/octet-stream")
    return as_text(plain_text(part.data[first:last].decode(errors="replace")), headers)


async def _upgrade(_: Request) -> Reply:
    raise Refused(
        HTTPStatus.UPGRADE_REQUIRED,
        "upgrade_required",
        "a live log is a WebSocket",
        hint="Open it with a WebSocket client; GET /api/sandboxes/{sandbox}/logs reads a part",
        headers=_TOKENS,
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/sandboxes/{sandbox}/logs",
        name="readLog",
        summary="What the terminal printed since the start",
        description="Of an ended sandbox too. Without offset: the end of it. To go on, give the "
        "offset that Csb-Next named. Parts are cut so that no character and no escape is "
        "divided, so a part may be a little shorter than limit; with raw=true it never is.",
        handler=_read,
        query=READ,
        answers={
            200: Answer(
                "A part of the log: text without escapes; with raw=true, the bytes",
                {
                    "text/plain": STRING,
                    "application/octet-stream": {"type": "string", "format": "binary"},
                },
                {
                    "Csb-Offset": {**INTEGER, "description": "Of the part's first byte"},
                    "Csb-Next": {**INTEGER, "description": "Where the next part begins"},
                    "Csb-Gap": {**BOOLEAN, "description": "What lay before is no longer kept"},
                    "Csb-Ended": {**BOOLEAN, "description": "Nothing follows an empty part"},
                },
            )
        },
    ),
    Route(
        method="GET",
        path="/ws/sandboxes/{sandbox}/logs",
        name="followLog",
        summary="The log, live, over WebSocket",
        description="Frames of text (with raw=true: of bytes): first what was printed from "
        "offset (default 0) on, then what is printed. Closed with 1000 when the sandbox has "
        "ended, 1012 when the daemon ends. A client that takes nothing for 20 seconds is cut off.",
        handler=_upgrade,
        query=FOLLOW,
        answers={101: Answer("A WebSocket")},
        refusals=(HTTPStatus.UPGRADE_REQUIRED,),
    ),
)
