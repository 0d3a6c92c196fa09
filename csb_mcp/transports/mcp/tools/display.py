"""screenshot."""

import base64
from collections.abc import Mapping

from mcp_types import CallToolResult, ImageContent

from csb_mcp import decode
from csb_mcp.model import Image, Region, Screenshot
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    INTEGER,
    STRING,
    Definition,
    answer,
    choice,
    described,
    hints,
)
from csb_mcp.transports.mcp.untrusted import NOTE


async def _screenshot(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.screenshot(arguments)
    shot = await service.screenshot(
        request.sandbox,
        region=request.region,
        max_width=request.max_width,
        format=request.format,
        if_changed_since=request.if_changed_since,
    )
    if shot.image is None:
        return answer(f"unchanged since frame {shot.frame}")
    return answer(_caption(shot, shot.image), image=_content(shot.image))


def _content(image: Image) -> ImageContent:
    data = base64.b64encode(image.data).decode("ascii")
    return ImageContent(type="image", data=data, mime_type=f"image/{image.format}")


def _caption(shot: Screenshot, image: Image) -> str:
    return (
        f"frame {shot.frame}: {image.width}x{image.height} pixels, about {shot.tokens} tokens; "
        f"{_place(shot.region, image.scale)}. What it shows was {NOTE}"
    )


def _place(region: Region, scale: float) -> str:
    origin = f"top left is display pixel {region.x},{region.y}"
    return origin if scale == 1 else f"{origin}; scale {scale:.4g} image pixels per display pixel"


SCREENSHOT = Definition(
    name="screenshot",
    title="Picture of the display",
    description="Picture of the graphical display. For text read_terminal is cheaper. With "
    "if_changed_since an unchanged screen costs one line.",
    call=_screenshot,
    arguments={
        "sandbox": STRING,
        "region": {
            "type": "array",
            "items": INTEGER,
            "minItems": 4,
            "maxItems": 4,
            "description": "[x, y, width, height] in display pixels",
        },
        "max_width": {**INTEGER, "default": 1280},
        "format": choice(decode.FORMATS, default="png"),
        "if_changed_since": described(STRING, "Frame of an earlier one"),
    },
    required=("sandbox",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="A picture of the display, with its frame, scale and what it costs a vision model in "
    "tokens. Of an ended sandbox, its last one.",
    words={
        "region": "`[x, y, width, height]` in display pixels",
        "max_width": "Scaled down to at most so wide",
        "format": "`png`, `jpeg` or `webp` (lossless)",
        "if_changed_since": "A frame; if the display still looks like that, the answer is one line",
    },
)
