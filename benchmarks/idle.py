"""Many idle sandboxes at once: what each part of them costs in memory, processes and CPU.

``benchmarks/idle.py [NUMBER]``, 100 without one. As root it shows a root daemon's, by cgroup; as a
normal user a user's.
"""

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import pss
from csb_mcp.app import App
from csb_mcp.lib.processes import descendants, peer_pid
from csb_mcp.model import Sandbox, SandboxSpec
from tests.support.sandboxes import project_in, running_app, settings_in, short_folder

NUMBER = 100
AT_ONCE = 10
SETTLE, LOOK = 10.0, 20.0  # seconds
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
BOUND = 12.0  # MiB of an idle sandbox, by the design
# What a process is, by words of its command line; the first that fits.
PARTS = (
    ("terminal (tmux)", ("/tmux -u",)),
    ("display", ("Xvfb :0",)),
    ("window manager", ("lwm",)),
    ("payload", ("script -qefc", "bash\0-i", "exec bash")),
    ("helper", ("helper.sh",)),
    ("log writer", ("dd bs=", "told=")),
)


@dataclass
class Part:
    """Sums over all processes of one kind."""

    processes: int = 0
    pss: int = 0  # KiB
    ticks: int = 0
    pids: list[int] = field(default_factory=list[int])


def part_of(pid: int) -> str:
    """The part that a process belongs to."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    for name, signs in PARTS:
        if any(sign in words for sign in signs):
            return name
    return "payload" if words.strip() in ("bash", "/usr/bin/bash") else f"other: {words[:40]}"


def ticks(pid: int) -> int:
    """CPU ticks that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def processes(base: Path, made: list[Sandbox]) -> Iterator[int]:
    """All of them, the tmux servers first."""
    for sandbox in made:
        root = peer_pid(base / "run" / sandbox.id / "tmux")
        yield from (root, *descendants(root))


async def create_all(app: App, project: Path, number: int) -> list[Sandbox]:
    """Some at once, until there are enough."""
    made: list[Sandbox] = []
    while len(made) < number:
        spec = SandboxSpec(project_dir=project)
        count = min(AT_ONCE, number - len(made))
        made += await asyncio.gather(*(app.service.create(spec) for _ in range(count)))
    return made


async def measure(base: Path, made: list[Sandbox]) -> tuple[dict[str, Part], float]:
    """Each part's share, CPU over :data:`LOOK` seconds; and our own CPU in them, ms a second."""
    parts: dict[str, Part] = defaultdict(Part)
    for pid in processes(base, made):
        part = parts[part_of(pid)]
        part.processes += 1
        part.pss += pss(pid)
        part.pids.append(pid)
    before = {name: sum(map(ticks, part.pids)) for name, part in parts.items()}
    used = time.process_time()
    await asyncio.sleep(LOOK)
    used = time.process_time() - used
    for name, part in parts.items():
        part.ticks = sum(map(ticks, part.pids)) - before[name]
    return parts, used / LOOK * 1000


def report(parts: dict[str, Part], number: int) -> float:
    """Prints the table; gives MiB of a sandbox."""
    print(f"{'part':<18} {'processes':>9} {'MiB PSS':>8} {'CPU ms/s':>9}   (each of one sandbox)")
    for name, part in sorted(parts.items(), key=lambda item: -item[1].pss):
        cpu = part.ticks * TICK_MS / LOOK / number
        count, memory = part.processes / number, part.pss / 1024 / number
        print(f"{name:<18} {count:>9.1f} {memory:>8.2f} {cpu:>9.3f}")
    whole = sum(part.pss for part in parts.values()) / 1024 / number
    count = sum(part.processes for part in parts.values()) / number
    cpu = sum(part.ticks for part in parts.values()) * TICK_MS / LOOK / number
    print(f"{'all':<18} {count:>9.1f} {whole:>8.2f} {cpu:>9.3f}")
    return whole


async def main(number: int) -> int:
    """Create, look, delete."""
    with short_folder() as base:
        project = project_in(base)
        async with running_app(settings_in(base)) as app:
            began, empty = time.perf_counter(), pss(os.getpid())
            made = await create_all(app, project, number)
            print(f"{number} sandboxes in {time.perf_counter() - began:.1f} s, {AT_ONCE} at once")
            await asyncio.sleep(SETTLE)
            parts, daemon = await measure(base, made)
            whole = report(parts, number)
            grown = (pss(os.getpid()) - empty) / 1024
            print(f"daemon: {grown:.1f} MiB more than without, CPU {daemon:.1f} ms/s for all")
            print(f"limits: {dict(made[0].limits.enforced_by)}")
            await asyncio.gather(*(app.service.delete(sandbox.id) for sandbox in made))
    print(f"memory of an idle sandbox <= {BOUND:g} MiB: {'ok' if whole <= BOUND else 'MISSED'}")
    return int(whole > BOUND)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else NUMBER)))
