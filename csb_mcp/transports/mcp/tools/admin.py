"""verify_isolation."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.model import Outcome, Verification
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    BOOLEAN,
    NUMBER,
    STRING,
    Definition,
    Json,
    answer,
    hints,
)


async def _verify(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    found = await service.verify_isolation(decode.named_sandbox(arguments))
    structured = answers.verification(found)
    return answer("\n".join([_head(found), *map(_row, structured["probes"])]), structured)


def _head(found: Verification) -> str:
    counts = {
        outcome: sum(probe.outcome is outcome for probe in found.probes) for outcome in Outcome
    }
    told = ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items())
    verdict = "held" if found.held else "NOT HELD: do not trust this sandbox with anything hostile"
    return f"{verdict}; {told} in {found.seconds:.1f} s"


def _row(probe: Json) -> str:
    detail = f": {probe['detail']}" if probe["detail"] else ""
    return f"{probe['outcome']} {probe['name']} ({probe['protects']}){detail}"


VERIFY = Definition(
    name="verify_isolation",
    title="Attack a sandbox",
    description="Attack a sandbox from inside and tell what held. Takes seconds.",
    call=_verify,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output={
        "held": BOOLEAN,
        "probes": {"type": "array", "items": {"type": "object"}},
        "seconds": NUMBER,
    },
    output_required=("held", "probes"),
    annotations=hints(idempotent=True, open_world=False),
    about="Attacks a running sandbox from its inside, as somebody hostile in it would, each attack "
    "with a control that must succeed outside, and leaves nothing behind. It says what was tried; "
    "it cannot say what nobody thought of.",
    after="""\
### Outcomes

| outcome | |
| --- | --- |
| `held` | The attack failed, and its control succeeded |
| `broken` | The attack succeeded |
| `untested` | The control failed or a tool was missing: nothing is known |

`held` as a whole: no attack succeeded, and most could be tried.
""",
)
