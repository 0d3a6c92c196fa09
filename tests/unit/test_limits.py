"""Formats of cgroup files and of mountinfo, against plain files; what runs is in integration."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from csb_mcp.host.limits.cgroup_v2 import V2Enclosure, V2Rung
from csb_mcp.host.limits.files import Gauges, Mount, make_below, mounts
from csb_mcp.host.limits.ladder import HostLimiter
from csb_mcp.host.limits.scope import ScopeRung, in_force
from csb_mcp.model import Problem, Sandbox, SandboxSpec, SandboxState
from tests.support.sandboxes import settings_in

HYBRID = """\
24 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 /docker/ab /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
34 31 0:29 / /sys/fs/cgroup/odd\\040name rw - cgroup cgroup rw,xattr,name=systemd
"""
FILES = {
    "memory.current": "9000000\n",
    "memory.stat": "anon 4000000\nfile 4900000\ninactive_file 3000000\nactive_file 1900000\n",
    "memory.events": "low 0\nhigh 0\nmax 77\noom 2\noom_kill 3\noom_group_kill 0\n",
    "pids.current": "12\n",
    "pids.events": "max 5\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\nnr_periods 9\nnr_throttled 4\n",
    "io.stat": "254:0 rbytes=4096 wbytes=100 rios=1 wios=1 dbytes=0 dios=0\n"
    "254:16 rbytes=4 wbytes=1 rios=1 wios=1 dbytes=7 dios=0\n",
}
SETTABLE = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max")
SAID = """\
0::/user.slice/user-7.slice/user@7.service/csb_mcp.slice/csb-mcp-probe-1.scope
memory.max 67108864
pids.max 16
cpu.max 50000 100000
"""


def sandbox(**limits: float) -> Sandbox:
    values = {"project_dir": Path("/"), "memory": 1 << 20, "pids": 9, "cpus": 1.5} | limits
    spec = SandboxSpec(**values)  # pyright: ignore[reportArgumentType]
    state = SandboxState.CREATING
    return Sandbox(id="abc", spec=spec, state=state, uid=os.geteuid(), created_at=0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_mounts_of_a_hybrid_host(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(HYBRID)
    root = Path("/sys/fs/cgroup")
    found = mounts(table)
    assert found[0] == Mount(root / "unified", 2)
    assert found[1].point == root / "cpu,cpuacct"
    assert {"cpu", "cpuacct"} < found[1].controllers
    assert found[2].point == root / "odd name"


def test_usage_and_hits_of_v2(folder: Path) -> None:
    enclosure = V2Enclosure(folder, sandbox(), {})
    usage = enclosure.usage(1)
    assert (usage.processes, usage.memory, usage.cpu_seconds) == (12, 6_000_000, 2.5)
    assert (usage.io_read, usage.io_written, usage.source) == (4100, 101, "cgroup v2")
    assert enclosure.hits() == {"memory": 3, "pids": 5, "cpus": 4}
    (folder / "pids.current").write_text("13\n")  # the descriptor is kept, the value is not
    assert enclosure.usage(1).processes == 13
    enclosure.close()
    assert enclosure.usage(os.getpid()).source == "processes"


def test_hits_of_the_processor_only_where_that_was_asked_for(folder: Path) -> None:
    asked = sandbox(cpus=None)  # pyright: ignore[reportArgumentType]
    with closing(V2Enclosure(folder, asked, {})) as enclosure:
        assert set(enclosure.hits()) == {"memory", "pids"}


def test_without_the_io_controller_nothing_is_told(folder: Path) -> None:
    (folder / "io.stat").unlink()
    with closing(V2Enclosure(folder, sandbox(), {})) as enclosure:
        assert enclosure.usage(1).io_read is None


def test_limits_of_v2(folder: Path) -> None:
    for name in SETTABLE:
        (folder / name).write_text("")
    V2Enclosure(folder, sandbox(), {}).set_limits(sandbox())
    written = {name: (folder / name).read_text() for name in SETTABLE}
    assert written == dict(zip(SETTABLE, ("1048576", "0", "0", "9", "150000 100000"), strict=True))
    assert (folder / "payload").is_dir()


def test_a_parent_without_controllers_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "csb-mcp"):
        path.mkdir(exist_ok=True)
        (path / "cgroup.controllers").write_text("cpuset hugetlb\n")
        (path / "cgroup.subtree_control").write_text("\n")
    assert not V2Rung(tmp_path).prepare()


def test_gauges_read_nothing_once_closed(folder: Path) -> None:
    gauges = Gauges()
    assert gauges.number(folder / "pids.current") == 12
    assert gauges.number(folder / "none") is None
    gauges.close()
    gauges.close()
    assert gauges.read(folder / "pids.current") == ""


def test_a_parent_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    times: list[int] = []

    def remove() -> None:
        times.append(1)
        if len(times) < 3:
            (tmp_path / "p").rmdir()

    assert make_below(tmp_path / "p", "a", remove).is_dir()
    assert len(times) == 3


def test_what_a_probe_of_systemd_must_show() -> None:
    unit = "csb-mcp-probe-1.scope"
    assert in_force(SAID, unit) == {"memory", "pids", "cpu"}
    assert in_force(SAID.replace("cpu.max 50000 100000", "cpu.max "), unit) == {"memory", "pids"}
    assert in_force(SAID.replace("memory.max 67108864", "memory.max max"), unit) == {"pids", "cpu"}
    assert in_force(SAID.replace("probe-1", "probe-2"), unit) == set()
    assert in_force("", unit) == set()


def test_the_words_of_a_scope(tmp_path: Path) -> None:
    program = Path("/usr/bin/systemd-run")
    made = ScopeRung(tmp_path, run=program, uid=7).make(sandbox())
    words = list(made.prefix)
    assert made.folder == (
        tmp_path / "user.slice/user-7.slice/user@7.service/csb_mcp.slice/csb-mcp-abc.scope"
    )
    for word in ("--user", "--scope", "--unit=csb-mcp-abc.scope", "XDG_RUNTIME_DIR=/run/user/7"):
        assert word in words
    for limit in ("MemoryMax=1048576", "MemorySwapMax=0", "TasksMax=9", "CPUQuota=150%"):
        assert f"--property={limit}" in words
    assert ScopeRung(tmp_path, run=program, uid=7).find(sandbox()) is None
    made.folder.mkdir(parents=True)
    assert ScopeRung(tmp_path, run=program, uid=7).find(sandbox()) is not None
    assert ScopeRung(tmp_path, run=program, uid=0).manager == tmp_path


def test_a_unified_host_that_gives_nothing_is_told_how_it_could(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io\n")
    limiter = HostLimiter(settings_in(tmp_path), found=[Mount(tmp_path, 2)])
    problems = limiter.problems()
    assert problems == limiter.problems()
    assert isinstance(problems[0], Problem)
    assert not problems[0].fatal
    assert "cgroup_parent" in problems[0].repair
