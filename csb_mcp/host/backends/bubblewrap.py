"""The bubblewrap backend: fills a sandbox's folders, says how to start it, and finds its helper."""

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from csb_mcp.agents import shell
from csb_mcp.config import Settings
from csb_mcp.errors import DeadlineExceeded, HelperFailed, HostUnable, InvalidInput
from csb_mcp.host.backends.channel import Channel
from csb_mcp.host.backends.helper import SandboxHelper
from csb_mcp.host.backends.stager import Stager, held, place
from csb_mcp.host.forwarding import Forwarded, Forwarder, Payload
from csb_mcp.host.gates import closed_gates
from csb_mcp.host.identity import Identities
from csb_mcp.host.launchers import Launchers, find_tool, sources
from csb_mcp.lib.processes import ProcessHandle, children
from csb_mcp.lib.safe_open import tail
from csb_mcp.lib.units import size_text
from csb_mcp.model import Folders, Launch, Problem, Sandbox, SandboxSpec
from csb_mcp.ports import Program, Seed

_PROBE_SECONDS = 10
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# What a shell inside could not be given: it keeps these to itself, or would stumble over them.
_NOT_SETTABLE = {"UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "IFS"}
_MESSAGE_BYTES = 2000
_TMP, _SHM = 1024**3, 512 * 1024**2
_MAX_WORDS = (
    30 * 1024
)  # bytes; the helper quotes them (by four), as one word of execve(2)'s 128 KiB
_FILES = "65536"  # as the helper sets it


def protected_paths() -> tuple[str, ...]:
    """Paths below a project that make the host run code; the launcher's own list, parsed."""
    text = (sources() / "bubblewrap.sh").read_text()
    found = re.search(r"^PROTECTED=\(\n(.*?)^\)", text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise HostUnable(
            "bubblewrap.sh has no list of protected paths", hint="install csb-mcp again"
        )
    return tuple(found[1].split())


class BubblewrapBackend:
    """See ``ports.Backend``. ``launchers`` must be installed before anything is prepared.

    ``identities``: the uid rules, if they are not those of this process; ``forwarder``: finds what
    is let in from the host.
    """

    name = "bubblewrap"

    def __init__(
        self,
        settings: Settings,
        launchers: Launchers,
        identities: Identities | None = None,
        forwarder: Forwarder | None = None,
    ) -> None:
        self._settings = settings
        self._launchers = launchers
        self._identities = identities or Identities(settings)
        self._forwarder = forwarder or Forwarder(settings)
        self._stager: Stager | None = None
        if self._identities.root:
            self._stager = Stager(settings, self._identities, launchers.folder)

    def problems(self) -> Sequence[Problem]:
        """See ``ports.Backend.problems``."""
        found = list(self._launchers.problems())
        return found or list(self._try())

    def bounds(self, spec: SandboxSpec) -> Mapping[str, tuple[str, str]]:
        """See ``ports.Backend.bounds``."""
        tmp, shm = _memory_folders(spec)
        return {
            "tmp": (size_text(tmp), "tmpfs"),
            "shm": (size_text(shm), "tmpfs"),
            "files": (_FILES, "rlimit per process"),
        }

    def choose_uid(self, project: Path, taken: Collection[int], offered: int | None = None) -> int:
        """See ``ports.Backend.choose_uid``."""
        return self._identities.choose(project, taken, offered)

    def unguarded(self, project: Path) -> Sequence[str]:
        """See ``ports.Backend.unguarded``."""
        return [path for path in protected_paths() if not os.path.lexists(project / path)]

    async def ground(self, sandbox: Sandbox, folders: Folders, project_fd: int | None) -> Launch:
        """See ``ports.Backend.ground``."""
        try:
            self._lay(folders, sandbox.uid)
        except OSError as error:
            raise HostUnable(f"{error.filename} cannot be made: {error.strerror}") from error
        launcher = str(self._launchers.path("bubblewrap"))
        argv = (launcher, "--later", str(folders.begin), str(folders.arguments))
        argv += ("--messages", str(_messages(folders)))
        full = sandbox.spec.network == "full"
        if full and (self._stager is None or project_fd is not None):
            argv += ("--network", "full")  # else what is shown later would not be seen behind pasta
        if self._stager is None:
            return Launch(argv)
        return Launch(argv, self._stager.start(sandbox.uid, folders, project_fd, gain=full))

    async def show_project(
        self, sandbox: Sandbox, folders: Folders, project_fd: int, namespace: int
    ) -> None:
        """See ``ports.Backend.show_project``."""
        if self._stager is not None:
            await self._stager.show(sandbox.uid, folders, project_fd, namespace)

    async def prepare(
        self,
        sandbox: Sandbox,
        folders: Folders,
        project_fd: int,
        environment: Mapping[str, str],
        *,
        program: Program | None = None,
        seed: Seed | None = None,
    ) -> None:
        """See ``ports.Backend``. Raises InvalidInput (env, forward, command), HostUnable."""
        let_in = await self._forwarded(sandbox, folders)
        seed, program = seed or Seed(), program or _program(sandbox.spec)
        asked = {**seed.environment, **sandbox.spec.env}
        pairs = _environment({**asked, **environment, **let_in.environment})
        words = [word for path in program.shown for word in ("--program", str(path))]
        argv = self._argv(sandbox.spec, folders, project_fd, (*let_in.words, *words), program.argv)
        try:
            self._fill(folders, sandbox.uid, {folders.environment: pairs, folders.arguments: argv})
            self._seed(folders.home, sandbox.uid, seed.files)
        except OSError as error:
            raise HostUnable(f"{error.filename} cannot be made: {error.strerror}") from error

    async def begin(self, folders: Folders, pane_pid: int, deadline: float) -> SandboxHelper:
        """See ``ports.Backend.begin``."""
        # Held open until the helper answers: the launcher may not have come so far as to open it.
        try:
            fifo = os.open(folders.begin, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise HelperFailed(f"{folders.begin}: {error.strerror}") from error
        try:
            os.write(fifo, b"\n")
            return await self.connect(folders, pane_pid, deadline)
        finally:
            os.close(fifo)

    async def connect(self, folders: Folders, pane_pid: int, deadline: float) -> SandboxHelper:
        """See ``ports.Backend.connect``."""
        try:
            launcher = ProcessHandle(pane_pid)
        except ProcessLookupError:
            raise _launcher_ended(folders) from None
        channel = Channel(folders)
        try:
            await _answered(channel, launcher, folders, deadline)
            init = _init_of(pane_pid)
            try:
                root = os.open(f"/proc/{init.pid}/root", os.O_PATH | os.O_CLOEXEC)
            except OSError:
                init.close()
                raise _launcher_ended(folders) from None
            return SandboxHelper(channel, folders, init, root)
        except BaseException:
            channel.close()
            raise
        finally:
            launcher.close()

    async def _forwarded(self, sandbox: Sandbox, folders: Folders) -> Forwarded:
        if not sandbox.spec.forward:
            return Forwarded()
        gid, place = self._identities.group(sandbox.uid), folders.runtime / "forward"
        payload = Payload(sandbox.uid, gid, place, sandbox.spec.project_dir)
        return await asyncio.to_thread(self._forwarder.find, sandbox.spec.forward, payload)

    def _lay(self, folders: Folders, uid: int) -> None:
        """What the launcher waits at, and talks through."""
        gid = self._identities.group(uid)
        for folder in (folders.runtime, folders.state, folders.exec):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for fifo in (folders.begin, folders.control, folders.status):
            os.mkfifo(fifo, 0o600)
        made = [folders.exec, folders.begin, folders.control, folders.status]
        if self._stager is not None:
            made.append(place(folders))
            made[-1].mkdir(mode=0o700)
        for path in (*made, folders.runtime, folders.state):
            os.chown(path, uid, gid, follow_symlinks=False)

    def _fill(self, folders: Folders, uid: int, files: Mapping[Path, bytes]) -> None:
        gid = self._identities.group(uid)
        shell.seed_home(folders.home, uid, gid)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # which follows no link
        for path, content in files.items():
            with open(os.open(path, flags, 0o600), "wb") as file:
                file.write(content)
                os.fchown(file.fileno(), uid, gid)

    def _seed(self, home: Path, uid: int, files: Mapping[str, bytes]) -> None:
        """Into a home that nobody has used yet. What exists already is left alone."""
        gid = self._identities.group(uid)
        for name, content in files.items():
            path = home / name
            for parent in reversed(path.relative_to(home).parents[:-1]):
                (home / parent).mkdir(mode=0o700, exist_ok=True)
                os.chown(home / parent, uid, gid, follow_symlinks=False)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with contextlib.suppress(FileExistsError):
                fd = os.open(path, flags, 0o600)
                with open(fd, "wb") as file:
                    file.write(content)
                    os.fchown(fd, uid, gid)

    def _argv(
        self,
        spec: SandboxSpec,
        folders: Folders,
        project_fd: int,
        more: Sequence[str],
        command: Sequence[str],
    ) -> bytes:
        tmp, shm = _memory_folders(spec)
        options = {
            **self._project(spec, folders, project_fd),
            "home": folders.home,
            "environment": folders.environment,
            "network": spec.network,
            "pids": spec.pids,
            "tmp-size": tmp,
            "shm-size": shm,
            "x11-dir": folders.x11,
            "geometry": spec.geometry,
            "xauthority": folders.xauthority,
            "exec-dir": folders.exec,
            "control": folders.control,
            "status": folders.status,
        } | ({"egress-dir": folders.egress} if spec.network == "allowlist" else {})
        options |= {"authority": folders.authority} if folders.authority.exists() else {}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return _words((*words, *more, str(spec.project_dir), "--", *command))

    def _project(
        self, spec: SandboxSpec, folders: Folders, project_fd: int
    ) -> Mapping[str, object]:
        """Where the launcher finds it, or how it knows that nobody has put another in its place."""
        if self._stager is not None:
            return {"project-source": place(folders)}
        if spec.network == "full":  # behind pasta nobody looks into our descriptors
            found = os.stat(project_fd)
            return {"project-is": f"{found.st_dev}:{found.st_ino}"}
        return {"project-source": held(project_fd)}

    def _try(self) -> Iterator[Problem]:
        """Make a tiny sandbox as the uid that a payload would get."""
        bwrap, setpriv = find_tool("bwrap", self._settings.bwrap), find_tool("setpriv")
        uid = self._settings.uid_base if self._identities.root else os.getuid()
        drop = [str(setpriv), f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        command = [
            *(drop if self._identities.root else []),
            *(str(bwrap), "--unshare-all", "--unshare-user", "--disable-userns"),
            *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--", "/bin/true"),
        ]
        try:
            done = subprocess.run(
                command,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Problem("bwrap", f"it could not be tried: {error}", "install bubblewrap again")
            return
        if done.returncode != 0:
            yield _diagnosis(done.stderr.strip())


def _words(words: Sequence[str]) -> bytes:
    for word in words:
        if "\0" in word:
            raise InvalidInput("a word of it holds a NUL", field="command")
    text = b"".join(os.fsencode(word) + b"\0" for word in words)
    if len(text) > _MAX_WORDS:
        hint = "Put it into a script and run that"
        raise InvalidInput("the command is too long", field="command", hint=hint)
    return text


def _program(spec: SandboxSpec) -> Program:
    return Program(spec.command if spec.agent == "command" else shell.COMMAND)


def _memory_folders(spec: SandboxSpec) -> tuple[int, int]:
    """Bytes for /tmp and /dev/shm.

    They are charged to the sandbox's memory: full, they must leave enough of it to live on, for
    what fills them is freed by ending no process.
    """
    mebibytes = spec.memory >> 20
    return min(_TMP, (mebibytes // 4) << 20), min(_SHM, (mebibytes // 8) << 20)


def _diagnosis(said: str) -> Problem:
    if closed := next(closed_gates(), None):
        return closed
    if "disable-userns" in said:
        return Problem(
            "bwrap", "it is too old for --disable-userns", "install bubblewrap 0.8 or newer"
        )
    repair = "in a container, allow user namespaces (Docker: --security-opt seccomp=unconfined)"
    return Problem("bwrap", f"a tiny sandbox failed: {said[:_MESSAGE_BYTES]}", repair)


def _environment(env: Mapping[str, str]) -> bytes:
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or name in _NOT_SETTABLE:
            raise InvalidInput(f"{name!r} cannot be an environment variable here", field="env")
        if "\0" in value:
            raise InvalidInput(f"the value of {name} holds a NUL", field="env")
    try:
        return "".join(f"{name}={value}\0" for name, value in env.items()).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("half a surrogate pair is no text", field="env") from error


def _messages(folders: Folders) -> Path:
    """Where launcher and bwrap complain; the payload never has it open."""
    return folders.runtime / "launcher.log"


def _launcher_ended(folders: Folders) -> HelperFailed:
    try:
        data = tail(folders.runtime, _messages(folders).name, _MESSAGE_BYTES)
    except OSError:
        data = b""
    said = data.decode(errors="replace").strip()
    return HelperFailed(said or "the payload ended before the helper answered")


async def _answered(
    channel: Channel, launcher: ProcessHandle, folders: Folders, deadline: float
) -> None:
    """Wait for a pong, while the launcher lives."""
    loop = asyncio.get_running_loop()
    pong = loop.create_task(channel.ping(secrets.token_hex(8)))
    ended = loop.create_task(launcher.wait())
    try:
        timeout = max(0.0, deadline - loop.time())
        await asyncio.wait((pong, ended), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if pong.done():
            return pong.result()
        if ended.done():
            raise _launcher_ended(folders)
        raise DeadlineExceeded("the helper inside did not answer in time")
    finally:
        pong.cancel()
        ended.cancel()


def _init_of(launcher: int) -> ProcessHandle:
    """Below the launcher, who is PID 1 in a namespace of its own (proc(5), NSpid).

    With pasta around it, bwrap is such a one too: then it is the one below that.
    """
    found = _first_below(launcher)
    if found is None:
        raise HelperFailed("the sandbox ended while it was looked at")
    if (inner := _first_below(found.pid)) is not None:
        found.close()
        return inner
    return found


def _first_below(parent: int) -> ProcessHandle | None:
    for pid in children(parent):
        try:
            handle = ProcessHandle(pid)
            status = Path(f"/proc/{pid}/status").read_text()
        except (OSError, ProcessLookupError):
            continue
        numbers = re.search(r"^NSpid:\t(.*)$", status, re.MULTILINE)
        if numbers and len(numbers[1].split()) > 1 and numbers[1].split()[-1] == "1":
            return handle
        handle.close()
    return None
