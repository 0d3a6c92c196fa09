"""Host pieces in memory, for tests of what the service does with them; store and folders are real.

What outlives a daemon is in a :class:`World`; services come and go on it.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from csb_mcp.config import Settings
from csb_mcp.errors import EgressFailed, HelperFailed
from csb_mcp.host.keeper import DiskKeeper
from csb_mcp.host.spool import InotifySpools
from csb_mcp.host.store import SqliteStore
from csb_mcp.host.watcher import InotifyWatcher
from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import (
    Ask,
    Connection,
    Counted,
    Event,
    Folders,
    HostUsage,
    Launch,
    ModelUsage,
    Outcome,
    Probe,
    ProxyCount,
    Rows,
    Sandbox,
    SandboxUsage,
    TriedHost,
    Verification,
)
from csb_mcp.ports import Agent, ClientOf, Program, Seed, Store, WayOut
from csb_mcp.service.events import Events
from csb_mcp.service.ground import Ground
from csb_mcp.service.manager import Manager
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Registry


class Proxy:
    """One egress proxy. ``remembered``: what it tells to whom connects."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.denied: tuple[str, ...] = ()
        self.once: list[tuple[str, int]] = []
        self.remembered: list[Ask] = []
        self.door = False
        self.deaf = False  # it answers no more, and goes on by its old rules
        self.dead = asyncio.Event()
        self.gates: list[Gate] = []
        self.used: ProxyCount | None = None

    def use(self, tokens: int, run: str = "first", under_way: int = 0, **more: Any) -> None:
        """So much was used since it started, all of it output of one model."""
        counted = Counted(models={"model-a-1": ModelUsage(output=tokens)}, **more)
        self.used = ProxyCount(run=run, counted=counted, under_way=under_way)
        for gate in self.gates:
            gate.recounted.set()

    def ask(self, host: str, count: int = 1, port: int = 443, **more: Any) -> None:
        """A host is asked for."""
        more = {"time": 5.0, **more}
        asked = Ask(host=host, port=port, count=count, **more)
        self.remembered.append(asked)
        for gate in self.gates:
            gate.asked.append(asked)
            gate.news.beat()

    def die(self) -> None:
        """It is killed."""
        self.dead.set()
        for gate in self.gates:
            gate.news.beat()


class Gate:
    """See :class:`~csb_mcp.ports.Gate`."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.asked = list(proxy.remembered)
        self.news = Pulse()
        self.recounted = asyncio.Event()
        if proxy.used is not None:
            self.recounted.set()
        proxy.gates[:] = [self]

    @property
    def counted(self) -> ProxyCount | None:
        return self.proxy.used

    async def counts(self) -> ProxyCount:
        await self.recounted.wait()
        self.recounted.clear()
        assert self.proxy.used is not None
        return self.proxy.used

    async def _answer(self) -> None:
        if self.proxy.dead.is_set():
            raise EgressFailed("it went away")
        if self.proxy.deaf:
            await asyncio.sleep(3600)

    async def rule(self, allowed: Sequence[str], denied: Sequence[str]) -> None:
        await self._answer()
        self.proxy.allowed, self.proxy.denied = tuple(allowed), tuple(denied)

    async def allow_once(self, host: str, port: int) -> None:
        await self._answer()
        self.proxy.once.append((host, port))

    async def asks(self) -> Sequence[Ask]:
        while not self.asked:
            if self.proxy.dead.is_set():
                raise EgressFailed("it went away")
            await self.news.beyond(self.news.count)
        found, self.asked = self.asked, []
        return found

    def close(self) -> None:
        if self in self.proxy.gates:
            self.proxy.gates.remove(self)


class World:
    """What is on the host: trees of sandboxes, each with a proxy, by the sandbox's id."""

    def __init__(self, base: Path, **changes: Any) -> None:
        for name in ("state", "run", "projects"):
            (base / name).mkdir(mode=0o711)
        values: dict[str, Any] = {
            "state_dir": base / "state",
            "runtime_dir": base / "run",
            "config_file": base / "config.toml",
            "project_roots": (base / "projects",),
            "spares": 0,
        }
        self.settings = Settings(**(values | changes))
        self.project = base / "projects/app"
        self.project.mkdir()
        self.trees: dict[Path, Terminal] = {}
        self.proxies: dict[str, Proxy] = {}
        self.restarts = 0
        self.address = "192.0.2.1"
        self.agents: dict[str, Agent] = {}
        self.prepared: dict[str, tuple[Program | None, Seed | None]] = {}
        self.doors_fail = 0  # so many more times
        self.probes: tuple[Probe, ...] = (
            Probe(name="loopback", protects="the host", outcome=Outcome.HELD),
        )
        self.lines: list[Connection] = []
        self.tried: list[TriedHost] = []

    def start_proxy(self, sandbox: str) -> Proxy:
        """A new one in the place of what was there."""
        if (before := self.proxies.get(sandbox)) is not None:
            before.die()
        self.proxies[sandbox] = Proxy()
        return self.proxies[sandbox]

    def pieces(self) -> Pieces:
        """All of them, on this world."""
        fake = cast("Any", _Makers(self))
        return Pieces(
            backends={"bubblewrap": fake},
            displays=fake.displays,
            terminals=fake.terminals,
            limiter=fake.limiter,
            keeper=DiskKeeper(self.settings.runtime_dir, self.settings.state_dir),
            watcher=InotifyWatcher(),
            gates=cast("Any", Gates(self)),
            prober=fake,
            spools=InotifySpools(),
            agents=self.agents,
        )

    @asynccontextmanager
    async def service(self) -> AsyncGenerator[Manager]:
        """A daemon's service, restored; the trees go on after it."""
        store = await SqliteStore.open(self.settings.state_dir / "store.db")
        manager = Manager(self.settings, self.pieces(), store, _Meter())
        await manager.restore()
        try:
            yield manager
        finally:
            await manager.close()


