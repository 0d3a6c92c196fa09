"""What a sandbox is given because of the agent in it: hosts, a key, its first prompt."""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from csb_mcp.config import Secret, Settings
from csb_mcp.model import SandboxSpec, resolved
from csb_mcp.ports import Agent
from csb_mcp.service.agents.prompts import submit, until_ready
from csb_mcp.service.agents.waits import watch_of
from csb_mcp.service.registry import Live

_log = logging.getLogger(__name__)
READY_SECONDS = 30.0
_USABLE = re.compile(r"[!-~]{8,4096}")


def with_own_keys(
    settings: Settings, agents: Iterable[Agent], environ: Mapping[str, str]
) -> Settings:
    """With a secret of each key of an agent that this daemon itself was started with.

    Named as its variable, and put in by the proxy alone. Not if the settings have a key of that
    agent, nor if its API is said to be elsewhere: the key is then for that host, not for the usual.
    """
    found: dict[str, Secret] = {}
    named = {secret.variable for secret in settings.secrets.values()}
    for agent in agents:
        variables = [name for name in agent.key_variables if environ.get(name)]
        elsewhere = {f"{name.split('_')[0]}_BASE_URL" for name in agent.key_variables}
        hosts = resolved(agent.hosts)
        if named.intersection(agent.key_variables) or elsewhere.intersection(environ) or not hosts:
            continue
        for name in variables:
            if not _USABLE.fullmatch(environ[name]):
                _log.warning("%s of the daemon's environment is no key that can be put in", name)
                continue
            _log.info("%s of the daemon's environment is put in for %s", name, hosts[0])
            found[name] = Secret(host=hosts[0], variable=name, environment=name)
    return replace(settings, secrets={**found, **settings.secrets})


def with_needs(spec: SandboxSpec, agent: Agent | None, settings: Settings) -> SandboxSpec:
    """With the agent's hosts allowed, and its key among the secrets, if the settings have one.

    Where there is no proxy, only one that the settings want inside. A key that ``env`` gives is
    passed as it is, and seen inside.
    """
    if agent is None or spec.network == "none":
        return spec
    spec = replace(spec, secrets=(*spec.secrets, *_key(spec, agent, settings)))
    if spec.network != "allowlist":
        return spec
    return replace(spec, allow_hosts=tuple(dict.fromkeys((*spec.allow_hosts, *agent.hosts))))


def _key(spec: SandboxSpec, agent: Agent, settings: Settings) -> tuple[str, ...]:
    """The name of the secret with its key, the usual kind first; empty if it has one already."""
    given = {*spec.env, *(settings.secrets[name].variable for name in spec.secrets)}
    proxy = spec.network == "allowlist"
    if given.intersection(agent.key_variables):
        return ()
    for variable in agent.key_variables:
        for name, secret in settings.secrets.items():
            if secret.variable == variable and (proxy or secret.inside):
                return (name,)
    return ()


async def first_prompt(live: Live, task: str) -> None:
    """Submit it as soon as the agent is ready. Raises CsbError."""
    watch = watch_of(live)
    async with watch.speaking:
        await until_ready(live, watch, READY_SECONDS)
        await submit(live, watch, task)
