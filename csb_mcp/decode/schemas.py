"""JSON schemas of what :mod:`csb_mcp.decode` reads: one place for all faces that publish them.

What a schema refuses, the decoder refuses, too; but where the decoder also takes text for a number,
for the command line's sake, the schema does not say so. What no schema says well is left to the
decoder: which arguments go together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csb_mcp.config import NETWORKS
from csb_mcp.decode.conditions import CONDITIONS
from csb_mcp.decode.desktop import BUTTONS, MAX_CLICKS, MAX_LOG, MAX_NOTCHES, MAX_POINTS
from csb_mcp.decode.requests import AGENTS, FORMATS, MODES, TARGETS, WORKSPACES
from csb_mcp.decode.values import MAX_PIDS, MAX_WIDTH, MIN_MEMORY, MIN_PIDS
from csb_mcp.model import DEFAULT_PIDS, MAX_COMMAND, MAX_ROWS, MAX_TEXT, MAX_WAIT, SandboxState

Json = dict[str, Any]

_NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"
_PATH = 4096
_DURATION = r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)?$"
_SIZE = r"^\d{1,12}([KMGT](iB|B)?)?$"
_BIGGEST_OFFSET = 10**12 - 1  # what the decoder takes as text, as it comes in a query
_NO_NUL = r"^[^\u0000]*$"
_NO_CONTROLS = r"^[^\u0000-\u001f]*$"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, by name, ``sandbox`` aside. A query has no null."""

    properties: Mapping[str, Json]
    required: tuple[str, ...] = ()

    def schema(self) -> Json:
        """As one object schema, which refuses unknown arguments; null stands for "not given"."""
        found: Json = {
            "type": "object",
            "properties": {
                name: schema if name in self.required else _or_null(schema)
                for name, schema in self.properties.items()
            },
            "additionalProperties": False,
        }
        return found | ({"required": list(self.required)} if self.required else {})


def _or_null(schema: Json) -> Json:
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | enum


def _text(
    description: str, *, least: int = 0, most: int = MAX_TEXT, pattern: str = _NO_NUL
) -> Json:
    length = {"minLength": least} if least else {}
    return {
        "type": "string",
        "description": description,
        **length,
        "maxLength": most,
        "pattern": pattern,
    }


def _whole(description: str, least: int, most: int, **more: object) -> Json:
    bounds = {"minimum": least, "maximum": most}
    return {"type": "integer", "description": description, **bounds, **more}


def _seconds(description: str, most: float, **more: object) -> Json:
    bounds = {"exclusiveMinimum": 0, "maximum": most}
    return {"type": "number", "description": description, **bounds, **more}


