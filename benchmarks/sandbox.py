"""A whole sandbox: create, run_command, wait and memory, each against its floor in the same run.

Run as root it becomes a normal user first: that is what most daemons are. Exits 1 if a bound of
the design is missed.
"""

import asyncio
import os
import select
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.common import as_normal_user, median_ms, pss
from csb_mcp.app import App
from csb_mcp.host.launchers import Launchers
from csb_mcp.lib.processes import descendants, peer_pid
from csb_mcp.lib.xauth import new_cookie, pack_wild
from csb_mcp.model import Sandbox, SandboxSpec, TerminalRegex
from tests.support.sandboxes import a_spare, project_in, running_app, settings_in, short_folder

ROUNDS = 15
SPARE, NO_SPARE = "on a spare", "without a spare"
SETTLE = 2.0  # seconds until the window manager has come up, too
RESTS = 0.4  # for what starts in a spare, the window manager last
PATIENCE = 20.0  # seconds for anything to appear
PROMPT = TerminalRegex(r"\$ ?$")


class Report:
    """Prints rows and remembers whether a bound was missed."""

    def __init__(self) -> None:
        self.missed = False

    def row(self, name: str, value: float, unit: str, bound: float, *, least: bool = False) -> None:
        """A figure and its bound: at most, or at least."""
        good = value >= bound if least else value <= bound
        self.missed |= not good
        sign = ">=" if least else "<="
        print(f"{name:<58} {value:9.2f} {unit:<5} {sign} {bound:g} {'ok' if good else 'MISSED'}")


