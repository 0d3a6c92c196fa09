"""The real Codex in a real sandbox, with a Responses API of ours on its own loopback."""

import platform
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from csb_mcp.agents.codex import Codex
from csb_mcp.agents.codex.seed import PROVIDER
from tests.support import fake_responses
from tests.support.agent_inside import Inside, Played, agent_inside
from tests.support.fake_responses import Script

REPOSITORY = Path(__file__).parents[2]
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PACKAGE = REPOSITORY / f".venv/npm/node_modules/@openai/codex-linux-{MACHINE}"
PROGRAM = next(PACKAGE.glob("vendor/*/bin/codex"), PACKAGE / "codex")
KEY = "sk-test-0000000000-0000000000-0000"
PORT = 8788
ENV = {"OPENAI_BASE_URL": f"http://127.0.0.1:{PORT}/v1", "OPENAI_API_KEY": KEY}
SOON = tuple(
    word
    for retries in ("stream_max_retries=1", "request_max_retries=0")
    for word in ("-c", f"model_providers.{PROVIDER}.{retries}")
)
"""Arguments with which it gives up soon."""


@asynccontextmanager
async def codex_inside(base: Path, *arguments: str) -> AsyncGenerator[Inside]:
    """Started, in a project of its own, without any network."""
    if not PROGRAM.exists():
        raise AssertionError("Codex is not installed: run scripts/setup test")
    played = Played(
        agent=Codex(),
        settings={"codex": PROGRAM},
        key=KEY,
        env=ENV,
        api=Path(fake_responses.__file__),
        port=PORT,
        script=Script,
    )
    async with agent_inside(base, played, project=base / "app", arguments=arguments) as inside:
        yield inside
