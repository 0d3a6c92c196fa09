"""The launcher by hand: its command line, its terminal, protected paths, and races against it."""

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from csb_mcp.config import Settings
from csb_mcp.host.backends.bubblewrap import protected_paths
from csb_mcp.host.launchers import CONTRACT, Launchers
from csb_mcp.lib.processes import descendants
from csb_mcp.model import Folders
from tests.conftest import User
from tests.support.launched import DEADLINE, Launched, spawn
from tests.support.processes import command_line

# The interpreter may lie where a stranger cannot go: it is left before anything else is done.
BY_HAND = """
import os, sys
from csb_mcp import launch
uid = int(sys.argv.pop(1))
if os.getuid() != uid:
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
launch.main()
"""


Done = subprocess.CompletedProcess[str]


def finished(
    argv: list[str],
    env: Mapping[str, str],
    *,
    text: str = "",
    cwd: Path | None = None,
    stdin: int | None = None,
    pass_fds: tuple[int, ...] = (),
) -> Done:
    """Run without a terminal until it ends."""
    process = subprocess.Popen(
        argv,
        env=dict(env),
        cwd=cwd,
        pass_fds=pass_fds,
        stdin=subprocess.PIPE if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        out, err = process.communicate(text if stdin is None else None, timeout=30)
    return Done(argv, process.returncode, out, err)


class Hand:
    """A user with a home, a project and the launcher; nothing of a daemon."""

    def __init__(self, base: Path, user: User, bwrap: Path | None = None) -> None:
        base.chmod(0o755)
        self.base, self.user = base, user
        self.home, self.project = base / "person", base / "person" / "app"
        self.inside = base / "inside"
        for path in (self.home, self.project, self.inside, base / "state"):
            path.mkdir(exist_ok=True)
            self.give(path)
        settings = Settings(
            state_dir=base, runtime_dir=base, config_file=base, project_roots=(), bwrap=bwrap
        )
        launchers = Launchers(base / "launchers", settings)
        launchers.install()
        self.launcher = str(launchers.path("bubblewrap"))
        self.env = {
            "HOME": str(self.home),
            "PATH": f"{self.base}/tools:/usr/bin:/bin",
            "TERM": "xterm-256color",
            "XDG_STATE_HOME": str(base / "state"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def give(self, path: Path) -> None:
        for each in (path, *path.rglob("*")):
            os.chown(each, self.user.uid, self.user.gid, follow_symlinks=False)

    def write(self, name: str, text: str = "old\n") -> Path:
        """A file in the project; parents are made."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.give(self.project)
        return path

    def argv(self, *words: str) -> list[str]:
        return self.user.command(self.launcher, "--home", str(self.inside), *words)

    def run(self, *words: str, text: str = "") -> "Done":
        """The launcher, without a terminal."""
        return finished(self.argv(*words), self.env, text=text)

    def sh(self, command: str) -> "Done":
        return self.run(str(self.project), "--", "bash", "-c", command)

    def by_hand(self, *words: str) -> list[str]:
        """``claude-sandbox`` itself."""
        return [sys.executable, "-c", BY_HAND, str(self.user.uid), *words]


@pytest.fixture
def hand(short_dir: Path, user: User) -> Hand:
    return Hand(short_dir, user)


@asynccontextmanager
async def terminal(hand: Hand, argv: list[str]) -> AsyncGenerator[Launched]:
    process, master = spawn(argv, hand.env, hand.project)
    this = Launched(process, master, Folders(hand.base, hand.base), hand.user.uid)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, this.read)
    try:
        yield this
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        loop.remove_reader(master)
        os.close(master)


async def runs(shell: Launched, command: str) -> None:
    """Wait until that runs somewhere in the sandbox."""
    words = command.encode().replace(b" ", b"\0") + b"\0"

    async with asyncio.timeout(DEADLINE):
        while words not in map(command_line, descendants(shell.process.pid)):
            await asyncio.sleep(0.01)


async def test_a_shell_in_a_terminal(hand: Hand) -> None:
    """Prompt, ^C, ^Z, window size and exit status, as in any terminal."""
    async with terminal(hand, hand.by_hand("--shell")) as shell:
        await shell.until_printed("$ ")
        shell.type("pwd; echo at=$HOME\n")
        await shell.until_printed("at=/home/agent")
        assert str(hand.project) in shell.printed.decode()
        shell.type("sleep 100; echo status=$?\n")
        await shell.until_printed("status=$?")
        shell.printed = b""
        await runs(shell, "sleep 100")  # so bash has given the terminal away: ^C means the sleep
        shell.type("\x03")
        await shell.until_printed("$ ")
        shell.type("sleep 101\n")
        await runs(shell, "sleep 101")
        shell.type("\x1a")
        await shell.until_printed("Stopped")
        shell.type("kill %1; wait; tty\n")
        await shell.until_printed("/dev/pts/")
        shell.resize(33, 101)
        shell.type("stty size\n")
        await shell.until_printed("33 101")
        shell.type("exit 7\n")
        assert await shell.ended() == 7


async def test_an_early_interrupt_and_a_closed_terminal(hand: Hand) -> None:
    async with terminal(hand, hand.by_hand("--shell")) as shell:
        await shell.until_printed("$ ")
        os.close(shell.terminal)
        shell.terminal = os.open("/dev/null", os.O_RDWR)
        assert await shell.ended() != 0


def test_pipes_stay_pipes(hand: Hand) -> None:
    done = hand.run(str(hand.project), "--", "cat", text="a\nb\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nb\n", "")
    assert hand.sh("echo out; echo err >&2; exit 9").stderr == "err\n"
    assert hand.sh("exit 9").returncode == 9
    assert hand.sh("kill -TERM $$").returncode == 128 + 15


def test_the_home_is_kept_and_its_own(hand: Hand) -> None:
    for command, shown in (("echo 1 >~/kept; ls -A ~", ".bashrc"), ("cat ~/kept", "1\n")):
        argv = hand.by_hand(".", "--", "bash", "-c", command)
        done = finished(argv, hand.env, cwd=hand.project)
        assert shown in done.stdout
    assert not (hand.home / "kept").exists()


def test_claude_wherever_it_was_installed(hand: Hand) -> None:
    done = finished(hand.by_hand(), hand.env, cwd=hand.project)
    assert done.returncode == 125
    assert "claude is not installed" in done.stderr
    versions = hand.base / "versions"
    tools = hand.base / "tools"
    versions.mkdir()
    tools.mkdir()
    (versions / "2.0").write_text("#!/bin/bash\necho I am claude in $PWD\n")
    (versions / "2.0").chmod(0o755)
    (versions / "secret").write_text("s")
    (tools / "claude").symlink_to(versions / "2.0")
    done = finished(hand.by_hand(), hand.env, cwd=hand.project)
    assert done.stdout == f"I am claude in {hand.project}\n", done


def test_an_authority_is_trusted_beside_the_systems(hand: Hand) -> None:
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    pem = hand.base / "authority.pem"
    body = "QUJD" * 20
    pem.write_text(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    words = ("--authority", str(pem), str(hand.project), "--", "bash", "-c")
    shown = f'cat "$SSL_CERT_FILE" | md5sum; cat {system} | md5sum; cat "$NODE_EXTRA_CA_CERTS"'
    first, second, *own = hand.run(*words, shown).stdout.splitlines()
    assert "\n".join(own) == pem.read_text().strip()
    assert first == second
    assert hashlib.md5(system.read_bytes() + b"\n" + pem.read_bytes()).hexdigest() in first
    assert hand.run(*words, f"echo >> {system}; echo > /run/csb/authority.pem").returncode != 0
    for text, why in (("nonsense", "no certificate"), (None, "not a file")):
        pem.write_text(text) if text else pem.unlink()
        done = hand.run(*words, "true")
        assert done.returncode == 125
        assert why in done.stderr


def test_contract_help_and_refusals(hand: Hand) -> None:
    assert hand.run("--contract").stdout == f"{CONTRACT}\n"
    assert "--project-source" in hand.run("--help").stdout
    for words, why in (
        (("--network", "wifi", "."), "none, allowlist, full, host"),
        (("--network", "allowlist", "."), "--egress-dir"),
        (("--egress-dir", "/tmp", "."), "--network allowlist"),
        (("--inside", "/", "--network", "none", "."), "not for you"),
        (("--inside", "/", "--network", "full", "."), "as root"),
        (("--share-everything", "yes"), "unknown option"),
        (("--pids", "many", "."), "not a number"),
        (("/usr",), "cannot be a project"),
        (("/usr/bin",), "cannot be a project"),
        (("/proc/1",), "cannot"),
        (("/nowhere",), "cannot enter"),
        ((str(hand.home),), "holds your home"),
        ((str(hand.base),), "holds your home"),
        (("--project-source", str(hand.project), "/a/../etc"), "normal form"),
        (("--project-source", str(hand.project), "/opt/csb"), "cannot be a project"),
        (("--control", "/dev/null", "--status", "/dev/null", "."), "go together"),
    ):
        done = hand.run(*words, "--", "true")
        assert done.returncode == 125, (words, done)
        assert why in done.stderr, (words, done)


def test_odd_project_names(hand: Hand) -> None:
    for name in ("a b", "back\\slash", "tab\tbed", "new\nline", "ünï", "$(id)", "*", "-n"):
        path = hand.project / name
        (path / ".vscode").mkdir(parents=True)
        hand.give(path)
        look = 'printf %s "$PWD"; touch .vscode/x || touch y'
        done = finished(hand.argv("--", "bash", "-c", look), hand.env, cwd=path)
        assert done.stdout == str(path), (name, done)
        assert (path / "y").exists()
        assert not (path / ".vscode/x").exists()


def test_inherited_descriptors_are_closed(hand: Hand) -> None:
    look = "for i in /proc/[0-9]*/fd/*; do readlink $i; done"
    folder = os.open("/", os.O_RDONLY)
    try:
        argv = hand.argv(str(hand.project), "--", "bash", "-c", look)
        done = finished(argv, hand.env, pass_fds=(folder,))
        known = ("pipe:", "socket:", "/dev/null", "/opt/csb/helper.sh", "/proc/")
        assert done.stdout
        assert all(line.startswith(known) for line in done.stdout.splitlines()), done
        refused = finished(hand.argv(str(hand.project), "--", "true"), hand.env, stdin=folder)
        assert refused.returncode == 125
        assert "standard stream" in refused.stderr
    finally:
        os.close(folder)


def test_nothing_secret_in_arguments(hand: Hand) -> None:
    file = hand.base / "environment"
    file.write_bytes(b"TOKEN=hunter2\0OTHER=a b\n'c\0")
    hand.give(file)
    words = ("--environment", str(file), str(hand.project))
    done = hand.run(
        *words, "--", "bash", "-c", 'echo "$TOKEN|$OTHER"; tr "\\0" "\\n" </proc/1/environ'
    )
    assert done.stdout.startswith("hunter2|a b\n'c\n")
    assert done.stdout.count("hunter2") == 1
    assert "hunter2" not in hand.run("--print-args", *words, "--", "true").stdout
    for bad in (b"1A=x\0", b"A B=x\0", b"=x\0", b"UID=0\0", b"IFS=x\0", b"none\0"):
        file.write_bytes(bad)
        assert hand.run(*words, "--", "true").returncode == 125, bad


def test_the_environment_never_reaches_the_helper(hand: Hand) -> None:
    """BASH_ENV or LD_PRELOAD would run as PID 1, before it has looked around."""
    hand.write("evil.sh", "touch evil-$$; unset BASH_ENV\n")
    file = hand.base / "environment"
    file.write_bytes(f"BASH_ENV={hand.project}/evil.sh\0".encode())
    hand.give(file)
    hand.run("--environment", str(file), str(hand.project), "--", "bash", "-c", "true")
    left = [path.name for path in hand.project.glob("evil-*")]
    assert left  # the payload's bash obeys it
    assert "evil-1" not in left


@pytest.mark.root
def test_root_is_left_or_refused(hand: Hand) -> None:
    argv = [hand.launcher, "--home", str(hand.inside), str(hand.project), "--", "touch", "made"]
    done = finished(argv, hand.env)
    assert done.returncode == 0, done  # the project's owner
    assert (hand.project / "made").stat().st_uid == hand.user.uid
    os.chown(hand.project, 0, 0)
    refused = finished(argv, hand.env)
    assert refused.returncode == 125
    assert "sudo -u" in refused.stderr
    hand.project.chmod(0o777)
    sudo = {"SUDO_UID": str(hand.user.uid), "SUDO_GID": str(hand.user.gid)}
    (hand.project / "made").unlink()
    done = finished(argv, hand.env | sudo)
    assert done.returncode == 0, done
    assert (hand.project / "made").stat().st_uid == hand.user.uid


def git(hand: Hand, *words: str) -> None:
    subprocess.run(
        hand.user.command("/usr/bin/git", "-C", str(hand.project), *words),
        env={"HOME": str(hand.home)},
        check=True,
        capture_output=True,
    )


def test_git_works_and_its_hooks_cannot_be_changed(hand: Hand) -> None:
    git(hand, "init", "-q")
    before = sorted(str(path) for path in hand.project.rglob("*") if "objects" not in path.parts)
    for attack in (
        "echo x >.git/hooks/post-checkout",
        "echo x >>.git/config",
        "git config core.fsmonitor ./evil",
        "mv .git .gone",
        "mv .git/hooks .git/old",
        "mv .git/config .git/old",
        "rm -rf .git/hooks",
        "ln -sf /tmp/x .git/config",
        "chmod +x .git/hooks/*",
        "mv .git/config.lock .git/config; cp .git/config .git/new; mv .git/new .git/config",
    ):
        assert hand.sh(attack).returncode not in (0, 125), attack
    after = sorted(str(path) for path in hand.project.rglob("*") if "objects" not in path.parts)
    assert set(before) <= set(after)
    done = hand.sh(
        "echo 1 >f; git add f; git -c user.name=a -c user.email=a@b commit -qm one;"
        "git log --oneline"
    )
    assert done.returncode == 0, done
    assert done.stdout.endswith("one\n")


def test_every_listed_path(hand: Hand) -> None:
    """Each in turn, as a file and as a folder: cannot be changed, replaced or moved away."""
    for name in protected_paths():
        hand.write(name if "." in Path(name).name[1:] else f"{name}/file")
    attacks = [
        f"({attack}) 2>/dev/null && echo {attack!r} worked"
        for name in protected_paths()
        for attack in (
            f"echo new >{name}",
            f"mv {name} x",
            f"mv {name.split('/', maxsplit=1)[0]} x",
            f"rmdir {name}",
            f"unlink {name}",
            f"echo >y; mv -T y {name}",
        )
    ]
    done = hand.sh("; ".join([*attacks, "echo tried all"]))
    assert done.stdout == "tried all\n", done


def test_nothing_is_left_for_what_is_absent(hand: Hand) -> None:
    hand.write("kept")
    hand.sh("true")
    assert [path.name for path in hand.project.iterdir()] == ["kept"]
    git(hand, "init", "-q", "--template=")
    before = {str(path) for path in hand.project.rglob("*")}
    hand.sh("true")
    assert {str(path) for path in hand.project.rglob("*")} == before


def test_what_gits_config_names_is_protected_too(hand: Hand) -> None:
    git(hand, "init", "-q")
    git(hand, "config", "core.hooksPath", "tools/hooks")
    git(hand, "config", "include.path", "../shared.gitconfig")
    git(hand, "config", "core.fsmonitor", "./watch.sh")
    for name in ("tools/hooks/pre-commit", "shared.gitconfig", "watch.sh", "tools/free"):
        hand.write(name)
    for name in ("tools/hooks/pre-commit", "shared.gitconfig", "watch.sh"):
        assert hand.sh(f"echo new >{name}").returncode == 1, name
    assert hand.sh("mv tools other").returncode == 1
    assert hand.sh("echo new >tools/free").returncode == 0


def test_worktrees_and_bare_repositories(hand: Hand) -> None:
    file = hand.write(".git", "gitdir: /elsewhere\n")
    assert hand.sh("echo 'gitdir: evil' >.git").returncode == 1
    assert hand.sh("mv .git x").returncode == 1
    file.unlink()
    git(hand, "init", "-q", "--bare")
    assert hand.sh("echo x >>config").returncode == 1
    assert hand.sh("echo x >hooks/post-update").returncode == 1


@pytest.mark.parametrize("name", [".vscode", ".git", ".claude/hooks", ".git/info", ".envrc"])
def test_a_link_in_a_protected_place_is_refused(hand: Hand, name: str) -> None:
    secret = hand.base / "secret"
    secret.mkdir()
    path = hand.project / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(secret)
    hand.give(hand.project)
    done = hand.sh("true")
    assert done.returncode == 125
    assert f"{name} is a symbolic link" in done.stderr


SWAP = """#!/bin/bash
# In place of bwrap: between the launcher's look and bwrap's own, somebody changes the project.
PATH=/usr/bin
cd {project}
{swap}
exec /usr/bin/bwrap "$@"
"""


@pytest.mark.parametrize(
    "swap",
    [
        "mv .vscode was; ln -s {secret} .vscode",
        "mv .git was; ln -s {secret} .git",
        "mv .git/hooks was; ln -s {secret}/hooks .git/hooks",
        "mv .git was; cp -r {secret} .git; rm -r .git/hooks; ln -s ../was/hooks .git/hooks",
        "cd ..; mv app was; ln -s {secret} app",
    ],
)
def test_a_path_that_is_swapped_at_the_last_moment(short_dir: Path, user: User, swap: str) -> None:
    """bwrap resolves paths once more; the helper compares what was mounted and refuses."""
    bwrap = short_dir / "bwrap"
    bwrap.write_text("")
    bwrap.chmod(0o755)
    hand = Hand(short_dir, user, bwrap)
    secret = short_dir / "person" / "secret"
    for name in ("hooks/key", "config"):
        (secret / name).parent.mkdir(parents=True, exist_ok=True)
        (secret / name).write_text("SECRET")
        (secret / ".vscode").mkdir(exist_ok=True)
        hand.write(f".git/{name}")
    hand.write(".vscode/file")
    hand.give(hand.home)
    look = "cat .vscode/key .git/config .git/hooks/key config 2>/dev/null; echo ran"
    bwrap.write_text(SWAP.format(project=hand.project, swap=""))
    assert hand.sh(look).stdout == "old\nold\nran\n"  # without a swap it runs
    bwrap.write_text(SWAP.format(project=hand.project, swap=swap.format(secret=secret)))
    done = hand.sh(look)
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert "SECRET" not in done.stdout
    assert "changed while the sandbox was made" in done.stderr or "bwrap:" in done.stderr, done


def test_installing_twice_changes_nothing(hand: Hand) -> None:
    folder = hand.base / "launchers"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    Hand(hand.base, hand.user)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert all(not path.stat().st_mode & 0o022 for path in before)


@pytest.mark.once
@pytest.mark.parametrize(
    "name", ["bubblewrap", "display", "egress", "share/helper.sh", "share/bin/chromium"]
)
def test_shellcheck_accepts(hand: Hand, name: str, require: Callable[[str], str]) -> None:
    """As installed, preamble and all. SC2034: not each text uses each variable of it."""
    script = Path(hand.launcher).parent / name
    done = finished([require("shellcheck"), "-e", "SC2034", str(script)], os.environ)
    assert done.returncode == 0, done.stdout


def test_a_home_without_anybody_to_choose_it(hand: Hand) -> None:
    """As the launcher is used where there is no Python."""
    argv = hand.user.command(hand.launcher, str(hand.project), "--", "touch", "/home/agent/kept")
    assert finished(argv, hand.env).returncode == 0
    assert len(list((hand.base / "state").rglob("kept"))) == 1


def test_an_upgrade_leaves_what_runs(hand: Hand) -> None:
    """Another set of files goes to another folder."""
    changed = Hand(hand.base, hand.user, bwrap=Path("/bin/bwrap"))
    assert changed.launcher != hand.launcher
    assert Path(hand.launcher).exists()


@pytest.mark.root
@pytest.mark.parametrize("early", [(), ("--network", "full")], ids=["outside", "behind pasta"])
def test_who_waits_sees_what_is_mounted_meanwhile(hand: Hand, early: tuple[str, ...]) -> None:
    """A disk that is plugged in then has a project on it; one that is pulled out is not kept."""
    fifo, words = hand.base / "begin", hand.base / "words"
    disks = [hand.home / name for name in ("pulled", "plugged")]
    project = disks[1] / "app"
    os.mkfifo(fifo)
    told = [*early, "--home", str(hand.inside), str(project), "--", "ls"]
    words.write_text("".join(f"{word}\0" for word in told))
    for path in (fifo, words, *disks):
        if path in disks:
            path.mkdir()
        hand.give(path)
    later = hand.user.command(hand.launcher, "--later", str(fifo), str(words), *early)
    # The shell stays where the host's mounts are; pasta goes to a place of its own.
    apart = ["/usr/bin/unshare", "--mount", "--propagation", "shared"]
    apart += ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
    with subprocess.Popen(
        [*apart, *later],
        env=hand.env,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            begin = opened_by_a_reader(fifo)
            there = ["/usr/bin/nsenter", "-t", str(process.pid), "-m", "--"]
            for disk in disks:
                options = f"uid={hand.user.uid},gid={hand.user.gid}"
                mount = ["mount", "-t", "tmpfs", "-o", options, "disk", str(disk)]
                subprocess.run([*there, *mount], check=True, timeout=10)
            subprocess.run([*there, "umount", str(disks[0])], check=True, timeout=10)
            seen = [mounts_of(pid) for pid in (process.pid, *descendants(process.pid))]
            assert not [text for text in seen if str(disks[0]) in text]
            make = hand.user.command("/bin/sh", "-c", f"mkdir {project}; touch {project}/here")
            subprocess.run([*there, *make], check=True, timeout=10)
            os.write(begin, b"\n")
            out, err = process.communicate(timeout=20)
            os.close(begin)
            assert (out, process.returncode) == (b"here\n", 0), err
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def opened_by_a_reader(fifo: Path) -> int:
    """Its other end, as soon as somebody waits there."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # ENXIO: nobody does
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.005)  # a poll with a deadline: nothing tells of a FIFO's reader
    raise AssertionError("nobody waits there")


def mounts_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/mountinfo").read_text()
    return ""


def test_only_the_folder_that_was_meant_is_entered(hand: Hand) -> None:
    found = hand.project.stat()
    told = f"{found.st_dev}:{found.st_ino}"
    assert hand.run("--project-is", told, str(hand.project), "--", "true").returncode == 0
    hand.project.rename(hand.home / "moved")
    hand.project.mkdir()
    hand.give(hand.project)
    done = hand.run("--project-is", told, str(hand.project), "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert "is not the folder any more" in done.stderr
