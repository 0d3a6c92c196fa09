"""What is let in from the host: with a real counterpart, or a stand-in that listens."""

import os
import re
import signal
import subprocess
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import FORWARDS, Settings
from csb_mcp.errors import CreateFailed, Forbidden, HostUnable, InvalidInput
from csb_mcp.host.backends.bubblewrap import BubblewrapBackend
from csb_mcp.host.forwarding import Forwarder
from csb_mcp.host.identity import Identities
from csb_mcp.lib.processes import descendants
from csb_mcp.lib.xauth import new_cookie, pack_wild
from csb_mcp.model import CommandResult
from tests.conftest import User
from tests.support.internet import internet
from tests.support.launched import OWN_UID, Host, Launched, launched
from tests.support.processes import command_line
from tests.support.sandboxes import create, mentions, project_in, running_app, settings_in
from tests.support.session import Session, session, until

PYTHON = "/usr/bin/python3 -I -S"
TOKEN = "ghp_c5bHunter2"
BUS_NAMES = ("org.freedesktop.Notifications", "org.freedesktop.systemd1", "org.example.Other")
CONNECT = (
    f'{PYTHON} -c "import socket, sys; s = socket.socket(socket.AF_UNIX);'
    's.settimeout(5); s.connect(sys.argv[1]); print(s.recv(100).decode())" '
)


class World:
    """A host with a session and a project. ``daemon``: the uid that the daemon runs as."""

    def __init__(self, base: Path, user: User, here: Session, daemon: int | None = None) -> None:
        self.base, self.user, self.session = base, user, here
        self.project = base / "app"
        self.project.mkdir()
        here.give(self.project)
        self.nix = base / "nix"
        self.daemon = user.uid if daemon is None else daemon
        self.settings: dict[str, Any] = {}

    def forwarder(self, settings: Settings) -> Forwarder:
        return Forwarder(
            settings,
            self.session.environ,
            nix=self.nix,
            dri=self.base / "dri",
            x11=self.session.x11,
        )

    @asynccontextmanager
    async def box(self, *names: str, **options: Any) -> AsyncGenerator[Launched]:
        host = Host.make(self.base, self.daemon)
        settings = Settings(
            state_dir=self.base / "state",
            runtime_dir=self.base / "run",
            config_file=self.base / "none",
            project_roots=(self.base,),
            **self.settings,
        )
        identities = Identities(settings, uid=self.daemon, environ={})
        backend = BubblewrapBackend(settings, host.launchers, identities, self.forwarder(settings))
        host = replace(host, backend=backend)
        async with launched(host, self.project, forward=names, **options) as box:
            yield box

    async def refused(self, name: str, why: str) -> None:
        """Create with it fails, says ``why``, and has started nothing."""
        with pytest.raises((HostUnable, InvalidInput)) as caught:
            async with self.box(name):
                pytest.fail("it was let in")
        assert caught.value.field == "forward"
        assert why in str(caught.value)
        for folder in ("run", "state"):
            subprocess.run(["rm", "-rf", str(self.base / folder)], check=True)


@pytest.fixture
def world(short_dir: Path, user: User) -> Iterator[World]:
    short_dir.chmod(0o755)
    with session(short_dir, user) as here:
        yield World(short_dir, user, here)


@pytest.fixture
def roots_world(short_dir: Path, user: User) -> Iterator[World]:
    """Of a daemon that root runs: payloads have uids of their own."""
    short_dir.chmod(0o755)
    with session(short_dir, user) as here:
        yield World(short_dir, user, here, daemon=0)


def seen_outside(box: Launched) -> str:
    """Arguments of the whole tree, and the environments of all that is not the payload itself."""
    assert box.helper
    own = (box.process.pid, box.helper.init_pid)
    files = [f"/proc/{pid}/environ" for pid in own]
    files += [f"/proc/{pid}/cmdline" for pid in (own[0], *descendants(own[0]))]
    return "".join(Path(file).read_bytes().decode(errors="replace") for file in files)


