"""wait."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.model import MAX_WAIT, WaitResult
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    STRINGS,
    Definition,
    Json,
    answer,
    choice,
    described,
    hints,
)
from csb_mcp.transports.mcp.untrusted import NOTE, fenced


async def _wait(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.wait(arguments)
    result = await service.wait(
        request.sandboxes,
        request.until,
        mode=request.mode,
        timeout=request.timeout,
        cursor=request.cursor,
    )
    advice = f"evidence is {NOTE}" if result.satisfied else "not yet: wait again with the cursors"
    structured = {**answers.waited(result, request.until), "note": advice}
    return answer(_told(result, structured), structured)


def _told(result: WaitResult, structured: Json) -> str:
    state = "satisfied" if result.satisfied else "not satisfied: wait again with the cursors"
    cursors = ", ".join(f"{sandbox} {cursor}" for sandbox, cursor in result.cursors.items())
    lines = [f"{state} after {result.waited:.1f} s; next cursors: {cursors or 'none'}"]
    if structured["matches"]:
        evidence = [
            f"{match['sandbox']} [{match['index']}] {match['condition']}: {match['evidence']}"
            for match in structured["matches"]
        ]
        lines.append(fenced("\n".join(evidence), "evidence"))
    return "\n".join(lines)


WAIT = Definition(
    name="wait",
    title="Wait for something to happen",
    description="Wait until conditions come true, at most 45 s; costs nothing meanwhile, so prefer "
    "it to polling. If not satisfied, call again with the cursors it gives.",
    call=_wait,
    arguments={
        "sandboxes": {"anyOf": [STRING, STRINGS]},
        "until": {
            "type": "array",
            "description": "Objects with one key each",
            "items": {
                "type": "object",
                "properties": {
                    "terminal_text": STRING,
                    "terminal_regex": STRING,
                    "terminal_idle": described(NUMBER, "Seconds without output"),
                    "screen_changed": described(STRING, "Frame of a screenshot"),
                    "screen_stable": described(NUMBER, "Seconds without a change"),
                    "exited": {"const": True},
                    "file": described(STRING, "Path inside"),
                    "port": described(INTEGER, "TCP, inside"),
                    "egress_request": described({"const": True}, "Asks for a host"),
                    "agent_state": STRING,
                    "question": {"const": True},
                    "turn_finished": {"const": True},
                    "tokens_over": INTEGER,
                    "cost_over": described(NUMBER, "$"),
                },
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            },
        },
        "mode": choice(decode.MODES, default="any"),
        "timeout": described(NUMBER, "Seconds", default=30, maximum=MAX_WAIT),
        "cursor": {
            "anyOf": [STRING, {"type": "object", "additionalProperties": STRING}],
            "description": "Look at what came after it; by sandbox if there are several",
        },
    },
    required=("sandboxes", "until"),
    output={
        "satisfied": BOOLEAN,
        "matches": {"type": "array", "items": {"type": "object"}},
        "cursors": {"type": "object"},
        "waited": NUMBER,
        "note": STRING,
    },
    output_required=("satisfied", "matches", "cursors"),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="Waits until conditions come true, without cost meanwhile. Not satisfied after "
    "`timeout`: call it again with the cursors it gave, and nothing between the two is missed.",
    words={
        "sandboxes": "One, or a list",
        "until": "List of 1 to 16 conditions, each an object with one key",
        "mode": "`any`: the first condition in any sandbox ends the wait. `all`: each must come "
        "true once in each",
        "timeout": f"Seconds, at most {MAX_WAIT:g}: desktop clients cut calls at 60",
        "cursor": "Terminal text is looked for in what came after it. With several sandboxes an "
        "object, cursor by sandbox. Without: the present screen counts too",
    },
    after="""\
### Conditions

| key | value | true when |
| --- | --- | --- |
| `terminal_text` | text | it stands on the terminal, or passed through since the cursor |
| `terminal_regex` | pattern | a Python regular expression matches within one row |
| `terminal_idle` | seconds | nothing was printed for so long |
| `screen_changed` | frame | the display differs from that frame |
| `screen_stable` | seconds | the display has not changed for so long |
| `exited` | `true` | the sandbox has ended |
| `file` | path | it exists inside; relative to the project |
| `port` | number | something inside listens on this TCP port |
| `egress_request` | `true` | a host was asked for that no rule names, and nobody has answered yet |
| `agent_state` | state | the agent inside is in it: `starting`, `ready`, `working`, `question`, \
`error`, `exited` |
| `question` | `true` | the agent inside waits for an answer; the evidence has its id |
| `turn_finished` | `true` | it has ended a turn since the cursor, or since the wait began |
| `tokens_over` | number | it has used more tokens, of all kinds |
| `cost_over` | dollars | it has used more, by the price table |
""",
)
