"""The agent inside: what it does, what it is told, what it is answered."""

from csb_mcp import decode, errors
from csb_mcp.decode import schemas
from csb_mcp.transports.http.replies import Reply, as_json
from csb_mcp.transports.http.route import Request, Route, json_answer, reference

_ONE = "/api/sandboxes/{sandbox}"
_FAILS = (
    errors.SandboxEnded,
    errors.TerminalFailed,
    errors.DeadlineExceeded,
    errors.Conflict,
)


async def _observe(request: Request) -> Reply:
    asked = decode.observe(request.arguments)
    found = await request.service.observe(asked.sandbox, cursor=asked.cursor)
    return as_json(decode.observation(found))


async def _send(request: Request) -> Reply:
    asked = decode.send_prompt(request.arguments)
    sent = await request.service.send_prompt(asked.sandbox, asked.text, queue=asked.queue)
    return as_json(decode.prompt_sent(sent), 202 if sent.queued else 200)


async def _answer(request: Request) -> Reply:
    asked = decode.answer(request.arguments)
    done = await request.service.answer(
        asked.sandbox, asked.question, asked.option, text=asked.text
    )
    return as_json(decode.answered(done))


ROUTES = (
    Route(
        method="GET",
        path=f"{_ONE}/agent",
        name="observe",
        summary="What the agent inside does",
        description="State with evidence, question, usage, and the terminal's changed rows. All "
        "of it is the sandbox's word.",
        handler=_observe,
        query=schemas.OBSERVE,
        tool="observe",
        answers={200: json_answer("What is known", reference("Observation"))},
        errors=(errors.TerminalFailed, errors.DeadlineExceeded),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/prompts",
        name="sendPrompt",
        summary="Submit a prompt to the agent",
        description="Answers once a hook or a transcript proves it submitted, or once queued.",
        handler=_send,
        body=schemas.SEND_PROMPT,
        tool="send_prompt",
        answers={
            200: json_answer("It was taken", reference("PromptSent")),
            202: json_answer("It waits until the agent is ready", reference("PromptSent")),
        },
        errors=(*_FAILS, errors.PromptNotSubmitted),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/answers",
        name="answer",
        summary="Answer the agent's question",
        description="Refused if that question is not on its screen now.",
        handler=_answer,
        body=schemas.ANSWER,
        tool="answer",
        answers={200: json_answer("The question is gone", reference("Answered"))},
        errors=_FAILS,
    ),
)
