"""JSON schemas of what :mod:`csb_mcp.decode` reads: one place for all faces that publish them.

What a schema refuses, the decoder refuses, too; but where the decoder also takes text for a number,
for the command line's sake, the schema does not say so. What no schema says well is left to the
decoder: which arguments go together.
"""

from csb_mcp.config import FORWARDS, NETWORKS
from csb_mcp.decode.conditions import AGENT_STATES, CONDITIONS, MAX_TOKENS
from csb_mcp.decode.desktop import BUTTONS, MAX_CLICKS, MAX_NOTCHES, MAX_POINTS
from csb_mcp.decode.egress import MAX_HOST, MAX_HOSTS, MAX_SECRETS
from csb_mcp.decode.requests import (
    AGENTS,
    DEFAULT_AGENT,
    FORMATS,
    MAX_LOG,
    MAX_TURNS,
    MODES,
    TARGETS,
    WORKSPACES,
)
from csb_mcp.decode.shapes import (
    NO_CONTROLS,
    Arguments,
    Json,
    choice,
    duration,
    seconds,
    several,
    text,
    whole,
)
from csb_mcp.decode.values import MAX_PIDS, MAX_WIDTH, MIN_MEMORY, MIN_PIDS
from csb_mcp.model import DEFAULT_PIDS, MAX_COMMAND, MAX_ROWS, MAX_TEXT, MAX_WAIT, SandboxState

_NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"
_PATH = 4096
_SIZE = r"^\d{1,12}([KMGT](iB|B)?)?$"
_BIGGEST_OFFSET = 10**12 - 1  # what the decoder takes as text, as it comes in a query


REFERENCE: Json = {
    "type": "string",
    "pattern": _NAME,
    "description": "Id of the sandbox, a unique prefix of it, or its name",
}
_TOKEN = text("As an earlier answer gave it", least=1, most=256, pattern="^[ -~]*$")
_CURSOR = {**_TOKEN, "description": "From an earlier answer: only what changed since is given"}
_FRAME = {
    **_TOKEN,
    "description": "Name of a screenshot: coordinates are pixels of that picture; without it, of "
    "the display",
}
_X = whole("Pixels from the left", 0, MAX_WIDTH)
_Y = whole("Pixels from the top", 0, MAX_WIDTH)
_BUTTON = choice("Of the mouse", BUTTONS, default="left")
_VARIABLE = "^[A-Za-z_][A-Za-z0-9_]{0,254}$"

