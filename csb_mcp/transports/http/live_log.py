"""A sandbox's log over WebSocket: what was printed so far, then what is printed, until it ends."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from starlette.websockets import WebSocket, WebSocketDisconnect

from csb_mcp import decode
from csb_mcp.model import LogPart
from csb_mcp.ports import SandboxService
from csb_mcp.transports.http import problems, reading
from csb_mcp.transports.http.endpoint import cancelled, until_gone
from csb_mcp.transports.http.plain import PlainText
from csb_mcp.transports.http.routes.logs import FOLLOW, whether
from csb_mcp.transports.http.streams import TooSlow, taken

log = logging.getLogger(__name__)

ENDED, DEFECT, RESTART = 1000, 1011, 1012  # RFC 6455, 7.4.1, and the registry of its codes


class LiveLog:
    """Serves ``WS /ws/sandboxes/{sandbox}/logs``."""

    def __init__(self, service: SandboxService, closing: asyncio.Event) -> None:
        self._service = service
        self._closing = closing

    async def __call__(self, websocket: WebSocket) -> None:
        """Follow one log for one client. What it sends is not listened to."""
        try:
            sandbox, offset, raw = _arguments(websocket)
            await self._service.get(sandbox)
        except Exception as error:  # noqa: BLE001 whatever it is, the client gets the one shape
            await websocket.send_denial_response(problems.answer(error))
            return
        await websocket.accept()
        try:
            code, reason = await self._follow(websocket, sandbox, offset, raw=raw)
            await websocket.close(code, reason)
        except (WebSocketDisconnect, TooSlow):
            log.debug("a reader of a log is gone")

    async def _follow(
        self, websocket: WebSocket, sandbox: str, offset: int, *, raw: bool
    ) -> tuple[int, str]:
        """Send until there is no more to send; gives the code and the reason to close with."""
        pump = asyncio.ensure_future(self._pump(websocket, sandbox, offset, raw=raw))
        gone = asyncio.ensure_future(until_gone(websocket.receive))
        ending = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({pump, gone, ending}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
                return ENDED, "the sandbox has ended"
            if gone.done():
                raise WebSocketDisconnect
            return RESTART, "the daemon is ending"
        except (WebSocketDisconnect, TooSlow):
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, the client is told
            return DEFECT, problems.reason(error)
        finally:
            await cancelled(pump, gone, ending)

    async def _pump(self, websocket: WebSocket, sandbox: str, offset: int, *, raw: bool) -> None:
        text = PlainText()
        following = self._service.follow_log(sandbox, offset)
        async with aclosing(cast("AsyncGenerator[LogPart]", following)) as parts:
            async for part in parts:
                if raw and part.data:
                    await taken(websocket.send_bytes(part.data), websocket.scope)
                elif not raw and (plain := text.feed(part.data, gap=part.gap)):
                    await taken(websocket.send_text(plain), websocket.scope)
        if rest := text.rest():
            await taken(websocket.send_text(rest), websocket.scope)


def _arguments(websocket: WebSocket) -> tuple[str, int, bool]:
    values = {
        **websocket.path_params,
        **reading.query(websocket.scope["query_string"], FOLLOW),
    }
    raw = whether("raw", values.pop("raw", None))
    request = decode.read_log(values)
    return request.sandbox, request.offset or 0, raw
