"""Calls about a sandbox's way out: what it may reach, what it asks for, and whether it holds."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from csb_mcp.errors import Conflict, DeadlineExceeded, EgressFailed, InvalidInput, StoreUnusable
from csb_mcp.model import (
    PRESETS,
    Egress,
    Sandbox,
    Verification,
    resolved,
)
from csb_mcp.ports import Gate
from csb_mcp.service.calls import Calls, finish
from csb_mcp.service.registry import Live
from csb_mcp.service.rules import answered, check_bound, normal_rule, with_allowed, with_denied

_SHOWN = 50  # connections
_ANSWER_SECONDS = 5.0
VERIFY_SECONDS = 120.0
_HTTPS = 443

_Rules = tuple[str, ...]
_Change = Callable[[str, _Rules, _Rules], tuple[_Rules, _Rules]]


class WayOuts(Calls):
    """Egress; see :class:`~csb_mcp.ports.SandboxService`."""

    async def egress(self, sandbox: str) -> Egress:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        record = self._registry.find(sandbox)
        folders = self._pieces.keeper.folders(record.id)
        gates = self._pieces.gates
        lines = await asyncio.to_thread(gates.connections, folders, _SHOWN)
        hosts = await asyncio.to_thread(gates.tried, folders)
        live = self._registry.live.get(record.id)
        record = self._registry.find(record.id)  # it may have changed meanwhile
        return Egress(
            network=record.spec.network,
            open=live is not None and live.gate is not None,
            allowed=record.allowed_hosts,
            denied=record.denied_hosts,
            pending=record.pending,
            hosts=tuple(hosts),
            connections=tuple(lines),
        )

    async def allow_host(self, sandbox: str, host: str, *, once: bool) -> Egress:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        rule = normal_rule(host, "host")
        check_bound((rule,), self._settings.egress_hosts, "host")
        live = self._with_proxy(sandbox)
        if once:
            await finish(self._allow_once(live, rule))
        else:
            await finish(self._change(live, rule, with_allowed, "egress_allowed"))
        return await self.egress(live.id)

    async def deny_host(self, sandbox: str, host: str) -> Egress:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        rule = normal_rule(host, "host")
        live = self._with_proxy(sandbox)
        await finish(self._change(live, rule, with_denied, "egress_denied"))
        return await self.egress(live.id)

    async def _change(self, live: Live, rule: str, change: _Change, kind: str) -> None:
        """First the record, so that it outlives us; then the gate.

        A denial is put in force even if the disk does not take it: the payload may have filled it.
        """
        async with self._registry.lock(live.id):
            self._registry.running(live.id)
            record = self._registry.find(live.id)
            allowed, denied = change(rule, record.allowed_hosts, record.denied_hosts)
            changed = replace(record, allowed_hosts=allowed, denied_hosts=denied)
            try:
                await self._answer(live, changed, rule)
            except StoreUnusable:
                if change is with_denied:
                    self._registry.remember(changed)
                    await _put_in_force(live, changed)
                raise
            await _put_in_force(live, changed)
            await self._events.publish(live.id, kind, host=rule)

    async def _allow_once(self, live: Live, rule: str) -> None:
        host, _, port = rule.partition(":")
        if host in PRESETS or host.startswith("*"):
            raise InvalidInput(
                "only one host can be let through once", field="host", hint="name it in full"
            )
        async with self._registry.lock(live.id):
            self._registry.running(live.id)
            record = self._registry.find(live.id)
            asked = {asked.port for asked in record.pending if asked.host == host}
            ports = {int(port)} if port else asked or {_HTTPS}
            bound = self._settings.egress_hosts
            check_bound((f"{host}:{each}" for each in sorted(ports)), bound, "host")
            for each in sorted(ports):
                await _once(_gate(live), live, host, each)
            await self._answer(live, record, *(f"{host}:{each}" for each in ports))
            await self._events.publish(live.id, "egress_allowed", host=rule, once="true")

    async def _answer(self, live: Live, record: Sandbox, *rules: str) -> None:
        pending = answered(record.pending, rules)
        await self._registry.put(replace(record, pending=pending))
        live.asked.beat()

    def _with_proxy(self, sandbox: str) -> Live:
        live = self._registry.running(sandbox)
        network = self._registry.find(live.id).spec.network
        if network != "allowlist":
            raise Conflict(
                f"its network is {network!r}, which no host is allowed or denied in",
                sandbox=live.id,
                hint='create one with network "allowlist"',
            )
        return live

    async def verify_isolation(self, sandbox: str) -> Verification:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = self._registry.active(sandbox)
        record, helper = self._registry.find(live.id), live.need_helper()
        try:
            with live.busy():
                async with asyncio.timeout(VERIFY_SECONDS):
                    return await self._pieces.prober.probe(record, live.folders, helper)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"it was not verified within {VERIFY_SECONDS:g} s", sandbox=live.id
            ) from error


def _gate(live: Live) -> Gate:
    if live.gate is None:
        raise EgressFailed(
            "its egress proxy is away, and is being started anew",
            sandbox=live.id,
            hint="try again in a moment; until then nothing gets out",
        )
    return live.gate


async def _put_in_force(live: Live, record: Sandbox) -> None:
    """A proxy that is away, or goes now, is given the record's rules before it allows anything."""
    if live.gate is None:
        return
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await live.gate.rule(resolved(record.allowed_hosts), resolved(record.denied_hosts))
    except (EgressFailed, TimeoutError):
        live.cut.set()  # it is ended and started anew, or old rules would go on


async def _once(gate: Gate, live: Live, host: str, port: int) -> None:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await gate.allow_once(host, port)
    except TimeoutError as error:
        live.cut.set()
        raise EgressFailed(
            f"its egress proxy did not answer within {_ANSWER_SECONDS:g} s",
            sandbox=live.id,
            hint="it is started anew; try again in a moment",
        ) from error
    live.once[host, port] = time.time()  # what was asked before that is answered
