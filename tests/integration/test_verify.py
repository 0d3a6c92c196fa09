"""The table of whole sandboxes, with display and terminal: nothing is broken, and all is tried."""

import os
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.model import Outcome, SandboxSpec
from tests.support.sandboxes import running_app, settings_in


@pytest.mark.parametrize("network", ["none", "allowlist", "host"])
async def test_a_whole_sandbox_holds(network: str, base: Path, project: Path) -> None:
    async with running_app(settings_in(base, max_network="host")) as app:
        table = await verified(app, SandboxSpec(project_dir=project, network=network))
    assert not [row for row in table.values() if row[0] is Outcome.BROKEN], table
    expected = {"home"} if os.getuid() else set[str]()
    untried = {name for name, row in table.items() if row[0] is Outcome.UNTESTED}
    assert untried <= expected, {name: table[name] for name in untried}


async def verified(app: App, spec: SandboxSpec) -> dict[str, tuple[Outcome, str]]:
    made = await app.service.create(spec)
    table = await app.service.verify_isolation(made.id)
    return {probe.name: (probe.outcome, probe.detail) for probe in table.probes}
