"""list_sandboxes, pause, resume, stop, delete."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.model import SandboxState
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import INTEGER, NUMBER, STRING, Definition, answer, choice, hints
from csb_mcp.transports.mcp.tools.records import ENDED, STATE, line, whole

_MAX_LISTED = 50


async def _list(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    found = await service.list(decode.list_filter(arguments))
    shown, left_out = found[:_MAX_LISTED], max(0, len(found) - _MAX_LISTED)
    lines = [line(sandbox) for sandbox in shown] or ["no sandboxes"]
    if left_out:
        lines.append(f"{left_out} older ones left out: ask by state, and delete what is not needed")
    return answer(
        "\n".join(lines),
        {"sandboxes": [decode.record(sandbox) for sandbox in shown], "left_out": left_out},
    )


async def _pause(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return whole(await service.pause(decode.named_sandbox(arguments)))


async def _resume(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.resume(arguments)
    return whole(await service.resume(asked.sandbox, asked.budget))


async def _stop(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return whole(await service.stop(decode.named_sandbox(arguments)))


async def _delete(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return whole(await service.delete(decode.named_sandbox(arguments)), verb="deleted; it was ")


LIST = Definition(
    name="list_sandboxes",
    title="List sandboxes",
    description="All sandboxes, newest first, also those that ended (until delete).",
    call=_list,
    arguments={"state": choice(tuple(state.value for state in SandboxState))},
    output={"sandboxes": {"type": "array", "items": {"type": "object"}}, "left_out": INTEGER},
    output_required=("sandboxes",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="Records, newest first, also of those that ended and were not deleted. At most "
    f"{_MAX_LISTED}, and how many more.",
    words={"state": "Only those in this state"},
    after="""\
### States

| state | ended | |
| --- | --- | --- |
| `creating` | no | Its record is on disk; it is coming up |
| `running` | no | Display, terminal and helper have answered |
| `paused` | no | Held still by `pause` |
| `stopped` | yes | We ended it: `stop`, its `ttl` or its `idle_timeout` |
| `dead` | yes | It ended by itself, or was lost; `reason` says how |
| `failed` | yes | It never came up, and left nothing |
""",
)

PAUSE = Definition(
    name="pause",
    title="Pause a sandbox",
    description="Hold still all that runs in it, until resume. Terminal and screen can be read.",
    call=_pause,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output=STATE,
    output_required=("id", "state"),
    annotations=hints(idempotent=True, open_world=False),
    about="Holds still all that the payload runs, until `resume`. It keeps its memory and takes no "
    "CPU. Terminal and screen can be read meanwhile; what is typed is kept for later.",
)

RESUME = Definition(
    name="resume",
    title="Resume a sandbox",
    description="Let it go on; after a used up budget with a higher one.",
    call=_resume,
    arguments={
        "sandbox": STRING,
        "max_tokens": INTEGER,
        "max_cost": NUMBER,
        "max_turns": INTEGER,
    },
    required=("sandbox",),
    output=STATE,
    output_required=("id", "state"),
    annotations=hints(idempotent=True, open_world=True),
    about="Lets a paused sandbox go on where it was. One that runs: gives its record. "
    "What is given replaces that of [`create_sandbox`](#create_sandbox); one that is used up all "
    "the same is refused.",
    words={
        "max_tokens": "The new budget of the agent, all kinds together",
        "max_cost": "The new budget in US dollars",
        "max_turns": "The new budget of turns",
    },
)

STOP = Definition(
    name="stop",
    title="Stop a sandbox",
    description="End all that runs in it. Record, log and last screen stay until delete.",
    call=_stop,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output=ENDED,
    output_required=("id", "state"),
    annotations=hints(destructive=True, idempotent=True, open_world=False),
    about="Ends all that runs in it. Record, log and last screen stay until `delete`. An ended "
    "sandbox: gives its record.",
)

DELETE = Definition(
    name="delete",
    title="Delete a sandbox",
    description="End it and remove its home, log and record for good. The project folder stays.",
    call=_delete,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output=ENDED,
    output_required=("id", "state"),
    annotations=hints(destructive=True, idempotent=True, open_world=False),
    about="Ends it if need be and removes its home, log and record for good. The project folder "
    "stays.",
)
