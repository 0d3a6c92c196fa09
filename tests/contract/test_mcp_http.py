"""Notices of change over streamable HTTP, in both protocol eras, with the SDK's own client."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from mcp import Client
from mcp.server.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types import ResourceUpdatedNotification

from csb_mcp import decode
from csb_mcp.transports.mcp.server import build_server
from csb_mcp.transports.mcp.updates import Updates
from tests.contract.fake_service import FakeService
from tests.support.mcp_client import connection
from tests.support.mcp_peer import eventually

TERMINAL = "csb://sandbox/web/terminal"


@pytest.fixture
async def service() -> FakeService:
    service = FakeService()
    await service.create(decode.sandbox_spec({"project_dir": "/p", "name": "web"}))
    return service


@pytest.fixture
def updates(service: FakeService) -> Updates:
    return Updates(service)


@pytest.fixture
async def url(service: FakeService, updates: Updates) -> AsyncIterator[str]:
    app = build_server(service, updates=updates).streamable_http_app()
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    server.should_exit = True
    await serving
    assert (updates.tasks, service.followers, service.watched) == (0, 0, 0)


async def test_the_modern_era_listens(url: str, service: FakeService, updates: Updates) -> None:
    async with connection(url, "2026-07-28") as client:
        async with client.listen(resource_subscriptions=[TERMINAL]) as subscription:
            await eventually(lambda: service.watched == 1)
            service.printed.beat()
            async with asyncio.timeout(20):
                assert await anext(subscription) == ResourceUpdated(TERMINAL)
        # The client goes on; its stream, and what was watched for it, has ended.
        await eventually(lambda: updates.tasks == service.watched == 0)
        assert (await client.list_tools()).tools


async def test_the_handshake_era_subscribes(
    url: str, service: FakeService, updates: Updates
) -> None:
    heard: list[object] = []

    async def hear(message: object) -> None:
        heard.append(message)

    async with connection(url, "legacy", message_handler=hear) as client:
        await subscribe(client)
        await eventually(lambda: service.watched == 1 and service.followers == 1)
        service.printed.beat()
        await eventually(lambda: any(isinstance(m, ResourceUpdatedNotification) for m in heard))
    await eventually(lambda: updates.tasks == 0)


async def subscribe(client: Client) -> None:
    with pytest.warns(MCPDeprecationWarning):
        await client.subscribe_resource(TERMINAL)  # pyright: ignore[reportDeprecated]
