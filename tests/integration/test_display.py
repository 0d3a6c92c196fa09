"""The display on a real Xvfb, started by its launcher as a uid that is not ours."""

import asyncio
import io
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from PIL import Image as Pillow

import csb_mcp.host.launchers
from csb_mcp.config import load_settings
from csb_mcp.errors import DeadlineExceeded, DisplayFailed
from csb_mcp.host.display.framebuffer import Framebuffer
from csb_mcp.host.display.xvfb import XvfbDisplay, XvfbDisplays
from csb_mcp.host.launchers import Launchers, find_tool
from csb_mcp.lib.xauth import PROTOCOL, new_cookie, unpack_wild
from csb_mcp.model import Folders, Frame, Geometry, Region
from tests.conftest import User

pytestmark = pytest.mark.once

SMALL = Geometry(640, 480)
USUAL = Geometry(1280, 800)


class Client:
    """A blocking X client: what a payload may do to its display."""

    def __init__(self, folders: Folders, cookie: bytes | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        try:
            self.socket.connect(str(folders.x11 / "X0"))
            self.root, first = self.introduce(cookie_of(folders) if cookie is None else cookie)
            self.gc, self.next_id = first, first + 1
            self.request(55, struct.pack("<III", self.gc, self.root, 0))  # CreateGC
        except OSError:  # the server may end at any of these
            self.socket.close()
            raise

    def introduce(self, cookie: bytes) -> tuple[int, int]:
        name = PROTOCOL if cookie else b""
        hello = struct.pack("<BxHHHHxx", 0x6C, 11, 0, len(name), len(cookie))
        self.socket.sendall(hello + name + bytes(-len(name) % 4) + cookie)
        status, length = struct.unpack("<BxxxxxH", self.read(8))
        body = self.read(length * 4)
        if status != 1:
            raise PermissionError(body.decode(errors="replace"))
        first, vendor, formats = struct.unpack_from("<4xI8xH3xB", body)
        (root,) = struct.unpack_from("<I", body, 32 + vendor + -vendor % 4 + formats * 8)
        return root, first

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := self.socket.recv(size - len(data))):
                raise ConnectionError("the server closed the connection")
            data += more
        return data

    def request(self, opcode: int, data: bytes = b"", detail: int = 0) -> None:
        self.socket.sendall(request(opcode, data, detail))

    def sync(self) -> list[int]:
        """Wait until everything is done; gives the codes of errors."""
        self.request(43)  # GetInputFocus
        errors: list[int] = []
        while (packet := self.read(32))[0] != 1:
            if packet[0] == 0:
                errors.append(packet[1])
        return errors

    def fill(self, color: int, region: Region) -> None:
        self.request(56, struct.pack("<III", self.gc, 4, color))  # ChangeGC: foreground
        where = struct.pack("<hhHH", region.x, region.y, region.width, region.height)
        self.request(70, struct.pack("<II", self.root, self.gc) + where)  # PolyFillRectangle

    def put(self, pixels: bytes, region: Region) -> None:
        where = struct.pack("<HHhhBBH", region.width, region.height, region.x, region.y, 0, 24, 0)
        self.request(72, struct.pack("<II", self.root, self.gc) + where + pixels, detail=2)

    def pixmap(self, width: int, height: int) -> None:
        self.next_id += 1
        data = struct.pack("<IIHH", self.next_id, self.root, width, height)
        self.request(53, data, detail=24)  # CreatePixmap

    def grab_server(self) -> None:
        self.request(36)
        self.sync()

    def close(self) -> None:
        self.socket.close()


