"""What a tool call costs end to end over stdio, and what the bridge costs to start.

Ours: ``csb-mcp stdio`` before a running daemon. The floor: a server of the bare SDK with one tool
that does nothing, which is also how a server without a daemon would be started. Both are driven by
the same few lines, call by call in turn, so that the load of the machine falls on both alike.
"""

import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import milliseconds

CALLS = 500
STARTS = 15
MOST_RATIO = 1.5
MOST_START = 80.0  # ms
MOST_MEMORY = 20.0  # MiB

BARE = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare", version="1")
@server.tool(description="does nothing", structured_output=False)
async def noop() -> str:
    return "ok"
server.run("stdio")
"""
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Client:
    """A server behind two pipes."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, method: str, **params: Any) -> Any:
        """Send a request and wait for its answer."""
        assert self.process.stdin
        assert self.process.stdout
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def call(self, tool: str) -> None:
        """Call a tool without arguments."""
        answer = self.ask("tools/call", name=tool, arguments={})
        assert not answer["result"].get("isError"), answer

    def memory(self) -> float:
        """Most resident memory so far, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def close(self) -> None:
        """Close its input and wait until it has ended."""
        self.process.communicate()


def calls(ours: Client, bare: Client) -> tuple[float, float]:
    """Median of a call, ours and the floor."""
    for _ in range(50):
        ours.call("list_sandboxes")
        bare.call("noop")
    pairs = [
        (milliseconds(lambda: ours.call("list_sandboxes")), milliseconds(lambda: bare.call("noop")))
        for _ in range(CALLS)
    ]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def starts(argv: list[str], env: dict[str, str], count: int) -> tuple[float, float]:
    """Median from the start of the process to its first answer, and its memory."""
    times: list[float] = []
    memory = 0.0
    for _ in range(count):
        began = time.perf_counter()
        client = Client(argv, env)
        client.ask("server/discover")
        times.append((time.perf_counter() - began) * 1000)
        memory = max(memory, client.memory())
        client.close()
    return statistics.median(times), memory


def report(what: str, ours: float, bare: float, most: float, unit: str) -> bool:
    """Print a line; whether ours is good enough."""
    verdict = "ok" if ours <= most else f"MISSED: {most:g} {unit} at most"
    print(f"{what:32} ours {ours:8.2f} {unit:3}  bare SDK {bare:8.2f} {unit:3}  {verdict}")
    return ours <= most


def measure(base: Path) -> bool:
    """All of it, in folders below ``base``; whether nothing was missed."""
    env = {
        "HOME": str(base),
        "PATH": os.environ["PATH"],
        "CSB_MCP_STATE_DIR": str(base / "state"),
        "CSB_MCP_RUNTIME_DIR": str(base / "run"),
    }
    ours, bare = (
        [str(Path(sys.executable).with_name("csb-mcp")), "stdio"],
        [sys.executable, "-c", BARE],
    )
    first = Client(ours, env)
    floor = Client(bare, env)
    try:
        first_answer = milliseconds(lambda: first.ask("server/discover"))
        print(f"the first start, daemon included: {first_answer:.0f} ms")
        a_call, a_noop = calls(first, floor)
        start, memory = starts(ours, env, STARTS)
        bare_start, bare_memory = starts(bare, env, 3)
    finally:
        first.close()
        floor.close()
        end_daemon(base / "state/daemon.lock")
    results = [
        report("a call", a_call, a_noop, MOST_RATIO * a_noop, "ms"),
        report("start to first answer", start, bare_start, MOST_START, "ms"),
        report("memory", memory, bare_memory, MOST_MEMORY, "MiB"),
    ]
    print(f"ratio of a call: {a_call / a_noop:.2f}")
    return all(results)


def end_daemon(lock: Path) -> None:
    """End the daemon whose pid stands in its lock file."""
    pid = int(lock.read_text())
    descriptor = os.pidfd_open(pid)
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    select.select([descriptor], [], [], 10)
    os.close(descriptor)


def main() -> int:
    """Measure in a folder of its own; 1 if a bound was missed."""
    base = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    try:
        return 0 if measure(base) else 1
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    sys.exit(main())
