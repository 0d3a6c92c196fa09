"""The terminal, commands beside it, and waiting for what they do."""

from csb_mcp import decode, errors
from csb_mcp.decode import answers, schemas
from csb_mcp.model import BackgroundCommand
from csb_mcp.transports.http.replies import Reply, as_json
from csb_mcp.transports.http.route import Request, Route, json_answer, reference

_ONE = "/api/sandboxes/{sandbox}"
_FAILS = (errors.SandboxEnded, errors.TerminalFailed, errors.DeadlineExceeded)


async def _read(request: Request) -> Reply:
    asked = decode.read_terminal(request.arguments)
    view = await request.service.read_terminal(
        asked.sandbox, cursor=asked.cursor, lines=asked.lines
    )
    return as_json(answers.terminal_view(view))


async def _send(request: Request) -> Reply:
    asked = decode.send_keys(request.arguments)
    sent = await request.service.send_keys(
        asked.sandbox, text=asked.text, keys=asked.keys, target=asked.target, paste=False
    )
    return as_json(answers.keys_sent(sent))


async def _run(request: Request) -> Reply:
    asked = decode.run_command(request.arguments)
    result = await request.service.run_command(
        asked.sandbox,
        asked.command,
        timeout=asked.timeout,
        cwd=asked.cwd,
        stdin=asked.stdin,
        background=asked.background,
    )
    status = 202 if isinstance(result, BackgroundCommand) else 200
    return as_json(answers.command(result), status)


async def _wait(request: Request) -> Reply:
    asked = decode.wait(request.arguments)
    result = await request.service.wait(
        asked.sandboxes,
        asked.until,
        mode=asked.mode,
        timeout=asked.timeout,
        cursor=asked.cursor,
    )
    return as_json(answers.waited(result, asked.until))


ROUTES = (
    Route(
        method="GET",
        path=f"{_ONE}/terminal",
        name="readTerminal",
        summary="The terminal's screen as text",
        description="With a cursor: only the rows that changed since. Of an ended sandbox: its "
        "last screen.",
        handler=_read,
        query=schemas.READ_TERMINAL,
        tool="read_terminal",
        answers={200: json_answer("Rows", reference("TerminalView"))},
        errors=_FAILS,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/keys",
        name="sendKeys",
        summary="Type text, then press keys",
        description="At least one of text and keys. The cursor is from before: wait with it.",
        handler=_send,
        body=schemas.SEND_KEYS,
        tool="send_keys",
        answers={200: json_answer("What was sent", reference("KeysSent"))},
        errors=(*_FAILS, errors.DisplayFailed),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/commands",
        name="runCommand",
        summary="Run a command beside the terminal",
        description="Going away ends it, unless it is in the background.",
        handler=_run,
        body=schemas.RUN_COMMAND,
        tool="run_command",
        answers={
            200: json_answer("How it ended", reference("CommandResult")),
            202: json_answer("It goes on by itself", reference("BackgroundCommand")),
        },
        errors=(errors.SandboxEnded, errors.HelperFailed, errors.DeadlineExceeded),
    ),
    Route(
        method="POST",
        path="/api/wait",
        name="wait",
        summary="Wait until something has happened in sandboxes",
        description="At most 45 seconds. Not satisfied: ask again with the cursors it gave. Going "
        "away ends the wait.",
        handler=_wait,
        body=schemas.WAIT,
        tool="wait",
        answers={200: json_answer("What came true", reference("WaitResult"))},
        errors=(errors.NotFound, errors.Ambiguous, *_FAILS, errors.DisplayFailed),
    ),
)
