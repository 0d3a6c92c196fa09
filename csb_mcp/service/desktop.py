"""Calls to a sandbox's display: pictures of it, and a hand on it."""

from collections.abc import Sequence

from csb_mcp.errors import InvalidInput
from csb_mcp.model import Frame, Image, Point, Region, Sandbox, Screenshot
from csb_mcp.ports import Display
from csb_mcp.service.calls import TYPING_SECONDS, Calls, answering
from csb_mcp.service.cursor import View, frame_name, parse_frame

_PIXELS_PER_TOKEN = 750  # what a vision model pays, by its maker's rule of thumb


class Desktop(Calls):
    """The display; see :class:`~csb_mcp.ports.SandboxService`."""

    async def screenshot(
        self,
        sandbox: str,
        *,
        region: Region | None,
        max_width: int,
        format: str,
        if_changed_since: str | None,
    ) -> Screenshot:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        record = self._registry.find(sandbox)
        if record.state.ended:
            return await self._last_screen(record)
        live = self._registry.running(record.id)
        known = parse_frame(if_changed_since, "if_changed_since") if if_changed_since else None
        async with answering(live):
            frame = await live.need_display().capture()
            part = _inside(region, frame)
            if known is not None and frame.number == known.number:
                return Screenshot(if_changed_since or "", None, part)
            image = await live.need_display().encode(
                frame, part, max_width=max_width, format=format
            )
        view = View.of(part, image, frame)
        return Screenshot(frame_name(frame.number, view), image, part, _tokens(image))

    async def _last_screen(self, record: Sandbox) -> Screenshot:
        data = await self._pieces.keeper.last_screen(self._pieces.keeper.folders(record.id))
        if data is None:
            raise InvalidInput(
                "no last screen of it was kept", field="sandbox", hint="it may never have had one"
            )
        size = record.spec.geometry
        image = Image(data, "png", size.width, size.height, 1.0)
        return Screenshot("last", image, Region(0, 0, size.width, size.height), _tokens(image))

    async def click(
        self, sandbox: str, at: Point, *, button: str, count: int, frame: str | None
    ) -> str:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = self._registry.active(sandbox)
        (place,) = _on_display([at], frame, ("x", "y"))
        async with answering(live):
            await live.need_display().click(place, button=button, count=count)
            return await _frame_now(live.need_display())

    async def drag(
        self, sandbox: str, path: Sequence[Point], *, button: str, frame: str | None
    ) -> str:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = self._registry.active(sandbox)
        places = _on_display(path, frame, ("path", "path"))
        async with answering(live):
            await live.need_display().drag(places, button=button)
            return await _frame_now(live.need_display())

    async def scroll(self, sandbox: str, at: Point, dx: int, dy: int, *, frame: str | None) -> str:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = self._registry.active(sandbox)
        (place,) = _on_display([at], frame, ("x", "y"))
        async with answering(live):
            await live.need_display().scroll(place, dx, dy)
            return await _frame_now(live.need_display())

    async def type_text(self, sandbox: str, text: str) -> str:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = self._registry.active(sandbox)
        async with answering(live, TYPING_SECONDS):
            await live.need_display().type_text(text)
            return await _frame_now(live.need_display())


async def _frame_now(display: Display) -> str:
    return frame_name((await display.capture()).number)


def _on_display(places: Sequence[Point], frame: str | None, fields: tuple[str, str]) -> list[Point]:
    """Where these pixels of a screenshot lie on the display. Raises InvalidInput."""
    if frame is None:
        return list(places)
    view = parse_frame(frame, "frame").view
    return [view.on_display(place, fields) for place in places]


def _inside(region: Region | None, frame: Frame) -> Region:
    if region is None:
        return Region(0, 0, frame.width, frame.height)
    fits = (
        0 <= region.x < region.x + region.width <= frame.width
        and 0 <= region.y < region.y + region.height <= frame.height
    )
    if not fits:
        raise InvalidInput(
            f"{[region.x, region.y, region.width, region.height]} is not inside the screen",
            field="region",
            hint=f"the screen is {frame.width}x{frame.height} pixels",
        )
    return region


def _tokens(image: Image) -> int:
    return round(image.width * image.height / _PIXELS_PER_TOKEN)
