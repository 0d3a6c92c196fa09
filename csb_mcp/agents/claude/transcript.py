"""Claude Code's transcripts: files of JSON lines that grow, in a home that somebody hostile owns.

One message of the model takes several lines, a block of it on each, all with its usage; a session
that is resumed has the lines of the one before it once more. Subagents write files of their own.
Between two looks nothing is kept open, and of each file only how far it was read.
"""

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from csb_mcp.agents.claude.faults import fault_of
from csb_mcp.agents.claude.words import as_line, as_typed
from csb_mcp.lib.safe_open import names_in, open_regular
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import AgentFault, Message, ModelUsage, Transcript

LIMIT = 1024**2
"""Bytes read in one look; a line that is longer is passed over."""

_FOLDERS, _FILES = 64, 1000  # more are not looked at
_MESSAGES = 20_000  # whose parts are remembered
_BLOCKS = 500  # of one message
_MAX_TEXT = 512 * 1024
_MAX_ARGUMENTS = 1000
_MAX_NAME = 200
_MAX_TOKENS = 10**12
_OVER = {"end_turn", "stop_sequence", "max_tokens", "refusal"}
# What stands where a prompt does and was not typed.
_NO_PROMPT = ("<command-", "<local-command-", "<bash-", "<task-", "[Request interrupted")
_NOTHING = ModelUsage()
Fields = Mapping[str, object]


@dataclass(slots=True)
class _File:
    """How far one file was read. ``passing``: in the middle of a line that is too long."""

    identity: tuple[int, int] = (0, 0)
    offset: int = 0
    passing: bool = False


@dataclass(slots=True)
class _Told:
    """What was told of one message."""

    usage: ModelUsage = _NOTHING
    blocks: set[str] = field(default_factory=set[str])


