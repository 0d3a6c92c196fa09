"""What a look at a sandbox's usage costs, what entering its limits does, freezing and removing.

The floor of a look is four preads of descriptors that are kept; beside it what psutil takes for the
same tree. As root on cgroup v1 or v2; elsewhere what stands in for a cgroup is measured.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from csb_mcp.config import load_settings
from csb_mcp.host.limits.ladder import HostLimiter
from csb_mcp.host.metrics import tree_usage
from csb_mcp.model import Sandbox, SandboxSpec, SandboxState
from csb_mcp.ports import Enclosure

TIMES = 2000
STARTS = 60
FREEZES = 50
LIVES = 30
CHILDREN = 8
MOST_LOOK = 0.1  # ms, by cgroup
OWN_UID = os.geteuid()


def sandbox(name: str) -> Sandbox:
    """A record with all limits."""
    spec = SandboxSpec(project_dir=Path("/"), memory=512 * 1024**2, pids=256, cpus=1.0)
    state = SandboxState.CREATING
    return Sandbox(id=name, spec=spec, state=state, uid=OWN_UID, created_at=0.0)


def spent(action: Callable[[], object], times: int) -> list[float]:
    """Milliseconds of each."""
    found: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        found.append((time.perf_counter() - began) * 1e3)
    return found


def show(what: str, times: list[float], floor: float | None = None) -> float:
    """Print a line; gives the median."""
    middle = statistics.median(times)
    ninety = sorted(times)[int(len(times) * 0.9)]
    ratio = f"   {middle / floor:6.2f} x floor" if floor else ""
    print(f"{what:44} {middle:9.3f} ms   p90 {ninety:9.3f}{ratio}")
    return middle


def psutil_tree(root: int) -> None:
    """As it was before: the host's whole /proc is searched for children."""
    process = psutil.Process(root)
    for each in (process, *process.children(recursive=True)):
        with each.oneshot():
            each.cpu_times()
            each.memory_info()


def start(words: Sequence[str]) -> float:
    """Milliseconds of /bin/true behind ``words``."""
    began = time.perf_counter()
    subprocess.run([*words, "/bin/true"], check=True)
    return (time.perf_counter() - began) * 1e3


async def pauses(enclosure: Enclosure, pid: int) -> tuple[list[float], list[float]]:
    """Times of freezing and of thawing."""
    freezes: list[float] = []
    thaws: list[float] = []
    for _ in range(FREEZES):
        began = time.perf_counter()
        await enclosure.freeze(pid)
        middle = time.perf_counter()
        await enclosure.thaw(pid)
        freezes.append((middle - began) * 1e3)
        thaws.append((time.perf_counter() - middle) * 1e3)
    return freezes, thaws


async def lives(limiter: HostLimiter) -> tuple[list[float], list[float]]:
    """Times of making and of removing."""
    made: list[float] = []
    removed: list[float] = []
    for n in range(LIVES):
        began = time.perf_counter()
        enclosure = await limiter.make(sandbox(f"bench-{os.getpid()}-{n}"))
        made.append((time.perf_counter() - began) * 1e3)
        began = time.perf_counter()
        await enclosure.remove()
        removed.append((time.perf_counter() - began) * 1e3)
    return made, removed


async def main() -> int:
    """0 if the bound holds."""
    limiter = HostLimiter(load_settings())
    enclosure = await limiter.make(sandbox(f"bench-{os.getpid()}"))
    sleepers = f"for n in $(seq {CHILDREN}); do sleep 1000 & done; wait"
    words = [*enclosure.prefix, *enclosure.payload_prefix, "/bin/sh", "-c", sleepers]
    tree = subprocess.Popen(words)  # noqa: ASYNC220  nothing else runs in this loop
    try:
        while tree_usage(tree.pid).processes < CHILDREN + 1:
            await asyncio.sleep(0.01)
        print(f"a tree of {CHILDREN + 1} processes; limits by {dict(enclosure.enforced_by)}\n")
        fds = [os.open("/proc/self/stat", os.O_RDONLY) for _ in range(4)]
        floor = show(
            "floor: four preads of kept descriptors",
            spent(lambda: [os.pread(fd, 4096, 0) for fd in fds], TIMES),
        )
        for fd in fds:
            os.close(fd)
        look = show("usage", spent(lambda: enclosure.usage(tree.pid), TIMES), floor)
        show("hits", spent(enclosure.hits, TIMES), floor)
        show("the tree by /proc", spent(lambda: tree_usage(tree.pid), TIMES // 10), floor)
        show("the tree by psutil", spent(lambda: psutil_tree(tree.pid), TIMES // 10), floor)
        print()
        bare = show("floor: start /bin/true", [start(()) for _ in range(STARTS)])
        show("and enter the tree's limits", [start(enclosure.prefix) for _ in range(STARTS)], bare)
        both = (*enclosure.prefix, *enclosure.payload_prefix)
        show("and the payload's", [start(both) for _ in range(STARTS)], bare)
        print()
        freezes, thaws = await pauses(enclosure, tree.pid)
        show("freeze", freezes)
        show("thaw", thaws)
    finally:
        tree.kill()
        await enclosure.remove()
        tree.wait()
    made, removed = await lives(limiter)
    show("make", made)
    show("remove", removed)
    by_cgroup = enclosure.enforced_by["memory"] in ("cgroup v1", "cgroup v2", "systemd scope")
    return 1 if by_cgroup and look > MOST_LOOK else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
