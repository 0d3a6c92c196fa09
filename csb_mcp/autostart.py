"""Start the daemon for whoever needs it: once, however many ask, and tied to none of them."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from csb_mcp.config import PREFIX, Settings, load_settings
from csb_mcp.errors import DeadlineExceeded, HostUnable
from csb_mcp.places import daemon_log, prepare, try_lock

_SECONDS = 25.0  # clients give a server about 30 to come up
_POLL_MILLISECONDS = 10
_TAIL = 4096  # bytes of the log that are shown if it fails
_SESSION = (  # where the session has what may be forwarded; none of them is a secret
    *("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY"),
    *("PULSE_SERVER", "GH_CONFIG_DIR"),
)
_KEPT = ("HOME", "PATH", "LANG", "USER", "LOGNAME", "SUDO_UID", "SUDO_GID", *_SESSION)
_KEPT_PREFIXES = ("LC_", "XDG_", PREFIX)

T = TypeVar("T")


def start(flags: Mapping[str, str], call: Callable[[Settings], T | None]) -> T:
    """Start a daemon unless another one was quicker; gives the connection that ``call`` makes.

    ``call`` gives None as long as nobody listens at the socket that it is for.
    Raises InvalidInput (settings), HostUnable (with the daemon's last words), DeadlineExceeded.
    """
    settings = load_settings(flags)
    prepare(settings)
    deadline = time.monotonic() + _SECONDS
    # Ten at once: one gets the lock and starts it, nine find it running.
    lock = _turn(settings.mcp_socket.with_name("start.lock"), deadline)
    try:
        return call(settings) or _start(settings, flags, lambda: call(settings), deadline)
    finally:
        os.close(lock)


def _turn(path: Path, deadline: float) -> int:
    while (lock := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"another csb-mcp holds {path} and starts no daemon")
        time.sleep(_POLL_MILLISECONDS / 1000)
    return lock


def _start(
    settings: Settings,
    flags: Mapping[str, str],
    attempt: Callable[[], T | None],
    deadline: float,
) -> T:
    log = daemon_log(settings)
    before = log.stat().st_size if log.exists() else 0
    pid = _spawn([*_program(), "serve", "--auto", *_options(settings, flags)], log)
    alive = True
    while time.monotonic() < deadline:
        alive = alive and _alive(pid)
        if connection := attempt():
            return connection
        if not alive:
            raise HostUnable("the daemon did not start", hint=_last_words(log, before))
    raise DeadlineExceeded(
        f"the daemon (pid {pid}) does not answer after {_SECONDS:g} s",
        hint=_last_words(log, before),
    )


def _options(settings: Settings, flags: Mapping[str, str]) -> list[str]:
    """``flags`` once more, as words; the file's name made absolute, for the daemon works in /."""
    named = dict(flags)
    if "config" in named or PREFIX + "CONFIG" in os.environ:
        named["config"] = str(settings.config_file)
    return [word for name, value in named.items() for word in (f"--{name}", value)]


def _alive(pid: int) -> bool:
    """Whether it runs, told as soon as it ends, or after a moment."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return not poll.poll(_POLL_MILLISECONDS)
    finally:
        os.close(descriptor)


def _program() -> list[str]:
    """How to start ourselves again: a wrapper (Nix) may be what sets up the interpreter's path."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "__main__.py":
        return [sys.executable, "-P", "-m", "csb_mcp"]
    return [script]


def _spawn(argv: list[str], log: Path) -> int:
    """Start a daemon that is nobody's child and holds nothing of ours. Raises HostUnable."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        # Only os._exit from here on: this is a copy of the caller.
        try:
            os.setsid()
            if pid := os.fork():
                os.write(write, str(pid).encode())
            else:
                _become(argv, log)
            os._exit(0)
        finally:
            os._exit(127)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        pid = pipe.read()
    if not pid:
        raise HostUnable("no process can be started")
    return int(pid)


def _become(argv: list[str], log: Path) -> None:
    os.chdir("/")
    os.umask(0o077)
    # If ssh or an editor waits for its pipes to close, a copy held here would hang it.
    null = os.open(os.devnull, os.O_RDONLY)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    output = os.open(log, flags, 0o600)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that listed them
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execve(argv[0], argv, _environment())  # noqa: S606 no shell is what is wanted
    except OSError as error:
        os.write(2, f"{argv[0]} cannot be started: {error.strerror}\n".encode())


def _environment() -> dict[str, str]:
    """What the daemon needs; no secrets that happen to lie in a client's environment."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }


def _last_words(log: Path, before: int) -> str:
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = before if before <= size else 0  # it was rotated
            file.seek(max(start, size - _TAIL))
            return f"{log} says:\n{file.read().decode(errors='replace').strip()}"
    except OSError:
        return f"{log} cannot be read"
