"""What a sandbox may use: real cgroups where we may make them, rlimits and signals elsewhere."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.host.limits.cgroup_v1 import ENTRANCE, V1Enclosure, V1Rung
from csb_mcp.host.limits.cgroup_v2 import V2Enclosure, V2Rung
from csb_mcp.host.limits.files import NAME, Mount, members, mounts, remove_folder
from csb_mcp.host.limits.ladder import HostLimiter
from csb_mcp.host.limits.scope import ScopeRung
from csb_mcp.host.limits.unbounded import UnboundedEnclosure, UnboundedRung
from csb_mcp.host.metrics import PsutilMeter, tree_usage
from csb_mcp.host.terminal.terminal import TmuxTerminal
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.lib.processes import descendants
from csb_mcp.model import Folders, Launch, Sandbox, SandboxSpec, SandboxState
from csb_mcp.ports import Enclosure
from tests.conftest import User
from tests.support.launched import Host, Launched, launched
from tests.support.sandboxes import settings_in

SECONDS = 15.0
RUN = secrets.token_hex(3)  # another run, or a daemon, may have cgroups beside ours
MIB = 1024**2
HOG = "/usr/bin/python3 -c 'b = bytearray(400 << 20); print(len(b))'"
FORKS = """
import os, time
made, refused = [], False
while len(made) < 200 and not refused:
    try:
        pid = os.fork()
    except BlockingIOError:
        refused = True
        continue
    if not pid:
        time.sleep(60)  # until it is killed, below
        os._exit(0)
    made.append(pid)
print(len(made), refused, sum(name.isdigit() for name in os.listdir("/proc")))
for pid in made:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""  # not by bash, which tries a fork again and again, for seconds
COUNT = "n=0; while :; do n=$((n+1)); echo $n >count; sleep 0.01; done"


def sandbox(user: User, name: str = RUN, **limits: Any) -> Sandbox:
    values: dict[str, Any] = {"memory": 128 * MIB, "pids": 64}
    spec = SandboxSpec(project_dir=Path("/"), **(values | limits))
    state = SandboxState.CREATING
    return Sandbox(id=name, spec=spec, state=state, uid=user.uid, created_at=0.0)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():
            await asyncio.sleep(0.01)


def ours() -> list[Path]:
    """Cgroups of this run that exist on this machine."""
    return [path for mount in mounts() for path in (mount.point / NAME).glob(f"{RUN}*")]


@dataclass
class Enclosed:
    """Processes in an enclosure, without tmux, as the sandbox's uid."""

    enclosure: Enclosure
    user: User
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    def start(self, script: str, *, payload: bool = True, reaped: bool = True) -> int:
        inner = self.enclosure.payload_prefix if payload else ()
        words = [*self.enclosure.prefix, *self.user.command(*inner, "/bin/bash", "-c", script)]
        process = subprocess.Popen(words, cwd=self.folder, stderr=subprocess.DEVNULL)
        if reaped:
            self.processes.append(process)
        return process.pid

    def count(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "count").read_text())
        return -1

    async def counts(self) -> None:
        """The counter goes on."""
        before = self.count()
        await until(lambda: self.count() > before + 1)

    async def stands(self) -> None:
        """The counter has stopped: over thirty times its step."""
        before = self.count()
        await asyncio.sleep(0.3)
        assert self.count() == before

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def v1() -> V1Rung:
    rung = V1Rung.on(mounts())
    if rung is None:
        pytest.skip("no cgroup v1 is mounted here")
    return rung


def v2() -> V2Rung:
    """Without controllers on a hybrid host: processes are held, frozen and killed all the same."""
    found = [mount.point for mount in mounts() if mount.version == 2]
    if not found:
        pytest.skip("no cgroup v2 is mounted here")
    return V2Rung(found[0])


@asynccontextmanager
async def enclosed(enclosure: Enclosure, user: User, folder: Path) -> AsyncGenerator[Enclosed]:
    os.chown(folder, user.uid, user.gid)
    this = Enclosed(enclosure, user, folder)
    try:
        yield this
    finally:
        await enclosure.remove()
        this.end()
        assert not ours()


