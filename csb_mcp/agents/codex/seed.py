"""What Codex finds in a new sandbox's home: its settings, and our hooks; and how it is started.

It has an inner sandbox of its own, which needs namespaces that there are none of in ours. Ours is
the wall, so the inner one is off, and it asks what its ``on-request`` means without: before
commands that it thinks dangerous. (The policy that asked before each is gone since 0.16x.)
"""

import json
from pathlib import Path

from csb_mcp.agents.codex import hooks
from csb_mcp.agents.spool import SPOOL
from csb_mcp.ports.agent import Seed

FOLDER = ".codex"
"""Its folder below the home: settings, transcripts, everything."""
KEY_VARIABLES = ("OPENAI_API_KEY",)
PROVIDER = "api"
"""What the settings call where its models are."""

_SETTINGS = f"""\
# Seeded once by csb-mcp; yours to change.
check_for_update_on_startup = false
approval_policy = "on-request"
sandbox_mode = "danger-full-access"  # it is in a sandbox already
model_provider = "{PROVIDER}"
cli_auth_credentials_store = "file"

# Not the built-in one, which insists on a login. OPENAI_BASE_URL says where it is, if not there.
[model_providers.{PROVIDER}]
name = "OpenAI"
base_url = "https://api.openai.com/v1"
env_key = "{KEY_VARIABLES[0]}"
wire_api = "responses"

[tui]
alternate_screen = "never"  # so that what it said can be read further up
animations = false
notifications = false
show_tooltips = false

[analytics]
enabled = false

[notice]
hide_full_access_warning = true

[features]
daemon_auto_start = false  # it would copy the program into the home, and go on by itself
apps = false  # these two ask hosts that have nothing to do with the task, from the start
plugins = false
"""
_TRUSTS = "--dangerously-bypass-hook-trust"
# The address of its API can be said in its settings or its arguments only, not in its environment.
# Hooks run only if somebody looked at them once, or so (all that runs here is inside); an older one
# that has none of that does not know the flag either, and would not start.
_START = f"""\
program=$1; shift
[ -z "$OPENAI_BASE_URL" ] || set -- -c "model_providers.{PROVIDER}.base_url=$OPENAI_BASE_URL" "$@"
case $("$program" --help 2>&1) in *{_TRUSTS}*) set -- {_TRUSTS} "$@" ;; esac
exec "$program" "$@"
"""


def seed(project: Path) -> Seed:
    """See ``ports.Agent.seed``."""
    # A string of JSON is one of TOML as well.
    trust = f'\n[projects.{json.dumps(str(project))}]\ntrust_level = "trusted"\n'
    given = json.dumps({"hooks": hooks.settings()}, indent=2) + "\n"
    return Seed(
        files={
            f"{FOLDER}/config.toml": (_SETTINGS + trust).encode(),
            f"{FOLDER}/hooks.json": given.encode(),
            f"{SPOOL}/.keep": b"",
        },
        environment={"CODEX_HOME": f"/home/agent/{FOLDER}"},
    )


def line(program: tuple[str, ...], arguments: tuple[str, ...]) -> tuple[str, ...]:
    """What is started: ``program`` with the address that the environment inside has."""
    return ("/bin/sh", "-c", _START, "codex", *program, *arguments)