async def test_without_it_nothing_is_there(world: World) -> None:
    """All of the session is running, and none of it was named."""
    key = world.session.agent()
    world.session.bus(*BUS_NAMES)
    world.session.run("git", "config", "--global", "user.name", "Person")
    world.session.environ["GH_TOKEN"] = TOKEN
    sockets = ["pulse/native", "pipewire-0", "wayland-0", "x"]
    for name in sockets:
        world.session.listen(world.session.runtime / name, "reached")
    world.session.listen(world.nix / "socket", "reached", 0o666)
    screen = Screen(world)
    async with world.box() as box:
        await box.fails(f"{CONNECT} {world.nix}/socket")
        await box.fails(f"{CONNECT} {world.session.x11}/X{screen.name[1:]}")
        assert not await box.out("ls /tmp/.X11-unix")
        for name in (*sockets, "agent", "bus"):
            assert (world.session.runtime / name).is_socket()  # control
            await box.fails(f"{CONNECT} {world.session.runtime}/{name}")
        await box.fails(f"cat {key}")
        await box.fails("ls /run/csb/forward")
        await box.fails("ls /nix/var/nix/daemon-socket")
        await box.fails("ls /dev/dri")
        assert await box.out("git config user.name") == "agent"
        await box.fails("ssh-add -l")
        await box.fails("dbus-send --session --print-reply --dest=org.freedesktop.DBus / a.b.c")
        inside = await box.out("env")
        assert not re.search("SSH_AUTH|GH_TOKEN|DBUS|PULSE|PIPEWIRE|WAYLAND|NIX_|CSB_USER", inside)


