"""Creating a sandbox, by network: what an egress proxy and pasta add, all in turn in one run.

On a spare, which is what a create finds unless it follows another one at once or is not like the
last; and without one.

Run as root it becomes a normal user first, as benchmarks/sandbox.py. Exits 1 if a bound is missed.
"""

import asyncio
import sys
import time
from pathlib import Path

from benchmarks.common import as_normal_user, median_ms, pss
from benchmarks.sandbox import NO_SPARE, PROMPT, SPARE, Report, rested
from csb_mcp.app import App
from csb_mcp.lib.processes import descendants, peer_pid
from csb_mcp.model import SandboxSpec
from tests.support.sandboxes import project_in, running_app, settings_in, short_folder

ROUNDS = 11
BOUNDS = {"allowlist": 15.0, "full": 40.0}  # ms more than none
PROXY_MIB = 16.0


async def create(app: App, project: Path, network: str) -> tuple[float, str]:
    """Seconds until the prompt is visible, and the sandbox's id."""
    began = time.perf_counter()
    sandbox = await app.service.create(SandboxSpec(project_dir=project, network=network))
    result = await app.service.wait([sandbox.id], [PROMPT], mode="any", timeout=20, cursor={})
    assert result.satisfied
    return time.perf_counter() - began, sandbox.id


async def creates(app: App, without: App, project: Path, report: Report) -> None:
    """All in turn, so that they meet the same machine."""
    names = ("none", *BOUNDS)
    took: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in names} for kind in (SPARE, NO_SPARE)
    }
    for _ in range(ROUNDS):
        for name in names:
            await app.service.delete((await create(app, project, name))[1])
            for kind, one in ((SPARE, app), (NO_SPARE, without)):
                await rested(app, name)
                spent, sandbox = await create(one, project, name)
                took[kind][name].append(spent)
                await one.service.delete(sandbox)
    for kind, by_name in took.items():
        for name, seconds in by_name.items():
            print(f"create {kind} with {name:<30} {median_ms(seconds):9.1f} ms")
    for name, bound in BOUNDS.items():
        more = {kind: _more(by_name[name], by_name["none"]) for kind, by_name in took.items()}
        report.row(f"create with {name} {SPARE}, more than none", more[SPARE], "ms", bound)
        print(f"create with {name} {NO_SPARE}, more than none {more[NO_SPARE]:15.2f} ms")


def _more(took: list[float], none: list[float]) -> float:
    """Pair by pair: what slows the machine for a while slows both."""
    return median_ms([a - b for a, b in zip(took, none, strict=True)])


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
        project, settings = project_in(base), settings_in(base)
        async with running_app(settings) as app:
            with short_folder() as other:
                of_others = settings_in(other, spares=1, project_roots=settings.project_roots)
                async with running_app(of_others) as on_spares:
                    await creates(on_spares, app, project, report)
            await memory(app, base, report)
    return int(report.missed)


if __name__ == "__main__":
    as_normal_user()
    sys.exit(asyncio.run(main()))
