"""Somebody else's client, the MCP Inspector's CLI, drives a sandbox from create to delete."""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.lib.processes import ProcessHandle, peer_pid

REPOSITORY = Path(__file__).parents[2]
NODE = REPOSITORY / ".venv/bin/node"
INSPECTOR = REPOSITORY / ".venv/npm/node_modules/.bin/mcp-inspector"
COMMAND = REPOSITORY / ".venv/bin/csb-mcp"
ERAS = ("legacy", "modern")
TOOL_FAILED = 5  # the Inspector's exit status for an answer with isError


@dataclass(frozen=True, slots=True)
class Inspector:
    """The Inspector's CLI on ``csb-mcp stdio``: a new process, and so a new client, each call."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict[str, str])

    def run(self, era: str, *options: str) -> subprocess.CompletedProcess[str]:
        settings = [f"-e{name}={value}" for name, value in self.environ.items()]
        return subprocess.run(
            [
                *(NODE, INSPECTOR, "--cli", *settings, COMMAND, "stdio", *options),
                *("--protocol-era", era, "--format", "json", "-q"),
            ],
            env={"PATH": f"{NODE.parent}:{os.environ['PATH']}", "HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def listed(self, era: str, method: str, *options: str) -> dict[str, Any]:
        """The whole result of a method that is no tool's."""
        done = self.run(era, "--method", method, *options)
        assert done.returncode == 0, f"{method}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)["result"]

    def resource(self, era: str, uri: str) -> dict[str, Any]:
        """What a resource holds."""
        (contents,) = self.listed(era, "resources/read", "--uri", uri)["contents"]
        return contents

    def call(self, era: str, tool: str, **arguments: object) -> dict[str, Any]:
        """A tool's whole result. Fails unless the tool succeeded."""
        named = ("--method", "tools/call", "--tool-name", tool)
        done = self.run(era, *named, "--tool-args-json", json.dumps(arguments))
        assert done.returncode == 0, f"{tool}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)["result"]

    def value(self, era: str, tool: str, **arguments: object) -> dict[str, Any]:
        """The structured part of a tool's result."""
        return self.call(era, tool, **arguments)["structuredContent"]

    def text(self, era: str, tool: str, **arguments: object) -> str:
        """The text parts of a tool's result."""
        content = self.call(era, tool, **arguments)["content"]
        return "\n".join(part["text"] for part in content if part["type"] == "text")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("projects")


@pytest.fixture(scope="module")
def inspector(
    tmp_path_factory: pytest.TempPathFactory, projects: Path, module_dir: Path
) -> Iterator[Inspector]:
    if not INSPECTOR.exists():
        pytest.skip("the Inspector is not installed: run scripts/setup test")
    runtime = module_dir / "run"
    environ = {
        "CSB_MCP_STATE_DIR": str(tmp_path_factory.mktemp("state")),
        "CSB_MCP_RUNTIME_DIR": str(runtime),
        "CSB_MCP_PROJECT_ROOTS": str(projects),
        "CSB_MCP_IDLE_EXIT": "2s",
    }
    yield Inspector(tmp_path_factory.mktemp("home"), environ)
    wait_for_idle_exit(runtime / "daemon/mcp.sock")


def wait_for_idle_exit(socket: Path) -> None:
    """The daemon that the first call started ends by itself once nothing needs it."""
    try:
        daemon = ProcessHandle(peer_pid(socket))
    except OSError:
        return  # it has ended
    deadline = time.monotonic() + 15
    while daemon.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = not daemon.alive()
    daemon.kill()
    daemon.close()
    assert ended, "an auto-started daemon went on without sandboxes and clients"


@pytest.mark.parametrize("era", ERAS)
def test_the_schemas_are_portable(inspector: Inspector, era: str) -> None:
    tools = inspector.listed(era, "tools/list", "--strict")["tools"]
    names = {tool["name"] for tool in tools}
    assert {"create_sandbox", "screenshot", "send_keys", "metrics", "stop"} <= names
    assert {"pause", "resume", "click", "drag", "scroll", "type_text"} <= names