@pytest.fixture(autouse=True)
def nothing_of_ours() -> Iterator[None]:
    before = ours()
    yield
    assert ours() == before


@pytest.fixture(params=["v1", "v2"])
async def in_cgroup(
    request: pytest.FixtureRequest, user: User, short_dir: Path
) -> AsyncIterator[Enclosed]:
    rung = v1() if request.param == "v1" else v2()
    async with enclosed(rung.make(sandbox(user)), user, short_dir) as this:
        yield this


@pytest.fixture
async def in_v1(user: User, short_dir: Path) -> AsyncIterator[Enclosed]:
    async with enclosed(v1().make(sandbox(user, cpus=0.25)), user, short_dir) as this:
        yield this


# In a cgroup


@pytest.mark.root
async def test_the_memory_hog_dies_and_the_rest_of_its_tree_does_not(in_v1: Enclosed) -> None:
    in_v1.start(COUNT)
    in_v1.start(f"echo 500 >/proc/self/oom_score_adj; {HOG}; echo $? >status")
    status = in_v1.folder / "status"
    await until(lambda: status.exists() and status.read_text())
    assert status.read_text() == "137\n"
    assert in_v1.enclosure.hits()["memory"] == 1
    await in_v1.counts()


@pytest.mark.root
async def test_no_more_processes_than_asked_for(in_v1: Enclosed) -> None:
    root = in_v1.start("for n in $(seq 200); do sleep 100 & done; touch all; wait")
    await until(lambda: in_v1.enclosure.hits()["pids"])
    assert 50 < in_v1.enclosure.usage(root).processes <= 64


@pytest.mark.root
async def test_no_more_processor_time_than_asked_for(in_v1: Enclosed) -> None:
    root = in_v1.start("while :; do :; done & while :; do :; done")
    await until(lambda: in_v1.enclosure.usage(root).cpu_seconds > 0.1)
    began, before = time.monotonic(), in_v1.enclosure.usage(root).cpu_seconds
    await until(lambda: in_v1.enclosure.usage(root).cpu_seconds > before + 0.5)
    used = in_v1.enclosure.usage(root).cpu_seconds - before
    assert used / (time.monotonic() - began) < 0.25 * 1.3  # at most a period more at either end
    assert in_v1.enclosure.hits()["cpus"] > 0


@pytest.mark.root
async def test_usage_of_a_cgroup(in_v1: Enclosed) -> None:
    script = "d = b'x' * (1 << 20); open('f', 'wb').write(d * 16); h = d * 32; open('up', 'w')"
    root = in_v1.start(f'/usr/bin/python3 -c "{script}; import time; time.sleep(100)"')
    await until((in_v1.folder / "up").exists)
    usage = in_v1.enclosure.usage(root)
    assert usage.source == "cgroup v1"
    assert 32 * MIB < usage.memory < 128 * MIB
    assert usage.cpu_seconds > 0
    assert usage.processes == 1


@pytest.mark.root
async def test_the_page_cache_is_no_use_of_memory_and_no_hit(
    user: User, tmp_path: Path, short_dir: Path
) -> None:
    async with enclosed(v1().make(sandbox(user)), user, short_dir) as this:
        os.chown(tmp_path, user.uid, user.gid)
        tmp_path.parent.parent.chmod(0o755)
        tmp_path.parent.chmod(0o755)
        root = this.start("sleep 100")
        with subprocess.Popen(
            [*this.enclosure.prefix, "/bin/dd", "if=/dev/zero", f"of={tmp_path}/f", "bs=1M",
             "count=200", "conv=fsync"], stderr=subprocess.DEVNULL,
        ) as writer:  # fmt: skip
            assert await asyncio.to_thread(writer.wait, SECONDS) == 0
        assert this.enclosure.usage(root).memory < 32 * MIB
        assert this.enclosure.hits()["memory"] == 0


