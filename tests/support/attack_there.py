"""A sandbox of altered launchers, made and attacked in another network: see ``tests.support.internet``.

``python attack_there.py JSON``: ``base`` (an empty folder), ``edits``, ``network``. Prints what the
table says: name to outcome and detail.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pytest  # noqa: E402

from csb_mcp.errors import HelperFailed, SandboxEnded  # noqa: E402
from tests.support.attacked import alter, attack, repository  # noqa: E402
from tests.support.launched import Host, launched  # noqa: E402


# The stager is Python, which ignores SIGPIPE; pasta does not start so. (A tmux between them resets it.)
DEFAULT = ("/usr/bin/env", "--default-signal=PIPE")


async def main(base: Path, edits: list[tuple[str, str, str]], network: str) -> dict[str, list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        alter(patch, base, edits)
        host = Host.make(base, os.getuid())
    project = repository(base, os.getuid())
    try:
        async with launched(host, project, network=network, around_launcher=DEFAULT) as box:
            table = await attack(box, project, env={}, network=network)
    except (HelperFailed, SandboxEnded) as refusal:
        return {"refused": ["broken", str(refusal)]}
    return {probe.name: [probe.outcome, probe.detail] for probe in table.probes}


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(main(Path(asked["base"]), asked["edits"], asked["network"]))))
