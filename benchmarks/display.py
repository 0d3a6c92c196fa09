"""A display without a sandbox around it, for benchmarks of what is done with it."""

import asyncio
import os
import statistics
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.common import quartile
from csb_mcp.config import load_settings
from csb_mcp.host.display.xvfb import XvfbDisplay, XvfbDisplays
from csb_mcp.host.launchers import Launchers, find_tool
from csb_mcp.model import Folders, Geometry

UNUSED_UID = 65533  # whom root's display runs as


def show(name: str, times: list[float], floor: list[float]) -> None:
    """One line of the table."""
    best = quartile(times)
    ratio = best / quartile(floor)
    print(f"  {name:44} {best:7.2f} ({statistics.median(times):6.2f})   x{ratio:.2f}")


@asynccontextmanager
async def screen(base: Path, geometry: Geometry) -> AsyncGenerator[tuple[XvfbDisplay, Folders]]:
    """A display that nobody draws on."""
    launchers = Launchers(base / "launchers", load_settings(environ={"HOME": "/nowhere"}))
    launchers.install()
    runtime = base / "runtime"
    runtime.mkdir()
    uid = os.getuid() or UNUSED_UID
    os.chown(runtime, uid, uid)
    folders = Folders(runtime, base / "state")
    displays = XvfbDisplays(launchers.path, find_tool("Xvfb"), find_tool("lwm"))
    launch = await displays.prepare(folders, geometry, gl=False)
    drop = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    with running([*(drop if os.getuid() == 0 else ()), *launch.argv], {}):
        display = await displays.connect(folders, geometry, asyncio.get_running_loop().time() + 15)
        yield display, folders
        await display.close()


def inside(folders: Folders, *argv: str) -> list[str]:
    """``argv`` where the display is :0, as a payload sees it."""
    bind = ["--tmpfs", "/tmp", "--ro-bind", str(folders.x11), "/tmp/.X11-unix"]
    return ["bwrap", "--dev-bind", "/", "/", *bind, "--die-with-parent", *argv]


def environment(folders: Folders) -> dict[str, str]:
    """What a client of the display needs."""
    path = "/usr/local/bin:/usr/bin:/bin"
    return {"DISPLAY": ":0", "XAUTHORITY": str(folders.xauthority), "PATH": path}


@contextmanager
def running(argv: list[str], env: dict[str, str]) -> Generator[None]:
    """A process for the length of the block."""
    process = subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
