"""Which sandboxes there are: records, in step with the store, and how callers name them."""

import asyncio
import logging
import secrets
import string
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from csb_mcp.errors import (
    Ambiguous,
    Conflict,
    CsbError,
    DisplayFailed,
    HelperFailed,
    NotFound,
    SandboxEnded,
)
from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import AgentState, Folders, Sandbox, SandboxState
from csb_mcp.ports import Display, Enclosure, Gate, Helper, Store, Terminal
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.history import History

_log = logging.getLogger(__name__)
_ALPHABET = string.ascii_lowercase + string.digits
_ID_LENGTH = 8
_LISTED = 20  # ids in an error's list of choices


@dataclass(slots=True, eq=False)
class Live:
    """The running pieces of one sandbox. Made when it is up, closed when it has ended.

    ``display`` or ``helper`` is None if it did not answer when a restarted daemon adopted the
    sandbox; ``gate``, if its network has no proxy, or while that is away. ``asked`` beats when its
    egress requests changed; ``cut`` is set if the gate failed in a call; ``once`` tells when a host
    and port were last let through for one connection. ``kept_at``: when what its proxy counted was
    last put on disk. ``agent``: what its agent does, if it has one
    that is understood. ``ending``: it is on its way down, and what
    fails now fails because of that. ``ended`` is set once nothing runs any more; ``last_rows`` is
    then what the terminal showed.
    """

    id: str
    folders: Folders
    terminal: Terminal
    display: Display | None
    helper: Helper | None
    enclosure: Enclosure
    gate: Gate | None = None
    asked: Pulse = field(default_factory=Pulse)
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    agent: AgentWatch | None = None
    kept_at: float = 0.0
    once: dict[tuple[str, int], float] = field(default_factory=dict[tuple[str, int], float])
    ending: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    last_rows: tuple[str, ...] = ()
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    history: History = field(default_factory=History)
    calls: int = 0
    last_call: float = field(default_factory=time.monotonic)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Somebody works with it: it is not idle, nor was it until the end of the block."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1
            self.last_call = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Time since the last output or call, 0 while a call runs."""
        if self.calls:
            return 0.0
        return min(self.terminal.idle_seconds, time.monotonic() - self.last_call)

    def need_helper(self) -> Helper:
        """The helper. Raises HelperFailed if there is none."""
        if self.helper is None:
            raise HelperFailed(
                "its helper did not answer when the daemon was restarted",
                sandbox=self.id,
                hint="terminal and screen still work; or stop it",
            )
        return self.helper

    def need_display(self) -> Display:
        """The display. Raises DisplayFailed if there is none."""
        if self.display is None:
            raise DisplayFailed(
                "its display did not answer when the daemon was restarted",
                sandbox=self.id,
                hint="the terminal still works; or stop it",
            )
        return self.display

    async def close(self) -> None:
        """Let go of all pieces; the sandbox goes on."""
        for task in self.tasks - {asyncio.current_task()}:
            task.cancel()
        if self.helper is not None:
            self.helper.close()
        if self.display is not None:
            await self.display.close()
        if self.gate is not None:
            self.gate.close()
        await self.terminal.close()
        self.enclosure.close()


class Registry:
    """All records. Changes go to the store first, so a crash never forgets what was promised.

    ``store``: also for whoever keeps more there than records.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._records: dict[str, Sandbox] = {}
        self._reserved: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.live: dict[str, Live] = {}

    async def restore(self) -> list[Sandbox]:
        """Load what the store holds; gives those that had not ended."""
        self._records = {sandbox.id: sandbox for sandbox in await self.store.all()}
        return [sandbox for sandbox in self._records.values() if not sandbox.state.ended]

    def all(self) -> list[Sandbox]:
        """Newest first."""
        return sorted(self._records.values(), key=lambda s: (s.created_at, s.id), reverse=True)

    def uids(self) -> set[int]:
        """Host uids that belong to sandboxes, or are reserved."""
        return {sandbox.uid for sandbox in self._records.values()} | {*self._reserved.values()}

    def new_id(self) -> str:
        """An id that none has; it starts with a letter, so that no shell takes it for a number."""
        while True:
            rest = (secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH - 1))
            made = secrets.choice(string.ascii_lowercase) + "".join(rest)
            if made not in self._records and made not in self._reserved:
                return made

    def reserve(self, sandbox_id: str, uid: int) -> None:
        """Nobody else gets these, until there is a record of it or it is released."""
        self._reserved[sandbox_id] = uid

    def release(self, sandbox_id: str) -> None:
        """See :meth:`reserve`. Idempotent."""
        self._reserved.pop(sandbox_id, None)

    async def add(self, sandbox: Sandbox) -> None:
        """Keep a new record. Raises Conflict if its name is taken, as a name or as an id."""
        if sandbox.name in self._records:
            raise Conflict(
                f"{sandbox.name!r} is the id of a sandbox", field="name", hint="choose another name"
            )
        await self.store.insert(sandbox)
        self._records[sandbox.id] = sandbox
        self.release(sandbox.id)

    async def put(self, sandbox: Sandbox) -> None:
        """Replace a record."""
        await self.store.update(sandbox)
        self._records[sandbox.id] = sandbox

    def remember(self, sandbox: Sandbox) -> None:
        """Replace a record in memory alone, for what may be lost; the next put keeps it, too."""
        self._records[sandbox.id] = sandbox

    async def put_ended(self, sandbox: Sandbox) -> None:
        """Replace the record of one that has ended, in memory at least. Nothing is pending then.

        With a disk that takes nothing it is over all the same; the next daemon finds out by itself.
        """
        sandbox = replace(sandbox, pending=())
        if sandbox.agent_state is not AgentState.NONE:
            sandbox = replace(sandbox, agent_state=AgentState.EXITED)
        self._records[sandbox.id] = sandbox
        try:
            await self.store.update(sandbox)
        except CsbError as error:
            _log.warning("sandbox %s: its end is not on disk: %s", sandbox.id, error)

    async def remove(self, sandbox_id: str) -> None:
        """Forget a record."""
        await self.store.delete(sandbox_id)
        self._records.pop(sandbox_id, None)
        self._locks.pop(sandbox_id, None)

    def lock(self, sandbox_id: str) -> asyncio.Lock:
        """Taken by whoever changes the state of that sandbox."""
        return self._locks.setdefault(sandbox_id, asyncio.Lock())

    def find(self, ref: str) -> Sandbox:
        """By id, name, or unique prefix of an id, in this order. Raises NotFound, Ambiguous."""
        if ref in self._records:
            return self._records[ref]
        for sandbox in self._records.values():
            if sandbox.name == ref:
                return sandbox
        fits = [s for s in self._records.values() if ref and s.id.startswith(ref)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise Ambiguous(
                f"{ref!r} fits {len(fits)} sandboxes",
                field="sandbox",
                choices=[s.id for s in fits[:_LISTED]],
                hint="give more of the id",
            )
        raise NotFound(
            f"there is no sandbox {ref[:80]!r}",
            field="sandbox",
            choices=[s.name or s.id for s in self.all()[:_LISTED]],
            hint="the list of sandboxes shows all",
        )

    def running(self, ref: str) -> Live:
        """The running pieces. Raises NotFound, Ambiguous, SandboxEnded, Conflict (creating)."""
        sandbox = self.find(ref)
        live = self.live.get(sandbox.id)
        if live is not None:
            return live
        if sandbox.state is SandboxState.CREATING:
            raise Conflict(
                "it is still being created", sandbox=sandbox.id, hint="try again in a moment"
            )
        if not sandbox.state.ended:
            raise Conflict(
                "it runs, but did not answer when the daemon started",
                sandbox=sandbox.id,
                hint="stop it, or restart the daemon to try again; the daemon's log says more",
            )
        raise ended(sandbox)

    def active(self, ref: str) -> Live:
        """As :meth:`running`, and not paused: for calls that want something done inside."""
        live = self.running(ref)
        record = self.find(live.id)
        if record.state is SandboxState.PAUSED:
            raise _paused(record)
        return live


def _paused(sandbox: Sandbox) -> Conflict:
    return Conflict(f"sandbox {sandbox.id} is paused", sandbox=sandbox.id, hint="resume it first")


def ended(sandbox: Sandbox) -> SandboxEnded:
    """The error for a call that needs a running sandbox."""
    return SandboxEnded(
        f"sandbox {sandbox.id} is {sandbox.state}: {sandbox.reason or 'no reason was kept'}",
        sandbox=sandbox.id,
        hint="read_terminal and screenshot still give its last state; create a new one to go on",
    )
