"""What a sandbox is given because of the agent in it: hosts, a key, its first prompt."""

from dataclasses import replace

from csb_mcp.config import Settings
from csb_mcp.model import SandboxSpec
from csb_mcp.ports import Agent
from csb_mcp.service.agents.prompts import submit, until_ready
from csb_mcp.service.agents.waits import watch_of
from csb_mcp.service.registry import Live

READY_SECONDS = 30.0


def with_needs(spec: SandboxSpec, agent: Agent | None, settings: Settings) -> SandboxSpec:
    """With the agent's hosts allowed, and its key among the secrets, if the settings have one.

    Only where there is a proxy. A key that ``env`` gives is passed as it is, and seen inside.
    """
    if agent is None or spec.network != "allowlist":
        return spec
    return replace(
        spec,
        allow_hosts=tuple(dict.fromkeys((*spec.allow_hosts, *agent.hosts))),
        secrets=(*spec.secrets, *_key(spec, agent, settings)),
    )


def _key(spec: SandboxSpec, agent: Agent, settings: Settings) -> tuple[str, ...]:
    """The name of the secret with its key, the usual kind first; empty if it has one already."""
    given = {*spec.env, *(settings.secrets[name].variable for name in spec.secrets)}
    if given.intersection(agent.key_variables):
        return ()
    for variable in agent.key_variables:
        for name, secret in settings.secrets.items():
            if secret.variable == variable:
                return (name,)
    return ()


async def first_prompt(live: Live, task: str) -> None:
    """Submit it as soon as the agent is ready. Raises CsbError."""
    watch = watch_of(live)
    async with watch.speaking:
        await until_ready(live, watch, READY_SECONDS)
        await submit(live, watch, task)
