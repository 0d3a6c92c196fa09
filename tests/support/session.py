"""A user's session: an agent with a key, a bus, stand-ins for what a desktop has. All private."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import AF_UNIX, socket

from tests.conftest import User

DEADLINE = 10.0


class Session:
    """``runtime`` is its XDG_RUNTIME_DIR, ``home`` its home; ``environ`` what it tells programs."""

    def __init__(self, base: Path, user: User, stack: ExitStack) -> None:
        self.user = user
        self.runtime, self.home = base / "session", base / "person"
        self.x11 = base / "x11"  # as if it were the host's
        self._stack = stack
        for path in (self.runtime, self.home, self.x11):
            path.mkdir(mode=0o700, exist_ok=True)
            self.give(path)
        self._passwd = base / "passwd"
        self._passwd.write_text(f"person:x:{user.uid}:{user.gid}::{self.home}:/bin/sh\n")
        self.environ = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(self.runtime),
        }

    def give(self, path: Path) -> None:
        os.chown(path, self.user.uid, self.user.gid)

    def command(self, *argv: str) -> list[str]:
        """As the user, who has a name: some programs refuse to work for one without."""
        named = ("--dev-bind", "/", "/", "--ro-bind", str(self._passwd), "/etc/passwd")
        named += (
            ("--bind", str(self.x11), "/tmp/.X11-unix") if Path("/tmp/.X11-unix").exists() else ()
        )
        return self.user.command("/usr/bin/bwrap", *named, "--die-with-parent", "--", *argv)

    def run(self, *argv: str) -> str:
        """Output of a program that succeeds."""
        done = subprocess.run(
            self.command(*argv), env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """A program that lives as long as the session."""
        process = subprocess.Popen(
            self.command(*argv),
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._stack.callback(_end, process)
        return process

    def agent(self) -> Path:
        """An ssh agent that has one key; gives the key's file, which only the user can read."""
        self.environ["SSH_AUTH_SOCK"] = str(self.runtime / "agent")
        self.start("/usr/bin/ssh-agent", "-D", "-a", self.environ["SSH_AUTH_SOCK"])
        until((self.runtime / "agent").exists)
        key = self.home / "id_ed25519"
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test-key", "-f", str(key))
        self.run("ssh-add", "-q", str(key))
        return key

    def bus(self, *names: str) -> Path:
        """A session bus, and one service with all ``names``."""
        path = self.runtime / "bus"
        address = f"unix:path={path}"
        self.start("/usr/bin/dbus-daemon", "--session", "--nofork", f"--address={address}")
        until(path.exists)
        service = Path(__file__).with_name("bus.py").read_text()
        process = self.start("/usr/bin/python3", "-I", "-S", "-c", service, str(path), *names)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return path

    def listen(self, path: Path, word: str, mode: int = 0o600) -> Callable[[], None]:
        """A stand-in: who connects is told ``word``. Gives what ends it, if it is to end early."""
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = socket(AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        path.chmod(mode)
        for each in (path.parent, path):
            self.give(each)
        listener.settimeout(0.1)
        ended = threading.Event()
        thread = threading.Thread(target=_tell, args=(listener, word.encode(), ended))
        thread.start()

        def end() -> None:
            ended.set()
            thread.join(DEADLINE)
            listener.close()

        self._stack.callback(end)
        return end


def _tell(listener: socket, word: bytes, ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(
            OSError
        ):  # nobody came within a tenth of a second, or left at once
            client, _ = listener.accept()
            with client:
                client.sendall(word)


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def until(true: Callable[[], object]) -> None:
    """Wait for it, not for ever."""
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@contextmanager
def session(base: Path, user: User) -> Generator[Session]:
    """A session below ``base``; afterwards nothing of it runs."""
    with ExitStack() as stack:
        yield Session(base, user, stack)
