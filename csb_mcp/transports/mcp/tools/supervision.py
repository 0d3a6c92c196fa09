"""observe, send_prompt, answer."""

from collections.abc import Mapping
from datetime import UTC, datetime

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentUsage, Observation, Question
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import BOOLEAN, STRING, Definition, answer, described, hints
from csb_mcp.transports.mcp.tools.records import line
from csb_mcp.transports.mcp.untrusted import fenced, newest_rows

_DETAIL, _LABEL, _EVIDENCE = 160, 50, 80  # characters
_OPTIONS = 6
_WHOLE = 1750  # characters of an observation: below 500 tokens, as JSON in its envelope too
_COLUMNS = 100


async def _observe(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.observe(arguments)
    found = await service.observe(request.sandbox, cursor=request.cursor)
    return answer(observed(found))


def observed(found: Observation) -> str:
    """Below 500 tokens: what is known of it first, then as many of its last rows as fit."""
    view, record = found.agent, found.record
    lines = [one_line(line(record), 300), f"next cursor: {found.terminal.cursor}"]
    since = datetime.fromtimestamp(view.since, UTC).strftime("%H:%M:%S")
    lines.append(f"agent: {view.state.value} since {since} UTC")
    said = [
        f"{one.source} says {one.says}: {one_line(one.detail, _EVIDENCE)}" for one in view.evidence
    ]
    disputed = ", ".join(one.source for one in view.disputed)
    lines += [f"DISPUTED by {disputed}"] if disputed else []
    if view.question is not None:
        said.append(_question(view.question))
    if view.fault is not None:
        hint = one_line(view.fault.hint, _DETAIL)
        said.append(f"error {view.fault.kind}: {one_line(view.fault.words, _DETAIL)}. {hint}")
    lines += [_used(found.usage)] if found.usage.turns or found.usage.tokens else []
    lines += [f"{found.queued} prompts queued"] if found.queued else []
    room = _WHOLE - sum(len(text) + 1 for text in (*lines, *said)) - 150
    return "\n".join((*lines, fenced("\n".join((*said, *_rows(found, room))), record.id)))


def _question(asked: Question) -> str:
    options = ", ".join(
        f"{one_line(option.key, 20)}={one_line(option.label, _LABEL)}"
        for option in asked.options[:_OPTIONS]
    )
    what = one_line(f"{asked.kind} {asked.tool}", _LABEL)
    free = "; text may be given" if asked.free else ""
    detail = one_line(asked.detail, _DETAIL)
    return f"question {one_line(asked.id, _LABEL)}, {what}: {detail} [{options}]{free}"


def _used(usage: AgentUsage) -> str:
    total = usage.total
    most = f" to ${usage.cost + usage.unpriced_cost:.4f}" if usage.unpriced else ""
    return (
        f"used: {total.total} tokens ({total.input} in, {total.output} out), "
        f"{usage.turns} turns, {usage.tool_calls} tool calls, ${usage.cost:.4f}{most}"
        + _counted(usage)
    )


def _counted(usage: AgentUsage) -> str:
    if usage.counted is None or not (usage.differs or usage.counted.uncounted):
        return ""
    missed = usage.counted.uncounted
    return (
        f"; the proxy counted {usage.counted.tokens} (${usage.counted_cost:.4f}), "
        f"the transcript says {usage.total.total}"
        + (f"; {missed} answers of the API were estimated" if missed else "")
    )


def _rows(found: Observation, room: int) -> list[str]:
    rows = [text[:_COLUMNS] for _, text in answers.rows(found.terminal) if text.strip()]
    if not rows:
        return ["screen: nothing changed" if found.terminal.changed_only else "screen: empty"]
    kept, cut = newest_rows(rows, max(room, 0))
    what = "changed rows" if found.terminal.changed_only else "screen"
    return [f"{what}{f', {cut} more above' if cut else ''}:", *kept]


async def _send(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.send_prompt(arguments)
    sent = await service.send_prompt(request.sandbox, request.text, queue=request.queue)
    if sent.queued:
        return answer(f"queued until the agent is ready; cursor from before: {sent.cursor}")
    retried = ", after Enter was pressed once more" if sent.retried else ""
    return answer(
        f"submitted, proved by its {sent.proof}{retried}; cursor from before: {sent.cursor}\n"
        'Wait with it for [{"turn_finished": true}, {"question": true}]'
    )


async def _answer(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    request = decode.answer(arguments)
    done = await service.answer(
        request.sandbox, request.question, request.option, text=request.text
    )
    told = f"answered, the question is gone; the agent is {done.state.value}\ncursor: {done.cursor}"
    if done.next is not None:
        told += "\n" + fenced(_question(done.next), f"next of {request.sandbox}")
    return answer(told)


OBSERVE = Definition(
    name="observe",
    title="See what the agent does",
    description="State with evidence, question, usage, changed rows since cursor: under 500 "
    "tokens. Prefer it to a screenshot.",
    call=_observe,
    arguments={"sandbox": STRING, "cursor": STRING},
    required=("sandbox",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="What the agent inside does, by which evidence and since when; the question it waits "
    "with, what it used, and the rows that changed since the cursor. Below 500 tokens. Evidence is "
    "the sandbox's word: a source that says something else is named as disputing it.",
    words={"cursor": "From an earlier answer: only rows that changed since"},
)
SEND_PROMPT = Definition(
    name="send_prompt",
    title="Give the agent a prompt",
    description="Returns once proved submitted. Then wait for turn_finished or question.",
    call=_send,
    arguments={
        "sandbox": STRING,
        "text": STRING,
        "queue": described(BOOLEAN, "Submit once ready", default=False),
    },
    required=("sandbox", "text"),
    annotations=hints(destructive=True, open_world=True),
    about="Submits a prompt, and returns once the agent's hook or transcript proves that it took "
    "it; Enter is retried once. Refused while it works or asks, unless `queue` is given. If "
    "nothing proves it, error `prompt_not_submitted` has the screen's last rows.",
    words={
        "text": "Any text, several lines too",
        "queue": "If it is not ready: submit it once it is. Events `prompt_submitted` and "
        "`prompt_failed` tell what came of it",
    },
)
ANSWER = Definition(
    name="answer",
    title="Answer the agent's question",
    description="Of observe or wait; refused if no longer on its screen.",
    call=_answer,
    arguments={
        "sandbox": STRING,
        "question": described(STRING, "Id"),
        "option": described(STRING, "Key"),
        "text": STRING,
    },
    required=("sandbox", "question", "option"),
    annotations=hints(destructive=True, open_world=True),
    about="Answers the question with that id, and returns once it is gone from the screen. If it "
    "is not on the screen now, nothing is typed. What it grants, it grants inside the sandbox "
    "alone.",
    words={
        "question": "Id of the question, from `observe` or the evidence of `wait`",
        "option": "Key of an option",
        "text": "What to say beside it, where the option takes text",
    },
)