@pytest.mark.root
async def test_freeze_holds_the_payload_and_nothing_else(in_cgroup: Enclosed) -> None:
    in_cgroup.start(COUNT)
    other = in_cgroup.folder / "other"
    in_cgroup.start(f"while :; do date +%N >{other}; sleep 0.01; done", payload=False)
    await in_cgroup.counts()
    for _ in range(3):
        await in_cgroup.enclosure.freeze(0)
        await in_cgroup.enclosure.freeze(0)
        await in_cgroup.stands()
        before = other.read_text()
        await until(lambda before=before: other.read_text() not in ("", before))
        await in_cgroup.enclosure.thaw(0)
        await in_cgroup.enclosure.thaw(0)
        await in_cgroup.counts()


@pytest.mark.root
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        COUNT,
        "while :; do sleep 0.01 & done",
        "trap '' TERM HUP INT; (sleep 1000 &) ; exec sleep 1000",
        "while :; do setsid bash -c 'while :; do sleep 0.01 & done' & sleep 0.1; done",
    ],
    ids=["one", "forking", "orphans", "setsid bomb"],
)
async def test_remove_leaves_nothing(in_cgroup: Enclosed, script: str, frozen: bool) -> None:
    in_cgroup.start(script)
    enclosure = in_cgroup.enclosure
    await until(lambda: len([pid for path in _folders(enclosure) for pid in members(path)]) > 1)
    if frozen:
        await in_cgroup.enclosure.freeze(0)
    await in_cgroup.enclosure.remove()
    assert not ours()
    await in_cgroup.enclosure.remove()


@pytest.mark.root
async def test_remove_when_only_a_zombie_is_left(in_cgroup: Enclosed) -> None:
    pid = in_cgroup.start("exit 0")
    stat = Path(f"/proc/{pid}/stat")
    await until(lambda: ") Z " in stat.read_text())
    await in_cgroup.enclosure.remove()
    assert not ours()


@pytest.mark.root
async def test_the_sandboxs_uid_can_neither_change_a_limit_nor_leave(in_cgroup: Enclosed) -> None:
    enclosure = in_cgroup.enclosure
    assert isinstance(enclosure, V1Enclosure | V2Enclosure)
    folders = enclosure.folders if isinstance(enclosure, V1Enclosure) else (enclosure.folder,)
    places = [*folders, *(folder.parent for folder in folders)]
    places += [folder.parent.parent for folder in folders]
    payload = [folder / "payload" for folder in folders if (folder / "payload").is_dir()]
    allowed = {folder / ENTRANCE for folder in payload}
    if isinstance(enclosure, V2Enclosure):
        allowed = {folder / "cgroup.procs" for folder in (*payload, enclosure.folder)}
    tried = 0
    for folder in [*places, *payload]:
        for path in folder.iterdir():
            if path.is_dir() or path in allowed:
                continue
            assert not _may_write(path, in_cgroup.user), path
            tried += 1
        assert not _may_write(folder, in_cgroup.user)
    assert tried > 10
    # What it may write leads nowhere but to the two folders of its own.
    up = " ".join(str(folder) for folder in places[len(folders) :])
    enter = "echo 0 >$up/cgroup.procs && touch left; echo 0 >$up/tasks && touch left"
    in_cgroup.start(f"for up in {up}; do {enter}; done; touch tried; sleep 99")
    await until((in_cgroup.folder / "tried").exists)
    assert not (in_cgroup.folder / "left").exists()


def _folders(enclosure: Enclosure) -> list[Path]:
    assert isinstance(enclosure, V1Enclosure | V2Enclosure)
    top = enclosure.folders if isinstance(enclosure, V1Enclosure) else (enclosure.folder,)
    return [*top, *(path / "payload" for path in top)]


def _may_write(path: Path, user: User) -> bool:
    command = user.command("/usr/bin/test", "-w", str(path))
    return subprocess.run(command, check=False).returncode == 0


