"""Records and events in SQLite (WAL): one writer thread, so the event loop never waits for a disk.

A store that cannot be read, or that a newer version wrote, is refused before anything is touched:
a daemon that took it for empty would reap, or forget, sandboxes that live.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from csb_mcp.errors import Conflict, StoreUnusable
from csb_mcp.model import (
    AgentState,
    Budget,
    Counted,
    EgressRequest,
    Event,
    Geometry,
    KeptCount,
    Limits,
    ModelUsage,
    QueuedPrompt,
    Sandbox,
    SandboxSpec,
    SandboxState,
)

# 5: without spares; 4: without what is kept of agents, and what a proxy counted
# 3: without budgets; 2: without the way out; 1: without limits of memory, cpus, pids and idleness
_VERSION = 6
_APPLICATION = 0x43534231  # "CSB1", so that another program's database is not taken for ours
_SCHEMA = """
create table sandboxes (
    id text primary key, name text unique, created_at real not null, record text not null
) strict;
create table events (
    sequence integer primary key autoincrement, time real not null, sandbox text not null,
    kind text not null, data text not null
) strict;
create index events_of_sandbox on events (sandbox, sequence);
"""
_OF_AGENTS = """
create table if not exists agents (sandbox text primary key, memory text not null) strict;
create table if not exists prompts (
    id integer primary key autoincrement, sandbox text not null, text text not null,
    created real not null, typed integer
) strict;
"""
_OF_SPARES = """
create table if not exists spares (id text primary key, uid integer not null) strict;
"""
_FORGET = (
    "delete from events where sandbox=?",
    "delete from agents where sandbox=?",
    "delete from prompts where sandbox=?",
    "delete from sandboxes where id=?",
)
_NAMES = ("allow_hosts", "secrets", "forward")
_T = TypeVar("_T")


class SqliteStore:
    """The :class:`~csb_mcp.ports.Store` in one file. Made by :meth:`open`; the caller closes it."""

    def __init__(self, connection: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._thread = thread

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or make the store. Raises StoreUnusable; nothing is changed then."""
        thread = ThreadPoolExecutor(1, "store")
        try:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _connect, path)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(connection, thread)

    async def insert(self, sandbox: Sandbox) -> None:
        """See :class:`~csb_mcp.ports.Store`."""
        await self._run(lambda db: _insert(db, sandbox))

    async def insert_spare(self, sandbox_id: str, uid: int) -> None:
        """See :class:`~csb_mcp.ports.Store`."""
        row = (sandbox_id, uid)
        await self._run(lambda db: db.execute("insert into spares (id, uid) values (?,?)", row))

    async def delete_spare(self, sandbox_id: str) -> None:
        """See :class:`~csb_mcp.ports.Store`."""
        await self._run(lambda db: db.execute("delete from spares where id=?", (sandbox_id,)))

    async def spares(self) -> dict[str, int]:
        """See :class:`~csb_mcp.ports.Store`."""
        query = "select id, uid from spares"
        return dict(await self._run(lambda db: db.execute(query).fetchall()))

    async def update(self, sandbox: Sandbox) -> None:
        """See :class:`~csb_mcp.ports.Store`."""
        row = (sandbox.name, _dump(sandbox), sandbox.id)
        await self._run(
            lambda db: db.execute("update sandboxes set name=?, record=? where id=?", row)
        )

    async def delete(self, sandbox_id: str) -> None:
        """See :class:`~csb_mcp.ports.Store`."""

        def all_of_it(db: sqlite3.Connection) -> None:
            for forget in _FORGET:
                db.execute(forget, (sandbox_id,))

        await self._run(all_of_it)

    async def all(self) -> list[Sandbox]:
        """See :class:`~csb_mcp.ports.Store`. Raises StoreUnusable if a record cannot be read."""
        query = "select record from sandboxes order by created_at, id"
        rows = await self._run(lambda db: db.execute(query).fetchall())
        return [_load(row[0]) for row in rows]

    async def append_event(self, sandbox: str, kind: str, data: Mapping[str, str]) -> Event:
        """See :class:`~csb_mcp.ports.Store`."""
        return await self._run(lambda db: _append(db, sandbox, kind, data))

    async def keep(
        self,
        sandbox: str,
        changes: Sequence[tuple[str, Mapping[str, str]]],
        *,
        memory: str | None = None,
        prompt: int | None = None,
    ) -> list[Event]:
        """See :class:`~csb_mcp.ports.Store`."""

        def all_of_it(db: sqlite3.Connection) -> list[Event]:
            if memory is not None:
                db.execute("insert or replace into agents values (?,?)", (sandbox, memory))
            if prompt is not None:
                db.execute("delete from prompts where id=?", (prompt,))
            return [_append(db, sandbox, kind, data) for kind, data in changes]

        return await self._run(all_of_it)

    async def memories(self) -> dict[str, str]:
        """See :class:`~csb_mcp.ports.Store`."""
        query = "select sandbox, memory from agents"
        return dict(await self._run(lambda db: db.execute(query).fetchall()))

    async def memory(self, sandbox: str) -> str | None:
        """See :class:`~csb_mcp.ports.Store`."""
        query = "select memory from agents where sandbox=?"
        row = await self._run(lambda db: db.execute(query, (sandbox,)).fetchone())
        return row and row[0]

    async def queue_prompt(self, sandbox: str, text: str) -> QueuedPrompt:
        """See :class:`~csb_mcp.ports.Store`."""
        now = time.time()
        insert = "insert into prompts (sandbox, text, created) values (?,?,?)"
        made = await self._run(lambda db: db.execute(insert, (sandbox, text, now)).lastrowid)
        return QueuedPrompt(id=made or 0, sandbox=sandbox, text=text, created=now)

    async def mark_prompt(self, prompt: int, typed: int) -> None:
        """See :class:`~csb_mcp.ports.Store`."""
        update = "update prompts set typed=? where id=?"
        await self._run(lambda db: db.execute(update, (typed, prompt)))

    async def prompts(self, sandbox: str | None = None) -> list[QueuedPrompt]:
        """See :class:`~csb_mcp.ports.Store`."""
        query = (
            "select id, sandbox, text, created, typed from prompts"
            " where ?1 is null or sandbox = ?1 order by id"
        )
        rows = await self._run(lambda db: db.execute(query, (sandbox,)).fetchall())
        return [
            QueuedPrompt(id=r[0], sandbox=r[1], text=r[2], created=r[3], typed=r[4]) for r in rows
        ]

    async def events(self, after: int, sandbox: str | None = None) -> list[Event]:
        """See :class:`~csb_mcp.ports.Store`."""
        query = (
            "select sequence, time, sandbox, kind, data from events"
            " where sequence > ?1 and (?2 is null or sandbox = ?2) order by sequence"
        )
        rows = await self._run(lambda db: db.execute(query, (after, sandbox)).fetchall())
        return [_event(row) for row in rows]

    async def recent_events(self, sandbox: str, count: int) -> list[Event]:
        """See :class:`~csb_mcp.ports.Store`."""
        query = (
            "select sequence, time, sandbox, kind, data from events"
            " where sandbox = ? order by sequence desc limit ?"
        )
        rows = await self._run(lambda db: db.execute(query, (sandbox, count)).fetchall())
        return [_event(row) for row in reversed(rows)]

    async def last_event(self) -> int:
        """See :class:`~csb_mcp.ports.Store`."""
        query = "select coalesce(max(seq), 0) from sqlite_sequence where name='events'"
        return await self._run(lambda db: db.execute(query).fetchone()[0])

    async def close(self) -> None:
        """See :class:`~csb_mcp.ports.Store`."""
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        self._connection.close()

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def transaction() -> _T:
            with self._connection:
                return work(self._connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the store did not take it: {error}", hint="is the disk of the state folder full?"
            ) from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    except sqlite3.Error as error:
        raise _unusable(path, str(error)) from error
    try:
        _check(connection, path)
        connection.execute("pragma journal_mode=wal")
        # A SIGKILL of ours cannot lose what the kernel has; only a power cut could, and then the
        # sandboxes are gone as well. So no fsync on every commit.
        connection.execute("pragma synchronous=normal")
    except sqlite3.Error as error:
        connection.close()
        raise _unusable(path, str(error)) from error
    except BaseException:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    version: int = connection.execute("pragma user_version").fetchone()[0]
    application: int = connection.execute("pragma application_id").fetchone()[0]
    tables: int = connection.execute("select count(*) from sqlite_schema").fetchone()[0]
    if (version, application, tables) == (0, 0, 0):
        connection.executescript(
            f"begin; {_SCHEMA} {_OF_AGENTS} {_OF_SPARES} pragma user_version={_VERSION};"
            f" pragma application_id={_APPLICATION}; commit;"
        )
    elif application != _APPLICATION:
        raise _unusable(path, "it is another program's database")
    elif version < _VERSION:
        # What is missing in a record has a default.
        connection.executescript(
            f"begin; {_OF_AGENTS} {_OF_SPARES} pragma user_version={_VERSION}; commit;"
        )
    elif version > _VERSION:
        raise _unusable(path, f"a newer csb-mcp wrote it (its version {version}, ours {_VERSION})")


