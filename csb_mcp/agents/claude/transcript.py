"""Claude Code's transcripts: files of JSON lines that grow, in a home that somebody hostile owns.

One message of the model takes several lines, a block of it on each, all with its usage; a session
that is resumed has the lines of the one before it once more. Subagents write files of their own.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from csb_mcp.agents.claude.faults import fault_of
from csb_mcp.agents.claude.words import as_typed
from csb_mcp.agents.fields import Fields, count, decoded, fields, items, moment, name
from csb_mcp.agents.lines import FILES, GrowingLines
from csb_mcp.agents.words import as_line
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import AgentFault, Message, ModelUsage, Transcript

_FOLDERS = 64  # more are not looked at
_MESSAGES = 20_000  # whose parts are remembered
_BLOCKS = 500  # of one message
_MAX_TEXT = 512 * 1024
_MAX_ARGUMENTS = 1000
_OVER = {"end_turn", "stop_sequence", "max_tokens", "refusal"}
# What stands where a prompt does and was not typed.
_NO_PROMPT = ("<command-", "<local-command-", "<bash-", "<task-", "[Request interrupted")
_NOTHING = ModelUsage()


@dataclass(slots=True)
class _Told:
    """What was told of one message."""

    usage: ModelUsage = _NOTHING
    blocks: set[str] = field(default_factory=set[str])


class ClaudeTranscripts:
    """See ``ports.Transcripts``. ``folder`` is the transcripts' below ``home``."""

    def __init__(self, home: int, folder: str) -> None:
        self._folder = folder
        self._lines = GrowingLines(home, self._paths, (b'"assistant"', b'"user"'))
        self._told: OrderedDict[str, _Told] = OrderedDict()  # a dict finds its first slowly

    def read(self) -> Transcript:
        """See ``ports.Transcripts.read``."""
        found = _Found()
        for _, line in self._lines.new():
            self._take(line, found)
        return Transcript(
            messages=tuple(found.messages),
            prompts=tuple(found.prompts),
            faults=tuple(found.faults),
            more=self._lines.more,
        )

    def close(self) -> None:
        """See ``ports.Transcripts.close``."""

    def _paths(self) -> Iterator[str]:
        names_in = self._lines.names
        for folder in names_in(self._folder, _FOLDERS):
            below = f"{self._folder}/{folder}"
            names = set(names_in(below, 2 * FILES))
            for one in names:
                if not one.endswith(".jsonl"):
                    continue
                yield f"{below}/{one}"
                if (session := one.removesuffix(".jsonl")) in names:
                    own = f"{below}/{session}/subagents"
                    files = names_in(own, 2 * FILES)  # each with one about it
                    yield from (f"{own}/{one}" for one in files if one.endswith(".jsonl"))

    def _take(self, line: bytes, found: "_Found") -> None:
        value = decoded(line)
        message = fields(value.get("message"))
        if value.get("type") == "user":
            found.prompts += _prompt(value, message)
        elif value.get("type") == "assistant" and message.get("model") == "<synthetic>":
            found.faults += _fault(value, message)
        elif value.get("type") == "assistant":
            found.messages += self._message(value, message)

    def _message(self, value: Fields, message: Fields) -> Iterator[Message]:
        own = name(message, "id")
        if not own:
            return
        told = self._told.get(own)
        if told is None:
            if len(self._told) >= _MESSAGES:
                self._told.popitem(last=False)
            told = self._told[own] = _Told()
        usage, side = _more(told.usage, _usage(message)), value.get("isSidechain") is True
        if usage is not _NOTHING:
            told.usage = usage if told.usage is _NOTHING else told.usage + usage
        texts, tools = _new_blocks(message, told.blocks)
        over = name(message, "stop_reason") in _OVER and bool(texts) and not side
        if usage is not _NOTHING or texts or tools:
            yield Message(
                id=own,
                time=moment(value),
                model=name(message, "model"),
                usage=usage,
                tools=tuple(tools),
                text="" if side else "\n".join(texts),
                turn_over=over,
            )


@dataclass(slots=True)
class _Found:
    messages: list[Message] = field(default_factory=list[Message])
    prompts: list[str] = field(default_factory=list[str])
    faults: list[AgentFault] = field(default_factory=list[AgentFault])


def _blocks(message: Fields) -> list[Fields]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [fields(block) for block in items(content, _BLOCKS)]


def _said(block: Fields) -> str:
    text = block.get("text")
    return (
        plain_text(text[:_MAX_TEXT])
        if block.get("type") == "text" and isinstance(text, str)
        else ""
    )


def _new_blocks(message: Fields, known: set[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Texts and tools of ``message`` that are not ``known`` yet; then they are."""
    texts: list[str] = []
    tools: list[tuple[str, str]] = []
    for block in _blocks(message):
        text = _said(block)
        key = f"text {hash(text)}" if text else name(block, "id")
        if not key or key in known or len(known) >= _BLOCKS:
            continue
        if text:
            texts.append(text)
        elif block.get("type") == "tool_use":
            arguments = as_line(block.get("input"))
            tools.append((name(block, "name"), one_line(arguments, _MAX_ARGUMENTS)))
        known.add(key)
    return texts, tools


def _usage(message: Fields) -> ModelUsage:
    usage = fields(message.get("usage"))
    return ModelUsage(
        input=count(usage, "input_tokens"),
        output=count(usage, "output_tokens"),
        cache_creation=count(usage, "cache_creation_input_tokens"),
        cache_read=count(usage, "cache_read_input_tokens"),
    )


def _more(known: ModelUsage, now: ModelUsage) -> ModelUsage:
    """What ``now`` has more: a message's first lines may stand there before it is all counted."""
    if known is _NOTHING or known == now:
        return _NOTHING if now in (_NOTHING, known) else now
    return ModelUsage(
        input=max(0, now.input - known.input),
        output=max(0, now.output - known.output),
        cache_creation=max(0, now.cache_creation - known.cache_creation),
        cache_read=max(0, now.cache_read - known.cache_read),
    )


def _prompt(value: Fields, message: Fields) -> list[str]:
    """What was typed and submitted; results of tools and notes of the program are not."""
    origin = fields(value.get("origin"))
    if any(value.get(one) for one in ("isMeta", "isSidechain", "toolUseResult", "rowSource")):
        return []
    if origin and origin.get("kind") != "human":
        return []
    blocks = _blocks(message)
    if any(block.get("type") == "tool_result" for block in blocks):
        return []
    text = "\n".join(filter(None, map(_said, blocks)))
    return [as_typed(text)] if text and not text.startswith(_NO_PROMPT) else []


def _fault(value: Fields, message: Fields) -> list[AgentFault]:
    if value.get("isApiErrorMessage") is not True:
        return []
    fault = fault_of(" ".join(filter(None, map(_said, _blocks(message)))))
    return [fault] if fault else []
