"""The real Claude Code in a real sandbox, with a Messages API of ours on its own loopback."""

import json
import os
import platform
import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from csb_mcp.agents.claude import Claude
from tests.support import fake_api
from tests.support.agent_inside import Inside, Played, agent_inside
from tests.support.fake_api import Script

REPOSITORY = Path(__file__).parents[2]
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PROGRAM = REPOSITORY / f".venv/npm/node_modules/@anthropic-ai/claude-code-linux-{MACHINE}/claude"
KEY = "sk-ant-test-0000000000-0000000000-0000"
PORT = 8787


def with_api(project: Path) -> Path:
    """The project with the API's program in ``.api``, where a test may script it."""
    (project / ".api").mkdir()
    shutil.copy(str(fake_api.__file__), project / ".api/fake_api.py")
    if os.getuid() == 0:
        for path in (project, project / ".api"):
            path.chmod(0o777)
    return project


@asynccontextmanager
async def claude_inside(base: Path, env: Mapping[str, str] | None = None) -> AsyncGenerator[Inside]:
    """Started, in a project of its own, without any network."""
    if not PROGRAM.exists():
        raise AssertionError("Claude Code is not installed: run scripts/setup test")
    project = base / "app"
    project.mkdir()
    # What a project may bring that Claude Code would ask about at its start.
    server = {"command": "/bin/true"}
    (project / ".mcp.json").write_text(json.dumps({"mcpServers": {"a": server, "b": server}}))
    (project / "CLAUDE.md").write_text("See @/etc/passwd\n")
    given = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{PORT}", "ANTHROPIC_API_KEY": KEY}
    played = Played(
        agent=Claude(),
        settings={"claude": PROGRAM},
        key=KEY,
        env=given,
        api=Path(fake_api.__file__),
        port=PORT,
        script=Script,
    )
    async with agent_inside(base, played, project=project, env=env) as inside:
        yield inside
