"""Pictures of the display, and a hand on it."""

from csb_mcp import decode, errors
from csb_mcp.decode import schemas
from csb_mcp.errors import InvalidInput
from csb_mcp.model import Image, Screenshot
from csb_mcp.transports.http.answers import INTEGER, NUMBER, STRING
from csb_mcp.transports.http.replies import Reply, as_json
from csb_mcp.transports.http.route import Answer, Request, Route, json_answer, reference

_ONE = "/api/sandboxes/{sandbox}"
_FAILS = (errors.SandboxEnded, errors.DisplayFailed, errors.DeadlineExceeded)
_FRAME = json_answer("The frame right after it", reference("Frame"))
_BINARY = {"type": "string", "format": "binary"}
_NAMED = {
    "ETag": {**STRING, "description": "The frame, quoted: good for If-None-Match"},
    "Csb-Frame": {**STRING, "description": "Name of the picture"},
}


async def _screenshot(request: Request) -> Reply:
    asked = decode.screenshot(request.arguments)
    shot = await request.service.screenshot(
        asked.sandbox,
        region=asked.region,
        max_width=asked.max_width,
        format=asked.format,
        if_changed_since=asked.if_changed_since or _known(request),
    )
    named = {
        "etag": f'"{shot.frame}"',
        "csb-frame": shot.frame,
        "cache-control": "private, no-cache",
    }
    if shot.image is None:
        return Reply(b"", 304, named)
    return Reply(
        shot.image.data, 200, named | _place(shot, shot.image), f"image/{shot.image.format}"
    )


def _known(request: Request) -> str | None:
    """The frame in If-None-Match. What never was a frame is no mistake there, but no match."""
    tag = request.headers.get("if-none-match", "").partition(",")[0].strip()
    name = tag.removeprefix("W/").strip('"')
    try:
        return decode.screenshot({"sandbox": "x", "if_changed_since": name}).if_changed_since
    except InvalidInput:
        return None


def _place(shot: Screenshot, image: Image) -> dict[str, str]:
    region = shot.region
    return {
        "csb-region": f"{region.x},{region.y},{region.width},{region.height}",
        "csb-scale": f"{image.scale:.6g}",
        "csb-tokens": str(shot.tokens),
    }


async def _click(request: Request) -> Reply:
    asked = decode.click(request.arguments)
    frame = await request.service.click(
        asked.sandbox, asked.at, button=asked.button, count=asked.count, frame=asked.frame
    )
    return as_json({"frame": frame})


async def _drag(request: Request) -> Reply:
    asked = decode.drag(request.arguments)
    frame = await request.service.drag(
        asked.sandbox, asked.path, button=asked.button, frame=asked.frame
    )
    return as_json({"frame": frame})


async def _scroll(request: Request) -> Reply:
    asked = decode.scroll(request.arguments)
    frame = await request.service.scroll(
        asked.sandbox, asked.at, asked.dx, asked.dy, frame=asked.frame
    )
    return as_json({"frame": frame})


async def _type(request: Request) -> Reply:
    asked = decode.type_text(request.arguments)
    return as_json({"frame": await request.service.type_text(asked.sandbox, asked.text)})


ROUTES = (
    Route(
        method="GET",
        path=f"{_ONE}/screenshot",
        name="screenshot",
        summary="A picture of the display",
        description="Of an ended sandbox: its last one, as png.",
        handler=_screenshot,
        query=schemas.SCREENSHOT,
        headers={"If-None-Match": {**STRING, "description": "As if_changed_since, quoted"}},
        tool="screenshot",
        answers={
            200: Answer(
                "The picture",
                {f"image/{kind}": _BINARY for kind in decode.FORMATS},
                {
                    **_NAMED,
                    "Csb-Region": {**STRING, "description": "x,y,width,height on the display"},
                    "Csb-Scale": {**NUMBER, "description": "Its pixels per display pixel"},
                    "Csb-Tokens": {**INTEGER, "description": "What a model pays, roughly"},
                },
            ),
            304: Answer("It still looks as in that frame", {}, _NAMED),
        },
        errors=_FAILS,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/click",
        name="click",
        summary="Click",
        handler=_click,
        body=schemas.CLICK,
        tool="click",
        answers={200: _FRAME},
        errors=_FAILS,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/drag",
        name="drag",
        summary="Drag along a path",
        handler=_drag,
        body=schemas.DRAG,
        tool="drag",
        answers={200: _FRAME},
        errors=_FAILS,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/scroll",
        name="scroll",
        summary="Turn the wheel",
        description="At least one of dx and dy is not zero.",
        handler=_scroll,
        body=schemas.SCROLL,
        tool="scroll",
        answers={200: _FRAME},
        errors=_FAILS,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/type",
        name="typeText",
        summary="Type text in any script",
        handler=_type,
        body=schemas.TYPE_TEXT,
        tool="type_text",
        answers={200: _FRAME},
        errors=_FAILS,
    ),
)
