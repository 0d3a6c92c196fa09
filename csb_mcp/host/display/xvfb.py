"""Displays by Xvfb: made in a small sandbox by the launcher ``display``, looked at from outside."""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded, DisplayFailed
from csb_mcp.host.display.chords import chords_of_keys
from csb_mcp.host.display.damage import Damage
from csb_mcp.host.display.encode import encode
from csb_mcp.host.display.framebuffer import Framebuffer
from csb_mcp.host.display.input import Input
from csb_mcp.host.display.stillness import Stillness
from csb_mcp.host.distribution import here
from csb_mcp.lib.pulse import Pulse
from csb_mcp.lib.safe_open import read_regular
from csb_mcp.lib.xauth import new_cookie, pack_wild, unpack_wild
from csb_mcp.model import Folders, Frame, Geometry, Image, Launch, Point, Problem, Region

_PATIENCE = 1.0  # for a server that accepts connections and does not answer: somebody grabs it
_LOOKS = 10  # at a screen that cannot be held still, before the last one is taken as it is
_PAUSE = 0.001  # between them
_READ_INLINE = 9_000_000  # bytes that are read in about 1 ms; a thread costs a third of that


class XvfbDisplays:
    """Implements :class:`csb_mcp.ports.Displays`.

    ``launcher`` gives the absolute path of a launcher by its name; ``xvfb`` is where Xvfb was
    found, and ``manager`` the window manager (lwm), None if it was not.
    """

    def __init__(
        self, launcher: Callable[[str], Path], xvfb: Path | None, manager: Path | None
    ) -> None:
        self._launcher = launcher
        self._xvfb = xvfb
        self._manager = manager

    def problems(self) -> Sequence[Problem]:
        """Xvfb it needs; a window manager makes it better."""
        found: list[Problem] = []
        if not self._xvfb:
            repair = f"{here().install('Xvfb')}; or set xvfb to its path"
            why = "a sandbox's display is an Xvfb, and there is none"
            found.append(Problem("Xvfb", why, repair))
        if not self._manager:
            why = "without a window manager, windows have no frame to move or close them by"
            found.append(Problem("lwm", why, here().install("lwm"), fatal=False))
        return found

    async def prepare(self, folders: Folders, geometry: Geometry, *, gl: bool) -> Launch:
        """See Displays. Raises DisplayFailed if the runtime folder does not take them."""
        try:
            _make(folders)
        except OSError as error:
            why = f"{error.filename or folders.runtime}: {error.strerror}"
            raise DisplayFailed(f"the display's folders cannot be made: {why}") from error
        argv = [str(self._launcher("display"))]
        argv += ["--x11-dir", str(folders.x11), "--framebuffer-dir", str(folders.framebuffer)]
        argv += ["--xauthority", str(folders.xauthority)]
        argv += ["--ready-fifo", str(folders.display_ready), "--geometry", str(geometry)]
        return Launch((*argv, "--gl") if gl else tuple(argv))

    async def connect(self, folders: Folders, geometry: Geometry, deadline: float) -> "XvfbDisplay":
        """See Displays.

        A server that is held grabbed by a client gives a display all the same: pictures need only
        the file; ``damage`` beats slowly until the server answers.
        """
        try:
            content = read_regular(folders.runtime, folders.xauthority.name, 4096)
            cookie = unpack_wild(content)
            await _listening(folders, deadline)
        except (OSError, ValueError) as error:
            raise DisplayFailed(f"the display was not prepared: {error}") from error
        damage = Damage(folders.x11, cookie)
        try:
            left = deadline - asyncio.get_running_loop().time()
            await damage.started(min(_PATIENCE, left))
            framebuffer = Framebuffer(folders.framebuffer, geometry)
        except BaseException:
            await damage.close()
            raise
        stillness = Stillness(folders.x11, cookie)
        hands = Input(folders.x11, cookie, geometry, damage.pulse)
        return XvfbDisplay(framebuffer, damage, stillness, hands)


