"""What Claude Code finds in a new sandbox's home: past its first start, and our hooks."""

import json
from pathlib import Path

from csb_mcp.agents.claude import hooks
from csb_mcp.agents.spool import SPOOL
from csb_mcp.ports.agent import Seed

FOLDER = ".claude"
"""Its folder below the home: settings, transcripts, everything."""
KEY_VARIABLES = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN")
_KEY_TAIL = 20  # characters by which it remembers that a key may be used

_ENVIRONMENT = {
    "CLAUDE_CONFIG_DIR": f"/home/agent/{FOLDER}",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY": "1",  # it would stand where the input line is
    "CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "false",  # looks as if somebody had typed it
    # Of it come requests for hosts that nobody allowed, at each start.
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    "DISABLE_INSTALLATION_CHECKS": "1",
}


def seed(project: Path, key: str | None) -> Seed:
    """See ``ports.Agent.seed``."""
    return Seed(
        files={
            f"{FOLDER}/.claude.json": _bytes(_state(project, key)),
            f"{FOLDER}/settings.json": _bytes(_settings()),
            f"{SPOOL}/.keep": b"",
        },
        environment=_ENVIRONMENT,
    )


def _state(project: Path, key: str | None) -> dict[str, object]:
    approved = [key[-_KEY_TAIL:]] if key else []
    return {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "hasSeenAutoDefaultNudge": True,
        "hasSeenAutoDefaultNotice": True,
        "hasSeenTasksHint": True,
        "customApiKeyResponses": {"approved": approved, "rejected": []},
        "projects": {
            str(project): {
                "hasTrustDialogAccepted": True,
                "hasCompletedProjectOnboarding": True,
                # Files outside of the project: there are none but the sandbox's own.
                "hasClaudeMdExternalIncludesApproved": False,
                "hasClaudeMdExternalIncludesWarningShown": True,
            }
        },
    }


def _settings() -> dict[str, object]:
    return {
        "hooks": hooks.settings(),
        # It asks, and its supervisor answers. (By itself it lets a model decide in its place.)
        "permissions": {"defaultMode": "default"},
        # Servers that the project brings run inside as well, like all else that it brings.
        "enableAllProjectMcpServers": True,
        "promptSuggestionEnabled": False,
        "spinnerTipsEnabled": False,
    }


def _bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
