"""The host and the daemon: numbers, problems, events, health."""

import asyncio
import os

from starlette.responses import Response

from csb_mcp import __version__, decode, errors
from csb_mcp.decode import answers
from csb_mcp.decode.schemas import Arguments
from csb_mcp.decode.values import between, named
from csb_mcp.errors import InvalidInput
from csb_mcp.transports.http import prometheus
from csb_mcp.transports.http.answers import STRING
from csb_mcp.transports.http.replies import Reply, as_json
from csb_mcp.transports.http.route import Answer, Request, Route, json_answer, reference
from csb_mcp.transports.http.streams import EventStream

_MOST = 10**12 - 1  # what the decoder takes as text
_AFTER = {
    "type": "integer",
    "minimum": 0,
    "maximum": _MOST,
    "description": "Begin with the first event after this one, however old; else with the next",
}
_sequence = between(0, _MOST)


async def _health(_: Request) -> Reply:
    return as_json({"status": "ok", "version": __version__, "pid": os.getpid()})


async def _prometheus(request: Request) -> Reply:
    text = await prometheus.exposition(request.service)
    return Reply(text.encode(), 200, None, prometheus.MEDIA_TYPE)


async def _system(request: Request) -> Reply:
    return as_json(answers.metrics(await request.service.metrics(None)))


async def _sandbox(request: Request) -> Reply:
    sandbox = decode.named_sandbox(request.arguments)
    return as_json(answers.metrics(await request.service.metrics(sandbox)))


async def _doctor(request: Request) -> Reply:
    found = await asyncio.to_thread(request.service.problems)
    return as_json({"problems": [answers.problem(problem) for problem in found]})


async def _events(request: Request) -> Response:
    return EventStream(request.service.events(_after(request)))


def _after(request: Request) -> int | None:
    """The query's word, else the header's, which a browser sends when it connects anew."""
    if (value := request.arguments.get("after")) is not None:
        return named("after", _sequence, value)
    try:
        return _sequence(request.headers.get("last-event-id"))
    except InvalidInput:
        return None


ROUTES = (
    Route(
        method="GET",
        path="/api/sandboxes/{sandbox}/metrics",
        name="sandboxMetrics",
        summary="What a sandbox uses, and the host beside it",
        handler=_sandbox,
        answers={200: json_answer("Now, and a short history", reference("SandboxMetrics"))},
        errors=(errors.SandboxEnded,),
    ),
    Route(
        method="GET",
        path="/api/metrics/system",
        name="systemMetrics",
        summary="What is used of the host",
        handler=_system,
        answers={200: json_answer("Now, and a short history", reference("HostMetrics"))},
    ),
    Route(
        method="GET",
        path="/api/doctor",
        name="doctor",
        summary="What this host lacks, with the repair for it",
        handler=_doctor,
        answers={200: json_answer("Nothing, if the list is empty", reference("Problems"))},
    ),
    Route(
        method="GET",
        path="/api/events",
        name="events",
        summary="What happens, as it happens",
        description="Server-sent events; the data of each is an Event, its id the sequence. "
        "A comment comes every 15 seconds. An event named problem is the last, and says why. "
        "A client that takes nothing for 20 seconds is cut off.",
        handler=_events,
        query=Arguments({"after": _AFTER}),
        headers={"Last-Event-ID": {**STRING, "description": "As after, which goes first"}},
        answers={
            200: Answer("An endless stream", {"text/event-stream": reference("ServerSentEvent")})
        },
    ),
    Route(
        method="GET",
        path="/healthz",
        name="health",
        summary="Whether the daemon answers",
        handler=_health,
        answers={200: json_answer("It does", reference("Health"))},
    ),
    Route(
        method="GET",
        path="/metrics",
        name="prometheus",
        summary="Numbers for Prometheus",
        description="In its text format; names follow OpenTelemetry's semantic conventions.",
        handler=_prometheus,
        answers={200: Answer("Host and running sandboxes", {"text/plain": STRING})},
    ),
)
