"""Creating a sandbox, by network: what an egress proxy and pasta add, all in turn in one run.

The floor of ``allowlist`` is a create with ``none`` beside which the same box is made around a bare
Python, and another one starts, as the way out needs one on each side of the wall: so much the least
of such programs costs.

Run as root it becomes a normal user first, as benchmarks/sandbox.py. Exits 1 if a bound is missed.
"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import as_normal_user, median_ms, pss
from benchmarks.sandbox import PROMPT, Report
from csb_mcp.app import App
from csb_mcp.lib.processes import descendants, peer_pid
from csb_mcp.model import SandboxSpec
from tests.support.sandboxes import project_in, running_app, settings_in, short_folder

ROUNDS = 21
BOUNDS = {"allowlist": 15.0, "full": 40.0}  # ms more than none
FLOOR = "floor of allowlist"
PYTHON = ["/usr/bin/python3", "-I", "-S", "-c", "import os; os._exit(0)"]
PROXY_MIB = 16.0


async def create(app: App, project: Path, network: str) -> tuple[float, str]:
    """Seconds until the prompt is visible, and the sandbox's id."""
    began = time.perf_counter()
    sandbox = await app.service.create(SandboxSpec(project_dir=project, network=network))
    result = await app.service.wait([sandbox.id], [PROMPT], mode="any", timeout=20, cursor={})
    assert result.satisfied
    return time.perf_counter() - began, sandbox.id


def bare_box(base: Path) -> list[str]:
    """The egress proxy's, with a bare Python in it, and without the filter, which takes no time."""
    (launcher,) = (base / "run/launchers").glob("*/egress")
    folders = [word for name in ("door", "control", "log") for word in (f"--{name}", str(base))]
    shown = subprocess.run(
        [launcher, *folders, "--print-args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    args = shown[: shown.index("--")]
    at = args.index("--seccomp")
    return [*args[:at], *args[at + 2 :], "--", *PYTHON]


async def floor(app: App, project: Path, box: list[str]) -> tuple[float, str]:
    """See the module."""
    began = time.perf_counter()
    beside = [await asyncio.create_subprocess_exec(*words) for words in (box, PYTHON)]
    _, sandbox = await create(app, project, "none")
    for process in beside:
        assert await process.wait() == 0
    return time.perf_counter() - began, sandbox


async def creates(app: App, base: Path, project: Path, report: Report) -> None:
    """All in turn, so that they meet the same machine."""
    took: dict[str, list[float]] = {name: [] for name in ("none", *BOUNDS, FLOOR)}
    box = bare_box(base)
    for _ in range(ROUNDS):
        for name, seconds in took.items():
            each = floor(app, project, box) if name == FLOOR else create(app, project, name)
            spent, sandbox = await each
            seconds.append(spent)
            await app.service.delete(sandbox)
    for name, seconds in took.items():
        print(f"create with {name:<46} {median_ms(seconds):9.1f} ms")
    # Pair by pair: what slows the machine for a while slows both.
    more = {
        name: median_ms([a - b for a, b in zip(took[name], took["none"], strict=True)])
        for name in (*BOUNDS, FLOOR)
    }
    for name, bound in BOUNDS.items():
        report.row(f"create with {name}, more than none", more[name], "ms", bound)
    print(f"{FLOOR}, more than none {more[FLOOR]:33.2f} ms")
    print(f"create with allowlist, to its floor {more['allowlist'] / more[FLOOR]:32.2f} x")


async def memory(app: App, base: Path, report: Report) -> None:
    """What an idle egress proxy takes, bwrap around it included."""
    _, sandbox = await create(app, base / "projects/app", "allowlist")
    total = 0
    for pid in descendants(peer_pid(base / "run" / sandbox / "tmux")):
        near = [pid, *descendants(pid)]
        if any(b"/run/csb/program" in Path(f"/proc/{p}/cmdline").read_bytes() for p in near):
            total += pss(pid)
    await app.service.delete(sandbox)
    report.row("memory of an idle egress proxy (PSS)", total / 1024, "MiB", PROXY_MIB)


async def main() -> int:
    """All rows."""
    report = Report()
    with short_folder() as base:
        project = project_in(base)
        async with running_app(settings_in(base)) as app:
            await creates(app, base, project, report)
            await memory(app, base, report)
    return int(report.missed)


if __name__ == "__main__":
    as_normal_user()
    sys.exit(asyncio.run(main()))
