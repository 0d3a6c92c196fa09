"""The values that every layer speaks of: frozen, slotted, standard library only.

Times are POSIX seconds (float, UTC); faces print them as RFC 3339. Sizes are bytes, durations
seconds, coordinates display pixels with the origin at the top left.
"""

from csb_mcp.model.agent import (
    AgentFault,
    AgentState,
    Evidence,
    HookFact,
    Message,
    ModelUsage,
    Option,
    Question,
    ScreenFact,
    Source,
    Transcript,
)
from csb_mcp.model.bounds import (
    DEFAULT_MEMORY,
    DEFAULT_PIDS,
    MAX_COMMAND,
    MAX_ROWS,
    MAX_TEXT,
    MAX_WAIT,
)
from csb_mcp.model.egress import (
    Ask,
    Connection,
    Egress,
    EgressRequest,
    TriedHost,
    Verdict,
)
from csb_mcp.model.event import (
    Event,
)
from csb_mcp.model.folders import (
    Folders,
)
from csb_mcp.model.presets import PRESETS, resolved
from csb_mcp.model.sandbox import (
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
from csb_mcp.model.verification import (
    Outcome,
    Probe,
    Verification,
)
from csb_mcp.model.waiting import (
    Condition,
    EgressAsked,
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
    "PRESETS",
    "AgentFault",
    "AgentState",
    "Ask",
    "BackgroundCommand",
    "CommandResult",
    "Condition",
    "Connection",
    "Egress",
    "EgressAsked",
    "EgressRequest",
    "Event",
    "Evidence",
    "Exited",
    "FileExists",
    "Folders",
    "Frame",
    "Geometry",
    "HookFact",
    "HostUsage",
    "Image",
    "KeysSent",
    "Launch",
    "Limits",
    "LogPart",
    "Match",
    "Message",
    "Metrics",
    "ModelUsage",
    "Option",
    "Outcome",
    "Point",
    "PortOpen",
    "Probe",
    "Problem",
    "Question",
    "Region",
    "Rows",
    "Sample",
    "Sandbox",
    "SandboxSpec",
    "SandboxState",
    "SandboxUsage",
    "ScreenChanged",
    "ScreenFact",
    "ScreenStable",
    "Screenshot",
    "Source",
    "TerminalIdle",
    "TerminalRegex",
    "TerminalText",
    "TerminalView",
    "Transcript",
    "TriedHost",
    "Verdict",
    "Verification",
    "WaitResult",
    "resolved",
]