@pytest.mark.root
async def test_a_strict_umask_of_the_daemon_does_not_keep_the_payload_out(
    user: User, short_dir: Path
) -> None:
    before = os.umask(0o077)
    try:
        enclosure = v1().make(sandbox(user))
    finally:
        os.umask(before)
    async with enclosed(enclosure, user, short_dir) as this:
        this.start(COUNT)
        await this.counts()


@pytest.mark.root
async def test_what_cannot_be_made_leaves_nothing(user: User) -> None:
    with pytest.raises(HostUnable, match=r"pids\.max"):
        v1().make(sandbox(user, pids=-5))
    assert not ours()
    made = v1().make(sandbox(user))
    with pytest.raises(HostUnable):
        v1().make(sandbox(user))
    await made.remove()


@pytest.mark.root
async def test_many_come_and_go_side_by_side(user: User) -> None:
    async def life(n: int) -> None:
        for _ in range(5):
            enclosure = v1().make(sandbox(user, f"{RUN}-{n}"))
            await asyncio.sleep(0)
            await enclosure.remove()

    await asyncio.gather(*(life(n) for n in range(20)))
    assert not ours()


@pytest.mark.root
async def test_adopted_by_the_next_daemon(user: User, short_dir: Path) -> None:
    mine = sandbox(user)
    settings = settings_in(short_dir)
    first = HostLimiter(settings)
    async with enclosed(await first.make(mine), user, short_dir) as this:
        root = this.start(COUNT)
        await this.counts()
        await this.enclosure.freeze(0)
        this.enclosure.close()
        next_one = HostLimiter(settings).adopt(mine)
        assert next_one.usage(root).source == "cgroup v1"
        assert next_one.enforced_by == this.enclosure.enforced_by
        await this.stands()
        await next_one.thaw(0)
        await this.counts()
        await next_one.remove()
    gone = HostLimiter(settings).adopt(mine)  # as after a boot
    await gone.thaw(0)
    await gone.remove()
    assert gone.usage(2**22 + 1).processes == 0


@pytest.mark.root
def test_a_hybrid_host_is_a_v1_host(short_dir: Path) -> None:
    assert v1()
    limiter = HostLimiter(settings_in(short_dir))
    assert not limiter.problems()
    assert isinstance(limiter.adopt(sandbox(User(1, 1))), UnboundedEnclosure)
    assert {mount.version for mount in mounts()} == {1, 2}
    enclosure = asyncio.run(limiter.make(sandbox(User(1, 1))))
    assert isinstance(enclosure, V1Enclosure)
    assert enclosure.enforced_by == dict.fromkeys(("memory", "cpus", "pids"), "cgroup v1")
    asyncio.run(enclosure.remove())


@pytest.mark.root
async def test_a_user_with_folders_that_root_gave(user: User, short_dir: Path) -> None:
    given = [
        Mount(mount.point / RUN, 1, mount.controllers) for mount in mounts() if mount.version == 1
    ]
    for mount in given:
        (mount.point / NAME).mkdir(parents=True)
        os.chown(mount.point / NAME, user.uid, user.gid)
    os.chown(short_dir, user.uid, user.gid)
    script = f"""
import asyncio, os, subprocess
from pathlib import Path
from csb_mcp.host.limits.cgroup_v1 import V1Rung
from csb_mcp.host.limits.files import Mount
from csb_mcp.model import Sandbox, SandboxSpec, SandboxState
os.setgroups([]); os.setresgid({user.gid}, {user.gid}, {user.gid}); os.setresuid(*[{user.uid}]*3)
spec = SandboxSpec(project_dir=Path("/"), pids=20)
made = Sandbox(id="given001", spec=spec, state=SandboxState.CREATING, uid={user.uid}, created_at=0)
enclosure = V1Rung.on([{", ".join(map(_source, given))}]).make(made)
words = [*enclosure.prefix, *enclosure.payload_prefix, "/bin/sleep", "100"]
process = subprocess.Popen(words)
async def life():
    while (Path("/proc") / str(process.pid) / "comm").read_text() != "sleep\\n":
        await asyncio.sleep(0.01)
    assert enclosure.usage(0).processes == 1, enclosure.usage(0)
    await enclosure.freeze(0)
    await enclosure.remove()
asyncio.run(life())
assert process.wait() == -9
print("good")
"""
    try:
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True,
            check=False, timeout=30,
        )  # fmt: skip
        assert done.stdout == "good\n", done.stderr
    finally:
        for mount in given:
            (mount.point / NAME).rmdir()
            mount.point.rmdir()


