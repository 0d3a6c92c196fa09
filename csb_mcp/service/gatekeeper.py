"""What is watched over the way out of a running sandbox: hosts it asks for, and its proxy's life.

Whatever a proxy tells comes from a sandbox's requests, so it is bounded here: how many requests are
kept, and how fast new ones become events.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from csb_mcp.errors import CsbError, EgressFailed
from csb_mcp.lib.allowance import Allowance
from csb_mcp.lib.hosts import normal_host
from csb_mcp.lib.text import one_line
from csb_mcp.model import (
    Ask,
    EgressRequest,
    Folders,
    ProxyCount,
    Sandbox,
    SandboxState,
    kept_with,
    resolved,
)
from csb_mcp.ports import ClientOf, Gate
from csb_mcp.service.events import Events
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Live, Registry
from csb_mcp.service.rules import named

_log = logging.getLogger(__name__)
MAX_PENDING = 32
# New requests, at once and then: each is an event, which stays until the sandbox is deleted.
_BURST, _PER_SECOND = 32, 0.1
_SHORTEST, _LONGEST = 0.2, 5.0  # seconds before a proxy is started anew
_STABLE_SECONDS = 30.0  # one that lived so long has not failed because of its start
_OPEN_SECONDS = 10.0
_LAST_TIME = 2.0**36  # some two thousand years on
_KEEP_SECONDS = 5.0  # between two writes of what was used
_OTHER_SECONDS = 0.2  # and where it is another proxy that counts
_PROGRAM = 64  # characters of a program's name

Warn = Callable[[str, str], Awaitable[None]]


async def opened(
    pieces: Pieces, sandbox: Sandbox, folders: Folders, client_of: ClientOf, deadline: float
) -> Gate:
    """The gate of a proxy that runs, with the record's rules in force.

    Raises EgressFailed, DeadlineExceeded.
    """
    gate = await pieces.gates.connect(sandbox, folders, client_of, deadline)
    try:
        await gate.rule(resolved(sandbox.allowed_hosts), resolved(sandbox.denied_hosts))
    except BaseException:
        gate.close()
        raise
    return gate


class Gatekeeper:
    """The watch of each way out. ``warn`` puts a warning into a record."""

    def __init__(self, pieces: Pieces, registry: Registry, events: Events, warn: Warn) -> None:
        self._pieces = pieces
        self._registry = registry
        self._events = events
        self._warn = warn

    async def watch(self, live: Live) -> None:
        """Take what is asked for; start the proxy anew whenever it went away. Until cancelled."""
        allowance, delay, since = Allowance(_BURST, _PER_SECOND), _SHORTEST, time.monotonic()
        while True:
            try:
                asks, count = await _news(live)
                if count is not None:
                    await self._recount(live, count)
                if asks:
                    await self._take(live, asks, allowance)
            except EgressFailed as error:
                if live.gate is not None and live.gate.counted is not None:
                    await self._recount(live, live.gate.counted)  # its last word
                if time.monotonic() - since > _STABLE_SECONDS:
                    delay = _SHORTEST
                _drop(live)
                await asyncio.sleep(delay)  # it may have gone because all of the sandbox goes
                if live.ending:
                    return
                await self._tell_closed(live, error)
                delay = await self._reopen(live, delay)
                since = time.monotonic()

    async def _take(self, live: Live, asks: Sequence[Ask], allowance: Allowance) -> None:
        async with self._registry.lock(live.id):
            record = self._registry.find(live.id)
            new_asks = [ask for ask in asks if ask.time > live.once.get((ask.host, ask.port), 0.0)]
            pending, new, left_out = merged(record, new_asks, allowance)
            if pending != record.pending:
                record = replace(record, pending=pending)
                self._registry.remember(record)  # a repetition is not worth a write
                live.asked.beat()
            if new:
                await self._kept(self._registry.put(record), live)
            for asked in new:  # under the lock: no answer is told before what it answers
                await self._kept(self._tell(live.id, asked), live)
        if left_out:
            told = self._warn(live.id, "it asks for more hosts than are kept: see what it tried")
            await self._kept(told, live)

    async def _recount(self, live: Live, told: ProxyCount) -> None:
        # On disk now and then only, for its proxy knows it, too; at once if that is another one.
        async with self._registry.lock(live.id):
            record = self._registry.find(live.id)
            before, kept = record.counted, kept_with(record.counted, told)
            if kept != before:
                record = replace(record, counted=kept)
                self._registry.remember(record)
            other = before is None or before.run != kept.run
            if time.monotonic() - live.kept_at > (_OTHER_SECONDS if other else _KEEP_SECONDS):
                live.kept_at = time.monotonic()
                await self._kept(self._registry.put(record), live)
        if live.agent is not None:
            live.agent.count(kept.whole, told.under_way)

    async def _tell(self, sandbox: str, asked: EgressRequest) -> None:
        numbers = {"port": str(asked.port), "count": str(asked.count)}
        words = {"host": asked.host, "program": asked.program or "", **numbers}
        await self._events.publish(sandbox, "egress_request", **words)

    @staticmethod
    async def _kept(work: Awaitable[None], live: Live) -> None:
        """A disk that takes nothing must not close the way out."""
        try:
            await work
        except CsbError as error:
            _log.warning("sandbox %s: an egress request is not on disk: %s", live.id, error)

    async def _tell_closed(self, live: Live, error: EgressFailed) -> None:
        _log.warning("sandbox %s: its egress proxy failed: %s", live.id, error)
        why = one_line(error.message, 200)
        await self._kept(self._events.publish(live.id, "egress_closed", reason=why), live)
        warned = self._warn(live.id, "its egress proxy failed and was started anew: see the events")
        await self._kept(warned, live)

    async def _reopen(self, live: Live, delay: float) -> float:
        """Until it works; gives how long the next failure has to wait."""
        while True:
            delay = min(2 * delay, _LONGEST)
            try:
                # One that is paused could not let its listener be made; nor does it need one.
                if self._registry.find(live.id).state is not SandboxState.PAUSED:
                    async with asyncio.timeout(_OPEN_SECONDS):
                        await self._open(live)
                    await self._kept(self._events.publish(live.id, "egress_opened"), live)
                    return delay
            except (CsbError, TimeoutError) as error:
                _log.warning("sandbox %s: its way out stays closed: %s", live.id, error)
                _drop(live)
            await asyncio.sleep(delay)

    async def _open(self, live: Live) -> None:
        deadline = asyncio.get_running_loop().time() + _OPEN_SECONDS
        await live.terminal.restart_beside("egress")
        record = self._registry.find(live.id)
        live.gate = await opened(self._pieces, record, live.folders, client_of(live), deadline)
        if (now := self._registry.find(live.id)) is not record:  # rules changed meanwhile
            await live.gate.rule(resolved(now.allowed_hosts), resolved(now.denied_hosts))
        if live.helper is not None:
            await live.helper.open_way_out()


def client_of(live: Live) -> ClientOf:
    """Which program inside has a port, by the helper that the sandbox has then."""
    return lambda port: live.helper.client_of(port) if live.helper else None


def merged(
    record: Sandbox, asks: Sequence[Ask], allowance: Allowance
) -> tuple[tuple[EgressRequest, ...], list[EgressRequest], bool]:
    """What is pending after ``asks``, the last one last; what is new; whether some are left out."""
    pending = {(asked.host, asked.port): asked for asked in record.pending}
    rules, latest = record.allowed_hosts + record.denied_hosts, dict[tuple[str, int], Ask]()
    for ask in filter(_is_sound, asks):
        if not named(ask.host, ask.port, rules):  # else answered while it was on its way
            latest.pop((ask.host, ask.port), None)
            latest[ask.host, ask.port] = ask
    kept = list(latest.items())[-MAX_PENDING:]
    new: list[EgressRequest] = []
    left_out = len(kept) < len(latest)
    for key, ask in kept:
        before = pending.pop(key, None)
        if before is None and not allowance.take():
            left_out = True
            continue
        pending[key] = _request(ask, before)
        if before is None:
            new.append(pending[key])
    return tuple(pending.values())[-MAX_PENDING:], new, left_out


def _request(ask: Ask, before: EgressRequest | None) -> EgressRequest:
    program = one_line(ask.program, _PROGRAM) if ask.program else before and before.program
    return EgressRequest(
        host=ask.host,
        port=ask.port,
        count=max(ask.count, before.count if before else 1),  # a new proxy counts anew
        first=before.first if before else ask.time,
        last=ask.time,
        program=program or None,
    )


def _is_sound(ask: Ask) -> bool:
    """A name in its one spelling, a port, and a time that is one: nothing else is kept."""
    try:
        named_well = normal_host(ask.host) == ask.host
        return named_well and 0 < ask.port < 65536 and 0 <= ask.time < _LAST_TIME
    except ValueError:
        return False


async def _news(live: Live) -> tuple[Sequence[Ask], ProxyCount | None]:
    """What is asked for next, and what was counted.

    Raises EgressFailed, also if a call to the gate failed meanwhile.
    """
    if live.gate is None:
        raise EgressFailed("it does not answer", sandbox=live.id)
    asks = asyncio.ensure_future(live.gate.asks())
    counts = asyncio.ensure_future(live.gate.counts())
    cut = asyncio.ensure_future(live.cut.wait())
    try:
        await asyncio.wait({asks, counts, cut}, return_when=asyncio.FIRST_COMPLETED)
        if asks.done() or counts.done():
            asked = asks.result() if asks.done() else ()
            return asked, counts.result() if counts.done() else None
        raise EgressFailed("it did not take its rules", sandbox=live.id)
    finally:
        for task in (asks, counts, cut):
            task.cancel()
        await asyncio.gather(asks, counts, cut, return_exceptions=True)


def _drop(live: Live) -> None:
    if live.gate is not None:
        live.gate.close()
    live.gate = None
    live.cut.clear()
