"""Creates on pieces in memory: what a caller who leaves in the middle leaves behind."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.model import SandboxSpec, SandboxState
from tests.support.fake_pieces import World, events, registry


async def test_a_create_that_is_cancelled_at_the_very_end_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    async with world.service() as service:
        publish, told = events(service).publish, asyncio.Event()

        async def slow(sandbox: str, kind: str, **data: Any) -> None:
            await publish(sandbox, kind, **data)
            if kind == "created":
                told.set()
                await asyncio.sleep(3600)

        monkeypatch.setattr(events(service), "publish", slow)
        spec = SandboxSpec(project_dir=world.project, agent="shell")
        work = asyncio.create_task(service.create(spec))
        await told.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        (left,) = await service.list()
        assert left.state is SandboxState.FAILED
        assert world.trees == {}
        assert registry(service).live == {}
        assert list(world.settings.runtime_dir.iterdir()) == []
