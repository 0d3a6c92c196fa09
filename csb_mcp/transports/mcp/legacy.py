"""Notices for clients of the handshake era: ``resources/subscribe`` and what goes with it.

The SDK has them for the era since 2026-07-28 only (``subscriptions/listen``). Here each connection
that has shaken hands gets a subscriber, which the SDK's own teardown of the connection takes away.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from mcp.server import Server, ServerRequestContext
from mcp.server.connection import Connection
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import (
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    EmptyResult,
    NotificationParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from csb_mcp.transports.mcp.updates import Updates

Lowlevel = Server[dict[str, object]]
Context = ServerRequestContext[dict[str, object]]

_STATE = "csb-mcp subscriber"  # key in the SDK's scratch space of a connection
_MAX_SUBSCRIBED = 1000


def install(server: Lowlevel, updates: Updates, *, tools_change: bool) -> None:
    """Have ``server`` serve them. ``tools_change``: which tools it lists depends on sandboxes."""
    handlers = _Handlers(updates, tools_change=tools_change)
    server.add_notification_handler(
        "notifications/initialized", NotificationParams, handlers.initialized
    )
    server.add_request_handler("resources/subscribe", SubscribeRequestParams, handlers.subscribe)
    server.add_request_handler(
        "resources/unsubscribe", UnsubscribeRequestParams, handlers.unsubscribe
    )
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, _set_level)
    # Prompts stay as they are.
    _announce(server, NotificationOptions(resources_changed=True, tools_changed=tools_change))


def _announce(server: Lowlevel, notices: NotificationOptions) -> None:
    """Each transport asks for the options itself, and would have them say "nothing changes"."""
    make = server.create_initialization_options

    def options(
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        return make(notification_options or notices, experimental_capabilities, extensions)

    server.create_initialization_options = options


async def _set_level(_: Context, __: SetLevelRequestParams) -> EmptyResult:
    """Any level is kept: what is worth telling goes to the daemon's log, nothing to clients."""
    return EmptyResult()


class _Handlers:
    def __init__(self, updates: Updates, *, tools_change: bool) -> None:
        self._updates = updates
        self._tools_change = tools_change

    async def initialized(self, context: Context, _: NotificationParams) -> None:
        self._subscriber(context)

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        await self._subscriber(context).add(str(params.uri))
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        self._subscriber(context).drop(str(params.uri))
        return EmptyResult()

    def _subscriber(self, context: Context) -> "_Subscriber":
        connection = _connection(context)
        found = connection.state.get(_STATE)
        if isinstance(found, _Subscriber):
            return found
        made = connection.state[_STATE] = _Subscriber(
            connection, self._updates, tools_change=self._tools_change
        )
        connection.exit_stack.callback(made.close)
        return made


def _connection(context: Context) -> Connection:
    """What all requests of a client have in common; the SDK hands out no more than a session."""
    return context.session._connection  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


class _Subscriber:
    """One connection's subscriptions, and a task that sends, while there is something to send."""

    def __init__(self, connection: Connection, updates: Updates, *, tools_change: bool) -> None:
        self._connection = connection
        self._lists = (ResourcesListChanged, *([ToolsListChanged] if tools_change else []))
        self._updates = updates
        self._releases: dict[str, Callable[[], None]] = {}
        self._pending: dict[ServerEvent, None] = {}  # ordered; a client that is slow gets each once
        self._sending: asyncio.Task[None] | None = None
        self._closed = False
        self._unsubscribe = updates.subscribe(self._hear)

    async def add(self, uri: str) -> None:
        """Tell of this resource from now on. Raises MCPError (too many)."""
        if len(self._releases) >= _MAX_SUBSCRIBED:
            raise MCPError(INVALID_PARAMS, f"more than {_MAX_SUBSCRIBED} subscriptions")
        release = await self._updates.watch(uri)
        if uri in self._releases or self._closed:
            release()
        else:
            self._releases[uri] = release

    def drop(self, uri: str) -> None:
        """Tell of it no more. Idempotent."""
        if (release := self._releases.pop(uri, None)) is not None:
            release()
        self._pending.pop(ResourceUpdated(uri), None)

    def close(self) -> None:
        """Let go of everything; the client is gone."""
        self._closed = True
        self._unsubscribe()
        for uri in list(self._releases):
            self.drop(uri)
        if self._sending is not None:
            self._sending.cancel()

    def _hear(self, event: ServerEvent) -> None:
        wanted = isinstance(event, self._lists) or (
            isinstance(event, ResourceUpdated) and event.uri in self._releases
        )
        if not wanted:
            return
        self._pending[event] = None
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._pending:
            event = next(iter(self._pending))
            del self._pending[event]
            if isinstance(event, ResourceUpdated):
                await self._connection.send_resource_updated(event.uri)
            elif isinstance(event, ToolsListChanged):
                await self._connection.send_tool_list_changed()
            else:
                await self._connection.send_resource_list_changed()