def request(opcode: int, data: bytes, detail: int = 0) -> bytes:
    return struct.pack("<BBH", opcode, detail, 1 + len(data) // 4) + data


def cookie_of(folders: Folders) -> bytes:
    return unpack_wild(folders.xauthority.read_bytes())


@dataclass
class Running:
    """A display that runs, as a test sees it."""

    displays: XvfbDisplays
    display: XvfbDisplay
    folders: Folders
    geometry: Geometry
    pid: int
    user: User

    async def again(self) -> XvfbDisplay:
        """What a daemon that was started anew does."""
        return await self.displays.connect(self.folders, self.geometry, soon())


def soon(seconds: float = 15.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@pytest.fixture(scope="module")
def launchers(module_dir: Path) -> Launchers:
    module_dir.chmod(0o755)
    return bare_launchers(module_dir / "launchers")


def bare_launchers(folder: Path) -> Launchers:
    """As on a host without a window manager: nobody draws but the test."""

    def find(name: str, configured: Path | None = None) -> Path | None:
        return None if name == "lwm" else find_tool(name, configured)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csb_mcp.host.launchers, "find_tool", find)
        made = Launchers(folder, load_settings(environ={"HOME": "/nowhere"}))
    made.install()
    return made


@pytest.fixture
def displays(launchers: Launchers) -> XvfbDisplays:
    return XvfbDisplays(launchers.path, find_tool("Xvfb"), None)


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(displays: XvfbDisplays, user: User) -> Start:
    """Runs a display as ``user`` for a block; its geometry and ``gl`` may be given."""
    return partial(running, displays, user)


@pytest.fixture
def folders(short_dir: Path) -> Folders:
    return Folders(short_dir, short_dir / "state")


@asynccontextmanager
async def running(
    displays: XvfbDisplays, user: User, geometry: Geometry = SMALL, *, gl: bool = False
) -> AsyncGenerator[Running]:
    runtime = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    os.chown(runtime, user.uid, user.gid)
    folders, error = Folders(runtime, runtime / "state"), runtime / "error"
    try:
        launch = await displays.prepare(folders, geometry, gl=gl)
        with started(user.command(*launch.argv), error) as process:
            try:
                display = await displays.connect(folders, geometry, soon())
            except DeadlineExceeded:
                pytest.fail(error.read_text())
            try:
                yield Running(displays, display, folders, geometry, process.pid, user)
            finally:
                await display.close()
    finally:
        shutil.rmtree(runtime)


@contextmanager
def started(argv: list[str], error: Path) -> Generator[subprocess.Popen[bytes]]:
    with error.open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env={})
    try:
        yield process
    finally:
        process.terminate()  # bwrap; the server dies with it
        process.wait(10)


@pytest.fixture
async def screen(start: Start) -> AsyncGenerator[Running]:
    async with start() as made:
        yield made


@pytest.fixture
def client(screen: Running) -> Iterator[Client]:
    made = Client(screen.folders)
    yield made
    made.close()


def part(frame: Frame, region: Region) -> bytes:
    size = frame.width, frame.height
    whole = Pillow.frombuffer("RGB", size, frame.pixels, "raw", "BGRX", frame.stride, 1)
    right, bottom = region.x + region.width, region.y + region.height
    return whole.crop((region.x, region.y, right, bottom)).tobytes()