class ClaudeTranscripts:
    """See ``ports.Transcripts``. ``folder`` is the transcripts' below ``home``."""

    def __init__(self, home: int, folder: str) -> None:
        self._home = home
        self._folder = folder
        self._files: dict[str, _File] = {}
        self._told: OrderedDict[str, _Told] = OrderedDict()  # a dict finds its first slowly

    def read(self) -> Transcript:
        """See ``ports.Transcripts.read``."""
        found = _Found()
        for line in self._lines():
            self._take(line, found)
        return Transcript(
            messages=tuple(found.messages),
            prompts=tuple(found.prompts),
            faults=tuple(found.faults),
        )

    def close(self) -> None:
        """See ``ports.Transcripts.close``."""

    def _lines(self) -> Iterator[bytes]:
        left = LIMIT
        grown = sorted(self._grown(), key=lambda item: item[0])  # the one that is huge comes last
        for size, path in grown:
            if left <= 0:
                return
            wanted = min(size, left)
            try:
                data = self._read(path, wanted)
            except OSError:
                continue
            left -= len(data)
            yield from self._split(self._files[path], data)

    def _paths(self) -> Iterator[str]:
        for folder in self._names(self._folder, _FOLDERS):
            below = f"{self._folder}/{folder}"
            names = set(self._names(below, 2 * _FILES))
            for name in names:
                if not name.endswith(".jsonl"):
                    continue
                yield f"{below}/{name}"
                if (session := name.removesuffix(".jsonl")) in names:
                    own = f"{below}/{session}/subagents"
                    files = self._names(own, 2 * _FILES)  # each with one about it
                    yield from (f"{own}/{one}" for one in files if one.endswith(".jsonl"))

    def _names(self, path: str, limit: int) -> list[str]:
        try:
            return names_in(self._home, path, limit)
        except (OSError, ValueError):
            return []

    def _grown(self) -> Iterator[tuple[int, str]]:
        """Files that have more than was read, with how much more."""
        paths = [path for _, path in zip(range(_FILES), self._paths(), strict=False)]
        self._files = {path: self._files.get(path) or _File() for path in paths}
        for path in paths:
            try:
                fd = open_regular(self._home, path)
            except OSError:
                continue
            try:
                status = os.fstat(fd)
            finally:
                os.close(fd)
            file, identity = self._files[path], (status.st_dev, status.st_ino)
            if file.identity != identity or status.st_size < file.offset:
                file.identity, file.offset, file.passing = identity, 0, False
            if status.st_size > file.offset:
                yield status.st_size - file.offset, path

    def _read(self, path: str, size: int) -> bytes:
        fd = open_regular(self._home, path)
        try:
            status = os.fstat(fd)
            if self._files[path].identity != (status.st_dev, status.st_ino):
                return b""  # another one since: with the next look
            return os.pread(fd, size, self._files[path].offset)
        finally:
            os.close(fd)

    def _split(self, file: _File, data: bytes) -> Iterator[bytes]:
        """Whole lines; what is behind the last line end is read again next time."""
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= LIMIT:
            file.passing, end = True, len(data)
            file.offset += end
            return
        file.offset += end
        lines = data[:end].splitlines()
        if file.passing and lines:
            del lines[0]
            file.passing = False
        # Most others are long, and are of no interest.
        yield from (line for line in lines if b'"assistant"' in line or b'"user"' in line)

    def _take(self, line: bytes, found: "_Found") -> None:
        try:
            value: object = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            return
        fields = _fields(value)
        message = _fields(fields.get("message"))
        if fields.get("type") == "user":
            found.prompts += _prompt(fields, message)
        elif fields.get("type") == "assistant" and message.get("model") == "<synthetic>":
            found.faults += _fault(fields, message)
        elif fields.get("type") == "assistant":
            found.messages += self._message(fields, message)

    def _message(self, fields: Fields, message: Fields) -> Iterator[Message]:
        name = _text(message, "id", _MAX_NAME)
        if not name:
            return
        told = self._told.get(name)
        if told is None:
            if len(self._told) >= _MESSAGES:
                self._told.popitem(last=False)
            told = self._told[name] = _Told()
        usage, side = _more(told.usage, _usage(message)), fields.get("isSidechain") is True
        if usage is not _NOTHING:
            told.usage = usage if told.usage is _NOTHING else told.usage + usage
        texts, tools = _new_blocks(message, told.blocks)
        over = _text(message, "stop_reason", _MAX_NAME) in _OVER and bool(texts) and not side
        if usage is not _NOTHING or texts or tools:
            yield Message(
                id=name,
                time=_time(fields),
                model=_text(message, "model", _MAX_NAME),
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


def _fields(value: object) -> Fields:
    return cast("Fields", value) if isinstance(value, dict) else {}


def _text(fields: Fields, name: str, limit: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        return ""
    plain = len(value) <= limit and value.isascii() and value.isprintable()
    return value if plain else one_line(value, limit)


def _blocks(message: Fields) -> list[Fields]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks = cast("list[object]", content) if isinstance(content, list) else []
    return [_fields(block) for block in blocks[:_BLOCKS]]


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
        key = f"text {hash(text)}" if text else _text(block, "id", _MAX_NAME)
        if not key or key in known or len(known) >= _BLOCKS:
            continue
        if text:
            texts.append(text)
        elif block.get("type") == "tool_use":
            arguments = as_line(block.get("input"))
            tools.append((_text(block, "name", _MAX_NAME), one_line(arguments, _MAX_ARGUMENTS)))
        known.add(key)
    return texts, tools


def _usage(message: Fields) -> ModelUsage:
    usage = _fields(message.get("usage"))
    return ModelUsage(
        input=_count(usage, "input_tokens"),
        output=_count(usage, "output_tokens"),
        cache_creation=_count(usage, "cache_creation_input_tokens"),
        cache_read=_count(usage, "cache_read_input_tokens"),
    )


def _count(usage: Fields, name: str) -> int:
    value = usage.get(name)
    return value if type(value) is int and 0 <= value <= _MAX_TOKENS else 0


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


def _time(fields: Fields) -> float:
    try:
        return datetime.fromisoformat(_text(fields, "timestamp", _MAX_NAME)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _prompt(fields: Fields, message: Fields) -> list[str]:
    """What was typed and submitted; results of tools and notes of the program are not."""
    origin = _fields(fields.get("origin"))
    if any(fields.get(name) for name in ("isMeta", "isSidechain", "toolUseResult", "rowSource")):
        return []
    if origin and origin.get("kind") != "human":
        return []
    blocks = _blocks(message)
    if any(block.get("type") == "tool_result" for block in blocks):
        return []
    text = "\n".join(filter(None, map(_said, blocks)))
    return [as_typed(text)] if text and not text.startswith(_NO_PROMPT) else []


def _fault(fields: Fields, message: Fields) -> list[AgentFault]:
    if fields.get("isApiErrorMessage") is not True:
        return []
    fault = fault_of(" ".join(filter(None, map(_said, _blocks(message)))))
    return [fault] if fault else []
