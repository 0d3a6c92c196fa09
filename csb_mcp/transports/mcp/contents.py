"""What is inside of resources."""

import base64
import json
from datetime import UTC, datetime

from csb_mcp import decode
from csb_mcp.errors import DisplayFailed
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import Event
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tools.terminal import shown
from csb_mcp.transports.mcp.untrusted import MAX_TERMINAL, NOTE, fenced

_WIDTH = 1280
_EVENTS = 40
_DATUM = 160  # characters


async def record_text(service: SandboxService, sandbox: str) -> str:
    """Its record as JSON."""
    record = decode.record(await service.get(sandbox))
    return json.dumps(record, indent=1, ensure_ascii=False)


async def agent_text(service: SandboxService, sandbox: str) -> str:
    """What its agent does, what it asks and what it used, as JSON; rows are the terminal's."""
    found = decode.observation(await service.observe(sandbox, cursor=None))
    told = {"note": NOTE, **{key: found[key] for key in ("agent", "usage", "queued")}}
    return json.dumps(told, indent=1, ensure_ascii=False)


async def events_text(service: SandboxService, sandbox: str) -> str:
    """What happened to it lately, a line each, oldest first."""
    happened = await service.recent_events(sandbox, _EVENTS)
    lines = "\n".join(map(_event, happened)) or "nothing"
    return f"the last events, times in UTC\n{fenced(lines, f'events of {sandbox}')}"


def _event(event: Event) -> str:
    when = datetime.fromtimestamp(event.time, UTC).strftime("%m-%d %H:%M:%S")
    data = [f"{key}={one_line(text, _DATUM)}" for key, text in event.data.items() if text]
    return " ".join([when, event.kind, *data])


async def terminal_text(service: SandboxService, sandbox: str) -> str:
    """What its terminal shows."""
    return shown(await service.read_terminal(sandbox, cursor=None, lines=None), sandbox)


async def log_text(service: SandboxService, sandbox: str) -> str:
    """The end of its log, and from which byte on."""
    part = await service.read_log(sandbox, offset=None, limit=MAX_TERMINAL)
    head = f"bytes {part.offset} to {part.next} of the log"
    return f"{head}\n" + fenced(plain_text(part.data.decode(errors="replace")), f"log of {sandbox}")


async def screen(service: SandboxService, sandbox: str) -> bytes:
    """A picture of its display (PNG)."""
    shot = await service.screenshot(
        sandbox, region=None, max_width=_WIDTH, format="png", if_changed_since=None
    )
    if shot.image is None:
        raise DisplayFailed("gave no picture", sandbox=sandbox)
    return shot.image.data


def as_base64(data: bytes) -> str:
    """As JSON carries it."""
    return base64.b64encode(data).decode("ascii")
