"""Tells that resources changed: one source for all connections, of both protocol eras.

Only what somebody subscribed to is watched; nobody there, no task. Every notice means "read it
again if you care", so any number of changes within half a second are one notice.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from mcp.server.subscriptions import (
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from csb_mcp.errors import CsbError
from csb_mcp.model import Event
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.resources import SANDBOXES, Part, parse_address
from csb_mcp.transports.mcp.watching import follow_agent, follow_screen, follow_terminal

log = logging.getLogger(__name__)

Listener = Callable[[ServerEvent], None]

_APART = 0.5  # seconds between two notices of one resource
_AGAIN = 2.0  # seconds until the next try after a failure
_MAX_WATCHED = 1000  # resources in one subscription
_LISTING = ("created", "failed", "deleted")  # events that change which sandboxes there are
_ENDING = ("stopped", "dead", "failed", "deleted")
_ASKING = ("egress_request", "egress_allowed", "egress_denied", *_ENDING)
OF_AGENT = (
    *("agent_state", "agent_error", "question", "turn_finished", "stuck", "budget"),
    *("prompt_submitted", "prompt_failed"),
)
"""Kinds of events that tell of an agent."""
_FOLLOW = {
    "agent": follow_agent,
    "terminal": follow_terminal,
    "log": follow_terminal,
    "screen": follow_screen,
}


@dataclass(slots=True, eq=False)
class _Topic:
    """What one URI stands for. ``users``: how many subscriptions name it."""

    event: ServerEvent
    sandbox: str | None = None
    part: Part = ""
    users: int = 0
    last: float = float("-inf")
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class _Watch:
    """A task that looks at one sandbox's terminal or screen, for all topics that need it."""

    task: asyncio.Task[None]
    topics: set[_Topic] = field(default_factory=set[_Topic])


class Updates:
    """The source; also the SDK's ``SubscriptionBus``, so that its listen handler hears of it."""

    def __init__(self, service: SandboxService) -> None:
        self._service = service
        self._listeners: dict[object, Listener] = {}
        self._topics: dict[str, _Topic] = {}
        self._listing = _Topic(ResourcesListChanged())
        self._tools = _Topic(ToolsListChanged())
        self._asked = False  # when clients were told of it last
        self._watches: dict[tuple[str, object], _Watch] = {}
        self._following: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> int:
        """How many run on behalf of subscribers."""
        watching = sum(not watch.task.done() for watch in self._watches.values())
        return watching + (self._following is not None)

    async def publish(self, event: ServerEvent) -> None:
        """Tell all listeners at once."""
        self._tell(event)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hear of all that is published, until what this gives is called (once or more)."""
        token = object()
        self._listeners[token] = listener
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

        def unsubscribe() -> None:
            self._listeners.pop(token, None)
            if not self._listeners and self._following is not None:
                self._following.cancel()
                self._following = None
                _disarm(self._listing)
                _disarm(self._tools)

        return unsubscribe

    @asynccontextmanager
    async def watching(self, uris: Collection[str]) -> AsyncGenerator[None]:
        """Have changes of these resources published meanwhile. Raises MCPError (too many)."""
        if len(uris) > _MAX_WATCHED:
            words = f"{len(uris)} resources are too many for one subscription, {_MAX_WATCHED} most"
            raise MCPError(INVALID_PARAMS, words)
        with ExitStack() as releases:
            for uri in dict.fromkeys(uris):
                releases.callback(await self.watch(uri))
            yield

    async def watch(self, uri: str) -> Callable[[], None]:
        """Have changes of this resource published, until what this gives is called (once).

        One that does not exist is none that changes, so it is accepted and never told of.
        """
        found = await self._resolve(uri)
        topic = self._topics.setdefault(uri, found)
        topic.users += 1
        if topic.sandbox is None:  # the first who asked came before the sandbox
            topic.sandbox, topic.part = found.sandbox, found.part
        if topic.sandbox is not None and topic.part in _FOLLOW:
            self._begin(topic, topic.sandbox)
        return lambda: self._release(uri, topic)

    async def _resolve(self, uri: str) -> _Topic:
        topic = _Topic(ResourceUpdated(uri))
        if (address := parse_address(uri)) is not None:
            try:
                topic.sandbox = (await self._service.get(address[0])).id
                topic.part = address[1]
            except CsbError as error:
                log.debug("%s names nothing: %s", uri, error)
        return topic

    def _begin(self, topic: _Topic, sandbox: str) -> None:
        follow = _FOLLOW[topic.part]
        watch = self._watches.get((sandbox, follow))
        if watch is None:
            topics = set[_Topic]()
            following = follow(self._service, sandbox, lambda: self._all(topics), _APART)
            watch = _Watch(asyncio.create_task(following), topics)
            self._watches[sandbox, follow] = watch
        watch.topics.add(topic)

    def _release(self, uri: str, topic: _Topic) -> None:
        topic.users -= 1
        if topic.users:
            return
        del self._topics[uri]
        _disarm(topic)
        key = (topic.sandbox or "", _FOLLOW.get(topic.part))
        if (watch := self._watches.get(key)) is not None:
            watch.topics.discard(topic)
            if not watch.topics:
                watch.task.cancel()
                del self._watches[key]

    async def _follow(self) -> None:
        """Publish what the service's events mean, until cancelled."""
        while True:
            try:
                await self._tools_changed()
                async for event in self._service.events():
                    self._happened(event)
                    if event.kind in _ASKING:
                        await self._tools_changed()
            except Exception:  # whatever it is: nobody would be told of anything again
                log.exception("events cannot be followed, trying again")
            await asyncio.sleep(_AGAIN)

    async def asked(self) -> bool:
        """Whether a host that some sandbox asked for waits for an answer."""
        try:
            return any(sandbox.pending for sandbox in await self._service.list())
        except CsbError:
            return self._asked

    async def _tools_changed(self) -> None:
        """Which tools are listed depends on it."""
        if (asked := await self.asked()) is not self._asked:
            self._asked = asked
            self._changed(self._tools)

    def _happened(self, event: Event) -> None:
        if event.kind in _LISTING:
            self._changed(self._listing)
        if (topic := self._topics.get(SANDBOXES)) is not None:
            self._changed(topic)
        of_it = [topic for topic in self._topics.values() if topic.sandbox == event.sandbox]
        self._all({topic for topic in of_it if _touches(event, topic)})

    def _all(self, topics: set[_Topic]) -> None:
        for topic in topics:
            self._changed(topic)

    def _changed(self, topic: _Topic) -> None:
        """Tell now, or as soon as enough time has passed since the last notice."""
        if topic.timer is not None:
            return
        loop = asyncio.get_running_loop()
        left = topic.last + _APART - loop.time()
        if left <= 0:
            self._due(topic)
        else:
            topic.timer = loop.call_later(left, self._due, topic)

    def _due(self, topic: _Topic) -> None:
        topic.timer = None
        topic.last = asyncio.get_running_loop().time()
        self._tell(topic.event)

    def _tell(self, event: ServerEvent) -> None:
        for listener in list(self._listeners.values()):
            listener(event)


def _touches(event: Event, topic: _Topic) -> bool:
    """Terminal and screen are watched apart: what is printed and drawn is no event."""
    if topic.part == "agent" and event.kind in OF_AGENT:
        return True
    return topic.part in ("", "events") or event.kind in _ENDING


def _disarm(topic: _Topic) -> None:
    if topic.timer is not None:
        topic.timer.cancel()
        topic.timer = None
