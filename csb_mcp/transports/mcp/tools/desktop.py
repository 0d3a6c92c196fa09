"""click, drag, scroll, type_text."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    INTEGER,
    STRING,
    Definition,
    Json,
    answer,
    choice,
    described,
    hints,
)

_COORDINATE: Json = {**INTEGER, "minimum": 0}
_FRAME = described(STRING, "Coordinates are pixels of this screenshot, not of the display")
_NOTCHES: Json = {**INTEGER, "default": 0}
_BUTTON = choice(decode.BUTTONS, default="left")
_FRAME_WORDS = (
    "Frame of a screenshot: coordinates are pixels of that picture, as it was cut and scaled. "
    "Without it, of the display"
)


async def _click(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.click(arguments)
    frame = await service.click(
        asked.sandbox, asked.at, button=asked.button, count=asked.count, frame=asked.frame
    )
    return _done("clicked", frame)


async def _drag(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.drag(arguments)
    frame = await service.drag(asked.sandbox, asked.path, button=asked.button, frame=asked.frame)
    return _done("dragged", frame)


async def _scroll(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.scroll(arguments)
    frame = await service.scroll(asked.sandbox, asked.at, asked.dx, asked.dy, frame=asked.frame)
    return _done("scrolled", frame)


async def _type(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.type_text(arguments)
    frame = await service.type_text(asked.sandbox, asked.text)
    return _done(f"typed {len(asked.text)} characters", frame)


def _done(what: str, frame: str) -> CallToolResult:
    return answer(
        f"{what}; frame {frame} right after it\n"
        'To see what came of it, wait for {"screen_stable": 0.5} and take a screenshot with '
        "if_changed_since that frame"
    )


CLICK = Definition(
    name="click",
    title="Click on the display",
    description="Click at a place of the display. Gives the frame right after it.",
    call=_click,
    arguments={
        "sandbox": STRING,
        "x": _COORDINATE,
        "y": _COORDINATE,
        "button": _BUTTON,
        "count": described(INTEGER, "2: double", default=1, minimum=1, maximum=decode.MAX_CLICKS),
        "frame": _FRAME,
    },
    required=("sandbox", "x", "y"),
    annotations=hints(destructive=True, open_world=True),
    about="Moves the pointer there and clicks. Gives the frame right after it, before a program "
    "had time to draw: wait until the screen is stable, then take a screenshot.",
    words={
        "button": "`left`, `middle` or `right`",
        "count": f"2 is a double click; at most {decode.MAX_CLICKS}",
        "frame": _FRAME_WORDS,
    },
    after="""\
### Windows

The window under the pointer has the focus: click into a window before you type. The small box at
the left of a window's bar closes it. The middle button drags a window by its bar, the left one by
an edge makes it larger or smaller; a click on the bar raises it. A right click on the bar hides a
window, a right press on the empty desktop lists those that are hidden. If a program holds the X
server, input fails after two seconds with `deadline_exceeded`, and nothing stays pressed.
""",
)

DRAG = Definition(
    name="drag",
    title="Drag on the display",
    description="Press at the first point, move through the others, release at the last.",
    call=_drag,
    arguments={
        "sandbox": STRING,
        "path": {
            "type": "array",
            "description": "[[x, y], ...]",
            "items": {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2},
            "minItems": 2,
            "maxItems": decode.MAX_POINTS,
        },
        "button": _BUTTON,
        "frame": _FRAME,
    },
    required=("sandbox", "path"),
    annotations=hints(destructive=True, open_world=True),
    about="Presses the button at the first point, moves through the others in small steps, as a "
    "hand does, and releases it at the last.",
    words={
        "path": f"2 to {decode.MAX_POINTS} points, each `[x, y]`",
        "button": "`left`, `middle` or `right`",
        "frame": _FRAME_WORDS,
    },
)

SCROLL = Definition(
    name="scroll",
    title="Scroll on the display",
    description="Turn the wheel at a place of the display.",
    call=_scroll,
    arguments={
        "sandbox": STRING,
        "x": _COORDINATE,
        "y": _COORDINATE,
        "dx": _NOTCHES,
        "dy": described(INTEGER, "Notches; below 0: up", default=0),
        "frame": _FRAME,
    },
    required=("sandbox", "x", "y"),
    annotations=hints(open_world=True),
    about="Moves the pointer there and turns the wheel. At least one of `dx` and `dy` is not 0.",
    words={
        "dx": f"Notches to the right, below 0 to the left; at most {decode.MAX_NOTCHES}",
        "dy": f"Notches down, below 0 up; at most {decode.MAX_NOTCHES}",
        "frame": _FRAME_WORDS,
    },
)

TYPE_TEXT = Definition(
    name="type_text",
    title="Type on the display",
    description="Type text in any script into the window that has the focus; a newline is Return. "
    'For keys: send_keys with target="display".',
    call=_type,
    arguments={"sandbox": STRING, "text": STRING},
    required=("sandbox", "text"),
    annotations=hints(destructive=True, open_world=True),
    about="Types text in any script into the window that has the focus. For keys and combinations "
    'call `send_keys` with `target="display"`.',
    words={
        "text": "At most 10,000 characters. A newline is Return, a tab Tab; other control "
        "characters are refused. What the keyboard lacks takes longer: some seconds for hundreds"
    },
)
