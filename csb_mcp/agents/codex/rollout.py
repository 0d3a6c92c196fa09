"""Codex's rollouts: one file of JSON lines for each thread, in a folder for each day.

What a response used stands in a record of its own, with the response's name; and, before there were
such, in a running total of the thread, which is still told. The larger total is believed, so each
token counts once by whichever. Of a subagent's thread only what it used and called is told.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from csb_mcp.agents.codex.faults import fault_of
from csb_mcp.agents.fields import Fields, count, decoded, fields, items, moment, name
from csb_mcp.agents.lines import FILES, GrowingLines
from csb_mcp.agents.words import as_line
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import AgentFault, Message, ModelUsage, Transcript

_YEARS, _MONTHS, _DAYS = 4, 12, 31
_RESPONSES = 20_000  # that are remembered
_PARTS = 500  # of one message
_MAX_TEXT = 512 * 1024
_MAX_ARGUMENTS = 1000
_NOTHING = ModelUsage()
_MARKS = (
    *(b'"session_meta"', b'"turn_context"', b'"token_usage_record"', b'"token_count"'),
    *(b'"function_call"', b'"custom_tool_call"', b'"local_shell_call"', b'"assistant"'),
    *(b'"UserMessage"', b'"user_message"', b'"task_complete"', b'"turn_aborted"'),
)


@dataclass(slots=True)
class _Thread:
    """What was read of one file. ``side``: it is a subagent's. ``typed``: its last prompt."""

    model: str = ""
    side: bool = False
    total: ModelUsage = _NOTHING
    typed: tuple[str, str] = ("", "")


@dataclass(slots=True)
class _Found:
    messages: list[Message] = field(default_factory=list[Message])
    prompts: list[str] = field(default_factory=list[str])
    faults: list[AgentFault] = field(default_factory=list[AgentFault])


class Rollouts:
    """See ``ports.Transcripts``. ``folder`` is theirs below ``home``."""

    def __init__(self, home: int, folder: str) -> None:
        self._folder = folder
        self._lines = GrowingLines(home, self._paths, _MARKS)
        self._threads: OrderedDict[str, _Thread] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()  # a dict finds its first slowly

    def read(self) -> Transcript:
        """See ``ports.Transcripts.read``."""
        found = _Found()
        for path, line in self._lines.new():
            self._take(self._thread(path), decoded(line), found)
        return Transcript(
            messages=tuple(found.messages),
            prompts=tuple(found.prompts),
            faults=tuple(found.faults),
            more=self._lines.more,
        )

    def close(self) -> None:
        """See ``ports.Transcripts.close``."""

    def _paths(self) -> Iterator[str]:
        """The newest first, as there may be too many."""
        below = [self._folder]
        for limit in (_YEARS, _MONTHS, _DAYS):
            below = [f"{one}/{part}" for one in below for part in self._newest(one, limit)]
        for day in below:
            files = self._newest(day, FILES)
            yield from (f"{day}/{one}" for one in files if one.endswith(".jsonl"))

    def _newest(self, folder: str, limit: int) -> list[str]:
        return sorted(self._lines.names(folder, 2 * FILES), reverse=True)[:limit]

    def _thread(self, path: str) -> _Thread:
        if path not in self._threads and len(self._threads) >= 2 * FILES:
            self._threads.popitem(last=False)
        return self._threads.setdefault(path, _Thread())

    def _take(self, thread: _Thread, line: Fields, found: _Found) -> None:
        payload = fields(line.get("payload"))
        kind = line.get("type")
        if kind == "session_meta":
            # Anew, should the file be another one than that which was read so far.
            thread.model, thread.total = "", _NOTHING
            thread.side = name(payload, "thread_source") not in ("", "user")
        elif kind == "turn_context":
            thread.model = name(payload, "model") or thread.model
        elif kind == "token_usage_record":
            found.messages += self._record(thread, line, payload)
        elif kind == "response_item":
            found.messages += _item(thread, line, payload)
        elif kind == "event_msg":
            self._event(thread, line, payload, found)

    def _event(self, thread: _Thread, line: Fields, payload: Fields, found: _Found) -> None:
        kind = payload.get("type")
        if kind == "token_count":
            found.messages += _counted(thread, line, payload)
        elif thread.side:
            return
        elif kind in ("item_completed", "user_message"):
            found.prompts += _prompt(thread, kind, payload)
        elif kind in ("task_complete", "turn_aborted"):
            over = name(payload, "turn_id") or "turn"
            found.messages.append(_message(thread, line, over, turn_over=True))
            if words := fields(payload.get("error")).get("message"):
                found.faults.append(fault_of(str(words)))

    def _record(self, thread: _Thread, line: Fields, payload: Fields) -> Iterator[Message]:
        thread.total = _larger(thread.total, _usage(payload.get("thread_token_usage")))
        own, usage = name(payload, "response_id"), _usage(payload.get("usage"))
        if not own or own in self._told or usage == _NOTHING:
            return
        if len(self._told) >= _RESPONSES:
            self._told.popitem(last=False)
        self._told[own] = None
        yield _message(thread, line, own, usage=usage)


