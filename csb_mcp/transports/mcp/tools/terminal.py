"""read_terminal, send_keys, wait."""

from collections.abc import Mapping, Sequence

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import MAX_WAIT, Condition, TerminalView, WaitResult
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
from csb_mcp.transports.mcp.untrusted import NOTE, fenced, newest_rows

_EVIDENCE = 500  # characters


async def _read(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.read_terminal(arguments)
    view = await service.read_terminal(request.sandbox, cursor=request.cursor, lines=request.lines)
    head = f"next cursor: {view.cursor}"
    if view.changed_only and not view.rows:
        return answer(f"nothing changed; {head}")
    rows, left_out = newest_rows(_rows(view))
    notes = [head, *_notes(view, left_out)]
    what = "changed rows" if view.changed_only else "terminal"
    return answer("\n".join([*notes, fenced("\n".join(rows), f"{what} of {request.sandbox}")]))


def _rows(view: TerminalView) -> list[str]:
    """Rows as lines; numbered only where some between them did not change."""
    rows = [(number, plain_text(text).replace("\n", " ")) for number, text in view.rows]
    if view.changed_only:
        whole = rows[-1][0] - rows[0][0] + 1 == len(rows)
        return [text if whole else f"{number}| {text}" for number, text in rows]
    lines = [text for _, text in rows]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _notes(view: TerminalView, left_out: int) -> list[str]:
    notes: list[str] = []
    if view.gap:
        notes.append("gap: rows were lost since that cursor; this is the whole screen")
    if view.cut:
        notes.append(f"{view.cut} older rows left out: ask for more lines to see them")
    if left_out:
        notes.append(
            f"{left_out} older rows left out, an answer holds no more; "
            "all of it is in the sandbox's log on the host"
        )
    return notes


async def _send(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.send_keys(arguments)
    sent = await service.send_keys(
        request.sandbox, text=request.text, keys=request.keys, target=request.target, paste=False
    )
    return answer(
        f"sent {', '.join(sent.sent)}; cursor from before it: {sent.cursor}\n"
        "To see what it does, call wait or read_terminal with that cursor"
    )


async def _wait(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.wait(arguments)
    result = await service.wait(
        request.sandboxes,
        request.until,
        mode=request.mode,
        timeout=request.timeout,
        cursor=request.cursor,
    )
    structured = _structured(result, request.until)
    return answer(_told(result, structured), structured)


def _structured(result: WaitResult, until: Sequence[Condition]) -> Json:
    matches = [
        {
            "sandbox": match.sandbox,
            "index": match.index,
            "condition": decode.condition_kind(until[match.index]),
            "evidence": one_line(match.evidence, _EVIDENCE),
        }
        for match in result.matches
    ]
    advice = f"evidence is {NOTE}" if result.satisfied else "not yet: wait again with the cursors"
    return {
        "satisfied": result.satisfied,
        "matches": matches,
        "cursors": dict(result.cursors),
        "waited": round(result.waited, 3),
        "note": advice,
    }


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


READ = Definition(
    name="read_terminal",
    title="Read the terminal",
    description="The screen as text; with a cursor only the rows changed since then; with lines "
    "also history. Much cheaper than a screenshot.",
    call=_read,
    arguments={
        "sandbox": STRING,
        "cursor": described(STRING, "From an earlier answer"),
        "lines": described(INTEGER, "At most that many last rows", minimum=1, maximum=10_000),
    },
    required=("sandbox",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
)

SEND_KEYS = Definition(
    name="send_keys",
    title="Type into the terminal",
    description="Type text literally, then press keys. text alone does not press Enter: add "
    'keys=["Enter"]. Then wait with the cursor it gives.',
    call=_send,
    arguments={
        "sandbox": STRING,
        "text": STRING,
        "keys": {
            "anyOf": [STRING, STRINGS],
            "description": 'Key names: Enter, Tab, Escape, Up, F5, C-c, M-x; "C-c Up" or a list',
        },
        "target": choice(decode.TARGETS, default="terminal"),
    },
    required=("sandbox",),
    annotations=hints(destructive=True, open_world=True),
)

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
                    "terminal_regex": described(STRING, "Matched row by row"),
                    "terminal_idle": described(NUMBER, "Seconds without output"),
                    "screen_changed": described(STRING, "Frame of a screenshot"),
                    "screen_stable": described(NUMBER, "Seconds without a change"),
                    "exited": {"const": True},
                    "file": described(STRING, "Path inside"),
                    "port": described(INTEGER, "TCP, inside"),
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
)
