"""The values that every layer speaks of: frozen, slotted, standard library only.

Times are POSIX seconds (float, UTC); faces print them as RFC 3339. Sizes are bytes, durations
seconds, coordinates display pixels with the origin at the top left.
"""

from csb_mcp.model.bounds import (
    DEFAULT_MEMORY,
    DEFAULT_PIDS,
    MAX_COMMAND,
    MAX_ROWS,
    MAX_TEXT,
    MAX_WAIT,
)
from csb_mcp.model.event import (
    Event,
)
from csb_mcp.model.folders import (
    Folders,
)
from csb_mcp.model.sandbox import (
    AgentState,
    Launch,
    Limits,
    Problem,
    Sandbox,
    SandboxSpec,
    SandboxState,
)
from csb_mcp.model.screen import (
    DEFAULT_GEOMETRY,
    Frame,
    Geometry,
    Image,
    Point,
    Region,
    Screenshot,
)
from csb_mcp.model.terminal import (
    BackgroundCommand,
    CommandResult,
    KeysSent,
    LogPart,
    Rows,
    TerminalView,
)
from csb_mcp.model.usage import (
    HostUsage,
    Metrics,
    Sample,
    SandboxUsage,
)
from csb_mcp.model.waiting import (
    Condition,
    Exited,
    FileExists,
    Match,
    PortOpen,
    ScreenChanged,
    ScreenStable,
    TerminalIdle,
    TerminalRegex,
    TerminalText,
    WaitResult,
)

__all__ = [
    "DEFAULT_GEOMETRY",
    "DEFAULT_MEMORY",
    "DEFAULT_PIDS",
    "MAX_COMMAND",
    "MAX_ROWS",
    "MAX_TEXT",
    "MAX_WAIT",
    "AgentState",
    "BackgroundCommand",
    "CommandResult",
    "Condition",
    "Event",
    "Exited",
    "FileExists",
    "Folders",
    "Frame",
    "Geometry",
    "HostUsage",
    "Image",
    "KeysSent",
    "Launch",
    "Limits",
    "LogPart",
    "Match",
    "Metrics",
    "Point",
    "PortOpen",
    "Problem",
    "Region",
    "Rows",
    "Sample",
    "Sandbox",
    "SandboxSpec",
    "SandboxState",
    "SandboxUsage",
    "ScreenChanged",
    "ScreenStable",
    "Screenshot",
    "TerminalIdle",
    "TerminalRegex",
    "TerminalText",
    "TerminalView",
    "WaitResult",
]
