"""read_terminal, send_keys."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.model import MAX_ROWS, KeysSent, TerminalView
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    INTEGER,
    STRING,
    STRINGS,
    Definition,
    answer,
    choice,
    hints,
)
from csb_mcp.transports.mcp.untrusted import fenced, newest_rows


async def _read(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.read_terminal(arguments)
    view = await service.read_terminal(request.sandbox, cursor=request.cursor, lines=request.lines)
    return answer(shown(view, request.sandbox))


def shown(view: TerminalView, sandbox: str) -> str:
    """What the terminal shows, marked as the sandbox's, and how to go on from there."""
    head = f"next cursor: {view.cursor}"
    if view.changed_only and not view.rows:
        return f"nothing changed; {head}"
    rows, left_out = newest_rows(_rows(view))
    notes = [head, *_notes(view, left_out)]
    what = "changed rows" if view.changed_only else "terminal"
    return "\n".join([*notes, fenced("\n".join(rows), f"{what} of {sandbox}")])


def _rows(view: TerminalView) -> list[str]:
    """Rows as lines; numbered only where some between them did not change."""
    rows = answers.rows(view)
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
            "the sandbox's log has more: resource csb://sandbox/ID/log"
        )
    return notes


async def _send(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.send_keys(arguments)
    sent = await service.send_keys(
        request.sandbox, text=request.text, keys=request.keys, target=request.target, paste=False
    )
    return answer(_told(request.target, sent))


def _told(target: str, sent: KeysSent) -> str:
    what = f"sent {', '.join(sent.sent)}"
    if target == "display":
        return (
            f"{what} to the display\n"
            'To see what it does, wait for {"screen_stable": 0.5} and take a screenshot'
        )
    return (
        f"{what}; cursor from before it: {sent.cursor}\n"
        "To see what it does, call wait or read_terminal with that cursor"
    )


READ = Definition(
    name="read_terminal",
    title="Read the terminal",
    description="The screen as text; with a cursor only the rows changed since then; with lines "
    "also history. Much cheaper than a screenshot.",
    call=_read,
    arguments={
        "sandbox": STRING,
        "cursor": STRING,
        "lines": {**INTEGER, "minimum": 1, "maximum": MAX_ROWS},
    },
    required=("sandbox",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="The screen as plain text. With a cursor, the rows that changed since; rows are numbered "
    "where some between them did not change. Of an ended sandbox, its last screen.",
    words={
        "cursor": "From an earlier answer",
        "lines": f"The last rows instead, history included; at most {MAX_ROWS}",
    },
)

SEND_KEYS = Definition(
    name="send_keys",
    title="Type into the terminal, or press keys",
    description="Type text literally, then press keys. text alone does not press Enter: add "
    'keys=["Enter"]. Then wait with the cursor it gives. target="display" goes to the focus there.',
    call=_send,
    arguments={
        "sandbox": STRING,
        "text": STRING,
        "keys": {
            "anyOf": [STRING, STRINGS],
            "description": 'Enter, Tab, Escape, Up, F5, C-c, M-x; "C-c Up" or a list. Display: '
            "Return, F5, ctrl+shift+t",
        },
        "target": choice(decode.TARGETS, default="terminal"),
    },
    required=("sandbox",),
    annotations=hints(destructive=True, open_world=True),
    about="Types text literally, then presses keys. Gives the cursor from before it: wait with "
    "that one.",
    words={
        "text": "Typed as it is. Does not press Enter",
        "keys": "A list, or one string with spaces between. For the terminal names of tmux: "
        "`Enter`, `Tab`, `Escape`, `Up`, `F5`, `C-c`, `M-x`. For the display names of X, with "
        "`ctrl`, `shift`, `alt`, `super` before them: `Return`, `F5`, `ctrl+shift+t`",
        "target": "`display`: to the window that has the focus there",
    },
    after="""\
### Keys of the display

A key is the name of an X keysym without `XK_` (`Return`, `F5`, `Page_Up`, `KP_Enter`), one
character in any script, or a usual name (`Enter`, `Esc`, `PageUp`, `Del`, `Space`). Modifiers go
before it with `+`: `ctrl`, `shift`, `alt`, `super`; `ctrl++` is ctrl and plus. All names are
checked before the first is pressed, and before any text is typed; an unknown one comes back with
suggestions.
""",
)