def _duration(description: str) -> Json:
    kinds = [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": _DURATION}]
    return {"anyOf": kinds, "description": description}


def _choice(description: str, valid: tuple[str, ...], **more: object) -> Json:
    return {"type": "string", "enum": list(valid), "description": description, **more}


REFERENCE: Json = {
    "type": "string",
    "pattern": _NAME,
    "description": "Id of the sandbox, a unique prefix of it, or its name",
}
_TOKEN = _text("As an earlier answer gave it", least=1, most=256, pattern="^[ -~]*$")
_CURSOR = {**_TOKEN, "description": "From an earlier answer: only what changed since is given"}
_FRAME = {
    **_TOKEN,
    "description": "Name of a screenshot: coordinates are pixels of that picture; without it, of "
    "the display",
}
_X = _whole("Pixels from the left", 0, MAX_WIDTH)
_Y = _whole("Pixels from the top", 0, MAX_WIDTH)
_BUTTON = _choice("Of the mouse", BUTTONS, default="left")
_VARIABLE = "^[A-Za-z_][A-Za-z0-9_]{0,254}$"

CREATE = Arguments(
    {
        "project_dir": _text(
            "Absolute path on the host; the same path inside",
            least=1,
            most=_PATH,
            pattern=r"^/[^\u0000-\u001f]*$",
        ),
        "name": {"type": "string", "pattern": _NAME, "description": "Unique name"},
        "backend": {"type": "string", "pattern": _NAME, "default": "bubblewrap"},
        "agent": _choice("What runs in it; command: see there", AGENTS, default="shell"),
        "command": {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
                {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 1,
                    "maxItems": 256,
                },
            ],
            "description": 'Program and arguments, or one line for bash; for agent "command"',
        },
        "network": {
            "anyOf": [{"enum": list(NETWORKS)}, {"type": "boolean"}],
            "description": "true means full, false none",
            "default": "none",
        },
        "workspace": _choice("How it sees the project", WORKSPACES, default="direct"),
        "geometry": {
            "type": "string",
            "pattern": r"^\d{2,4}x\d{2,4}$",
            "description": "Of the display, from 64x64 to 7680x4320",
            "default": "1280x800",
        },
        "gl": {"type": "boolean", "description": "Software OpenGL", "default": False},
        "memory": {
            "anyOf": [
                {"type": "integer", "minimum": MIN_MEMORY, "maximum": 16 * 1024**4},
                {"type": "string", "pattern": _SIZE},
            ],
            "description": "Bytes, or text such as 512M, from 128M to 16T",
            "default": "4G",
        },
        "cpus": {
            "type": "number",
            "minimum": 0.05,
            "maximum": 1024,
            "description": "Processors' worth of time, such as 1.5",
        },
        "pids": _whole("Processes and threads", MIN_PIDS, MAX_PIDS, default=DEFAULT_PIDS),
        "ttl": _duration('Ends after that long: seconds, or text such as "30m"'),
        "idle_timeout": _duration("Ends after that long without output, input or a command"),
        "env": {
            "type": "object",
            "propertyNames": {"pattern": _VARIABLE},
            "additionalProperties": {"type": "string"},
            "description": "Variables for what runs inside",
        },
    },
    ("project_dir",),
)
LIST = Arguments(
    {"state": _choice("Only those in it", tuple(state.value for state in SandboxState))}
)
READ_TERMINAL = Arguments(
    {
        "cursor": _CURSOR,
        "lines": _whole("At most that many last rows, history included", 1, MAX_ROWS),
    }
)
SEND_KEYS = Arguments(
    {
        "text": _text("Typed literally, before the keys; does not press Enter"),
        "keys": {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 1024},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1, "maxLength": 32},
                    "minItems": 1,
                    "maxItems": 256,
                },
            ],
            "description": 'Key names, as a list or divided by blanks: "C-c Up Enter"',
        },
        "target": _choice("Where they go", TARGETS, default="terminal"),
    }
)
CLICK = Arguments(
    {
        "x": _X,
        "y": _Y,
        "button": _BUTTON,
        "count": _whole("2: a double click", 1, MAX_CLICKS, default=1),
        "frame": _FRAME,
    },
    ("x", "y"),
)
DRAG = Arguments(
    {
        "path": {
            "type": "array",
            "items": {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": MAX_WIDTH},
                "minItems": 2,
                "maxItems": 2,
            },
            "minItems": 2,
            "maxItems": MAX_POINTS,
            "description": "Points [x, y]: pressed at the first, let go at the last",
        },
        "button": _BUTTON,
        "frame": _FRAME,
    },
    ("path",),
)
SCROLL = Arguments(
    {
        "x": _X,
        "y": _Y,
        "dx": _whole("Notches to the right", -MAX_NOTCHES, MAX_NOTCHES, default=0),
        "dy": _whole("Notches down", -MAX_NOTCHES, MAX_NOTCHES, default=0),
        "frame": _FRAME,
    },
    ("x", "y"),
)
TYPE_TEXT = Arguments({"text": _text("In any script, into what has the focus", least=1)}, ("text",))
SCREENSHOT = Arguments(
    {
        "region": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": MAX_WIDTH},
            "minItems": 4,
            "maxItems": 4,
            "description": "x, y, width, height in display pixels",
        },
        "max_width": _whole("A wider picture is scaled down", 16, MAX_WIDTH, default=1280),
        "format": _choice("Of the picture", FORMATS, default="png"),
        "if_changed_since": {**_TOKEN, "description": "Frame of an earlier one"},
    }
)
RUN_COMMAND = Arguments(
    {
        "command": _text("A line for bash", least=1),
        "timeout": _seconds("Then it is killed", MAX_COMMAND, default=30),
        "cwd": _text("Default: the project", least=1, most=_PATH, pattern=_NO_CONTROLS),
        "stdin": _text("What it reads"),
        "background": {
            "type": "boolean",
            "description": "Return at once; it goes on",
            "default": False,
        },
    },
    ("command",),
)
READ_LOG = Arguments(
    {
        "offset": _whole("First byte; without it, the last bytes", 0, _BIGGEST_OFFSET),
        "limit": _whole("Bytes at most", 1, MAX_LOG, default=64 * 1024),
    }
)
_WAITED_FOR: Json = {
    "terminal_text": _text("Stands on the terminal, or passed", least=1, most=1000),
    "terminal_regex": _text("Finds a match on one row", least=1, most=1000),
    "terminal_idle": _seconds("Seconds without output", MAX_WAIT),
    "screen_changed": {**_TOKEN, "description": "Differs from this frame"},
    "screen_stable": _seconds("Seconds without a change", MAX_WAIT),
    "exited": {"const": True, "description": "The sandbox has ended"},
    "file": _text("Path inside that exists", least=1, most=_PATH, pattern=_NO_CONTROLS),
    "port": _whole("TCP, something inside listens", 1, 65535),
}
CONDITION: Json = {
    "type": "object",
    "description": "One key",
    "properties": {kind: _WAITED_FOR[kind] for kind in CONDITIONS},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
WAIT = Arguments(
    {
        "sandboxes": {
            "anyOf": [
                REFERENCE,
                {"type": "array", "items": REFERENCE, "minItems": 1, "maxItems": 32},
            ],
            "description": "One or several",
        },
        "until": {"type": "array", "items": CONDITION, "minItems": 1, "maxItems": 16},
        "mode": _choice(
            "any: the first condition in any sandbox ends the wait; all: every one in every "
            "sandbox",
            MODES,
            default="any",
        ),
        "timeout": _seconds("Seconds", MAX_WAIT, default=30),
        "cursor": {
            "anyOf": [
                _TOKEN,
                {
                    "type": "object",
                    "propertyNames": {"pattern": _NAME},
                    "additionalProperties": _TOKEN,
                },
            ],
            "description": "Look at what came after it; by sandbox if there are several",
        },
    },
    ("sandboxes", "until"),
)
