"""The real Claude Code on the host as an MCP client; its model is a Messages API of ours."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import fake_api
from tests.support.claude_inside import KEY, PROGRAM
from tests.support.fake_api import Script, Turn
from tests.support.station import end

COMMAND = Path(sys.executable).with_name("csb-mcp")
TOOL = "mcp__csb__"
SECONDS = 120
_KINDS = {
    "ID": r'"id": ?"([a-z0-9]{8})"',
    "CURSOR": r"\b([a-z0-9]{8}(?:\.[0-9a-f]+){4})\b",
    "QUESTION": r"question (\S+), permission",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What the model got for one call: the texts of it, and pictures as (media type, base64)."""

    tool: str
    error: bool
    text: str
    pictures: Sequence[tuple[str, str]] = ()

    @property
    def structured(self) -> dict[str, Any]:
        """What a tool gave as a structure: Claude Code shows the model that instead of texts."""
        return json.loads(self.text)


@dataclass(slots=True)
class Outside:
    """It, in a home of its own; csb-mcp is found by PATH, its folders lie in ``base``."""

    base: Path
    script: Script
    port: int
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    def run(self, *words: str, program: Path = PROGRAM) -> str:
        """Run it to its end; gives what it printed."""
        done = subprocess.run(
            [str(program), *words],
            env=self._environment(),
            cwd=self.base / "home",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr}\n{self._last_words()}"
        return done.stdout

    def work(self, prompt: str) -> str:
        """One prompt, worked off with all tools of ours allowed; gives what the model says last."""
        words = ("--allowedTools", f"{TOOL}*", "--output-format", "json")
        return json.loads(self.run("-p", prompt, *words))["result"]

    def results(self) -> list[Result]:
        """What the model got, in order."""
        messages = self.script.bodies[-1]["messages"]
        blocks = [block for one in messages for block in fake_api.blocks(one)]
        names = {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}
        return [
            _result(names[block["tool_use_id"]].removeprefix(TOOL), block)
            for block in blocks
            if block["type"] == "tool_result"
        ]

    def told(self) -> str:
        """All that it was told with the first request: its system prompt, its prompt, and ours."""
        first = self.script.bodies[0]
        system = {"content": first.get("system", "")}
        blocks = [block for one in (system, *first["messages"]) for block in fake_api.blocks(one)]
        return "\n".join(block.get("text", "") for block in blocks)

    def say(self, *calls: tuple[str, dict[str, Any]], end: str) -> None:
        """Have the model call tools of ours, one after the other, and then say something.

        Arguments may be <ID>, <CURSOR>, <QUESTION>: what a tool gave last of that kind.
        """
        turns = [*(_turn(TOOL + name, given) for name, given in calls), {"text": end}]
        # With -p it has no tool to ask its user, as a subagent has none.
        self.script.say(*({"side": True, **turn} for turn in turns))

    def sandboxes(self) -> list[str]:
        """Ids of all that there are, by our own command."""
        return self.run("list", "--quiet", program=COMMAND).split()

    def clear(self) -> None:
        """Delete them."""
        if left := self.sandboxes():
            self.run("delete", *left, program=COMMAND)

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.base / "home"),
            "PATH": f"{COMMAND.parent}:/usr/bin:/bin",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self.port}",
            "ANTHROPIC_API_KEY": KEY,
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ENABLE_TOOL_SEARCH": "false",  # or the model would have to look for our tools first
            "MCP_CONNECTION_NONBLOCKING": "false",  # its first request has them already
            "CSB_MCP_STATE_DIR": str(self.base / "state"),
            "CSB_MCP_RUNTIME_DIR": str(self.base / "run"),
            "CSB_MCP_PROJECT_ROOTS": str(self.base / "projects"),
            "CSB_MCP_CONFIG": str(self.base / "config.toml"),
            "CSB_MCP_IDLE_EXIT": "60s",
            "CSB_MCP_SPARES": "0",
            **self.settings,
        }

    def _last_words(self) -> str:
        return json.dumps([body["messages"][-1] for body in self.script.bodies[-2:]])[:4000]


def _turn(tool: str, arguments: dict[str, Any]) -> Turn:
    words = json.dumps(arguments)
    find = {name: pattern for name, pattern in _KINDS.items() if f"<{name}>" in words}
    return {"find": find, "tools": [[tool, arguments]]}


def _result(tool: str, block: Mapping[str, Any]) -> Result:
    inner = fake_api.blocks(block)
    sources = [one["source"] for one in inner if one["type"] == "image"]
    return Result(
        tool,
        bool(block.get("is_error")),
        "\n".join(one["text"] for one in inner if one["type"] == "text"),
        tuple((source["media_type"], source["data"]) for source in sources),
    )


@contextmanager
def claude_outside(base: Path) -> Generator[Outside]:
    """It and its model. In the end nothing runs any more: what it made is deleted."""
    assert PROGRAM.exists(), "Claude Code is not installed: run scripts/setup test"
    for name in ("home", "api", "projects"):
        (base / name).mkdir(exist_ok=True)
    (base / "config.toml").touch()
    server = fake_api.server(base / "api")
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    outside = Outside(base, server.script, server.server_port)
    try:
        yield outside
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
        lock = base / "state/daemon.lock"
        if lock.exists():
            try:
                outside.clear()
            finally:
                end(int(lock.read_text()), signal.SIGTERM)
