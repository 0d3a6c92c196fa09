"""Sandboxes: made, listed, held, ended."""

from csb_mcp import decode, errors
from csb_mcp.decode import schemas
from csb_mcp.transports.http.answers import STRING
from csb_mcp.transports.http.replies import Reply, as_json, nothing
from csb_mcp.transports.http.route import Answer, Request, Route, json_answer, reference

_RECORD = json_answer("Its record", reference("Sandbox"))
_ONE = "/api/sandboxes/{sandbox}"


async def _list(request: Request) -> Reply:
    found = await request.service.list(decode.list_filter(request.arguments))
    return as_json([decode.record(sandbox) for sandbox in found])


async def _create(request: Request) -> Reply:
    made = await request.service.create(decode.sandbox_spec(request.arguments))
    return as_json(decode.record(made), 201, {"location": f"/api/sandboxes/{made.id}"})


async def _show(request: Request) -> Reply:
    found = await request.service.get(decode.named_sandbox(request.arguments))
    return as_json(decode.record(found))


async def _pause(request: Request) -> Reply:
    paused = await request.service.pause(decode.named_sandbox(request.arguments))
    return as_json(decode.record(paused))


async def _resume(request: Request) -> Reply:
    asked = decode.resume(request.arguments)
    resumed = await request.service.resume(asked.sandbox, asked.budget)
    return as_json(decode.record(resumed))


async def _stop(request: Request) -> Reply:
    await request.service.stop(decode.named_sandbox(request.arguments))
    return nothing()


async def _delete(request: Request) -> Reply:
    await request.service.delete(decode.named_sandbox(request.arguments))
    return nothing()


ROUTES = (
    Route(
        method="GET",
        path="/api/sandboxes",
        name="listSandboxes",
        summary="All sandboxes, newest first",
        description="Also those that ended, until they are deleted.",
        handler=_list,
        query=schemas.LIST,
        tool="list_sandboxes",
        answers={
            200: json_answer("Their records", {"type": "array", "items": reference("Sandbox")})
        },
    ),
    Route(
        method="POST",
        path="/api/sandboxes",
        name="createSandbox",
        summary="Start a sandbox on a project folder",
        description="Answers when it is ready. Going away before that takes it back whole.",
        handler=_create,
        body=schemas.CREATE,
        tool="create_sandbox",
        answers={
            201: json_answer(
                "Its record",
                reference("Sandbox"),
                {"Location": {**STRING, "description": "Where it answers"}},
            )
        },
        errors=(
            errors.Forbidden,
            errors.Conflict,
            errors.CreateFailed,
            errors.DeadlineExceeded,
        ),
    ),
    Route(
        method="GET",
        path=_ONE,
        name="showSandbox",
        summary="The record of a sandbox",
        handler=_show,
        answers={200: _RECORD},
    ),
    Route(
        method="DELETE",
        path=_ONE,
        name="deleteSandbox",
        summary="End it, and remove its home, log and record for good",
        description="The project folder stays.",
        handler=_delete,
        tool="delete",
        answers={204: Answer("It is gone")},
    ),
    Route(
        method="POST",
        path=f"{_ONE}/stop",
        name="stopSandbox",
        summary="End all that runs in it",
        description="Record, log and last screen stay until it is deleted. Of one that has ended: "
        "does nothing.",
        handler=_stop,
        tool="stop",
        answers={204: Answer("It has ended")},
    ),
    Route(
        method="POST",
        path=f"{_ONE}/pause",
        name="pauseSandbox",
        summary="Hold what runs in it still",
        description="Terminal and screen can be read meanwhile. Of a paused one: does nothing.",
        handler=_pause,
        tool="pause",
        answers={200: _RECORD},
    ),
    Route(
        method="POST",
        path=f"{_ONE}/resume",
        name="resumeSandbox",
        summary="Let it go on",
        handler=_resume,
        body=schemas.RESUME,
        tool="resume",
        answers={200: _RECORD},
    ),
)
