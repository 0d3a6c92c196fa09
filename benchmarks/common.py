"""What several benchmarks need: times, memory, a normal user."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

USER = 65533  # an unused one


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def quartile(times: list[float]) -> float:
    """A quarter of ``times`` is shorter."""
    return statistics.quantiles(times, n=4)[0]


def median_ms(took: list[float]) -> float:
    """Median of seconds, as milliseconds."""
    return statistics.median(took) * 1000


def pss(pid: int) -> int:
    """KiB, each shared page by its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def as_normal_user() -> None:
    """If this is root, begin anew as somebody else: that is what most daemons are."""
    if os.getuid() == 0:
        drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "HOME=/"]
        os.execvp(drop[0], [*drop, sys.executable, *sys.argv])