class Terminal:
    """See :class:`~csb_mcp.ports.Terminal`."""

    server_pid = pane_pid = 0
    running = True
    idle_seconds = 0.0

    def __init__(self, world: World, folders: Folders) -> None:
        self.world = world
        self.folders = folders
        self.output = Pulse()
        self.broken: str | None = None
        self.gone = asyncio.Event()
        self.screen: tuple[str, ...] = ("$",)
        self.generation = 1
        self.typed: list[str] = []  # texts, and keys in angle brackets
        self.on_typed: Callable[[str], None] = self.typed.append

    def show(self, *rows: str) -> None:
        """It prints: this is the screen now."""
        self.screen, self.generation = rows, self.generation + 1
        self.output.beat()

    def mount_namespace(self) -> int:
        return os.open("/proc/self/ns/mnt", os.O_RDONLY)

    async def send(self, text: str | None, keys: Sequence[str], *, paste: bool = False) -> None:
        del paste
        for one in ([text] if text else []) + [f"<{key}>" for key in keys]:
            self.on_typed(one)

    async def rows(self, since: int | None) -> Rows:
        rows = () if since == self.generation else tuple(enumerate(self.screen))
        return Rows(rows, self.generation, gap=since is None, cursor_row=0, cursor_column=1)

    async def history(self, lines: int) -> Rows:
        return await self.rows(None if lines else 0)

    async def wait_exit(self) -> int:
        await self.gone.wait()
        return 0

    async def error_beside(self, name: str) -> str | None:
        return self.broken if name else ""

    async def restart_beside(self, name: str) -> None:
        assert name == "egress"
        self.world.restarts += 1
        self.world.start_proxy(self.folders.state.name)

    async def close(self) -> None:
        pass

    async def kill(self, deadline: float) -> None:
        del deadline
        if (proxy := self.world.proxies.get(self.folders.state.name)) is not None:
            proxy.die()
            await asyncio.sleep(0.05)  # a tree takes a while to end
        self.gone.set()
        self.world.trees.pop(self.folders.runtime, None)