def _unusable(path: Path, why: str) -> StoreUnusable:
    return StoreUnusable(
        f"{path} cannot be used: {why}",
        hint="nothing was changed; use the version that wrote it, or move the file away",
    )


def _append(db: sqlite3.Connection, sandbox: str, kind: str, data: Mapping[str, str]) -> Event:
    now = time.time()
    row = (now, sandbox, kind, json.dumps(dict(data)))
    insert = "insert into events (time, sandbox, kind, data) values (?,?,?,?)"
    sequence = db.execute(insert, row).lastrowid
    return Event(sequence=sequence or 0, time=now, sandbox=sandbox, kind=kind, data=data)


def _insert(db: sqlite3.Connection, sandbox: Sandbox) -> None:
    row = (sandbox.id, sandbox.name, sandbox.created_at, _dump(sandbox))
    db.execute("delete from spares where id=?", (sandbox.id,))
    try:
        db.execute("insert into sandboxes (id, name, created_at, record) values (?,?,?,?)", row)
    except sqlite3.IntegrityError as error:
        raise Conflict(
            f"there is a sandbox named {sandbox.name!r} already",
            field="name",
            hint="choose another name, or delete that sandbox",
        ) from error


def _dump(sandbox: Sandbox) -> str:
    spec = sandbox.spec
    return json.dumps(
        {
            "id": sandbox.id,
            "name": sandbox.name,
            "state": sandbox.state,
            "agent_state": sandbox.agent_state,
            "uid": sandbox.uid,
            "created_at": sandbox.created_at,
            "ended_at": sandbox.ended_at,
            "reason": sandbox.reason,
            "exit_status": sandbox.exit_status,
            "attach": sandbox.attach,
            "unguarded": list(sandbox.unguarded),
            "warnings": list(sandbox.warnings),
            "allowed_hosts": list(sandbox.allowed_hosts),
            "denied_hosts": list(sandbox.denied_hosts),
            "pending": [asdict(asked) for asked in sandbox.pending],
            "counted": None if sandbox.counted is None else asdict(sandbox.counted),
            "limits": {
                "asked": dict(sandbox.limits.asked),
                "enforced_by": dict(sandbox.limits.enforced_by),
            },
            "spec": {
                "project_dir": str(spec.project_dir),
                "name": spec.name,
                "backend": spec.backend,
                "agent": spec.agent,
                "command": list(spec.command),
                "network": spec.network,
                "workspace": spec.workspace,
                "geometry": [spec.geometry.width, spec.geometry.height],
                "gl": spec.gl,
                "memory": spec.memory,
                "cpus": spec.cpus,
                "pids": spec.pids,
                "ttl": spec.ttl,
                "idle_timeout": spec.idle_timeout,
                "allow_hosts": list(spec.allow_hosts),
                "secrets": list(spec.secrets),
                "forward": list(spec.forward),
                "verify": spec.verify,
                "budget": asdict(spec.budget),
                # env may hold secrets and is of no use after the start: it is not kept.
            },
        }
    )


