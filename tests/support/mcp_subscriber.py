"""A client of either protocol era that keeps what it is told of resources and tools."""

import asyncio
from typing import Any

from tests.support.mcp_peer import HELLO, META, Peer

UPDATED = "notifications/resources/updated"
LISTED = "notifications/resources/list_changed"
TOOLS = "notifications/tools/list_changed"


class Subscriber:
    """A client of either era that counts what it is told."""

    def __init__(self, era: str, peer: Peer) -> None:
        self.era = era
        self.peer = peer
        self.notices: list[tuple[str, str]] = []
        self.listening = 0

    async def begin(self) -> None:
        if self.era == "legacy":
            await self.said("initialize", **HELLO)
            await self.peer.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
            await self.said("ping")  # answered after the one before it was heard

    async def said(self, method: str, **params: Any) -> Any:
        """The answer. Notices that come before it are kept."""
        self.peer.last += 1
        asked = self.peer.last
        if self.era == "modern":
            params["_meta"] = META
        await self.peer.say({"jsonrpc": "2.0", "id": asked, "method": method, "params": params})
        while (heard := await self.peer.hear()).get("id") != asked:
            self.keep(heard)
        return heard

    def keep(self, message: Any) -> None:
        if (method := message["method"]).startswith(("notifications/resources/", TOOLS)):
            self.notices.append((method, message.get("params", {}).get("uri", "")))

    async def subscribe(self, *uris: str) -> None:
        if self.era == "legacy":
            for uri in uris:
                assert (await self.said("resources/subscribe", uri=uri))["result"] == {}
            return
        wanted = {"resourcesListChanged": True, "toolsListChanged": True}
        wanted |= {"resourceSubscriptions": list(uris)}
        self.listening = await self.peer.ask("subscriptions/listen", notifications=wanted)
        heard = await self.peer.hear()
        assert heard["method"] == "notifications/subscriptions/acknowledged"

    async def unsubscribe(self, *uris: str) -> None:
        if self.era == "legacy":
            for uri in uris:
                await self.said("resources/unsubscribe", uri=uri)
            return
        params = {"requestId": self.listening, "_meta": META}
        await self.peer.say(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        )
        await self.said("tools/list")

    async def told(self, *expected: tuple[str, str]) -> None:
        """Hear until all of these have come."""
        while set(expected) - set(self.notices):
            self.keep(await self.peer.hear())

    async def hear_for(self, seconds: float) -> None:
        """Keep what comes within so long."""
        await asyncio.sleep(seconds)
        await self.said("tools/list")

    async def quiet(self) -> None:
        """Nothing comes before the answer to one more call."""
        before = len(self.notices)
        await self.hear_for(0.05)
        assert not self.notices[before:], self.notices[before:]