async def test_the_agent_signs_and_keeps_its_keys(world: World) -> None:
    key = world.session.agent()
    public = key.with_suffix(".pub").read_text()
    (world.project / "key.pub").write_text(public)
    (world.project / "text").write_text("agreed\n")
    for name in ("", "text", "key.pub"):
        world.session.give(world.project / name)
    async with world.box("ssh-agent") as box:
        assert "test-key" in await box.out("ssh-add -l")
        await box.out("ssh-keygen -q -Y sign -f key.pub -n file text")
        await box.fails(f"cat {key}")
        await box.fails(f"ls {world.session.runtime}")
        assert await box.out("ls /run/csb/forward") == "ssh-agent"
        for attack in (
            "rm -f $SSH_AUTH_SOCK",
            "chmod 777 $SSH_AUTH_SOCK",
            "mv $SSH_AUTH_SOCK /tmp",
        ):
            await box.fails(attack)
    signers = world.base / "signers"
    signers.write_text(f"person {public}")
    with (world.project / "text").open() as text:
        check = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "person", "-n", "file"]
        done = subprocess.run(
            world.session.command(*check, "-s", str(world.project / "text.sig")),
            stdin=text,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done


async def test_an_agent_by_the_settings(world: World) -> None:
    """A daemon outside the session does not know its environment."""
    world.session.agent()
    world.settings["ssh_agent"] = Path(world.session.environ.pop("SSH_AUTH_SOCK"))
    async with world.box("ssh-agent") as box:
        assert "test-key" in await box.out("ssh-add -l")


def identity(world: World) -> None:
    for key, value in (
        ("user.name", 'Ann "A" \\ Øre'),
        ("user.email", "ann@example.org"),
        ("user.signingkey", "SECRETKEY"),
        ("alias.evil", "!touch evil"),
        ("credential.helper", "store"),
        ("core.editor", "evil"),
    ):
        world.session.run("git", "config", "--global", key, value)


async def commits(world: World) -> None:
    """A commit inside carries the identity; nothing else of the configuration is there."""
    async with world.box("git") as box:
        await box.out("git init -q . && echo 1 >f && git add f && git commit -qm one")
        assert await box.out("git log --format='%an <%ae>'") == 'Ann "A" \\ Øre <ann@example.org>'
        shown = await box.out("git config --list --name-only --show-scope | grep -v ^local")
        assert sorted(shown.split()) == ["system", "system", "user.email", "user.name"]
        assert "SECRETKEY" not in await box.out("cat /etc/gitconfig")
        await box.fails("echo x >>/etc/gitconfig")


async def test_gits_identity_and_no_more(world: World) -> None:
    identity(world)
    await commits(world)


@pytest.mark.root
async def test_gits_identity_for_a_payload_of_root(roots_world: World) -> None:
    identity(roots_world)
    await commits(roots_world)


async def test_no_identity_is_said(world: World) -> None:
    await world.refused("git", "git config --global user.name")


FLOOD = f"""{PYTHON} -c '
import os, socket
path, open_ones = os.environ["DBUS_SESSION_BUS_ADDRESS"].partition("=")[2], []
begun = b"\\0AUTH ANONYMOUS\\r\\nBEGIN\\r\\n" + b"l" * 9999
junk = (b"x" * 70000, b"\\0AUTH EXTERNAL " + b"f" * 60000, begun)
for i in range(300):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(0.2)
    try:
        s.connect(path)
        s.sendall(junk[i % 3])
    except OSError:
        pass
    open_ones.append(s)
print(len(open_ones))
'"""


async def test_the_buss_door_outlives_a_flood(world: World) -> None:
    world.session.bus(*BUS_NAMES)
    note = SEND.format(BUS_NAMES[0], "org/freedesktop/Notifications", BUS_NAMES[0] + ".Notify")
    async with world.box("dbus") as box:
        assert await box.out(FLOOD) == "300"
        assert "heard" in await box.out(note)
        rss = [
            int(found[1])
            for pid in descendants(box.process.pid)
            if (found := re.search(r"VmRSS:\s+(\d+) kB", in_door(pid)))
        ]
        assert len(rss) == 2
        log = box.folders.runtime / "launcher.log"
        assert not log.exists() or not log.read_text()
        assert max(rss) < 48 * 1024


async def test_the_token_of_gh(world: World) -> None:
    """The command itself tells it; it is in the payload's environment, and nowhere to be seen."""
    hosts = world.session.home / ".config/gh/hosts.yml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(f"github.com:\n    user: person\n    oauth_token: {TOKEN}\n")
    for path in (hosts, hosts.parent, hosts.parent.parent):
        world.session.give(path)
    async with world.box("gh") as box:
        assert await box.out("gh auth token") == TOKEN
        assert TOKEN not in seen_outside(box)
        assert TOKEN not in await box.out("cat /proc/1/environ /proc/*/cmdline | tr '\\0' ' '")
        await box.fails(f"cat {hosts}")
        log = box.folders.runtime / "launcher.log"
        assert not log.exists() or TOKEN not in log.read_text()
    hosts.unlink()
    subprocess.run(["rm", "-rf", str(world.base / "run"), str(world.base / "state")], check=True)
    await world.refused("gh", "no token")


SEND = "dbus-send --session --print-reply --dest={0} /{1} {2}"


async def test_the_bus_answers_for_one_name(world: World) -> None:
    path = world.session.bus(*BUS_NAMES)
    note = SEND.format(BUS_NAMES[0], "org/freedesktop/Notifications", BUS_NAMES[0] + ".Notify")
    for name in BUS_NAMES[1:]:  # control: they are there
        world.session.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={path}"
        assert "heard" in world.session.run(*SEND.format(name, "x", "a.b.C").split())
    async with world.box("dbus") as box:
        assert "heard" in await box.out(note)
        names = await box.out(
            SEND.format("org.freedesktop.DBus", "", "org.freedesktop.DBus.ListNames")
        )
        assert BUS_NAMES[0] in names
        for name in BUS_NAMES[1:]:
            assert name not in names
            await box.fails(SEND.format(name, "x", "a.b.C"))
        await box.fails(SEND.format(BUS_NAMES[0], "elsewhere", BUS_NAMES[0] + ".Notify"))
        await box.fails(SEND.format(BUS_NAMES[0], "org/freedesktop/Notifications", "a.b.C"))
        await box.fails(f"{CONNECT} {path}")
        await box.fails("rm -f /run/csb/forward/bus")


def in_door(pid: int) -> str:
    """Its status, if this is one of those that stand between a sandbox and the bus."""
    words = command_line(pid).split(b"\0")
    ours = (b"/opt/csb/bus.py" in words or b"--filter" in words) and b"--args" not in words
    return Path(f"/proc/{pid}/status").read_text() if ours else ""


async def test_the_buss_door_is_confined_and_dies_with_the_tree(world: World) -> None:
    world.session.bus(*BUS_NAMES)
    async with world.box("dbus") as box:
        door = {pid: status for pid in descendants(box.process.pid) if (status := in_door(pid))}
        assert len(door) == 2  # the relay, and xdg-dbus-proxy below it
        for pid, status in door.items():
            assert f"\nUid:\t{box.uid}\t" in status
            for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"):
                assert line in status
            if os.geteuid() == 0:  # a user may not look
                root = Path(f"/proc/{pid}/root")
                assert sorted(os.listdir(root / "run")) == ["bus", "door"]
                assert not (root / "dev/shm" / world.base.name).exists()
                for space in ("net", "pid", "ipc", "mnt", "user", "uts"):
                    own = os.readlink(f"/proc/self/ns/{space}")
                    assert os.readlink(f"/proc/{pid}/ns/{space}") != own
        os.kill(min(door), signal.SIGKILL)
        await box.fails(SEND.format("org.freedesktop.DBus", "", "org.freedesktop.DBus.ListNames"))
        assert await box.out("echo the sandbox goes on") == "the sandbox goes on"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in door))


