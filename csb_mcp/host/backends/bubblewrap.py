"""The bubblewrap backend: fills a sandbox's folders, says how to start it, and finds its helper."""

import asyncio
import contextlib
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from csb_mcp.agents import shell
from csb_mcp.config import Settings
from csb_mcp.errors import DeadlineExceeded, HelperFailed, HostUnable, InvalidInput
from csb_mcp.host.backends.channel import Channel
from csb_mcp.host.backends.helper import SandboxHelper
from csb_mcp.host.forwarding import Forwarded, Forwarder, Payload
from csb_mcp.host.gates import closed_gates
from csb_mcp.host.identity import STAGE, Identities
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

    def choose_uid(self, project: Path, taken: Collection[int]) -> int:
        """See ``ports.Backend.choose_uid``."""
        return self._identities.choose(project, taken)

    def unguarded(self, project: Path) -> Sequence[str]:
        """See ``ports.Backend.unguarded``."""
        return [path for path in protected_paths() if not os.path.lexists(project / path)]

    async def prepare(
        self,
        sandbox: Sandbox,
        folders: Folders,
        project_fd: int,
        environment: Mapping[str, str],
        *,
        program: Program | None = None,
        seed: Seed | None = None,
    ) -> Launch:
        """See ``ports.Backend.prepare``. Raises InvalidInput (env, forward), HostUnable."""
        let_in = await self._forwarded(sandbox, folders)
        seed, program = seed or Seed(), program or _program(sandbox.spec)
        asked = {**seed.environment, **sandbox.spec.env}
        pairs = _environment({**asked, **environment, **let_in.environment})
        words = [word for path in program.shown for word in ("--program", str(path))]
        more = (*let_in.words, *words)
        try:
            self._fill(folders, sandbox.uid, pairs)
            self._seed(folders.home, sandbox.uid, seed.files)
        except OSError as error:
            raise HostUnable(f"{error.filename} cannot be made: {error.strerror}") from error
        held = f"/proc/{os.getpid()}/fd/{project_fd}"
        if not self._identities.root:
            return Launch(self._argv(sandbox.spec, folders, held, more, program.argv))
        staged = folders.runtime / "project"
        return Launch(
            self._argv(sandbox.spec, folders, str(staged), more, program.argv),
            tuple(self._stager(sandbox, folders, held, staged, os.stat(project_fd))),
        )

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

    def _fill(self, folders: Folders, uid: int, environment: bytes) -> None:
        gid = self._identities.group(uid)
        for folder in (folders.runtime, folders.state, folders.exec):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shell.seed_home(folders.home, uid, gid)
        for fifo in (folders.control, folders.status):
            os.mkfifo(fifo, 0o600)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # which follows no link
        with open(os.open(folders.environment, flags, 0o600), "wb") as file:
            file.write(environment)
        made = [folders.exec, folders.control, folders.status, folders.environment]
        if self._identities.root:
            (folders.runtime / "project").mkdir(mode=0o700)
            made.append(folders.runtime / "project")
        for path in (*made, folders.runtime, folders.state):
            os.chown(path, uid, gid, follow_symlinks=False)

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
        source: str,
        more: Sequence[str],
        command: Sequence[str],
    ) -> tuple[str, ...]:
        tmp, shm = _memory_folders(spec)
        options = {
            "project-source": source,
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
            "messages": _messages(folders),
        } | ({"egress-dir": folders.egress} if spec.network == "allowlist" else {})
        options |= {"authority": folders.authority} if folders.authority.exists() else {}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        launcher = str(self._launchers.path("bubblewrap"))
        return (launcher, *words, *more, str(spec.project_dir), "--", *command)

    def _stager(
        self, sandbox: Sandbox, folders: Folders, project: str, staged: Path, owner: os.stat_result
    ) -> Iterator[str]:
        uid = sandbox.uid
        # The plain interpreter: a virtual environment's costs two more milliseconds.
        yield from (os.path.realpath(sys.executable), "-I", "-S", str(STAGE))
        yield from (f"uid={uid}", f"gid={self._identities.group(uid)}")
        yield from (f"hide={self._settings.runtime_dir}", f"hide={self._settings.state_dir}")
        yield from (f"keep={self._launchers.folder}",)
        yield from (f"keep={folders.runtime}", f"keep={folders.state}")
        yield from (f"project={project}", f"at={staged}")
        if sandbox.spec.network == "full":
            yield "gain=pasta"
        if self._identities.owns(uid):
            yield f"map={owner.st_uid}:{owner.st_gid}"
        yield "--"

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