@pytest.mark.parametrize("era", ERAS)
def test_resources_and_prompts_are_listed(inspector: Inspector, era: str) -> None:
    resources = inspector.listed(era, "resources/list")["resources"]
    assert resources[0]["uri"] == "csb://sandboxes"
    templates = inspector.listed(era, "resources/templates/list")["resourceTemplates"]
    assert len(templates) == 6
    prompts = inspector.listed(era, "prompts/list")["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["supervise", "hand_over"]
    asked = ("--prompt-name", "supervise", "--prompt-args", "goal=all is well")
    prompt = inspector.listed(era, "prompts/get", *asked)
    assert "all is well" in prompt["messages"][0]["content"]["text"]


@pytest.mark.timeout(180)
def test_a_whole_life(inspector: Inspector, projects: Path) -> None:
    """In both eras at once: each call starts Node, which takes long, on one processor."""
    with ThreadPoolExecutor() as pool:
        lives = [pool.submit(live, inspector, projects, era) for era in ERAS]
    for each in lives:
        each.result()


def live(inspector: Inspector, projects: Path, era: str) -> None:
    project = projects / era
    project.mkdir()
    given = {"project_dir": str(project), "agent": "shell", "name": f"life-{era}"}
    record = inspector.value(era, "create_sandbox", **given)
    assert (record["state"], record["project_dir"]) == ("running", str(project))
    sandbox = record["id"]
    try:
        drive(inspector, era, sandbox)
        assert (project / "made").read_text() == "42\n"
        stopped = inspector.value(era, "stop", sandbox=sandbox)
        assert stopped["state"] == "stopped"
        assert "answer 42" in inspector.text(era, "read_terminal", sandbox=sandbox)
    finally:
        inspector.call(era, "delete", sandbox=sandbox)
    assert sandbox not in inspector.text(era, "list_sandboxes")


def drive(inspector: Inspector, era: str, sandbox: str) -> None:
    """What a supervisor does with a sandbox, each step seen by the next."""
    typed = "echo $((40 + 2)) | tee made; echo answer $(cat made)"
    sent = inspector.text(era, "send_keys", sandbox=sandbox, text=typed, keys=["Enter"])
    assert "cursor" in sent
    # What was typed says "answer $(cat made)": only the shell itself can print the number there.
    until = [{"terminal_text": "answer 42"}]
    waited = inspector.value(era, "wait", sandboxes=[sandbox], until=until, timeout=20)
    assert waited["satisfied"], waited
    assert "answer 42" in inspector.text(era, "read_terminal", sandbox=sandbox)

    ran = inspector.value(era, "run_command", sandbox=sandbox, command="cat made; exit 3")
    assert (ran["exit_code"], ran["stdout"]) == (3, "42\n")

    shot = inspector.call(era, "screenshot", sandbox=sandbox, max_width=320)["content"]
    (image,) = (part for part in shot if part["type"] == "image")
    assert image["mimeType"] == "image/png"
    assert base64.b64decode(image["data"]).startswith(b"\x89PNG")

    address = f"csb://sandbox/{sandbox}"
    assert json.loads(inspector.resource(era, address)["text"])["id"] == sandbox
    assert "answer 42" in inspector.resource(era, f"{address}/terminal")["text"]
    assert "answer 42" in inspector.resource(era, f"{address}/log")["text"]
    screen = inspector.resource(era, f"{address}/screen")
    assert base64.b64decode(screen["blob"]).startswith(b"\x89PNG")

    usage = inspector.value(era, "metrics", sandbox=sandbox)
    assert usage["host"]["sandboxes_running"] in (1, 2)  # ours, and the other era's
    assert usage["sandbox"]["processes"] > 3  # tmux, Xvfb, the launcher, the helper at least


@pytest.mark.parametrize("era", ERAS)
def test_an_error_reaches_the_caller(inspector: Inspector, projects: Path, era: str) -> None:
    arguments = json.dumps({"project_dir": str(projects / "missing"), "colour": "red"})
    named = ("--method", "tools/call", "--tool-name", "create_sandbox")
    done = inspector.run(era, *named, "--tool-args-json", arguments)
    assert done.returncode == TOOL_FAILED
    assert "colour" in done.stdout + done.stderr
