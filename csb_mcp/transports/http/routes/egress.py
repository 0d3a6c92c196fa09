"""The way out: what it may reach, what it asks for, and whether its walls hold."""

from csb_mcp import decode, errors
from csb_mcp.decode import answers, schemas
from csb_mcp.transports.http.replies import Reply, as_json
from csb_mcp.transports.http.route import Request, Route, json_answer, reference

_ONE = "/api/sandboxes/{sandbox}"
_EGRESS = json_answer("Its way out", reference("Egress"))
_FAILS = (errors.Conflict, errors.SandboxEnded, errors.EgressFailed)


async def _show(request: Request) -> Reply:
    found = await request.service.egress(decode.named_sandbox(request.arguments))
    return as_json(answers.egress(found))


async def _allow(request: Request) -> Reply:
    asked = decode.allow_host(request.arguments)
    found = await request.service.allow_host(asked.sandbox, asked.host, once=asked.once)
    return as_json(answers.egress(found))


async def _deny(request: Request) -> Reply:
    asked = decode.deny_host(request.arguments)
    return as_json(answers.egress(await request.service.deny_host(asked.sandbox, asked.host)))


async def _verify(request: Request) -> Reply:
    found = await request.service.verify_isolation(decode.named_sandbox(request.arguments))
    return as_json(answers.verification(found))


ROUTES = (
    Route(
        method="GET",
        path=f"{_ONE}/egress",
        name="showEgress",
        summary="Which hosts it may reach, which it asks for, what it tried",
        description="Also of one that has ended. Names are the sandbox's word.",
        handler=_show,
        tool="egress",
        answers={200: _EGRESS},
    ),
    Route(
        method="POST",
        path=f"{_ONE}/egress/allow",
        name="allowHost",
        summary="Let it reach a host, from now on or for one connection",
        description="Answers what was pending for that host; lifts the same denial. The settings' "
        "egress_hosts bound it.",
        handler=_allow,
        body=schemas.ALLOW_HOST,
        tool="allow_host",
        answers={200: _EGRESS},
        errors=(errors.Forbidden, *_FAILS),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/egress/deny",
        name="denyHost",
        summary="Refuse a host without asking again",
        description="Open connections to it are cut. A denial wins over what is allowed.",
        handler=_deny,
        body=schemas.DENY_HOST,
        tool="deny_host",
        answers={200: _EGRESS},
        errors=_FAILS,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/verify",
        name="verifyIsolation",
        summary="Attack it from inside, and tell what held",
        description="Takes seconds. Look at held: the status is 200 whatever came of it.",
        handler=_verify,
        tool="verify_isolation",
        answers={200: json_answer("The table of attacks", reference("Verification"))},
        errors=(errors.Conflict, errors.SandboxEnded, errors.HelperFailed),
    ),
)