_BUDGET: dict[str, Json] = {
    "max_tokens": whole("Of its agent; then it is paused", 1, MAX_TOKENS),
    "max_cost": {
        "type": "number",
        "minimum": 0,
        "maximum": 1_000_000,
        "description": "US dollars of its agent; then it is paused",
    },
    "max_turns": whole("Of its agent; then it is paused", 1, MAX_TURNS),
}
CREATE = Arguments(
    {
        "project_dir": text(
            "Absolute path on the host; the same path inside",
            least=1,
            most=_PATH,
            pattern=r"^/[^\u0000-\u001f]*$",
        ),
        "name": {"type": "string", "pattern": _NAME, "description": "Unique name"},
        "backend": {"type": "string", "pattern": _NAME, "default": "bubblewrap"},
        "agent": choice("What runs in it; with a command, command", AGENTS, default=DEFAULT_AGENT),
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
            "description": "true means full, false none; by default allowlist with hosts, "
            "secrets or an agent that needs it, else none",
        },
        "workspace": choice("How it sees the project", WORKSPACES, default="direct"),
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
        "pids": whole("Processes and threads", MIN_PIDS, MAX_PIDS, default=DEFAULT_PIDS),
        "ttl": duration('Ends after that long: seconds, or text such as "30m"'),
        "idle_timeout": duration("Ends after that long without output, input or a command"),
        "env": {
            "type": "object",
            "propertyNames": {"pattern": _VARIABLE},
            "additionalProperties": {"type": "string"},
            "description": "Variables for what runs inside",
        },
        "allow_hosts": several(
            "Hosts, *.hosts, presets that it may reach, by its proxy",
            {"type": "string", "minLength": 1, "maxLength": MAX_HOST},
            MAX_HOSTS,
        ),
        "secrets": several(
            "Names of secrets in the settings, which its proxy puts into requests",
            {"type": "string", "minLength": 1, "maxLength": 63},
            MAX_SECRETS,
        ),
        "forward": several("What is let in from the host", {"enum": list(FORWARDS)}, len(FORWARDS)),
        "verify": {
            "type": "boolean",
            "description": "Attack it first, and take it back if an attack succeeds",
            "default": False,
        },
        "task": text("First prompt of its agent, proved submitted", least=1),
        **_BUDGET,
    },
    ("project_dir",),
)
RESUME = Arguments(_BUDGET)
LIST = Arguments(
    {"state": choice("Only those in it", tuple(state.value for state in SandboxState))}
)
READ_TERMINAL = Arguments(
    {
        "cursor": _CURSOR,
        "lines": whole("At most that many last rows, history included", 1, MAX_ROWS),
    }
)
OBSERVE = Arguments({"cursor": _CURSOR})
SEND_PROMPT = Arguments(
    {
        "text": text("Submitted as one prompt", least=1),
        "queue": {
            "type": "boolean",
            "description": "If the agent is not ready, submit it once it is",
            "default": False,
        },
    },
    ("text",),
)
ANSWER = Arguments(
    {
        "question": text("Id of the question", least=1, most=1000),
        "option": text("Key of the option", least=1, most=1000),
        "text": text("What to say beside it, where the option takes text"),
    },
    ("question", "option"),
)
SEND_KEYS = Arguments(
    {
        "text": text("Typed literally, before the keys; does not press Enter"),
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
        "target": choice("Where they go", TARGETS, default="terminal"),
    }
)
CLICK = Arguments(
    {
        "x": _X,
        "y": _Y,
        "button": _BUTTON,
        "count": whole("2: a double click", 1, MAX_CLICKS, default=1),
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
        "dx": whole("Notches to the right", -MAX_NOTCHES, MAX_NOTCHES, default=0),
        "dy": whole("Notches down", -MAX_NOTCHES, MAX_NOTCHES, default=0),
        "frame": _FRAME,
    },
    ("x", "y"),
)
TYPE_TEXT = Arguments({"text": text("In any script, into what has the focus", least=1)}, ("text",))
SCREENSHOT = Arguments(
    {
        "region": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": MAX_WIDTH},
            "minItems": 4,
            "maxItems": 4,
            "description": "x, y, width, height in display pixels",
        },
        "max_width": whole("A wider picture is scaled down", 16, MAX_WIDTH, default=1280),
        "format": choice("Of the picture", FORMATS, default="png"),
        "if_changed_since": {**_TOKEN, "description": "Frame of an earlier one"},
    }
)
RUN_COMMAND = Arguments(
    {
        "command": text("A line for bash", least=1),
        "timeout": seconds("Then it is killed", MAX_COMMAND, default=30),
        "cwd": text("Default: the project", least=1, most=_PATH, pattern=NO_CONTROLS),
        "stdin": text("What it reads"),
        "background": {
            "type": "boolean",
            "description": "Return at once; it goes on",
            "default": False,
        },
    },
    ("command",),
)
_HOST = text(
    "A host, *.host, either with :PORT; or a preset", least=1, most=MAX_HOST, pattern="^[!-~]*$"
)
ALLOW_HOST = Arguments(
    {
        "host": _HOST,
        "once": {"type": "boolean", "description": "One connection only", "default": False},
    },
    ("host",),
)
DENY_HOST = Arguments({"host": _HOST}, ("host",))
READ_LOG = Arguments(
    {
        "offset": whole("First byte; without it, the last bytes", 0, _BIGGEST_OFFSET),
        "limit": whole("Bytes at most", 1, MAX_LOG, default=64 * 1024),
    }
)
_WAITED_FOR: Json = {
    "terminal_text": text("Stands on the terminal, or passed", least=1, most=1000),
    "terminal_regex": text("Finds a match on one row", least=1, most=1000),
    "terminal_idle": seconds("Seconds without output", MAX_WAIT),
    "screen_changed": {**_TOKEN, "description": "Differs from this frame"},
    "screen_stable": seconds("Seconds without a change", MAX_WAIT),
    "exited": {"const": True, "description": "The sandbox has ended"},
    "file": text("Path inside that exists", least=1, most=_PATH, pattern=NO_CONTROLS),
    "port": whole("TCP, something inside listens", 1, 65535),
    "egress_request": {"const": True, "description": "A host was asked for, and not answered yet"},
    "agent_state": choice("The agent inside is in it", AGENT_STATES),
    "question": {"const": True, "description": "The agent inside waits for an answer"},
    "turn_finished": {"const": True, "description": "The agent inside has ended a turn"},
    "tokens_over": whole("The agent inside has used more", 0, MAX_TOKENS),
    "cost_over": {
        "type": "number",
        "minimum": 0,
        "maximum": 1_000_000,
        "description": "US dollars; the agent inside has used more",
    },
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
        "mode": choice(
            "any: the first condition in any sandbox ends the wait; all: every one in every "
            "sandbox",
            MODES,
            default="any",
        ),
        "timeout": seconds("Seconds", MAX_WAIT, default=30),
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