def _kept_count(data: dict[str, Any] | None) -> KeptCount | None:
    if data is None:
        return None
    return KeptCount(run=data["run"], now=_counted(data["now"]), before=_counted(data["before"]))


def _counted(data: dict[str, Any]) -> Counted:
    models = {name: ModelUsage(**used) for name, used in data.pop("models").items()}
    return Counted(models=models, **data)


def _event(row: tuple[int, float, str, str, str]) -> Event:
    sequence, when, sandbox, kind, data = row
    return Event(sequence=sequence, time=when, sandbox=sandbox, kind=kind, data=json.loads(data))


def _load(text: str) -> Sandbox:
    try:
        data: dict[str, Any] = json.loads(text)
        spec: dict[str, Any] = data.pop("spec")
        return Sandbox(
            spec=SandboxSpec(
                project_dir=Path(spec.pop("project_dir")),
                command=tuple(spec.pop("command")),
                geometry=Geometry(*spec.pop("geometry")),
                budget=Budget(**spec.pop("budget", {})),
                **{name: tuple(spec.pop(name, ())) for name in _NAMES},
                **spec,
            ),
            state=SandboxState(data.pop("state")),
            agent_state=AgentState(data.pop("agent_state")),
            limits=Limits(**data.pop("limits")),
            unguarded=tuple(data.pop("unguarded")),
            warnings=tuple(data.pop("warnings")),
            allowed_hosts=tuple(data.pop("allowed_hosts", ())),
            denied_hosts=tuple(data.pop("denied_hosts", ())),
            pending=tuple(EgressRequest(**asked) for asked in data.pop("pending", ())),
            counted=_kept_count(data.pop("counted", None)),
            **data,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnusable(
            f"a record in the store cannot be read: {error}",
            hint="nothing was changed; use the version of csb-mcp that wrote it",
        ) from error