def _source(mount: Mount) -> str:
    return f"Mount(Path({str(mount.point)!r}), 1, frozenset({sorted(mount.controllers)}))"


# Under the real launcher


@asynccontextmanager
async def whole(
    enclosure: Enclosure, base: Path, user: User, **limits: Any
) -> AsyncGenerator[Launched]:
    host = Host.make(base, os.getuid())
    project = base / "project"
    project.mkdir()
    os.chown(project, user.uid, user.gid)
    around = enclosure.prefix, enclosure.payload_prefix
    try:
        async with launched(
            host, project, around=around[0], around_launcher=around[1], **limits
        ) as this:
            yield this
    finally:
        await enclosure.remove()


@pytest.mark.root
async def test_hogs_in_a_real_sandbox(short_dir: Path, user: User) -> None:
    limits: Mapping[str, Any] = {"memory": 96 * MIB, "pids": 100}
    owner = User(1_900_000_000, 1_900_000_000)
    enclosure = v1().make(sandbox(owner, **limits))
    async with whole(enclosure, short_dir, user, **limits) as this:
        assert (await this.sh(HOG)).exit_code == 137
        assert enclosure.hits()["memory"] == 1
        assert await this.out("echo fine") == "fine"
        with contextlib.suppress(Exception):
            await this.sh("bomb() { bomb | bomb & }; bomb; sleep 1", timeout=3)
        await until(lambda: enclosure.hits()["pids"])
        assert enclosure.usage(this.process.pid).processes <= 100
        await enclosure.freeze(this.process.pid)
        before = enclosure.usage(this.process.pid).cpu_seconds
        await asyncio.sleep(0.2)
        assert enclosure.usage(this.process.pid).cpu_seconds - before < 0.05
        await enclosure.thaw(this.process.pid)  # the order of a stop: thaw, kill, remove
    assert not ours()


async def test_memory_of_each_process_where_there_is_no_cgroup(short_dir: Path, user: User) -> None:
    enclosure = UnboundedRung().make(sandbox(user, memory=256 * MIB))
    async with whole(enclosure, short_dir, user, memory=256 * MIB) as this:
        assert "MemoryError" in (await this.fails(HOG)).stderr
        reserve = "import mmap; m = mmap.mmap(-1, 8 << 30, prot=0); print('reserved')"
        assert await this.out(f'/usr/bin/python3 -c "{reserve}"') == "reserved"


async def test_memory_of_all_together_where_there_is_no_cgroup(short_dir: Path, user: User) -> None:
    enclosure = UnboundedRung().make(sandbox(user, memory=256 * MIB))
    async with whole(enclosure, short_dir, user, memory=256 * MIB) as this:
        hold = "b = bytearray(100 << 20); open('up', 'a').write('x'); import time; time.sleep(99)"
        for size in (hold, hold, hold.replace("100", "150")):
            this.type(f'/usr/bin/python3 -c "{size}" &\n')
        up = short_dir / "project/up"
        await until(lambda: up.exists() and len(up.read_bytes()) == 3)
        assert enclosure.usage(this.process.pid).memory > 256 * MIB
        assert enclosure.hits()["memory"] == 0  # a look alone does nothing
        assert (await enclosure.uphold(this.process.pid)).memory > 256 * MIB
        assert enclosure.hits()["memory"] == 1
        await until(lambda: _names(this.process.pid).count("python3") == 2)
        assert (await enclosure.uphold(this.process.pid)).memory < 256 * MIB
        assert await this.out("echo fine") == "fine"
        assert enclosure.hits()["memory"] == 1