@pytest.mark.parametrize(
    ("name", "path", "variable"),
    [
        ("audio", "pulse/native", "${PULSE_SERVER#unix:}"),
        ("audio", "pipewire-0", "$PIPEWIRE_RUNTIME_DIR/pipewire-0"),
        ("wayland", "wayland-0", "$WAYLAND_DISPLAY"),
    ],
)
async def test_a_sessions_socket(world: World, name: str, path: str, variable: str) -> None:
    """It is reached by what programs are told, nothing beside it is, nor one made in its place."""
    end = world.session.listen(world.session.runtime / path, f"I am {path}")
    world.session.listen((world.session.runtime / path).with_name("beside"), "other")
    async with world.box(name) as box:
        assert await box.out(f"{CONNECT} {variable}") == f"I am {path}"
        assert len((await box.out("ls /run/csb/forward")).split()) == 1
        await box.fails(f"rm -f {variable}")
        await box.fails(f"{CONNECT} {world.session.runtime}/beside")
        end()
        (world.session.runtime / path).unlink()
        world.session.listen(world.session.runtime / path, "new")
        await box.fails(f"{CONNECT} {variable}")


async def nix_answers(world: World, mode: int) -> None:
    end = world.session.listen(world.nix / "socket", "old daemon", mode)
    world.nix.chmod(0o755)
    inside = "/nix/var/nix/daemon-socket"
    async with world.box("nix-daemon") as box:
        assert await box.out(f"echo $NIX_REMOTE; {CONNECT} {inside}/socket") == "daemon\nold daemon"
        await box.fails(f"rm -f {inside}/socket")
        await box.fails(f"touch {inside}/x")
        end()
        (world.nix / "socket").unlink()
        world.session.listen(world.nix / "socket", "new daemon", mode)
        assert await box.out(f"{CONNECT} {inside}/socket") == "new daemon"


async def test_the_nix_daemon_also_after_it_was_started_anew(world: World) -> None:
    await nix_answers(world, 0o600)


