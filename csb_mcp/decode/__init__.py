"""Plain JSON values to model values and back: the one place where form is checked, for all faces.

Functions that take the arguments of a call refuse keys they do not know; null means "not given".
What is wrong is said as :class:`~csb_mcp.errors.InvalidInput` that names the field, the valid
choices and what to do. Whether a thing *may* be asked for is policy, and the service's matter.
"""

from csb_mcp.decode.conditions import CONDITIONS, condition_kind, conditions
from csb_mcp.decode.records import record, timestamp
from csb_mcp.decode.requests import (
    AGENTS,
    FORMATS,
    MODES,
    TARGETS,
    WORKSPACES,
    ReadTerminal,
    RunCommand,
    SendKeys,
    TakeScreenshot,
    Wait,
    list_filter,
    named_sandbox,
    optional_sandbox,
    read_terminal,
    run_command,
    sandbox_spec,
    screenshot,
    send_keys,
    wait,
)
from csb_mcp.decode.values import (
    duration,
    environment,
    geometry,
    key_list,
    name,
    reference,
    region,
    text,
)

__all__ = [
    "AGENTS",
    "CONDITIONS",
    "FORMATS",
    "MODES",
    "TARGETS",
    "WORKSPACES",
    "ReadTerminal",
    "RunCommand",
    "SendKeys",
    "TakeScreenshot",
    "Wait",
    "condition_kind",
    "conditions",
    "duration",
    "environment",
    "geometry",
    "key_list",
    "list_filter",
    "name",
    "named_sandbox",
    "optional_sandbox",
    "read_terminal",
    "record",
    "reference",
    "region",
    "run_command",
    "sandbox_spec",
    "screenshot",
    "send_keys",
    "text",
    "timestamp",
    "wait",
]