class XvfbDisplay:
    """Implements :class:`csb_mcp.ports.Display`."""

    def __init__(
        self, framebuffer: Framebuffer, damage: Damage, stillness: Stillness, input: Input
    ) -> None:
        self._framebuffer = framebuffer
        self._damage = damage
        self._stillness = stillness
        self._input = input
        self._capturing = asyncio.Lock()
        self._beats = -1  # of damage, before the last picture was taken

    @property
    def geometry(self) -> Geometry:
        """See Display."""
        return self._framebuffer.geometry

    @property
    def damage(self) -> Pulse:
        """See Display."""
        return self._damage.pulse

    async def capture(self) -> Frame:
        """See Display.

        Torn only if a client draws without pause while it, too, holds the server grabbed.
        """
        async with self._capturing:
            self._framebuffer.forget()
            if self._framebuffer.speed_up_due:
                await asyncio.to_thread(self._framebuffer.speed_up)
            beats = self.damage.count
            if beats == self._beats and (frame := await self._look()):
                return frame
            self._beats = beats
            async with self._stillness.hold() as still:
                for attempt in range(_LOOKS):
                    if frame := await self._look(whole=still):
                        return frame
                    await asyncio.sleep(_PAUSE if attempt else 0)
            return self._framebuffer.settle()

    async def encode(self, frame: Frame, region: Region, *, max_width: int, format: str) -> Image:
        """See Display. Raises InvalidInput."""
        return await asyncio.to_thread(encode, frame, region, max_width=max_width, format=format)

    async def press(self, keys: Sequence[str]) -> None:
        """See Display."""
        await self._input.press(keys)

    def check_keys(self, keys: Sequence[str]) -> None:
        """See Display."""
        if keys:
            chords_of_keys(keys)

    async def type_text(self, text: str) -> None:
        """See Display."""
        await self._input.type_text(text)

    async def click(self, at: Point, *, button: str, count: int) -> None:
        """See Display."""
        await self._input.click(at, button=button, count=count)

    async def drag(self, path: Sequence[Point], *, button: str) -> None:
        """See Display."""
        await self._input.drag(path, button=button)

    async def scroll(self, at: Point, dx: int, dy: int) -> None:
        """See Display."""
        await self._input.scroll(at, dx, dy)

    async def close(self) -> None:
        """See Display."""
        await self._input.close()
        await self._damage.close()
        await self._stillness.close()
        self._framebuffer.close()

    async def _look(self, *, whole: bool = False) -> Frame | None:
        if self._framebuffer.size <= _READ_INLINE:
            return self._framebuffer.look(whole=whole)
        return await asyncio.to_thread(self._framebuffer.look, whole=whole)


def _make(folders: Folders) -> None:
    """Make folders, cookie and FIFO for the uid that owns the runtime folder."""
    owner = folders.runtime.stat()
    for folder in (folders.x11, folders.framebuffer):
        folder.mkdir(0o700)
    os.mkfifo(folders.display_ready, 0o600)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(folders.xauthority, flags, 0o600), "wb") as file:
        file.write(pack_wild(new_cookie()))
    for path in (folders.x11, folders.framebuffer, folders.display_ready, folders.xauthority):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


async def _listening(folders: Folders, deadline: float) -> None:
    """Wait until the server's socket is there. Raises DeadlineExceeded, OSError."""
    # In this order: once we hold the FIFO open, what is written into it stays there. If it was
    # written before (by a server that we adopt), the socket is there already.
    fifo = os.open(folders.display_ready, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if not (folders.x11 / "X0").exists():
            async with asyncio.timeout_at(deadline):
                await _line(fifo)
    except TimeoutError as error:
        hint = "its pane in tmux says why"
        raise DeadlineExceeded("the X server did not start in time", hint=hint) from error
    finally:
        os.close(fifo)


async def _line(fifo: int) -> None:
    """Read through the next newline: Xvfb writes the number first and the newline afterwards."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        if b"\n" in os.read(fifo, 64):
            ended.set()

    loop.add_reader(fifo, read)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fifo)
