"""A screen: seen and driven."""

from collections.abc import Sequence
from typing import Protocol

from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Folders, Frame, Geometry, Image, Launch, Point, Problem, Region


class Display(Protocol):
    """One screen."""

    @property
    def geometry(self) -> Geometry:
        """Its size."""
        ...

    @property
    def damage(self) -> Pulse:
        """Beats soon after something was drawn, perhaps without a change: after a beat, capture."""
        ...

    async def capture(self) -> Frame:
        """The screen now, whole (not torn); the kept frame itself if nothing changed.

        Needs nothing from the X server, so it works while a client grabs it. Raises DisplayFailed.
        """
        ...

    async def encode(self, frame: Frame, region: Region, *, max_width: int, format: str) -> Image:
        """``region`` of ``frame`` as ``png``, ``jpeg`` or ``webp`` (lossless), at most so wide."""
        ...

    async def press(self, keys: Sequence[str]) -> None:
        """Press and release keys, one after another: ``Return``, ``F5``, ``ctrl+shift+t``, ``a``.

        A name is an X keysym's (X11/keysymdef.h, without XK_), a single character, or one of some
        usual names (``Enter``, ``Esc``, ``Up``, ``PageUp`` ...); modifiers ``ctrl``, ``shift``,
        ``alt``, ``super`` go before it with ``+``. All names are checked before the first is
        pressed. Returns when the server has taken them. Raises InvalidInput (unknown name, with
        suggestions), DisplayFailed, DeadlineExceeded (a client holds the server).
        """
        ...

    def check_keys(self, keys: Sequence[str]) -> None:
        """Raise InvalidInput where :meth:`press` would, and press nothing."""
        ...

    async def type_text(self, text: str) -> None:
        """Type ``text`` in any script into the window that has the focus; a newline is Return.

        Raises InvalidInput (a control character), DisplayFailed, DeadlineExceeded.
        """
        ...

    async def click(self, at: Point, *, button: str, count: int) -> None:
        """Move the pointer there and click ``count`` times; ``left``, ``middle`` or ``right``.

        Raises InvalidInput (off the screen), DisplayFailed, DeadlineExceeded.
        """
        ...

    async def drag(self, path: Sequence[Point], *, button: str) -> None:
        """Press the button at the first point, move through the others, release it at the last.

        It moves in small steps, as a hand does. However it ends, the button is up again. Raises as
        :meth:`click`.
        """
        ...

    async def scroll(self, at: Point, dx: int, dy: int) -> None:
        """Turn the wheel there: so many notches right (``dx``) and down (``dy``), or back.

        Raises as :meth:`click`.
        """
        ...

    async def close(self) -> None:
        """Let go of it; the display goes on. Idempotent."""
        ...


class Displays(Protocol):
    """Makes displays."""

    def problems(self) -> Sequence[Problem]:
        """What this host lacks for it."""
        ...

    async def prepare(self, folders: Folders, geometry: Geometry, *, gl: bool) -> Launch:
        """Make its folders, cookie and FIFO; say how to start the X server."""
        ...

    async def connect(self, folders: Folders, geometry: Geometry, deadline: float) -> Display:
        """Wait until it answers, by ``deadline`` (loop time). Also adopts one that runs already.

        Raises DeadlineExceeded, DisplayFailed.
        """
        ...
