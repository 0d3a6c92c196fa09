"""demo: a short story with a sandbox, told while it happens; in the end nothing is left of it."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csb_mcp.errors import DeadlineExceeded
from csb_mcp.lib.safe_open import read_regular
from csb_mcp.transports.cli.client import Client, sandbox_path
from csb_mcp.transports.cli.display import write_file
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import paint, put, say, show_json
from csb_mcp.transports.cli.stage import a_stage
from csb_mcp.transports.cli.terminal import one_row

_LOOK_AROUND = (
    "id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; ls /home;"
    " cat /etc/shadow; echo > /usr/x; exec 3<>/dev/tcp/192.0.2.1/80"
)
_TYPED = "echo $((6 * 7)) > answer.txt; cat answer.txt"
_SHOWN = 8  # lines of an answer
_SECONDS = 60.0

Json = dict[str, Any]


def demo(line: Line) -> int:
    """Set the stage, play, clean up; whatever ends the story."""
    try:
        with a_stage("demo", line.settings) as (client, project):
            found = _Story(client, quiet=line.values["json"]).play(project, line)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if line.values["json"]:
        show_json(found)
    return 0


class _Story:
    """The calls, and what is told of them."""

    def __init__(self, client: Client, *, quiet: bool) -> None:
        self._client = client
        self._quiet = quiet

    def play(self, project: Path, line: Line) -> Json:
        """Create to delete."""
        self._title("1. A sandbox on a project folder.")
        self._told(f"csb-mcp create {project} --name demo --agent shell")
        began = time.monotonic()
        body = {"project_dir": str(project), "name": "demo", "agent": "shell"}
        record = self._client.post("/api/sandboxes", body, timeout=_SECONDS).json()
        took = time.monotonic() - began
        self._answer(f"{record['id']} {record['state']} after {took * 1000:.0f} ms")
        try:
            return {"create_seconds": round(took, 3), **self._live(project, line)}
        finally:
            self._title("5. It ends, and nothing is left of it.")
            self._told("csb-mcp delete demo")
            self._client.delete(sandbox_path("demo"), timeout=_SECONDS)

    def _live(self, project: Path, line: Line) -> Json:
        return {"terminal": self._type(project), **self._inside(), **self._see(line)}

    def _type(self, project: Path) -> str:
        self._title("2. Somebody types into its terminal, waits, and reads the screen.")
        self._told(f"csb-mcp send demo '{_TYPED}' --keys Enter")
        keys = {"text": _TYPED, "keys": ["Enter"]}
        sent = self._client.post(sandbox_path("demo", "keys"), keys).json()
        self._told("csb-mcp wait demo --file answer.txt --terminal-idle 0.3 --mode all")
        until = [{"file": "answer.txt"}, {"terminal_idle": 0.3}]
        body = {"sandboxes": "demo", "until": until, "mode": "all", "cursor": sent["cursor"]}
        if not self._client.post("/api/wait", body, timeout=_SECONDS).json()["satisfied"]:
            raise DeadlineExceeded("the terminal did not do what was typed")
        self._told("csb-mcp read demo")
        view = self._client.get(sandbox_path("demo", "terminal")).json()
        text = "\n".join(one_row(row) for _, row in view["rows"]).rstrip()
        self._answer(text)
        answer = read_regular(project, "answer.txt", 100).decode(errors="replace").strip()
        self._answer(f"(and on the host, in {project}/answer.txt: {answer})")
        return text

    def _inside(self) -> Json:
        self._title("3. Beside the terminal: what can be reached from inside?")
        self._told(f'csb-mcp run demo -- "{_LOOK_AROUND}"')
        path = sandbox_path("demo", "commands")
        result = self._client.post(path, {"command": _LOOK_AROUND}, timeout=_SECONDS).json()
        self._answer(result["stdout"] + result["stderr"])
        return {"inside": result}

    def _see(self, line: Line) -> Json:
        self._title("4. What its display shows, and what it costs.")
        target = line.values["output"]
        self._told("csb-mcp screenshot demo" + (f" -o {target}" if target else ""))
        answer = self._client.get(sandbox_path("demo", "screenshot"))
        if target:
            write_file(target, answer.body)
        self._answer(f"{len(answer.body)} bytes of PNG" + (f", saved: {target}" if target else ""))
        self._told("csb-mcp metrics demo")
        usage = self._client.get(sandbox_path("demo", "metrics")).json()["sandbox"]
        self._answer(f"{usage['processes']} processes, {usage['memory'] // 2**20} MiB")
        return {"picture_bytes": len(answer.body), "usage": usage}

    def _title(self, text: str) -> None:
        if not self._quiet:
            put(f"\n{paint(text, 'bold')}\n")

    def _told(self, command: str) -> None:
        if not self._quiet:
            say(f"  $ {command}")

    def _answer(self, text: str) -> None:
        for row in text.strip().splitlines()[: 0 if self._quiet else _SHOWN]:
            say(f"    {row}")


ACTIONS: dict[str, Callable[[Line], int]] = {"demo": demo}