@pytest.mark.root
async def test_the_nix_daemon_for_a_payload_of_root(roots_world: World) -> None:
    """Its socket is open to everybody, so also to a uid of the sandbox's own."""
    roots_world.session.user = User(0, 0)
    await nix_answers(roots_world, 0o666)
    for path in ("run", "state", "nix"):
        subprocess.run(["rm", "-rf", str(roots_world.base / path)], check=True)
    roots_world.session.listen(roots_world.nix / "socket", "closed", 0o600)
    await roots_world.refused("nix-daemon", f"does not let uid {OWN_UID} in")


@pytest.mark.root
async def test_a_session_is_not_for_another_uid(roots_world: World) -> None:
    """The payload of root's sandbox is nobody's: the session's sockets are not its to use."""
    roots_world.session.agent()
    for name in ("pulse/native", "wayland-0", "bus"):
        roots_world.session.listen(roots_world.session.runtime / name, "reached")
    runtime = roots_world.session.runtime
    roots_world.session.environ |= {
        "PULSE_SERVER": f"unix:{runtime}/pulse/native",
        "WAYLAND_DISPLAY": f"{runtime}/wayland-0",
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    for name in ("ssh-agent", "audio", "wayland", "dbus"):
        await roots_world.refused(name, f"and the payload is uid {OWN_UID}")


async def test_what_is_no_socket_of_the_users(world: World, user: User) -> None:
    """Something else in its place, nobody behind it, a place that others write."""
    runtime, environ = world.session.runtime, world.session.environ
    environ["SSH_AUTH_SOCK"] = str(runtime / "agent")
    await world.refused("ssh-agent", "is not there")
    (runtime / "agent").write_text("")
    await world.refused("ssh-agent", "no socket")
    (runtime / "agent").unlink()
    world.session.listen(runtime / "agent", "x")()
    await world.refused("ssh-agent", f"does not let uid {user.uid} in: Connection refused")
    environ["SSH_AUTH_SOCK"] = str(world.project / "agent")
    world.session.listen(world.project / "agent", "evil")
    await world.refused("ssh-agent", "where sandboxes can put what they like")
    (runtime / "link").symlink_to(world.project / "agent")
    environ["SSH_AUTH_SOCK"] = str(runtime / "link")
    await world.refused("ssh-agent", "where sandboxes can put what they like")
    world.session.listen(runtime / "open/agent", "x")
    (runtime / "open").chmod(0o777)
    environ["SSH_AUTH_SOCK"] = str(runtime / "open/agent")
    await world.refused("ssh-agent", "others can change")
    environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:abstract=/tmp/x"
    await world.refused("dbus", "only unix:path=")
    environ["DISPLAY"] = "elsewhere:1"
    await world.refused("display", "no screen of this host")
    await world.refused("audio", "neither")
    await world.refused("gpu", "there is no")
    await world.refused("telepathy", "unknown")


class Screen:
    """A second X server with a cookie: the user's own screen."""

    def __init__(self, world: World) -> None:
        auth = world.base / "auth"
        self.cookie = new_cookie()
        auth.write_bytes(pack_wild(self.cookie))
        world.session.give(auth)
        word = (
            "/usr/bin/Xvfb",
            "-displayfd",
            "1",
            "-screen",
            "0",
            "333x222x24",
            "-auth",
            str(auth),
        )
        process = world.session.start(*word, "-nolisten", "tcp", "-nolisten", "local")
        assert process.stdout
        self.name = f":{process.stdout.readline().strip()}"
        world.session.environ |= {"DISPLAY": self.name, "XAUTHORITY": str(auth)}


async def test_the_users_screen_beside_the_sandboxs_own(world: World) -> None:
    screen = Screen(world)
    async with world.box("display") as box:
        assert await box.out("echo $DISPLAY") == ":0"
        env = "DISPLAY=$CSB_USER_DISPLAY XAUTHORITY=$CSB_USER_XAUTHORITY"
        assert "333x222" in await box.out(f"{env} xdpyinfo")
        await box.fails("DISPLAY=$CSB_USER_DISPLAY xdpyinfo")  # the cookie counts
        await box.fails(f"DISPLAY={screen.name} XAUTHORITY=$CSB_USER_XAUTHORITY xdpyinfo")
        assert screen.cookie.hex() not in seen_outside(box)


# -- by hand: the launcher itself looks --


def by_hand(
    world: World, *words: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()
) -> str:
    host = Host.make(world.base, world.user.uid)
    (world.base / "inside").mkdir()
    world.session.give(world.base / "inside")
    launcher = str(host.launchers.path("bubblewrap"))
    argv = [launcher, "--home", str(world.base / "inside"), *words]
    done = subprocess.run(
        [*prefix, *(world.user.command if prefix else world.session.command)(*argv)],
        env=world.session.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return f"{done.stdout}{done.stderr}status {done.returncode}"


def hand_words(world: World, *names: str) -> list[str]:
    return [*(word for name in names for word in ("--forward", name)), str(world.project), "--"]


def test_by_hand(world: World) -> None:
    identity(world)
    world.session.agent()
    world.session.bus(*BUS_NAMES)
    for name in ("pulse/native", "wayland-0"):
        world.session.listen(world.session.runtime / name, f"I am {name}")
    note = SEND.format(BUS_NAMES[0], "org/freedesktop/Notifications", BUS_NAMES[0] + ".Notify")
    other = SEND.format(BUS_NAMES[1], "x", "a.b.C")
    look = (
        f"git config user.name; ssh-add -l; {note}; {other} || echo refused; echo [$GH_TOKEN];"
        f"{CONNECT} ${{PULSE_SERVER#unix:}}; {CONNECT} $WAYLAND_DISPLAY;"
        "tr '\\0' '\\n' </proc/1/environ | grep -c ghp_"
    )
    names = ("git", "ssh-agent", "gh", "dbus", "audio", "wayland")
    words = hand_words(world, *names)
    said = by_hand(world, *words, "bash", "-c", look, env={"GH_TOKEN": TOKEN})
    for part in ('Ann "A" \\ Øre\n', "test-key", "heard", f"[{TOKEN}]", "I am pulse", "I am way"):
        assert part in said
    assert said.count("heard") == 1
    assert "refused\n" in said
    assert "\n0\n" in said
    until(lambda: not list(world.session.runtime.glob("csb-*")))


def test_by_hand_through_pasta(world: World) -> None:
    """What is found outside comes through; what is secret of it is nowhere left."""
    identity(world)
    world.session.agent()
    world.session.bus(*BUS_NAMES)
    note = SEND.format(BUS_NAMES[0], "org/freedesktop/Notifications", BUS_NAMES[0] + ".Notify")
    other = SEND.format(BUS_NAMES[1], "x", "a.b.C")
    look = f"git config user.name; ssh-add -l; {note}; {other} || echo refused; echo [$GH_TOKEN]"
    words = hand_words(world, "git", "ssh-agent", "gh", "dbus")
    with internet() as net:
        options = ("--network", "full", *words, "bash", "-c", look)
        said = by_hand(world, *options, env={"GH_TOKEN": TOKEN}, prefix=net.prefix)
    for part in ('Ann "A" \\ Øre\n', "test-key", "heard", f"[{TOKEN}]", "refused\n"):
        assert part in said
    assert said.count("heard") == 1
    until(lambda: not list(world.session.runtime.glob("csb-*")))


def test_by_hand_where_pasta_fails(world: World) -> None:
    """The token is not left lying about."""
    words = ("--network", "full", *hand_words(world, "gh"), "true")
    alone = ("/usr/bin/unshare", *(() if os.getuid() == 0 else ("-c",)), "--net", "--")
    said = by_hand(world, *words, env={"GH_TOKEN": TOKEN}, prefix=alone)
    assert "not usable" in said  # as pasta says
    until(lambda: not list(world.session.runtime.glob("csb-*")))


def test_the_users_screen_by_hand(world: World) -> None:
    Screen(world)
    said = by_hand(world, *hand_words(world, "display"), "bash", "-c", "echo $DISPLAY; xdpyinfo")
    assert said.startswith(":0\n")
    assert "333x222" in said


@pytest.mark.parametrize("name", FORWARDS)
def test_what_is_not_there_by_hand(world: World, name: str) -> None:
    if name in ("nix-daemon", "gpu") and Path("/nix/var/nix/daemon-socket/socket").exists():
        return
    said = by_hand(world, *hand_words(world, name), "true")
    assert "status 125" in said
    assert name in said


# -- through the whole service --


async def test_the_settings_bound_it_and_the_record_shows_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GH_TOKEN", TOKEN)
    settings = settings_in(base, forward=("gh", "ssh-agent"), ssh_agent=base / "none")
    async with running_app(settings) as app:
        project = project_in(base)
        with pytest.raises(Forbidden) as caught:
            await create(app, project, forward=("git",))
        assert caught.value.field == "forward"
        with pytest.raises(Forbidden):
            await create(app, project, forward=("everything",))
        with pytest.raises(CreateFailed, match=r"ssh-agent: .*none is not there"):
            await create(app, project, forward=("gh", "ssh-agent"))
        assert [path.name for path in (base / "run").iterdir()] == ["launchers"]
        made = await create(app, project, forward=("gh",))
        assert made.spec.forward == ("gh",)
        assert (await app.service.get(made.id)).spec.forward == ("gh",)
        done = await app.service.run_command(
            made.id, "echo $GH_TOKEN", timeout=10, cwd=None, stdin=None, background=False
        )
        assert isinstance(done, CommandResult)
        assert done.stdout == f"{TOKEN}\n"
        assert TOKEN not in repr(await app.service.get(made.id))
        for path in (base / "state").rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


async def test_a_whole_daemon(base: Path, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a session at once; the end leaves nothing of it, neither does a failed create.

    Of a daemon that root runs: it is refused, and nothing is left.
    """
    names = ("git", "ssh-agent", "dbus", "wayland")
    with session(base, user) as here:
        here.agent()
        here.bus(*BUS_NAMES)
        end = here.listen(here.runtime / "wayland-0", "I am wayland")
        for key in ("user.name", "user.email"):
            here.run("git", "config", "--global", key, "person@example.org")
        for name, value in here.environ.items():
            monkeypatch.setenv(name, value)
        mine = str(base / "run")
        async with running_app(settings_in(base, forward=names)) as app:
            project = project_in(base)
            if os.geteuid() == 0:
                with pytest.raises(CreateFailed, match=f"and the payload is uid {OWN_UID}"):
                    await create(app, project, forward=names)
                assert [path.name for path in (base / "run").iterdir()] == ["launchers"]
                return
            made = await create(app, project, forward=names)
            look = (
                f"git config user.name && ssh-add -l && {CONNECT} $WAYLAND_DISPLAY && "
                + SEND.format(BUS_NAMES[0], "org/freedesktop/Notifications", "a.b.C")
                + " || true"
            )
            done = await app.service.run_command(
                made.id, look, timeout=10, cwd=None, stdin=None, background=False
            )
            assert isinstance(done, CommandResult)
            for part in ("person@example.org", "test-key", "I am wayland"):
                assert part in done.stdout, done
            await app.service.stop(made.id)
            until(lambda: not mentions(f"{mine}/{made.id}"))
            end()
            with pytest.raises(CreateFailed, match="Connection refused"):
                await create(app, project, forward=("dbus", "wayland"))
            assert [path.name for path in (base / "run").iterdir()] == ["launchers"]