async def test_processes_and_files_of_the_payload(short_dir: Path, user: User) -> None:
    enclosure = UnboundedRung().make(sandbox(user))
    async with whole(enclosure, short_dir, user, pids=60) as this:
        many = await this.sh("exec /usr/bin/python3 -", stdin=FORKS.encode())
        made, refused, seen = many.stdout.split()
        assert 20 < int(made) < int(seen) <= 60, many
        assert refused == "True"
        opened = (
            "import resource as r; h = r.getrlimit(r.RLIMIT_NOFILE)[1]; print(h)\n"
            "r.setrlimit(r.RLIMIT_NOFILE, (h, h))\n"
            "kept = [open('/dev/null') for _ in range(100_000)]\n"
        )
        result = await this.sh("exec /usr/bin/python3 -", stdin=opened.encode())
        assert int(result.stdout) <= 65536
        assert "Too many open files" in result.stderr
        assert await this.out("ulimit -c") == "0"
        assert await this.out("nice") == "5"


async def test_stopped_and_going_on_where_there_is_no_freezer(short_dir: Path, user: User) -> None:
    enclosure = UnboundedRung().make(sandbox(user))
    async with whole(enclosure, short_dir, user) as this:
        pane, project = this.process.pid, short_dir / "project"
        mine = Enclosed(enclosure, user, project)
        this.type("sleep 1234\n")
        await until(lambda: "sleep" in _names(pane))
        this.type("\x1a")
        await this.until_printed("Stopped")
        this.type("clear; " + COUNT.replace("sleep", "command sleep") + "\n")
        await until(lambda: mine.count() > 3)
        asleep = _stopped(pane)
        for _ in range(5):
            await enclosure.freeze(pane)
            await mine.stands()
            assert _stopped(pane) > asleep
            await enclosure.thaw(pane)
            await mine.counts()
            assert _stopped(pane) == asleep  # what the payload had stopped stays so
        this.type("\x03")
        this.type("echo the-shell-is-$((1+1))-here\n")
        printed = await this.until_printed("the-shell-is-2-here")
        assert printed.count("Stopped") == 1


async def test_a_fork_bomb_is_stopped_too(short_dir: Path, user: User) -> None:
    enclosure = UnboundedRung().make(sandbox(user))
    async with whole(enclosure, short_dir, user, pids=80) as this:
        this.type("while :; do (while :; do /bin/true; done) & sleep 0.05; done 2>/dev/null\n")
        await until(lambda: tree_usage(this.process.pid).processes > 30)
        await enclosure.freeze(this.process.pid)
        before = tree_usage(this.process.pid).cpu_seconds
        await asyncio.sleep(0.3)
        assert tree_usage(this.process.pid).cpu_seconds == before
        await enclosure.thaw(this.process.pid)
        await until(lambda: tree_usage(this.process.pid).cpu_seconds > before)


def _below(pid: int) -> list[list[str]]:
    found: list[list[str]] = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            name, _, rest = Path(f"/proc/{each}/stat").read_text().rpartition(")")
            found.append([str(each), name.partition("(")[2], rest.split()[0]])
    return found


def _names(pid: int) -> list[str]:
    return [name for _, name, _ in _below(pid)]


def _stopped(pid: int) -> set[str]:
    return {each for each, _, state in _below(pid) if state == "T"}


# Beside a terminal


@pytest.fixture(params=[pytest.param("cgroup", marks=pytest.mark.root), "signals"])
def limiter(request: pytest.FixtureRequest) -> V1Rung | UnboundedRung:
    return v1() if request.param == "cgroup" else UnboundedRung()