class Helper:
    """See :class:`~csb_mcp.ports.Helper`."""

    init_pid = 1

    def __init__(self, world: World, folders: Folders) -> None:
        self.world = world
        self.folders = folders

    def client_of(self, port: int) -> str | None:
        return f"program of {port}"

    async def open_way_out(self) -> None:
        if self.world.doors_fail:
            self.world.doors_fail -= 1
            raise HelperFailed("no process left")
        self.world.proxies[self.folders.state.name].door = True

    async def terminate(self) -> None:
        self.world.trees[self.folders.runtime].gone.set()

    def full(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        pass


class Enclosure:
    """See :class:`~csb_mcp.ports.Enclosure`."""

    prefix = payload_prefix = ()
    enforced_by: Mapping[str, str] = {}
    walks = False

    def usage(self, root_pid: int) -> SandboxUsage:
        return SandboxUsage(1, root_pid, 0.0)

    async def uphold(self, root_pid: int) -> SandboxUsage:
        return self.usage(root_pid)

    def hits(self) -> Mapping[str, int]:
        return {}

    async def freeze(self, pane_pid: int) -> None:
        pass

    async def thaw(self, pane_pid: int) -> None:
        pass

    async def remove(self) -> None:
        pass

    def close(self) -> None:
        pass


class Gates:
    """See :class:`~csb_mcp.ports.Gates`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def problems(self) -> Sequence[Any]:
        return ()

    async def ground(self, sandbox: Sandbox, folders: Folders) -> Launch | None:
        del folders
        if sandbox.spec.network != "allowlist":
            return None
        self.world.start_proxy(sandbox.id)
        return Launch(("proxy",))

    def outlook(self, network: str) -> object:
        return network, self.world.address

    async def prepare(self, sandbox: Sandbox, folders: Folders) -> WayOut:
        del sandbox, folders
        return WayOut()

    async def connect(
        self, sandbox: Sandbox, folders: Folders, client_of: ClientOf, deadline: float
    ) -> Gate:
        del folders, deadline
        assert client_of(7) in (None, "program of 7")
        proxy = self.world.proxies[sandbox.id]
        if proxy.dead.is_set():
            raise EgressFailed("it does not run")
        return Gate(proxy)

    def connections(self, folders: Folders, limit: int) -> Sequence[Connection]:
        del folders
        return self.world.lines[-limit:]

    def tried(self, folders: Folders) -> Sequence[TriedHost]:
        del folders
        return self.world.tried


class _Makers:
    """Backend, displays, terminals, limiter and prober in one; no two of their names collide."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.displays = _Displays()
        self.terminals = _Terminals(world)
        self.limiter = _Limiter()

    name = "bubblewrap"

    def bounds(self, _: object) -> Mapping[str, tuple[str, str]]:
        return {}

    def choose_uid(self, *_: object) -> int:
        return os.geteuid()

    def unguarded(self, _: object) -> Sequence[str]:
        return ()

    async def ground(self, *_: object) -> Launch:
        return Launch(("launcher",))

    async def show_project(self, *_: object) -> None:
        pass

    async def prepare(
        self,
        sandbox: Sandbox,
        folders: Folders,
        *_: object,
        program: Program | None,
        seed: Seed | None,
    ) -> None:
        self.world.prepared[sandbox.id] = (program, seed)
        for name, content in (seed or Seed()).files.items():
            path = folders.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    async def connect(self, folders: Folders, *_: object) -> Helper:
        return Helper(self.world, folders)

    begin = connect

    async def probe(self, sandbox: Sandbox, _: object, __: object) -> Verification:
        return Verification(sandbox=sandbox.id, probes=self.world.probes, seconds=0.5)


class _Displays:
    async def prepare(self, *_: object, gl: bool) -> Launch:
        return Launch(("display", str(gl)))

    async def connect(self, *_: object) -> "_Display":
        return _Display()


class _Display:
    async def capture(self) -> None:
        raise EgressFailed("there is no picture")

    async def close(self) -> None:
        pass


class _Terminals:
    def __init__(self, world: World) -> None:
        self.world = world

    async def start(self, folders: Folders, *_: object) -> Terminal:
        self.world.trees[folders.runtime] = Terminal(self.world, folders)
        return self.world.trees[folders.runtime]

    async def adopt(self, folders: Folders, _: object) -> Terminal | None:
        return self.world.trees.get(folders.runtime)


class _Meter:
    def host(self) -> HostUsage:
        free = 1 << 40
        return HostUsage(0.0, 1, (0.0, 0.0, 0.0), free, free, free, free)


class _Limiter:
    async def make(self, _: object) -> Enclosure:
        return Enclosure()

    def adopt(self, _: object) -> Enclosure:
        return Enclosure()


async def eventually(condition: Any, seconds: float = 10) -> None:
    """Until it is true."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def registry(service: Manager) -> Registry:
    """Its records and what runs, as they are this moment."""
    return service._registry  # pyright: ignore[reportPrivateUsage]


def standing(service: Manager) -> list[Ground]:
    """Its spares, as they are this moment; they may be taken away from it."""
    return service._lifecycle._spares._standing  # pyright: ignore[reportPrivateUsage]


def events(service: Manager) -> Events:
    """Its stream of events."""
    return service._events  # pyright: ignore[reportPrivateUsage]


def store(service: Manager) -> Store:
    """What it keeps records in."""
    return service._store  # pyright: ignore[reportPrivateUsage]


async def happened(service: Manager, sandbox: str) -> list[Event]:
    """Events of that sandbox so far, after its creation."""
    found = await store(service).events(0, sandbox)
    return [event for event in found if event.kind != "created"]
