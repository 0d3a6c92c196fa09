"""Every way out that was tried, from inside a real sandbox; with a control where it must succeed.

Each attack runs as the payload does: under a user, and under root's stager with the project owned
by root, by another user, and below a folder that lets nobody pass. A probe that could not succeed
anywhere proves nothing: controls run on the host, or do inside what must go on working.
"""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import User
from tests.support.launched import OWN_UID, Host, Launched, launched

SECRET = "hunter2-c5b"
OTHER_UID = 65530


@dataclass(frozen=True, slots=True)
class Case:
    """Who runs the daemon (0: root), who owns the project, what the project's parent lets pass."""

    daemon: int | None  # None: the normal user
    owner: int | None
    parent_mode: int = 0o755


CASES = {
    "user": Case(None, None),
    "root, root's project": Case(0, 0),
    "root, another's project": Case(0, OTHER_UID),
    "root, closed parents": Case(0, 0, 0o700),
}


@dataclass(frozen=True, slots=True)
class World:
    """A host with a secret or two, and a sandbox in it."""

    base: Path
    project: Path
    box: Launched
    case: Case
    owner: int


@asynccontextmanager
async def world(base: Path, user: User, case: Case) -> AsyncGenerator[World]:
    daemon = user.uid if case.daemon is None else case.daemon
    owner = user.uid if case.owner is None else case.owner
    host = Host.make(base, daemon, closed=case.parent_mode == 0o700)
    parent = base / "parent"
    project = parent / "app"
    project.mkdir(parents=True)
    (base / "secret").write_text(SECRET)
    (project / "file").write_text("old\n")
    (project / "link").symlink_to(base / "secret")
    subprocess.run(["git", "init", "-q", str(project)], check=True, env={"HOME": "/"})
    for path in (project, *project.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    if daemon == user.uid:
        os.chown(base / "secret", owner, owner)
    parent.chmod(case.parent_mode)
    async with launched(host, project, env={"TOKEN": SECRET}) as box:
        yield World(base, project, box, case, owner)


def params() -> Iterator[object]:
    for name, case in CASES.items():
        yield pytest.param(name, marks=[pytest.mark.root] if case.daemon == 0 else [])


@pytest.fixture(params=params(), scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
async def here(short_dir: Path, user: User, case: Case) -> AsyncIterator[World]:
    async with world(short_dir, user, case) as made:
        yield made


PYTHON = "/usr/bin/python3"
needs_python = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"no {PYTHON}")


async def python(here: World, code: str) -> str:
    """Output of Python code that ran inside."""
    result = await here.box.sh(f"{PYTHON} -I -", stdin=code.encode())
    assert result.exit_code == 0, result
    return result.stdout.strip()


def host_uid(here: World) -> int:
    return os.stat(f"/proc/{here.box.process.pid}").st_uid


# -- who it is, what it sees --


async def test_nobody_in_the_tree_is_root(here: World) -> None:
    assert here.box.helper
    expected = OWN_UID if here.case.daemon == 0 else here.owner
    for pid in (here.box.process.pid, here.box.helper.init_pid):
        status = Path(f"/proc/{pid}/status").read_text()
        for name in ("Uid", "Gid"):
            ids = next(line for line in status.splitlines() if line.startswith(name)).split()[1:]
            assert set(ids) == {str(expected)}, (pid, name, ids)
        groups = next(line for line in status.splitlines() if line.startswith("Groups"))
        assert set(groups.split()[1:]) <= {str(expected)}
    assert await here.box.out("id -u; id -g") == "1000\n1000"


async def test_no_privilege(here: World) -> None:
    status = await here.box.out("cat /proc/self/status /proc/1/status")
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(value, 16) == 0, line
        if key in ("NoNewPrivs", "Seccomp"):
            assert value.strip() == {"NoNewPrivs": "1", "Seccomp": "2"}[key]


async def test_the_hosts_environment_and_arguments_stay_out(here: World) -> None:
    assert SECRET in await here.box.out("echo $TOKEN")  # control: it was lent on purpose
    assert SECRET not in await here.box.out("tr '\\0' '\\n' </proc/1/environ")
    assert SECRET not in await here.box.out("cat /proc/1/cmdline | tr '\\0' '\\n'")
    for pid in (here.box.process.pid, here.box.helper.init_pid if here.box.helper else 0):
        assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    inside = await here.box.out("tr '\\0' '\\n' </proc/1/environ")
    assert "PYTEST" not in inside
    assert "SUDO" not in inside


async def test_files_of_the_host(here: World) -> None:
    secret = here.base / "secret"
    assert secret.read_text() == SECRET
    for command in (
        f"cat {secret}",
        "cat link",  # a link in the project to the host
        f"ls {here.base}/state",
        f"ls {here.base}/run",
        "ls /home/* | grep -v agent",
        "cat /root/.bashrc",
        "cat /etc/shadow",
        "cat /etc/machine-id",
        "cat /etc/hostname",
        "ls /sys/kernel",
        "ls /work",
        "ls /boot/*",
        "cat /dev/vda",
        "cat /dev/mem",
        "cat /dev/kmsg",
        "cat /proc/kcore",
        "cat /proc/1/root/etc/shadow",
        f"cat /proc/1/cwd/../../../../../../../..{secret}",
        f"cat /proc/self/fd/../../../..{secret}",
    ):
        result = await here.box.fails(command)
        assert SECRET not in result.stdout, command
    assert "root:x:0:0" in await here.box.out("cat /etc/passwd")
    assert len((await here.box.out("cat /etc/passwd")).splitlines()) == 3
    mine = f"/tmp/csb-host-{os.getpid()}"
    Path(mine).touch()
    try:
        assert not (await here.box.sh(f"ls {mine}")).stdout
    finally:
        Path(mine).unlink()


async def test_what_is_read_only(here: World) -> None:
    for path in (
        "/usr/x",
        "/etc/x",
        "/x",
        "/home/x",
        "/opt/csb/x",
        "/opt/csb/helper.sh",
        "/opt/csb/bin/x",
        "/run/csb/x",
        "/run/csb/exec/x",
        "/run/csb/environment",
        "/tmp/.X11-unix/x",
        "/dev/x",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
    ):
        await here.box.fails(f"echo x >>{path}")
    for command in ("mv /run/csb /run/x", "mv /run/csb/exec /run/x", "rm -rf /opt/csb/helper.sh"):
        await here.box.fails(command)
    for control in ("/tmp/x", "/dev/shm/x", "/run/y", "~/x", "./x", "/var/tmp/x"):
        await here.box.out(f"echo x >>{control}")


async def test_sizes_are_limited(here: World) -> None:
    for folder, size in (("/run", 80), ("/dev/shm", 600)):
        full = await here.box.sh(f"head -c {size}M /dev/zero >{folder}/big; rm {folder}/big")
        assert "No space left" in full.stderr, folder


# -- processes, sockets, namespaces --


async def test_processes_of_the_host(here: World) -> None:
    assert int(await here.box.out("ls -d /proc/[0-9]* | wc -l")) < 15
    sleeper = subprocess.Popen(
        ["/usr/bin/setpriv", f"--reuid={host_uid(here)}", "--clear-groups", "sleep", "60"]
        if os.getuid() == 0
        else ["sleep", "60"]
    )
    try:
        await here.box.sh(f"kill -9 {sleeper.pid}; kill -9 {os.getpid()}")
        assert sleeper.poll() is None
        await here.box.fails(f"cat /proc/{sleeper.pid}/environ")
        await here.box.fails(f"nsenter -t {sleeper.pid} -m -U --preserve-credentials true")
    finally:
        sleeper.kill()
        sleeper.wait()


async def test_networks_of_the_host(here: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        port = tcp.getsockname()[1]
        name = f"csb-test-{os.getpid()}-{port}"
        abstract.bind("\0" + name)
        abstract.listen()
        probe = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
        assert subprocess.run(["bash", "-c", probe], check=False).returncode == 0  # control
        await here.box.fails(probe)
        assert await here.box.out("cat /proc/net/dev | tail -n +3 | wc -l") == "1"
        assert await here.box.out("tail -n +2 /proc/net/route | wc -l") == "0"
        assert name not in await here.box.out("cat /proc/net/unix")
        connect = (
            "import socket\ns = socket.socket(socket.AF_UNIX)\n"
            f"try: s.connect('\\0{name}'); print('in')\n"
            "except OSError as e: print(type(e).__name__)\n"
        )
        if Path(PYTHON).exists():
            assert subprocess.check_output([PYTHON, "-c", connect], text=True).strip() == "in"
            assert await python(here, connect) == "ConnectionRefusedError"


async def test_namespaces_and_mounts(here: World) -> None:
    for command in (
        "unshare -Ur true",
        "unshare -Urm mount -t tmpfs none /mnt",
        "unshare -n true",
        "unshare -p true",
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /usr",
        "umount /proc/sys",
        "umount -l /run/csb",
        "chroot / true",
        "bwrap --ro-bind / / true",
        "mknod /tmp/disk b 254 0",
        "su -c true",
        "sudo -n true",
        "nsenter -t 1 -m true",
    ):
        result = await here.box.sh(command)
        assert result.exit_code != 0, (command, result)


CALLS = """
import ctypes, os, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = %r
def call(name, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *[ctypes.c_long(a) for a in arguments])
    return errno.errorcode.get(ctypes.get_errno(), 'OK') if result < 0 else 'OK'
"""


@needs_python
async def test_system_calls_live(here: World) -> None:
    """The filter as the kernel runs it. Arguments are such that without it another error comes."""
    from csb_mcp.lib.seccomp import DENIED, MACHINES, NUMBERS

    column = list(MACHINES).index(os.uname().machine)
    numbers = {name: pair[column] for name, pair in NUMBERS.items() if pair[column] is not None}
    denied = sorted(DENIED & set(numbers))
    code = CALLS % (numbers,) + (
        f"for name in {denied!r}: print(name, call(name, -1, 0, 0, 0, 0))\n"
        "print('clone3', call('clone3', 0, 0))\n"
        "print('openat2', call('openat2', -100, 0, 0, 0))\n"
        "print('clone', call('clone', 0x10000000 | 17, 0, 0, 0, 0))\n"
        "for request in (0x5412, 0x541c, 0x5423, 0x541d, 0x100005412):\n"
        "    print('ioctl', call('ioctl', 0, request, 0))\n"
        "for family in (40, 38, 44, 17, 9, 30):\n"
        "    print('socket', call('socket', family, 2, 0))\n"
        "print('netlink', call('socket', 16, 3, 9))\n"
    )
    lines = (await python(here, code)).splitlines()
    said = [tuple(line.split()) for line in lines]
    assert {name for name, result in said if result == "EPERM"} == {*denied, "clone", "ioctl"}
    assert all(r == "ENOSYS" for n, r in said if n in ("clone3", "openat2"))
    assert all(r == "EAFNOSUPPORT" for n, r in said if n == "socket")
    assert ("netlink", "EPROTONOSUPPORT") in said
    useful = (
        "import socket, threading, subprocess, tempfile\n"
        "for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6): socket.socket(f).close()\n"
        "socket.socketpair()\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "print(subprocess.check_output(['echo', 'child'], text=True).strip())\n"
        "tempfile.TemporaryFile().write(b'x')\n"
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n"
    )
    assert await python(here, useful) == "thread\nchild"


@needs_python
async def test_keys_cannot_be_typed_into_a_terminal(here: World) -> None:
    """TIOCSTI, on the payload's own terminal and, through PID 2, on the one outside."""
    attack = (
        "import fcntl, termios, os, glob\n"
        "found = 0\n"
        "for path in glob.glob('/proc/[0-9]*/fd/[0-2]') + ['/dev/console', '/dev/tty']:\n"
        "    try: fd = os.open(path, os.O_RDWR | os.O_NOCTTY)\n"
        "    except OSError: continue\n"
        "    found += os.isatty(fd)\n"
        "    try: fcntl.ioctl(fd, termios.TIOCSTI, b'x'); print('typed', path)\n"
        "    except OSError: pass\n"
        "print(found > 0)\n"
    )
    assert await python(here, attack) == "True"


async def test_a_fork_bomb_hits_a_limit(here: World) -> None:
    assert int(await here.box.out("ulimit -Hu")) <= 1024
    assert await here.box.out("ulimit -Hc") == "0"


# -- the project --


async def test_the_project_is_written_as_its_owner(here: World) -> None:
    await here.box.out("echo new >file; mkdir made; echo 1 >made/by-payload")
    assert (here.project / "file").read_text() == "new\n"
    for name in ("made", "made/by-payload"):
        found = (here.project / name).stat()
        assert (found.st_uid, found.st_gid) == (here.owner, here.owner), name
    assert await here.box.out("stat -c %u:%g file made") == "1000:1000\n1000:1000"


async def test_no_setuid_file_can_be_made(here: World) -> None:
    for attack in (
        "cp /bin/true evil; chmod u+s evil",
        "cp /bin/true evil; chmod 6755 evil",
        "install -m 4755 /bin/true evil",
        "mkdir evil; chmod g+s evil",
        "cp /bin/true evil; setcap cap_setuid+ep evil",
    ):
        await here.box.sh(f"rm -rf evil; {attack}")
        for path in here.project.rglob("*"):
            assert path.is_symlink() or not path.stat().st_mode & 0o6000, attack
    if Path(PYTHON).exists():
        code = CALLS % ({},) + (
            "for flags, mode in ((0o102, 0o4777), (0o102, 0o2777)):\n"
            "    try: os.open('evil2', flags, mode); print('made')\n"
            "    except PermissionError: print('refused')\n"
            "try: os.open('.', os.O_TMPFILE | os.O_RDWR, 0o4777); print('made')\n"
            "except PermissionError: print('refused')\n"
            "os.close(os.open('fine', os.O_CREAT | os.O_RDWR, 0o755)); os.chmod('fine', 0o1777)\n"
        )
        assert await python(here, code) == "refused\nrefused\nrefused"


async def test_the_repository_works_and_is_guarded(here: World) -> None:
    await here.box.out("echo 2 >file; git add file; git commit -qm two; git status --short")
    for attack in (
        "echo x >.git/hooks/pre-commit",
        "echo x >.git/hooks/pre-commit.sample",
        "mv .git/hooks .git/old",
        "mv .git moved",
        "git config core.pager evil",
        "rm -f .git/config",
        f"mv {here.project} /tmp/x",
    ):
        await here.box.fails(attack)
    assert not (here.project / ".vscode").exists()
    assert not (here.project / ".claude").exists()


@pytest.mark.root
async def test_foreign_files_of_the_project_stay_foreign(here: World) -> None:
    foreign = here.project / "foreign"
    foreign.write_text("theirs\n")
    os.chown(foreign, 65531, 65531)
    foreign.chmod(0o600)
    await here.box.fails("cat foreign")
    await here.box.fails("echo x >foreign")


# -- the daemon's own --


async def test_other_sandboxes_are_out_of_sight(here: World) -> None:
    """Also for the part of the tree that is outside the payload's walls, under root's stager."""
    (here.base / "run/other").mkdir(mode=0o700)
    await here.box.fails(f"ls {here.base}/run/other")
    await here.box.fails(f"ls {here.base}/state")
    if here.case.daemon != 0:
        return  # one user's sandboxes are kept apart by the launcher alone
    root = f"/proc/{here.box.process.pid}/root"
    assert sorted(os.listdir(f"{root}{here.base}/run")) == ["launchers", "one"]
    assert sorted(os.listdir(f"{root}{here.base}/state")) == ["one"]


async def test_the_helper_serves_after_all_of_that(here: World) -> None:
    noise = "for i in 1 2 3; do echo exit $i 0 >/proc/1/fd/4; done; kill -TERM 1; true"
    await here.box.sh(noise)
    assert await here.box.out("echo here") == "here"


async def test_nothing_is_left_on_the_host(short_dir: Path, user: User, case: Case) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    async with world(short_dir, user, case) as here:
        pid = here.box.process.pid
        assert Path("/proc/self/mountinfo").read_text() == before
        names = {path.name for path in here.project.iterdir()}
    assert names == {".git", "file", "link"}
    assert Path("/proc/self/mountinfo").read_text() == before
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


CONTROLS = (
    "cat /etc/hostname || cat /etc/machine-id",
    "ls /sys/kernel",
    "test $(ls -d /proc/[0-9]* | wc -l) -gt 15",
)


@pytest.mark.parametrize("probe", CONTROLS)
def test_controls_succeed_on_the_host(probe: str) -> None:
    assert subprocess.run(["bash", "-c", probe], capture_output=True, check=False).returncode == 0