async def test_the_terminal_answers_while_the_payload_is_paused(
    limiter: V1Rung | UnboundedRung, short_dir: Path, user: User
) -> None:
    terminal, enclosure = await in_terminal(limiter, short_dir, user)
    this = Enclosed(enclosure, user, short_dir / "a")
    try:
        await this.counts()
        await enclosure.freeze(terminal.pane_pid)
        await this.stands()
        assert (await asyncio.wait_for(terminal.rows(None), 5)).rows
        await terminal.send("typed meanwhile", ["Enter"])
        await this.stands()
        usage = enclosure.usage(terminal.server_pid)
        assert usage.processes >= 3  # tmux, both panes
        await enclosure.thaw(terminal.pane_pid)
        await this.counts()
        await enclosure.freeze(terminal.pane_pid)
        await enclosure.thaw(terminal.pane_pid)  # the order of a stop: thaw, kill, remove
    finally:
        await terminal.kill(asyncio.get_running_loop().time() + 1)
        await enclosure.remove()
    await enclosure.thaw(terminal.pane_pid)
    assert not ours()


async def in_terminal(
    limiter: V1Rung | UnboundedRung, base: Path, user: User
) -> tuple[TmuxTerminal, Enclosure]:
    base.chmod(0o755)
    folders = Folders(base / "a", base / "as")
    for folder in (folders.runtime, folders.state):
        folder.mkdir()
        os.chown(folder, user.uid, user.gid)
    enclosure = limiter.make(sandbox(user))
    prefix = (*enclosure.prefix, *user.command())
    script = f"cd {folders.runtime}; " + COUNT
    # As bwrap is: a process in the pane that waits for the payload.
    argv = (*enclosure.payload_prefix, "/bin/sh", "-c", f"/bin/bash -c '{script}'; exit")
    deadline = asyncio.get_running_loop().time() + SECONDS
    display = Launch(("/bin/sleep", "1000"))
    terminal = await TmuxTerminals().start(
        folders, Launch(argv, prefix), {"display": display}, deadline
    )
    return terminal, enclosure


# The ladder and what it says


