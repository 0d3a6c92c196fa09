"""Hooks of an agent: what makes them write into the spool, and how one of their files is read.

Claude Code began it, Codex does the same: a command gets a JSON object with ``hook_event_name``. It
writes its input into one small file: beside the spool first, then renamed into it, under a name
that sorts by time. It never blocks or fails the agent, whatever has become of the spool, and says
nothing that the agent could take for an answer.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from csb_mcp.agents.words import as_line
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import HookFact

SPOOL = ".csb/spool"
"""Folder below the home."""

MAX_BYTES = 64 * 1024
_MAX_TEXT = 64 * 1024
_MAX_FIELD = 200
# Nanoseconds first, all of one length until the year 2286. `head` ends when its input does, and
# what is longer is cut.
COMMAND = (
    f"exec 2>/dev/null; cd /home/agent/{SPOOL} || {{ cat >/dev/null; exit 0; }}; "
    f"n=$(date +%s%N)-$$; head -c {MAX_BYTES} >../.$n && mv ../.$n $n || rm -f ../.$n; "
    "cat >/dev/null; exit 0"
)

_HEAD = 8192
_FRONT = {
    name: re.compile(rf'"{name}":"([^"\\]{{1,4096}})"')
    for name in ("hook_event_name", "tool_name", "transcript_path")
}
Fields = Mapping[str, object]
Reader = Callable[[Fields], HookFact]


def settings(events: Iterable[str], seconds: int) -> dict[str, Any]:
    """What has the command called at ``events``, each time for ``seconds`` at most."""
    hook = {"type": "command", "command": COMMAND, "timeout": seconds}
    return {event: [{"hooks": [hook]}] for event in events}


def read_with(readers: Mapping[str, Reader], content: bytes) -> HookFact | None:
    """See ``ports.Agent.hook``. ``readers``: by the name of the event."""
    if len(content) > MAX_BYTES:
        return None
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        value = _cut(content) if len(content) == MAX_BYTES else None
    if not isinstance(value, dict):
        return None
    fields = cast("Fields", value)
    read = readers.get(text_of(fields, "hook_event_name"))
    return read(fields) if read else None


def _cut(content: bytes) -> Mapping[str, str]:
    """What stands in front, and as much of a prompt as is there."""
    head = content[:_HEAD].decode(errors="replace")
    found = {key: match[1] for key, form in _FRONT.items() if (match := form.search(head))}
    _, _, prompt = content.partition(b'"prompt":"')
    text = prompt.decode(errors="ignore")
    for end in range(len(text), max(0, len(text) - 12), -1):  # an escape may be cut in two
        try:
            said = str(json.loads(f'"{text[:end]}"'))
            return found | {"prompt": said.encode(errors="ignore").decode()}
        except ValueError:
            continue
    return found


def text_of(fields: Fields, name: str) -> str:
    """A field's text, made safe; empty if it is none."""
    value = fields.get(name)
    return plain_text(value[:_MAX_TEXT]) if isinstance(value, str) else ""


def plain(kind: str, text: str) -> Reader:
    """A fact whose text is that of the field ``text``."""

    def read(fields: Fields) -> HookFact:
        return HookFact(
            kind=kind,
            text=text_of(fields, text),
            tool=one_line(text_of(fields, "tool_name"), _MAX_FIELD),
            transcript=one_line(text_of(fields, "transcript_path"), 4096),
        )

    return read


def tool(kind: str) -> Reader:
    """A fact whose text is what a tool shall do."""
    bare = plain(kind, "")

    def read(fields: Fields) -> HookFact:
        said = as_line(fields.get("tool_input"))
        return replace(bare(fields), text=plain_text(said[:_MAX_TEXT]))

    return read
