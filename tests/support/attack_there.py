"""Sandboxes of altered launchers, made and attacked in another network (``support.internet``).

For each line of JSON on stdin, with ``base`` (an empty folder), ``edits`` and ``network``, it
prints one: what the table says, name to outcome and detail.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import pytest

from csb_mcp.errors import HelperFailed, SandboxEnded
from csb_mcp.host import launchers
from tests.support.attacked import Edit, alter, attack, proxied, repository
from tests.support.launched import Host, launched

# The stager is Python, which ignores SIGPIPE; pasta does not start so. (tmux resets it.)
DEFAULT = ("/usr/bin/env", "--default-signal=PIPE")


def there(path: Path) -> bool:
    """A user's namespace shows the host's programs as nobody's: nothing can be said of them."""
    return path.is_file()


async def main(base: Path, edits: list[Edit], network: str) -> dict[str, list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        if os.getuid():
            patch.setattr(launchers, "_trusted", there)
        alter(patch, base, edits)
        host = Host.make(base, os.getuid())
        project = repository(base, os.getuid())
        return await said(host, project, network)


async def said(host: Host, project: Path, network: str) -> dict[str, list[str]]:
    around = proxied(host) if network == "allowlist" else contextlib.nullcontext()
    made = launched(host, project, network=network, around_launcher=DEFAULT)
    try:
        async with around, made as box:
            table = await attack(box, project, env={}, network=network)
    except (HelperFailed, SandboxEnded) as refusal:
        return {"refused": ["broken", str(refusal)]}
    return {probe.name: [probe.outcome, probe.detail] for probe in table.probes}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        answer = asyncio.run(main(Path(asked["base"]), asked["edits"], asked["network"]))
        print(json.dumps(answer), flush=True)  # noqa: T201  that is its answer