class Floor:
    """The same programs with the same arguments and filters, started by hand, side by side."""

    def __init__(self, base: Path, launchers: Launchers) -> None:
        self._base = base / "floor"
        self._base.mkdir()
        for name in ("x11", "fb", "home", "project"):
            (self._base / name).mkdir()
        os.mkfifo(self._base / "ready")
        (self._base / "xauth").write_bytes(pack_wild(new_cookie()))
        bpf = next(launchers.folder.rglob("filter.bpf"))
        display = self._display_args(launchers)
        payload = self._payload_args(launchers)
        self._display = (
            f"exec 6<>{self._base}/ready 7<{bpf} 8<{self._write('display', display[1])}; "
            f"exec env -i {display[0]} --args 8 -- {shlex.join(display[2])}"
        )
        self._payload = (
            f"exec 9<{bpf} 8<{self._write('payload', payload[1])}; "
            f"exec env -i {payload[0]} --args 8 --seccomp 9 -- /bin/bash"
        )

    def _write(self, name: str, args: list[str]) -> Path:
        path = self._base / f"{name}.args"
        path.write_bytes(b"".join(arg.encode() + b"\0" for arg in args))
        return path

    def _display_args(self, launchers: Launchers) -> tuple[str, list[str], list[str]]:
        words = (
            subprocess.run(
                [
                    *(launchers.path("display"), "--x11-dir", self._base / "x11"),
                    *("--framebuffer-dir", self._base / "fb", "--ready-fifo", self._base / "ready"),
                    *(
                        "--xauthority",
                        self._base / "xauth",
                        "--geometry",
                        "1280x800",
                        "--print-args",
                    ),
                ],
                capture_output=True,
                check=True,
                text=True,
            )
            .stdout.partition("\n\n")[0]
            .splitlines()
        )  # the rest is the window manager's
        while "/run/xkb" in words[2:]:  # the compiled keymap is our shortcut, not the isolation's
            del words[words.index("/run/xkb") - 2 : words.index("/run/xkb") + 7]
        split = words.index("--")
        return words[0], words[1:split], words[split + 1 :]

    def _payload_args(self, launchers: Launchers) -> tuple[str, list[str]]:
        words = shlex.split(
            subprocess.run(
                [
                    *(launchers.path("bubblewrap"), "--home", self._base / "home", "--shell"),
                    *("--x11-dir", self._base / "x11", "--xauthority", self._base / "xauth"),
                    *("--print-args", self._base / "project"),
                ],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        args = words[1 : words.index("--")]
        while "--file" in args:  # its text came by a descriptor that only the launcher had
            at = args.index("--file")
            (self._base / "text").write_text("agent:x:1000:1000::/home/agent:/bin/bash\n")
            args[at : at + 2] = ["--ro-bind", str(self._base / "text")]
            if args[at - 2] == "--perms":
                del args[at - 2 : at]
        return words[0], [arg for arg in args if arg != "--as-pid-1"]

    def run(self) -> float:
        """Seconds until the prompt is visible and the display has answered."""
        socket = self._base / "tmux"
        ready = os.open(self._base / "ready", os.O_RDWR | os.O_NONBLOCK)
        began = time.perf_counter()
        display = subprocess.Popen(["/bin/sh", "-c", self._display], stderr=subprocess.DEVNULL)
        tmux = subprocess.Popen(
            [
                *("tmux", "-S", socket, "-f", "/dev/null", "-C", "new-session", "-x120", "-y36"),
                *("/bin/sh", "-c", self._payload),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert tmux.stdout is not None
        waiting = {tmux.stdout.fileno(): b"$ ", ready: b"\n"}
        seen = dict.fromkeys(waiting, b"")
        while waiting:
            assert time.perf_counter() - began < PATIENCE, seen
            for fd in select.select(list(waiting), [], [], PATIENCE)[0]:
                seen[fd] += os.read(fd, 65536)
                if waiting[fd] in seen[fd]:
                    del waiting[fd]
        took = time.perf_counter() - began
        subprocess.run(["tmux", "-S", socket, "kill-server"], check=False)
        display.terminate()
        tmux.communicate()
        display.wait()
        os.close(ready)
        for path in (self._base / "x11").iterdir():
            path.unlink()
        return took


def ancestor(base: Path) -> float:
    """Its recipe: Xvfb with everything on, half a second of sleep, then a fork for each step."""
    socket, number = base / "old", 71
    began = time.perf_counter()
    xvfb = subprocess.Popen(
        ["Xvfb", f":{number}", "-screen", "0", "1280x800x24"], stderr=subprocess.DEVNULL
    )
    time.sleep(0.5)
    bwrap = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid"]
    tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
    subprocess.run([*tmux, "new-session", "-d", "-x120", "-y36", *bwrap, "/bin/bash"], check=True)
    shown = b""
    while b"$" not in shown:
        assert time.perf_counter() - began < PATIENCE, shown
        capture = [*tmux, "capture-pane", "-p"]
        shown = subprocess.run(capture, capture_output=True, check=True).stdout
    took = time.perf_counter() - began
    subprocess.run([*tmux, "kill-server"], check=True)
    xvfb.terminate()
    xvfb.wait()
    return took


async def ours(app: App, project: Path) -> tuple[float, Sandbox]:
    """Seconds until the prompt is visible; the display has answered by then, too."""
    began = time.perf_counter()
    sandbox = await app.service.create(SandboxSpec(project_dir=project))
    result = await app.service.wait([sandbox.id], [PROMPT], mode="any", timeout=20, cursor={})
    assert result.satisfied
    return time.perf_counter() - began, sandbox


async def rested(app: App, network: str = "none") -> None:
    """A spare stands, and all of it has come up: nothing disturbs what is measured next."""
    await a_spare(app.service, network)
    await asyncio.sleep(RESTS)


async def creates(app: App, without: App, base: Path, floor: Floor, report: Report) -> None:
    """Ours on a spare and without one, floor and ancestor in turn: all meet the same machine."""
    rows: dict[str, list[float]] = {SPARE: [], NO_SPARE: [], "floor": [], "ancestor": []}
    project = base / "projects/app"
    await app.service.delete((await ours(app, project))[1].id)
    for number in range(ROUNDS):
        for name, one in ((SPARE, app), (NO_SPARE, without)):
            await rested(app)
            took, sandbox = await ours(one, project)
            rows[name].append(took)
            await one.service.delete(sandbox.id)
        await rested(app)
        rows["floor"].append(await asyncio.to_thread(floor.run))
        if number < 4:
            rows["ancestor"].append(await asyncio.to_thread(ancestor, base))
    for name, took in rows.items():
        print(f"create until the prompt is visible: {name:<21} {median_ms(took):9.1f} ms")
    middle = {name: statistics.median(took) for name, took in rows.items()}
    longer = {name: middle[name] / middle["floor"] for name in (SPARE, NO_SPARE)}
    faster = {name: middle["ancestor"] / middle[name] for name in (SPARE, NO_SPARE)}
    # The bounds are for what a create finds, but for one that follows another within seconds.
    report.row(f"create {SPARE}, to the floor", longer[SPARE], "x", 1.5)
    report.row(f"create {SPARE}, the ancestor to it", faster[SPARE], "x", 10, least=True)
    print(f"create {NO_SPARE}, to the floor {longer[NO_SPARE]:30.2f} x")
    print(f"create {NO_SPARE}, the ancestor to it {faster[NO_SPARE]:24.2f} x")


async def commands(app: App, sandbox: Sandbox, report: Report) -> None:
    """run_command true."""

    async def run() -> object:
        return await app.service.run_command(
            sandbox.id, "true", timeout=10, cwd=None, stdin=None, background=False
        )

    report.row("run_command true", median_ms(await timed(run, 50)), "ms", 10)


async def timed(call: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Seconds of each of so many calls."""
    took: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
    return took


ECHO = """
import sys, time
print("ready", flush=True)
for n, _ in enumerate(sys.stdin):
    time.sleep(0.05)
    print(f"T{n} {time.monotonic_ns()}", flush=True)
"""


async def waits(app: App, sandbox: Sandbox, project: Path, report: Report) -> None:
    """From the byte printed inside to the answer; both sides read one clock."""
    (project / "echo.py").write_text(ECHO)
    cursor = await _line(app, sandbox, "stty -echo; exec python3 echo.py")
    ready = [TerminalRegex("^ready$")]  # before that, the shell would take a line for itself
    await app.service.wait([sandbox.id], ready, mode="any", timeout=20, cursor={sandbox.id: cursor})
    took: list[float] = []
    for number in range(20):
        cursor = await _line(app, sandbox, "")
        pattern = TerminalRegex(rf"^T{number} \d+$")
        result = await app.service.wait(
            [sandbox.id], [pattern], mode="any", timeout=20, cursor={sandbox.id: cursor}
        )
        now = time.monotonic_ns()
        took.append((now - int(result.matches[0].evidence.split()[1])) / 1e9)
    report.row("wait: byte printed until answered", median_ms(took), "ms", 5)
    before = time.process_time()
    await app.service.wait([sandbox.id], [TerminalRegex("never")], mode="any", timeout=3, cursor={})
    report.row("wait: CPU used while waiting 3 s", (time.process_time() - before) * 1000, "ms", 15)


async def _line(app: App, sandbox: Sandbox, text: str) -> str:
    sent = await app.service.send_keys(
        sandbox.id, text=text or None, keys=["Enter"], target="terminal", paste=False
    )
    return sent.cursor


async def memory(app: App, base: Path, report: Report) -> None:
    """Our part of an idle sandbox with a shell."""
    made = [(await ours(app, base / "projects/app"))[1] for _ in range(10)]
    await asyncio.sleep(SETTLE)
    total = 0
    for sandbox in made:
        root = peer_pid(base / "run" / sandbox.id / "tmux")
        for pid in [root, *descendants(root)]:
            total += pss(pid)
    report.row("memory of an idle sandbox (PSS)", total / len(made) / 1024, "MiB", 12)
    for sandbox in made:
        await app.service.delete(sandbox.id)


async def main() -> int:
    """All rows."""
    report = Report()
    with short_folder() as base:
        project, settings = project_in(base), settings_in(base)
        async with running_app(settings) as app:
            launchers = Launchers(settings.runtime_dir / "launchers", settings)
            with short_folder() as other:
                of_others = settings_in(other, spares=1, project_roots=settings.project_roots)
                async with running_app(of_others) as on_spares:
                    await creates(on_spares, app, base, Floor(base, launchers), report)
            _, sandbox = await ours(app, project)
            await commands(app, sandbox, report)
            await waits(app, sandbox, project, report)
            await app.service.delete(sandbox.id)
            await memory(app, base, report)
    return int(report.missed)


if __name__ == "__main__":
    as_normal_user()
    sys.exit(asyncio.run(main()))
