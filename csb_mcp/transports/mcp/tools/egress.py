"""egress, allow_host, deny_host."""

from collections.abc import Iterator, Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.model import PRESETS, Egress
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    BOOLEAN,
    STRING,
    STRINGS,
    Definition,
    Json,
    answer,
    described,
    hints,
)
from csb_mcp.transports.mcp.untrusted import NOTE, fenced

_MAX_HOSTS = 40
_MAX_CONNECTIONS = 20
_OBJECTS: Json = {"type": "array"}
_HOST = described(STRING, 'Or "*.host", with ":PORT"; or a preset')


async def _egress(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    sandbox = decode.named_sandbox(arguments)
    return _whole(await service.egress(sandbox))


async def _allow(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.allow_host(arguments)
    found = await service.allow_host(asked.sandbox, asked.host, once=asked.once)
    words = "is let through once" if asked.once else "is allowed"
    return _rules(f"{asked.host} {words}", found)


async def _deny(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    asked = decode.deny_host(arguments)
    return _rules(f"{asked.host} is denied", await service.deny_host(asked.sandbox, asked.host))


def _rules(done: str, found: Egress) -> CallToolResult:
    """What an allow or a deny gives: the rules, and what still waits."""
    told = answers.egress(found)
    brief = {key: told[key] for key in ("open", "allowed", "denied", "pending")}
    return answer("\n".join([done, *_state(found)]), {**brief, "note": f"pending is {NOTE}"})


def _whole(found: Egress) -> CallToolResult:
    """Newest connections first: what is cut is old."""
    structured = answers.egress(found)
    hosts, lines = structured["hosts"], structured["connections"][::-1]
    structured["hosts"], structured["connections"] = hosts[:_MAX_HOSTS], lines[:_MAX_CONNECTIONS]
    structured["left_out"] = max(0, len(hosts) - _MAX_HOSTS)
    structured["note"] = f"pending, hosts and connections are {NOTE}"
    text = [f"network {found.network}", *_state(found)]
    if hosts:
        text.append(fenced("\n".join(_tried(structured)), "hosts tried, and last connections"))
    return answer("\n".join(text), structured)


def _state(found: Egress) -> Iterator[str]:
    if found.network == "allowlist" and not found.open:
        yield "its proxy does not answer: nothing gets out until it is back, by these rules"
    yield f"allowed: {', '.join(found.allowed) or 'none'}"
    yield f"denied: {', '.join(found.denied) or 'none'}"
    if found.pending:
        told = [
            decode.pending(asked) + (f" by {asked.program}" if asked.program else "")
            for asked in found.pending
        ]
        yield fenced("\n".join(told), "asked for, not answered yet")
    else:
        yield "nothing waits for an answer"


def _tried(structured: Json) -> Iterator[str]:
    for host in structured["hosts"]:
        yield (
            f"{host['host']}:{host['port']}: {host['allowed']} let through, "
            f"{host['refused']} refused, {host['sent']} bytes out, {host['received']} in"
        )
    if structured["left_out"]:
        yield f"{structured['left_out']} more hosts left out"
    yield from ("", "last connections, newest first:")
    for line in structured["connections"]:
        why = f" ({line['why']})" if line["why"] else ""
        yield f"{line['time']} {line['host']}:{line['port']} {line['verdict']}{why}"


EGRESS = Definition(
    name="egress",
    title="The way out",
    description="Which hosts it may reach, which it asks for, what it tried.",
    call=_egress,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output={"pending": _OBJECTS},
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="The way out of a sandbox: the rules in force, the hosts that wait for an answer, the "
    f"{_MAX_HOSTS} hosts that it tried last with how often and how much, and its last "
    f"{_MAX_CONNECTIONS} connections, newest first. Of ended sandboxes, too.",
    after="""\
`open` says whether its proxy answers; only network `allowlist` has one. `pending` tells host, port,
how often it was asked for (`count`) and by which program, if that could be seen. `verdict` of a
connection is `allowed`; `asked` (no rule names that host: refused, and the supervisor asked);
`denied`; `forbidden` (an address, port or form that no rule can allow); `failed` (allowed, but not
reached). All names are the sandbox's word.
""",
)

ALLOW_HOST = Definition(
    name="allow_host",
    title="Allow a host",
    description="Let a sandbox reach a host it asked for. What it sends there has left: think.",
    call=_allow,
    arguments={
        "sandbox": STRING,
        "host": _HOST,
        "once": described(BOOLEAN, "One connection only", default=False),
    },
    required=("sandbox", "host"),
    output={"allowed": STRINGS, "pending": _OBJECTS},
    annotations=hints(idempotent=True, open_world=True),
    about="Lets a sandbox reach a host, from now on or for one connection within ten minutes, and "
    "so answers what was pending for it. The same denial is lifted.",
    words={
        "host": "`example.org`: that name alone, ports 80 and 443. `*.example.org`: every name "
        "below it. Either with `:PORT`. Or a preset: "
        + ", ".join(f"`{name}`" for name in PRESETS)
        + ". The settings bound it: [`egress_hosts`](settings.md)",
        "once": "For one connection within ten minutes, to one host; without a port, to the port "
        "that was asked for, else 443",
    },
)

DENY_HOST = Definition(
    name="deny_host",
    title="Deny a host",
    description="Refuse a host without asking again; open connections to it are cut.",
    call=_deny,
    arguments={"sandbox": STRING, "host": _HOST},
    required=("sandbox", "host"),
    output={"denied": STRINGS, "pending": _OBJECTS},
    annotations=hints(destructive=True, idempotent=True, open_world=False),
    about="Refuses a host without asking again, and so answers what was pending for it. Open "
    "connections to it are cut. A denial wins over what is allowed; to allow the same host again "
    "lifts it.",
    words={"host": "As `allow_host` takes it"},
)