def _message(
    thread: _Thread,
    line: Fields,
    own: str,
    *,
    usage: ModelUsage = _NOTHING,
    tools: tuple[tuple[str, str], ...] = (),
    text: str = "",
    turn_over: bool = False,
) -> Message:
    return Message(
        id=own,
        time=moment(line),
        model=thread.model,
        usage=usage,
        tools=tools,
        text=text,
        turn_over=turn_over,
    )


def _item(thread: _Thread, line: Fields, payload: Fields) -> Iterator[Message]:
    """What the model said, or calls."""
    own, kind = name(payload, "id") or name(payload, "call_id") or "message", payload.get("type")
    if kind == "message" and payload.get("role") == "assistant" and not thread.side:
        if text := _text(payload):
            yield _message(thread, line, own, text=text)
    elif kind in ("function_call", "custom_tool_call", "local_shell_call"):
        called = payload.get("arguments") or payload.get("input") or payload.get("action")
        arguments = called if isinstance(called, str) else as_line(called)
        tool = name(payload, "name") or "local_shell"
        yield _message(thread, line, own, tools=((tool, one_line(arguments, _MAX_ARGUMENTS)),))


def _text(payload: Fields) -> str:
    parts = (fields(part).get("text") for part in items(payload.get("content"), _PARTS))
    return "\n".join(plain_text(part[:_MAX_TEXT]) for part in parts if isinstance(part, str))


def _prompt(thread: _Thread, kind: str, payload: Fields) -> list[str]:
    """What was typed and submitted. Older ones tell it another way, some may tell it both ways."""
    if kind == "user_message":
        text = _text({"content": [{"text": payload.get("message")}]})
    else:
        item = fields(payload.get("item"))
        text = _text(item) if item.get("type") == "UserMessage" else ""
    before, thread.typed = thread.typed, (kind, text) if text else thread.typed
    if not text or (before[1] == text and before[0] != kind):
        return []
    return [text]


def _counted(thread: _Thread, line: Fields, payload: Fields) -> Iterator[Message]:
    """What the thread's total has more than was told of it."""
    total = _usage(fields(payload.get("info")).get("total_token_usage"))
    more = _larger(thread.total, total)
    if more != thread.total:
        new = ModelUsage(
            input=more.input - thread.total.input,
            output=more.output - thread.total.output,
            cache_creation=more.cache_creation - thread.total.cache_creation,
            cache_read=more.cache_read - thread.total.cache_read,
        )
        thread.total = more
        yield _message(thread, line, f"total {total.total}", usage=new)


def _usage(value: object) -> ModelUsage:
    """Of what goes in, that from a cache is told apart; reasoning is part of what comes out."""
    usage = fields(value)
    read, written = count(usage, "cached_input_tokens"), count(usage, "cache_write_input_tokens")
    return ModelUsage(
        input=max(0, count(usage, "input_tokens") - read - written),
        output=count(usage, "output_tokens"),
        cache_creation=written,
        cache_read=read,
    )


def _larger(one: ModelUsage, other: ModelUsage) -> ModelUsage:
    return ModelUsage(
        input=max(one.input, other.input),
        output=max(one.output, other.output),
        cache_creation=max(one.cache_creation, other.cache_creation),
        cache_read=max(one.cache_read, other.cache_read),
    )
