"""An adapter, asked with care.

It never raises, it says. But what it reads is made by somebody hostile, and a watch that ended by
it would see nothing any more.
"""

import logging

from csb_mcp.model import AgentState, HookFact, Rows, ScreenFact, Transcript
from csb_mcp.ports import Agent, Transcripts

_log = logging.getLogger(__name__)
NOT_UNDERSTOOD = ScreenFact(state=AgentState.UNKNOWN)


def hook_of(agent: Agent, content: bytes) -> HookFact | None:
    """What a file of the spool says."""
    try:
        return agent.hook(content)
    except Exception:  # noqa: BLE001 - logged
        _log.exception("a hook was not understood")
        return None


def read_of(transcripts: Transcripts) -> Transcript:
    """What is new in the transcripts."""
    try:
        return transcripts.read()
    except Exception:  # noqa: BLE001 - logged
        _log.exception("a transcript was not understood")
        return Transcript()


def screen_of(agent: Agent, rows: Rows) -> ScreenFact:
    """What a screen shows."""
    try:
        return agent.screen([text for _, text in rows.rows])
    except Exception:  # noqa: BLE001 - logged
        _log.exception("a screen was not understood")
        return NOT_UNDERSTOOD