def test_systemd_that_does_not_run_is_not_chosen() -> None:
    rung = ScopeRung(Path("/sys/fs/cgroup/unified"))
    assert not rung.prepare()
    assert rung.said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 1000", "timed out"),
        ("exit 1", ""),
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', ""),  # runs it, bounds nothing
    ],
)
def test_a_systemd_run_that_bounds_nothing_is_not_chosen(
    short_dir: Path, script: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csb_mcp.host.limits.scope._PROBE_SECONDS", 0.5)
    program = short_dir / "systemd-run"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    rung = ScopeRung(short_dir, run=program)
    assert not rung.prepare()
    assert said in rung.said


@pytest.mark.root
def test_controllers_are_switched_on_though_the_daemon_was_in_the_way() -> None:
    """With the one controller that v2 has on a hybrid host (cgroups(7), no internal processes)."""
    (root,) = [mount.point for mount in mounts() if mount.version == 2]
    given = root / f"{NAME}-{RUN}"
    given.mkdir()
    control = root / "cgroup.subtree_control"
    had = control.read_text().split()
    if "hugetlb" not in (root / "cgroup.controllers").read_text():
        given.rmdir()
        pytest.skip("v2 has no controller here that nothing else uses")
    control.write_text("+hugetlb")
    script = f"""
import asyncio, os, subprocess
from pathlib import Path
from csb_mcp.host.limits import cgroup_v2
from csb_mcp.model import Sandbox, SandboxSpec, SandboxState
given = Path({str(given)!r})
(given / "cgroup.procs").write_text("0")
cgroup_v2.CONTROLLERS = cgroup_v2.REQUIRED = ("hugetlb",)
rung = cgroup_v2.V2Rung(given)
assert rung.prepare()
assert not (given / "csb-mcp").exists()
spec = SandboxSpec(project_dir=Path("/"))
made = Sandbox(id="inner001", spec=spec, state=SandboxState.CREATING, uid=1, created_at=0)
enclosure = rung.make(made)
assert list(enclosure.folder.glob("hugetlb.*"))
words = [*enclosure.prefix, "/bin/sh", "-c", "sleep 99 & exec \\"$@\\"", "x"]
process = subprocess.Popen([*words, *enclosure.payload_prefix, "/bin/sleep", "99"])
while not (enclosure.folder / "payload/cgroup.procs").read_text():
    pass
assert (enclosure.folder / "cgroup.procs").read_text()
asyncio.run(enclosure.remove())
process.wait()
print(Path("/proc/self/cgroup").read_text().splitlines()[-1])
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.stdout == f"0::/{NAME}-{RUN}/{NAME}-daemon\n", done.stderr
    finally:
        remove_folder(given / f"{NAME}-daemon")
        given.rmdir()
        if "hugetlb" not in had:
            control.write_text("-hugetlb")


@pytest.mark.root
async def test_what_a_scope_is_entered_by(user: User, short_dir: Path) -> None:
    """With a stand-in that does of systemd-run what concerns us: systemd does not run here."""
    (root,) = [mount.point for mount in mounts() if mount.version == 2]
    program, made = short_dir / "systemd-run", root / f"{NAME}-{RUN}"
    made.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'while [ "$1" != -- ]; do case $1 in --unit=*) unit=${1#*=} ;; --slice=*) slice=${1#*=} ;; '
        f"esac; shift; done; shift; mkdir -p {made}/$slice/$unit\n"
        f'echo 0 >{made}/$slice/$unit/cgroup.procs; INVOCATION_ID=x exec "$@"\n'
    )
    program.chmod(0o755)
    short_dir.chmod(0o755)
    enclosure = ScopeRung(made, run=program).make(sandbox(user))
    async with enclosed(enclosure, user, short_dir) as this:
        this.start("env >environ; " + COUNT)
        await this.counts()
        assert members(enclosure.folder / "payload")
        assert not {"XDG_RUNTIME_DIR", "INVOCATION_ID"} & {
            line.partition("=")[0] for line in (short_dir / "environ").read_text().splitlines()
        }
        found = ScopeRung(made, run=program).find(sandbox(user))
        assert found
        await found.freeze(0)
        await this.stands()
        await found.remove()
        assert not enclosure.folder.exists()
    enclosure.folder.parent.rmdir()
    made.rmdir()


async def test_without_any_hierarchy_the_truth_is_told(short_dir: Path, user: User) -> None:
    limiter = HostLimiter(settings_in(short_dir), found=[])
    enclosure = await limiter.make(sandbox(user))
    assert "per process" in enclosure.enforced_by["memory"]
    assert enclosure.enforced_by["cpus"] == "nothing"
    (problem,) = limiter.problems()
    assert not problem.fatal


def test_a_user_is_told_what_root_can_do(user: User) -> None:
    script = f"""
import os
from pathlib import Path
from csb_mcp.config import Settings
from csb_mcp.host.limits.ladder import HostLimiter
if os.getuid() == 0:
    os.setgroups([]); os.setresgid(*[{user.gid}] * 3); os.setresuid(*[{user.uid}] * 3)
settings = Settings(state_dir=Path("/"), runtime_dir=Path("/"), config_file=Path("/"),
                    project_roots=())
for problem in HostLimiter(settings).problems():
    print(problem)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "fatal=False" in done.stdout
    assert f"/{NAME}" in done.stdout


def test_a_cgroup_parent_that_is_none_is_passed_over(short_dir: Path) -> None:
    settings: Settings = settings_in(short_dir, cgroup_parent=short_dir / "no")
    assert [each.fatal for each in HostLimiter(settings, found=[]).problems()] == [False]


async def test_hits_of_a_tree_without_a_cgroup(user: User) -> None:
    enclosure = UnboundedRung().make(sandbox(user, memory=1, pids=1))
    usage = await enclosure.uphold(os.getpid())
    assert usage.memory > MIB
    assert usage.cpu_seconds > 0
    assert enclosure.hits() == {"memory": 0, "pids": 1}  # nobody here is a payload


def test_the_host(tmp_path: Path) -> None:
    host = PsutilMeter(tmp_path).host()
    assert host.memory_total > host.memory_available > 0
    assert host.network_received >= 0


def test_members_of_nothing() -> None:
    assert members(Path("/nonexistent")) == []
    assert Mount(Path("/"), 2).controllers == frozenset()
