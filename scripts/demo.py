"""A short story: a supervisor works with one sandbox, over the real protocol.

Run by ``make demo``. Everything lies in a folder of its own, which is removed in the end; only the
screenshot stays, in ``build/demo.png`` or where an argument says.
"""

import asyncio
import base64
import contextlib
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent

LINES, WIDTH = 12, 108  # of an answer, as much as a reader wants of it
PAGE_SCRIPT = r"""#!/bin/bash
# Stands for the agent's work: makes a page with a script in it.
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
LOOK_AROUND = (
    "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; echo homes: $(ls /home);"
    " cat /etc/shadow; echo > /usr/x; exec 3<>/dev/tcp/192.0.2.1/80"
)


def say(text: str) -> None:
    """One line of the story."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


class Supervisor:
    """An MCP client that shows what it calls and what it is answered."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """Call a tool; an error ends the story."""
        words = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        print(f"  > {tool}({words})"[:WIDTH], flush=True)
        result = await self._client.call_tool(tool, arguments)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        for line in text.splitlines()[:LINES]:
            print(f"    {line}"[:WIDTH], flush=True)
        if result.is_error:
            raise SystemExit(f"demo: {tool} failed")
        return result


async def story(supervisor: Supervisor, project: Path, picture: Path) -> None:
    """The main job, end to end."""
    say("1. A supervisor asks for a sandbox on a project folder.")
    began = time.monotonic()
    await supervisor.call("create_sandbox", project_dir=str(project), name="demo", agent="shell")
    print(f"    (took {(time.monotonic() - began) * 1000:.0f} ms)", flush=True)

    say("2. It types into the terminal, waits for what that makes, and reads the screen.")
    await supervisor.call(
        "send_keys", sandbox="demo", text="bash make-page.sh; id -un", keys=["Enter"]
    )
    done = [{"file": "page.html"}, {"terminal_idle": 0.3}]
    await supervisor.call("wait", sandboxes=["demo"], until=done, mode="all")
    await supervisor.call("read_terminal", sandbox="demo")

    say("3. A browser inside opens the page; the supervisor waits until it has painted.")
    blank = await supervisor.call("screenshot", sandbox="demo", max_width=64)
    await supervisor.call(
        "run_command",
        sandbox="demo",
        command='chromium "file://$PWD/page.html"',
        background=True,
    )
    frame = re.search(r"frame ([^:]+):", str(blank.content))
    changed = [{"screen_changed": frame[1] if frame else ""}]
    await supervisor.call("wait", sandboxes=["demo"], until=changed, timeout=40)
    still = [{"screen_stable": 3}]
    await supervisor.call("wait", sandboxes=["demo"], until=still, timeout=40)

    say("4. It takes a screenshot.")
    shot = await supervisor.call("screenshot", sandbox="demo")
    image = next(block for block in shot.content if isinstance(block, ImageContent))
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(base64.b64decode(image.data))
    print(f"    saved: {picture}", flush=True)

    say("5. Beside the terminal it runs a command: what can be reached from inside?")
    await supervisor.call("run_command", sandbox="demo", command=LOOK_AROUND)

    say("6. It looks at the cost, then stops and deletes the sandbox.")
    await supervisor.call("metrics", sandbox="demo")
    await supervisor.call("stop", sandbox="demo")
    await supervisor.call("delete", sandbox="demo")


async def main() -> None:
    """Set the stage, play the story, leave nothing but the picture."""
    base = Path(tempfile.mkdtemp(prefix="csb-demo-", dir="/dev/shm"))  # sockets need a short path
    base.chmod(0o711)
    project = base / "projects/hello"
    project.mkdir(parents=True)
    (project / "make-page.sh").write_text(PAGE_SCRIPT)
    usual = Path(__file__).resolve().parent.parent / "build/demo.png"
    picture = Path(sys.argv[1]).absolute() if sys.argv[1:] else usual
    environment = {
        "HOME": os.environ.get("HOME", "/"),
        "PATH": os.environ.get("PATH", os.defpath),
        "CSB_MCP_STATE_DIR": str(base / "state"),
        "CSB_MCP_RUNTIME_DIR": str(base / "run"),
        "CSB_MCP_PROJECT_ROOTS": str(base / "projects"),
    }
    command = Path(sys.executable).parent / "csb-mcp"
    server = StdioServerParameters(command=str(command), args=["stdio"], env=environment)
    try:
        async with Client(stdio_client(server)) as client:
            try:
                await story(Supervisor(client), project, picture)
            finally:  # a story that breaks off leaves no sandbox either
                await client.call_tool("delete", {"sandbox": "demo"})
    finally:
        end_daemon(base / "state/daemon.lock")
        shutil.rmtree(base, ignore_errors=True)
    say(f"Nothing is left but the picture: {picture}")


def end_daemon(lock: Path) -> None:
    """It would end by itself after a while; nobody needs to wait for that."""
    with contextlib.suppress(OSError, ValueError):
        daemon = os.pidfd_open(int(lock.read_text()))
        signal.pidfd_send_signal(daemon, signal.SIGTERM)
        select.select([daemon], [], [], 10)
        os.close(daemon)


if __name__ == "__main__":
    asyncio.run(main())
