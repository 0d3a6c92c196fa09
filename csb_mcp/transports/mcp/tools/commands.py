"""run_command."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.model import MAX_COMMAND, BackgroundCommand, CommandResult
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    Definition,
    answer,
    described,
    hints,
)
from csb_mcp.transports.mcp.untrusted import NOTE, both_ends, fenced

_MORE = "to see all, let it write to a file and read that in parts (sed -n 1,200p)"


async def _run(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.run_command(arguments)
    result = await service.run_command(
        request.sandbox,
        request.command,
        timeout=request.timeout,
        cwd=request.cwd,
        stdin=request.stdin,
        background=request.background,
    )
    if isinstance(result, BackgroundCommand):
        return _started(result)
    return _ended(result)


def _started(started: BackgroundCommand) -> CallToolResult:
    note = "runs on; read its output with run_command (tail), end it with kill"
    structured = {**answers.command(started), "note": note}
    return answer(
        "pid {pid} inside; stdout {stdout_path}, stderr {stderr_path}; {note}".format(**structured),
        structured,
    )


def _ended(result: CommandResult) -> CallToolResult:
    structured = answers.command(result)
    stdout, stdout_cut = both_ends(structured["stdout"])
    stderr, stderr_cut = both_ends(structured["stderr"])
    truncated = result.truncated or bool(stdout_cut or stderr_cut)
    note = f"stdout and stderr were {NOTE}" + (f"; truncated: {_MORE}" if truncated else "")
    structured |= {"stdout": stdout, "stderr": stderr, "truncated": truncated, "note": note}
    timed_out = ", killed at its timeout" if result.timed_out else ""
    lines = [f"exit code {result.exit_code}{timed_out}" + (f"; truncated: {_MORE}" * truncated)]
    lines += [fenced(text, name) for name, text in (("stdout", stdout), ("stderr", stderr)) if text]
    return answer("\n".join(lines), structured)


RUN = Definition(
    name="run_command",
    title="Run a command",
    description="Run a bash command inside, beside the terminal, and give its output. For more "
    "than about 45 s use background=true: it returns at once and goes on.",
    call=_run,
    arguments={
        "sandbox": STRING,
        "command": STRING,
        "timeout": described(NUMBER, "Seconds", default=30, maximum=MAX_COMMAND),
        "cwd": described(STRING, "Default: the project"),
        "stdin": STRING,
        "background": {**BOOLEAN, "default": False},
    },
    required=("sandbox", "command"),
    output={
        "exit_code": INTEGER,
        **dict.fromkeys(("stdout", "stderr"), STRING),
        **dict.fromkeys(("truncated", "timed_out"), BOOLEAN),
        "pid": INTEGER,
        **dict.fromkeys(("stdout_path", "stderr_path", "note"), STRING),
    },
    annotations=hints(destructive=True, open_world=True),
    about="Runs `bash -c command` inside, beside the terminal, and gives exit code, stdout and "
    "stderr. After `timeout` its process group is killed. Many may run at once.",
    words={
        "timeout": f"Seconds, at most {MAX_COMMAND:g}. Clients may cut a call earlier: use "
        "`background` for what takes longer than 45",
        "cwd": "Path inside; without it, the project",
        "stdin": "Text for its standard input; without it, that is empty",
        "background": "Return at once with its pid and the paths (inside) that its output goes to",
    },
)