async def eventually(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = soon(seconds)
    while not true():
        assert asyncio.get_running_loop().time() < deadline, "did not come true in time"
        await asyncio.sleep(0.02)


async def quiet(display: XvfbDisplay) -> int:
    """Wait until nothing was drawn for a while; gives the count of beats."""
    while True:
        count = display.damage.count
        try:
            async with asyncio.timeout(0.4):
                await display.damage.beyond(count)
        except TimeoutError:
            return count


# Pictures


async def test_a_picture_has_the_pixels_that_a_client_drew(screen: Running, client: Client) -> None:
    region = Region(3, 5, 64, 16)
    pixels = os.urandom(region.width * region.height * 4)
    client.put(pixels, region)
    client.sync()
    expected = Pillow.frombytes("RGB", (64, 16), pixels, "raw", "BGRX").tobytes()
    frame = await screen.display.capture()
    assert (frame.width, frame.height) == (640, 480)
    assert part(frame, region) == expected


async def test_a_frame_number_grows_exactly_when_the_picture_changed(
    screen: Running, client: Client
) -> None:
    first = await screen.display.capture()
    assert await screen.display.capture() is first
    client.fill(0x00FF00, Region(0, 0, 1, 1))
    client.sync()
    second = await screen.display.capture()
    assert second.number == first.number + 1
    await quiet(screen.display)
    client.fill(0x00FF00, Region(0, 0, 1, 1))  # the same again: drawn, not changed
    client.sync()
    assert await screen.display.capture() is second


async def test_many_captures_at_once_agree(screen: Running, client: Client) -> None:
    client.fill(0x123456, Region(0, 0, 50, 50))
    client.sync()
    frames = await asyncio.gather(*(screen.display.capture() for _ in range(10)))
    assert len({frame.number for frame in frames}) == 1


async def test_no_picture_is_torn(start: Start) -> None:
    # The right part is left out: the pointer stands there.
    left = Region(0, 0, 500, USUAL.height)
    async with start(USUAL) as screen:
        client = Client(screen.folders)
        with flood(client):
            seen: set[bytes] = set()
            for _ in range(200):
                pixels = part(await screen.display.capture(), left)
                assert pixels == pixels[:3] * (len(pixels) // 3)
                seen.add(pixels[:3])
        assert len(seen) > 20, "the client did not draw meanwhile"


@contextmanager
def flood(client: Client) -> Generator[None]:
    """Fill the whole screen again and again, as fast as the server can."""
    stop = threading.Event()
    colors = (
        request(56, struct.pack("<III", client.gc, 4, color * 0x010101))
        + request(70, struct.pack("<IIhhHH", client.root, client.gc, 0, 0, 1280, 800))
        for color in range(1, 250)
    )
    batch = b"".join(colors)

    def draw() -> None:
        with suppress(OSError):
            while not stop.is_set():
                client.socket.sendall(batch)
                client.sync()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        client.socket.shutdown(socket.SHUT_RDWR)
        client.close()
        thread.join()


async def test_a_grabbed_server_does_not_keep_a_picture_back(
    screen: Running, client: Client
) -> None:
    client.grab_server()
    took: list[float] = []
    for color in (1, 2, 3):
        client.fill(color, Region(0, 0, 20, 20))
        client.sync()
        before = time.perf_counter()
        frame = await screen.display.capture()
        took.append(time.perf_counter() - before)
        assert part(frame, Region(0, 0, 1, 1)) == bytes((0, 0, color))
    assert min(took) < 0.05  # 35 ms are its patience; others may have waited for a processor


async def test_a_screen_can_be_read_after_its_server_died(start: Start) -> None:
    async with start() as screen:
        Client(screen.folders).close()
        before = await screen.display.capture()
        os.kill(screen.pid, 9)
        await eventually(lambda: not connects(screen.folders))
        assert await screen.display.capture() is before


def connects(folders: Folders) -> bool:
    try:
        Client(folders).close()
    except OSError:
        return False
    return True


# Pictures as files


async def test_a_region_is_encoded_without_loss(screen: Running, client: Client) -> None:
    client.put(os.urandom(100 * 40 * 4), Region(200, 100, 100, 40))
    client.sync()
    frame = await screen.display.capture()
    region = Region(190, 95, 121, 51)
    for name in ("png", "webp"):
        image = await screen.display.encode(frame, region, max_width=1280, format=name)
        decoded = Pillow.open(io.BytesIO(image.data))
        assert decoded.format == name.upper()
        assert decoded.convert("RGB").tobytes() == part(frame, region)
        assert (image.width, image.height, image.scale, image.format) == (121, 51, 1.0, name)


async def test_xterm_shows_what_its_program_printed(start: Start) -> None:
    # The colours of 256 cells that a program paints, as they come out in the picture.
    cell = "printf '\\033[48;2;%d;%d;200m ' $((i % 16 * 16)) $((i / 16 * 16))"
    script = f"i=0; while [ $i -lt 256 ]; do {cell}; i=$((i + 1)); done; sleep 60"
    expected = {(i % 16 * 16, i // 16 * 16, 200) for i in range(256)}
    async with start() as screen:
        with inside(screen.folders, "xterm", "-fn", "fixed", "-e", "sh", "-c", script):
            async with asyncio.timeout(20):
                count = 0
                while not expected <= colors(await screen.display.capture()):
                    count = await screen.display.damage.beyond(count)


def colors(frame: Frame) -> set[tuple[int, int, int]]:
    pixels = part(frame, Region(0, 0, frame.width, frame.height))
    channels = pixels[0::3], pixels[1::3], pixels[2::3]
    return set(zip(*channels, strict=True))


@contextmanager
def inside(folders: Folders, *argv: str) -> Generator[None]:
    """Run a program as a payload sees its display: :0, by way of a bound folder."""
    bind = ["--tmpfs", "/tmp", "--ro-bind", str(folders.x11), "/tmp/.X11-unix"]
    env = {"DISPLAY": ":0", "XAUTHORITY": str(folders.xauthority), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        ["bwrap", "--dev-bind", "/", "/", *bind, "--die-with-parent", *argv],
        env=env,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


# Files that are not what they should be


def damaged(folders: Folders, change: Callable[[Path], object]) -> Path:
    """A copy of the framebuffer's folder, changed."""
    copy = folders.runtime / "copy"
    shutil.copytree(folders.framebuffer, copy)
    change(copy / "Xvfb_screen0")
    return copy


def garbled(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def linked(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [garbled, emptied, linked, piped, Path.unlink])
async def test_a_framebuffer_that_is_none_is_refused(
    screen: Running, change: Callable[[Path], object]
) -> None:
    with pytest.raises(DisplayFailed):
        Framebuffer(damaged(screen.folders, change), SMALL)


@pytest.mark.parametrize("size", [0, 50, 3232, 100_000])
async def test_a_framebuffer_that_is_cut_short_later_is_an_error(
    screen: Running, size: int
) -> None:
    await screen.display.capture()
    os.truncate(screen.folders.framebuffer / "Xvfb_screen0", size)
    with pytest.raises(DisplayFailed):
        await screen.display.capture()


async def test_a_header_that_changes_later_is_an_error(screen: Running) -> None:
    with (screen.folders.framebuffer / "Xvfb_screen0").open("r+b") as file:
        file.seek(16)
        file.write(struct.pack(">I", 60_000))  # pixmap_width
    with pytest.raises(DisplayFailed):
        await screen.display.capture()


async def test_another_geometry_is_refused(screen: Running) -> None:
    with pytest.raises(DisplayFailed, match="640x480"):
        Framebuffer(screen.folders.framebuffer, Geometry(640, 481))


async def test_a_closed_display_gives_no_picture(screen: Running) -> None:
    await screen.display.close()
    with pytest.raises(DisplayFailed):
        await screen.display.capture()


# Damage


async def test_drawing_beats_within_50_ms(screen: Running, client: Client) -> None:
    took: list[float] = []
    for color in range(5):
        count = await quiet(screen.display)
        before = time.perf_counter()
        client.fill(color, Region(0, 0, 9, 9))
        async with asyncio.timeout(5):
            await screen.display.damage.beyond(count)
        took.append(time.perf_counter() - before)
    assert sorted(took)[2] < 0.05


async def test_an_idle_screen_does_not_beat(screen: Running, client: Client) -> None:
    count = await quiet(screen.display)
    await asyncio.sleep(1.0)  # as long as four slow beats
    assert screen.display.damage.count == count


async def test_after_the_last_drawing_there_is_a_beat(screen: Running, client: Client) -> None:
    # Whoever captures after each beat, and only then, must end up with what is on the screen.
    await quiet(screen.display)
    seen = bytes(3)
    for color in range(1, 120):
        client.fill(color, Region(0, 0, 1, 1))
        if color % 10 == 0:
            await asyncio.sleep(0.003)
    while seen != bytes((0, 0, 119)):
        count = screen.display.damage.count
        seen = part(await screen.display.capture(), Region(0, 0, 1, 1))
        if seen != bytes((0, 0, 119)):
            async with asyncio.timeout(5):
                await screen.display.damage.beyond(count)


async def test_a_flood_of_drawing_is_not_a_flood_of_beats(start: Start) -> None:
    async with start(USUAL) as screen:
        with flood(Client(screen.folders)):
            count = screen.display.damage.count
            await asyncio.sleep(1.0)
            assert 5 < screen.display.damage.count - count < 130


async def test_damage_comes_back_after_our_client_was_killed(
    screen: Running, client: Client
) -> None:
    await quiet(screen.display)
    connection_id = client.gc & ~0x1FFFFF  # RESOURCE_ID_MASK of a server for 256 clients
    for other in range(1, 8):
        target = (connection_id & 0xF0000000) | other << 21
        if target != connection_id:
            client.request(113, struct.pack("<I", target))  # KillClient
    client.sync()
    await quiet(screen.display)
    count = screen.display.damage.count
    client.fill(5, Region(0, 0, 5, 5))
    async with asyncio.timeout(0.2):
        await screen.display.damage.beyond(count)


# Who may connect, and when


async def test_strangers_are_refused(start: Start, screen: Running) -> None:
    async with start() as other:
        for cookie in (b"", new_cookie(), cookie_of(other.folders)):
            with pytest.raises(PermissionError, match=r"uthorization|Invalid"):
                Client(screen.folders, cookie)
        Client(screen.folders).close()


async def test_we_notice_that_our_cookie_is_wrong(screen: Running) -> None:
    screen.folders.xauthority.write_bytes(b"")
    with pytest.raises(DisplayFailed):
        await screen.again()


async def test_a_display_has_no_abstract_socket(screen: Running) -> None:
    names = Path(f"/proc/{server_pid(screen)}/net/unix").read_text()
    assert "/tmp/.X11-unix/X0" in names
    assert "@/tmp/.X11-unix" not in names
    assert str(screen.folders.x11) not in Path("/proc/net/unix").read_text()
    assert len(Path(f"/proc/{server_pid(screen)}/net/dev").read_text().splitlines()) == 3  # lo


async def test_the_server_has_no_privilege(screen: Running) -> None:
    status = Path(f"/proc/{server_pid(screen)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(screen.user.uid)] * 4
    assert (fields["CapBnd"], fields["CapEff"]) == ("0" * 16,) * 2
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def server_pid(screen: Running) -> int:
    children = Path(f"/proc/{screen.pid}/task/{screen.pid}/children").read_text().split()
    return int(children[0])


async def test_a_running_display_is_adopted(screen: Running, client: Client) -> None:
    await screen.display.close()
    second = await screen.again()
    try:
        count = await quiet(second)
        client.fill(7, Region(0, 0, 5, 5))
        async with asyncio.timeout(2):
            await second.damage.beyond(count)
        assert part(await second.capture(), Region(0, 0, 1, 1)) == bytes((0, 0, 7))
    finally:
        await second.close()


async def test_a_grabbed_display_is_adopted_and_beats_slowly(
    screen: Running, client: Client
) -> None:
    client.grab_server()
    second = await screen.again()
    try:
        client.fill(8, Region(0, 0, 5, 5))
        async with asyncio.timeout(2):
            await second.damage.beyond(second.damage.count)
        assert part(await second.capture(), Region(0, 0, 1, 1)) == bytes((0, 0, 8))
        client.request(37)  # UngrabServer
        client.sync()
        await quiet(second)  # slow beats end
    finally:
        await second.close()


async def test_a_server_that_does_not_start_is_a_deadline(
    displays: XvfbDisplays, folders: Folders
) -> None:
    await displays.prepare(folders, SMALL, gl=False)
    with pytest.raises(DeadlineExceeded):
        await displays.connect(folders, SMALL, soon(0.2))


async def test_a_dead_server_is_not_adopted(start: Start) -> None:
    async with start() as screen:
        os.kill(screen.pid, 9)
        await eventually(lambda: not connects(screen.folders))
        with pytest.raises(DisplayFailed):
            await screen.again()


async def test_what_is_not_prepared_is_an_error(displays: XvfbDisplays, folders: Folders) -> None:
    with pytest.raises(DisplayFailed):
        await displays.connect(folders, SMALL, soon(0.2))
    folders.x11.mkdir()
    with pytest.raises(DisplayFailed):
        await displays.prepare(folders, SMALL, gl=False)


async def test_twenty_at_once_all_answer(start: Start) -> None:
    async def once() -> None:
        async with start() as screen:
            client = Client(screen.folders)
            color = screen.pid % 0xFFFFFF
            client.fill(color, Region(0, 0, 2, 2))
            client.sync()
            client.close()
            frame = await screen.display.capture()
            assert part(frame, Region(0, 0, 1, 1)) == color.to_bytes(3, "big")

    await asyncio.gather(*(once() for _ in range(20)))


# Limits


async def test_pixmaps_without_end_are_refused_to_the_one_that_asks(
    screen: Running, client: Client
) -> None:
    other = Client(screen.folders)
    for _ in range(100):
        client.pixmap(5000, 1049)  # 20 MiB each
    errors = client.sync()
    assert 50 < len(errors) < 100
    assert set(errors) == {11}  # BadAlloc
    other.fill(0xABCDEF, Region(0, 0, 5, 5))
    assert other.sync() == []
    assert part(await screen.display.capture(), Region(0, 0, 1, 1)) == bytes.fromhex("abcdef")
    other.close()


async def test_a_large_screen_works_within_the_limit(start: Start) -> None:
    async with start(Geometry(3840, 2160)) as screen:
        client = Client(screen.folders)
        for _ in range(3):
            client.pixmap(3840, 2160)
        client.fill(0x334455, Region(3830, 2150, 5, 5))
        assert client.sync() == []
        client.close()
        frame = await screen.display.capture()
        assert part(frame, Region(3831, 2151, 1, 1)) == bytes.fromhex("334455")
        whole = Region(0, 0, 3840, 2160)
        image = await screen.display.encode(frame, whole, max_width=1280, format="png")
        assert (image.width, image.height, image.scale) == (1280, 720, 1 / 3)


async def test_gl_is_there_if_asked_for(start: Start) -> None:
    for gl in (False, True):
        async with start(gl=gl) as screen:
            client = Client(screen.folders)
            client.request(98, struct.pack("<HHI", 3, 0, 0x00584C47))  # QueryExtension GLX
            reply = client.read(32)
            client.close()
            assert bool(reply[8]) is gl


# The launcher's command line


def test_the_launcher_names_what_is_wrong(launchers: Launchers) -> None:
    for args in (["--geometry", "1x"], ["--frobnicate"], ["--geometry"], []):
        result = subprocess.run(
            [launchers.path("display"), *args], capture_output=True, text=True, check=False
        )
        assert result.returncode == 2
        assert result.stderr.startswith("display: ")


async def test_the_launcher_shows_what_would_run(displays: XvfbDisplays, folders: Folders) -> None:
    launch = await displays.prepare(folders, SMALL, gl=False)
    shown = subprocess.run(
        [*launch.argv, "--print-args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert shown[0].endswith("bwrap")
    assert "--unshare-net" in shown
    assert shown[shown.index("-extension") + 1] == "MIT-SHM"
