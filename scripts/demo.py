"""A short story: a supervisor works with one sandbox, over the real protocol.

Run by ``make demo``. Everything lies in a folder of its own, which is removed in the end; only the
screenshot stays.
"""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent

PAGE_SCRIPT = r"""#!/bin/bash
# Written by the agent in the sandbox: makes a page with a script in it.
cat > page.html <<'HTML'
<!doctype html><meta charset="utf-8"><title>made inside</title>
<body style="font: 28px sans-serif; background: #0b3d2e; color: #eafff5; padding: 40px">
<h1>Hello from inside a sandbox</h1>
<p id="sum">the script did not run</p>
<p>No network, no home of yours, no display of yours.</p>
<script>
const n = Array.from({length: 10}, (_, i) => i + 1);
document.getElementById("sum").textContent =
  `JavaScript says: ${n.join(" + ")} = ${n.reduce((a, b) => a + b)}`;
document.title = "rendered";
</script>
HTML
echo "page written: $(wc -c < page.html) bytes"
"""


def say(text: str) -> None:
    """One line of the story."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def show(result: CallToolResult) -> None:
    """What the tool answered, indented and cut."""
    for block in result.content:
        if isinstance(block, TextContent):
            for line in block.text.splitlines()[:14]:
                print(f"    {line[:110]}", flush=True)


class Supervisor:
    """An MCP client that tells what it does."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """Call a tool, print the answer; an error ends the story."""
        result = await self._client.call_tool(tool, arguments)
        show(result)
        if result.is_error:
            raise SystemExit(f"demo: {tool} failed")
        return result


async def story(supervisor: Supervisor, project: Path, picture: Path) -> None:
    """The main job, end to end."""
    say("1. The supervisor asks for a sandbox on a project folder.")
    made = await supervisor.call("create_sandbox", project_dir=str(project), name="demo")
    assert made.structured_content is not None
    print(f"    payload runs as host uid {os.stat(project).st_uid} on disk", flush=True)

    say("2. It types into the sandbox's terminal, and waits for what that prints.")
    keys = await supervisor.call(
        "send_keys", sandbox="demo", text="bash make-page.sh && id -un && pwd", keys=["Enter"]
    )
    del keys
    await supervisor.call(
        "wait", sandboxes=["demo"], until=[{"file": "page.html"}, {"terminal_idle": 0.3}], mode="all"
    )
    await supervisor.call("read_terminal", sandbox="demo")

    say("3. A browser inside opens the page; the supervisor waits until the screen is still.")
    await supervisor.call(
        "run_command",
        sandbox="demo",
        command='chromium --window-position=0,0 --window-size=1280,800 "file://$PWD/page.html"',
        background=True,
    )
    await _painted(supervisor)

    say("4. It takes a screenshot.")
    shot = await supervisor.call("screenshot", sandbox="demo")
    image = next(block for block in shot.content if isinstance(block, ImageContent))
    picture.write_bytes(base64.b64decode(image.data))
    print(f"    saved: {picture}", flush=True)

    say("5. It runs a command beside the terminal: what can be reached from inside?")
    await supervisor.call(
        "run_command",
        sandbox="demo",
        command="grep -E '^(Seccomp|NoNewPrivs|CapEff)' /proc/self/status; ls -d /proc/[0-9]* | wc -l;"
        " ls /home; (exec 3<>/dev/tcp/192.0.2.1/80) 2>&1 | tail -1; cat /etc/shadow",
    )

    say("6. It looks at the cost, then stops and deletes the sandbox.")
    await supervisor.call("metrics", sandbox="demo")
    await supervisor.call("stop", sandbox="demo")
    await supervisor.call("delete", sandbox="demo")


async def _painted(supervisor: Supervisor) -> None:
    """Chromium needs a second or two for its first picture; then the screen holds still."""
    first = await supervisor.call("screenshot", sandbox="demo", max_width=64)
    assert first.structured_content is None or isinstance(first.structured_content, dict)
    await supervisor.call(
        "wait",
        sandboxes=["demo"],
        until=[{"screen_stable": 3}],
        timeout=40,
    )


async def main() -> None:
    """Set the stage, play the story, leave nothing but the picture."""
    base = Path(tempfile.mkdtemp(prefix="csb-demo-", dir="/dev/shm"))  # noqa: S108 - short and tmpfs
    base.chmod(0o711)
    project = base / "projects/hello"
    project.mkdir(parents=True)
    (project / "make-page.sh").write_text(PAGE_SCRIPT)
    picture = Path.cwd() / "build" / "demo.png"
    picture.parent.mkdir(exist_ok=True)
    environment = {
        "HOME": os.environ.get("HOME", "/"),
        "PATH": os.environ.get("PATH", os.defpath),
        "CSB_MCP_STATE_DIR": str(base / "state"),
        "CSB_MCP_RUNTIME_DIR": str(base / "run"),
        "CSB_MCP_PROJECT_ROOTS": str(base / "projects"),
        "CSB_MCP_IDLE_EXIT": "2s",
    }
    server = StdioServerParameters(
        command=str(Path(sys.executable).parent / "csb-mcp"), args=["stdio"], env=environment
    )
    try:
        async with Client(stdio_client(server)) as client:
            await story(Supervisor(client), project, picture)
    finally:
        _end_daemon(base)
        shutil.rmtree(base, ignore_errors=True)
    left = [path for path in Path("/dev/shm").glob(base.name)]  # noqa: S108
    say(f"Nothing is left behind{': ' + str(left) if left else ''}. The picture: {picture}")


def _end_daemon(base: Path) -> None:
    """The daemon would end by itself in two seconds; the demo does not keep people waiting."""
    lock = base / "state/daemon.lock"
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(lock.read_text().split()[0]), signal.SIGTERM)


if __name__ == "__main__":
    asyncio.run(main())
