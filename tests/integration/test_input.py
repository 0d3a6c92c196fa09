"""Keyboard and mouse: on a bare X server, and on the desktop of a sandbox with real programs."""

import asyncio
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.config import load_settings
from csb_mcp.errors import CsbError, DeadlineExceeded, DisplayFailed, InvalidInput
from csb_mcp.host.display.input import Input
from csb_mcp.host.display.xvfb import XvfbDisplay, XvfbDisplays
from csb_mcp.host.launchers import Launchers, find_tool
from csb_mcp.lib.processes import descendants
from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Folders, Geometry, Point
from tests.conftest import User
from tests.integration.test_display import (
    Client,
    Running,
    bare_launchers,
    connects,
    eventually,
    running,
)
from tests.reaper import command_line
from tests.support.desktop import Desktop, desktop

pytestmark = pytest.mark.once  # an X server takes input the same way whoever runs it

TEXT = 'aB~é中😀ß{}|"日本'
BUTTON_1 = 1 << 8  # in the mask of modifiers and buttons
_random = random.Random(7)
MIXED = "".join(
    chr(_random.randrange(*_random.choice(ranges)))
    for ranges in [[(0x4E00, 0x9FA0), (0x21, 0x7F), (0x3B1, 0x3C9), (0x1F600, 0x1F640)]] * 300
)


@pytest.fixture(scope="module")
def launchers(module_dir: Path) -> Launchers:
    module_dir.chmod(0o755)
    made = Launchers(module_dir / "launchers", load_settings(environ={"HOME": "/nowhere"}))
    made.install()
    return made


@pytest.fixture
async def screen(launchers: Launchers, user: User) -> AsyncGenerator[Running]:
    displays = XvfbDisplays(launchers.path, find_tool("Xvfb"), find_tool("lwm"))
    async with running(displays, user) as made:
        yield made


@pytest.fixture
def client(screen: Running) -> Iterator[Client]:
    made = Client(screen.folders)
    yield made
    made.close()


def reply(client: Client) -> bytes:
    """The next reply, whole; events before it (of the keymap, that is) are left out."""
    while (packet := client.read(32))[0] != 1:
        assert packet[0] != 0, f"error {packet[1]}"
    return packet + client.read(struct.unpack_from("<I", packet, 4)[0] * 4)


def pointer(client: Client) -> tuple[int, int, int]:
    """Where it is, and the mask of what is held."""
    client.request(38, struct.pack("<I", client.root))  # QueryPointer
    x, y, mask = struct.unpack_from("<hh4xH", reply(client), 16)
    return x, y, mask


def keymap(client: Client) -> bytes:
    client.request(101, struct.pack("<BBxx", 8, 248))  # GetKeyboardMapping
    return reply(client)[32:]


def keys_down(client: Client) -> int:
    client.request(44)  # QueryKeymap
    return int.from_bytes(reply(client)[8:40], "little")


async def drag(display: XvfbDisplay | Input) -> None:
    await display.drag([Point(10, 10), Point(600, 10), Point(10, 400)], button="left")


# A bare X server


async def test_the_pointer_goes_where_it_is_told(screen: Running, client: Client) -> None:
    for at in (Point(0, 0), Point(639, 479), Point(17, 300)):
        await screen.display.click(at, button="left", count=1)
        assert pointer(client)[:2] == (at.x, at.y)
    await drag(screen.display)
    assert pointer(client) == (10, 400, 0)


@pytest.mark.parametrize(
    ("point", "field"),
    [(Point(-1, 0), "x"), (Point(640, 0), "x"), (Point(0, 480), "y"), (Point(0, -7), "y")],
)
async def test_what_is_off_the_screen_is_named(screen: Running, point: Point, field: str) -> None:
    here = Point(1, 1)
    for call in (
        screen.display.click(point, button="left", count=1),
        screen.display.scroll(point, 0, 1),
    ):
        with pytest.raises(InvalidInput) as caught:
            await call
        assert caught.value.field == field
    with pytest.raises(InvalidInput) as caught:
        await screen.display.drag([here, here, point], button="left")
    assert caught.value.field == "path[2]"


async def test_what_cannot_be_done_is_refused(screen: Running) -> None:
    display, here = screen.display, Point(5, 5)
    for call, field in (
        (display.click(here, button="fourth", count=1), "button"),
        (display.click(here, button="left", count=0), "count"),
        (display.click(here, button="left", count=4), "count"),
        (display.drag([here], button="left"), "path"),
        (display.drag([here] * 101, button="left"), "path"),
        (display.scroll(here, 0, 101), "dy"),
        (display.scroll(here, -101, 0), "dx"),
        (display.press(["a", "Retrun"]), "keys"),
        (display.type_text("a\x1b"), "text"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await call
        assert caught.value.field == field


async def test_a_grabbed_server_is_a_deadline(screen: Running, client: Client) -> None:
    client.grab_server()
    calls = (
        lambda: screen.display.press(["a"]),
        lambda: screen.display.type_text(TEXT),
        lambda: screen.display.click(Point(1, 1), button="left", count=1),
    )
    for call in calls:
        before = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await call()
        assert 1.5 < time.monotonic() - before < 8
        assert "grab" in str(caught.value)
    client.request(37)  # UngrabServer
    await screen.display.click(Point(2, 2), button="left", count=1)
    assert pointer(client) == (2, 2, 0)


async def test_a_grab_in_the_middle_leaves_nothing_pressed(screen: Running, client: Client) -> None:
    dragging = asyncio.create_task(drag(screen.display))
    await eventually(lambda: bool(pointer(client)[2] & BUTTON_1))
    client.grab_server()
    with pytest.raises(DeadlineExceeded):
        await dragging
    assert pointer(client)[2] & BUTTON_1
    client.request(37)  # UngrabServer
    await eventually(lambda: pointer(client)[2] == 0)


async def test_a_cancelled_drag_lets_go(screen: Running, client: Client) -> None:
    dragging = asyncio.create_task(drag(screen.display))
    await eventually(lambda: bool(pointer(client)[2] & BUTTON_1))
    dragging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dragging
    await eventually(lambda: pointer(client)[2] == 0)


async def test_lent_keys_are_given_back(screen: Running, client: Client) -> None:
    before = keymap(client)
    await screen.display.type_text(TEXT)
    assert (keymap(client), keys_down(client)) == (before, 0)
    typing = asyncio.create_task(screen.display.type_text(MIXED))
    await eventually(lambda: keymap(client) != before)
    typing.cancel()
    await asyncio.gather(typing, return_exceptions=True)
    await eventually(lambda: (keymap(client), keys_down(client)) == (before, 0))


async def test_calls_at_once_take_turns(screen: Running, client: Client) -> None:
    before = keymap(client)
    await asyncio.gather(
        *(screen.display.type_text(TEXT) for _ in range(2)),
        *(screen.display.press(["ctrl+shift+é"]) for _ in range(2)),
        drag(screen.display),
    )
    assert (keymap(client), keys_down(client), pointer(client)[2]) == (before, 0, 0)


async def test_a_server_that_died_is_said(screen: Running) -> None:
    os.kill(screen.pid, 9)
    await eventually(lambda: not connects(screen.folders))
    with pytest.raises(DisplayFailed):
        await screen.display.press(["a"])


# A server that the payload has taken over

SETUP = struct.pack("<BxHHH", 1, 11, 0, 100) + bytes(400)
ANSWERS = {
    "nothing": b"",
    "garbage": b"\xff" * 5000,
    "an endless set-up": struct.pack("<BxHHH", 1, 11, 0, 65535) + bytes(300_000),
    "a refusal": struct.pack("<BBHHH", 0, 4, 11, 0, 1) + b"nope",
    "a huge reply": SETUP + struct.pack("<BBHI24x", 1, 1, 0, 0xFFFFFFFF) + bytes(1_000_000),
    "an error": SETUP + bytes(32),
    "events without end": SETUP + bytes([34] + [0] * 31) * 100_000,
    "replies of zeros": SETUP + bytes([1, 1] + [0] * 30) * 50_000,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_a_hostile_server_is_an_error_in_time(short_dir: Path, answer: bytes) -> None:
    calls: tuple[Callable[[Input], Awaitable[None]], ...]
    calls = (lambda hands: hands.press(["é"]), lambda hands: hands.type_text(TEXT), drag)

    async def ends(call: Callable[[Input], Awaitable[None]]) -> None:
        hands = Input(short_dir, b"cookie", Geometry(640, 480), Pulse())
        before = time.monotonic()
        with suppress(CsbError):  # zeros may pass for a server that did as it was told
            await call(hands)
        assert time.monotonic() - before < 10
        await hands.close()

    with hostile(short_dir / "X0", answer):
        await asyncio.gather(*(ends(call) for call in calls))


@contextmanager
def hostile(path: Path, answer: bytes) -> Generator[None]:
    """Answers everything with the same."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(5)
    kept: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *given: socket.socket) -> None:
        threads.append(threading.Thread(target=work, args=given))
        threads[-1].start()

    def speak(connection: socket.socket) -> None:
        connection.settimeout(5)
        with suppress(OSError):
            connection.sendall(answer)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                kept.append(connection)
                start(speak, connection)

    start(serve)
    try:
        yield
    finally:
        for endpoint in (listener, *kept):
            with suppress(OSError):
                endpoint.shutdown(socket.SHUT_RDWR)
            endpoint.close()
        for thread in threads:  # the first is the one that starts the others
            thread.join()


# Programs on a desktop


@asynccontextmanager
async def browser(app: App, project: Path) -> AsyncGenerator[Desktop]:
    async with desktop(app, project) as made:
        await made.browse()
        yield made


async def test_a_form_is_filled_in_any_script(app: App, project: Path) -> None:
    async with browser(app, project) as made:
        display = made.display
        await display.click(made.place("line"), button="left", count=1)
        await display.type_text(TEXT)
        await made.until(lambda told: told["values"]["line"] == TEXT)
        await display.press(["ctrl+a", "BackSpace"])
        await made.until(lambda told: told["values"]["line"] == "")
        await display.type_text(MIXED)
        await made.until(lambda told: told["values"]["line"] == MIXED)
        await display.press(["Tab"])
        await display.type_text("one\ntwo é\n")
        await made.until(lambda told: told["values"]["area"] == "one\ntwo é\n")
        await display.press(["Home", "shift+Up", "Delete", "Up", "Z", "日"])
        await made.until(lambda told: told["values"]["area"] == "Z日one\n")


async def test_the_mouse_does_what_a_hand_does(app: App, project: Path) -> None:
    async with browser(app, project) as made:
        display = made.display
        await display.click(made.place("button"), button="left", count=1)
        await made.until(lambda told: told["clicks"] == 1)
        await display.drag([made.place("slider", 0.02), made.place("slider", 0.75)], button="left")
        # It may be read in the middle of the drag: only where it came to rest counts.
        await made.until(lambda told: 70 <= int(told["values"]["slider"]) <= 80)
        await stable(made)
        await made.until(lambda told: 70 <= int(told["values"]["slider"]) <= 80)
        await display.click(made.place("word", 0.3), button="left", count=2)
        await made.until(lambda told: told["selected"].strip() == "double")
        await made.until(lambda told: "dblclick0" in told["mouse"])
        await display.click(made.place("word"), button="middle", count=1)
        await display.click(made.place("word"), button="right", count=1)
        await made.until(lambda told: {"mouseup1", "mouseup2"} <= set(told["mouse"]))
        await display.scroll(Point(640, 600), 0, 5)
        await made.until(lambda told: told["y"] > 200)
        await display.scroll(Point(640, 600), 0, -100)
        await made.until(lambda told: told["y"] == 0)


async def test_menus_tabs_and_full_screen(app: App, project: Path) -> None:
    async with browser(app, project) as made:
        display = made.display
        await display.click(made.place("menu"), button="left", count=1)
        await stable(made)
        await display.press(["Down", "Down", "Return"])
        await made.until(lambda told: told["values"]["menu"] == "three")
        await display.press(["F11"])
        await made.until(lambda told: told["size"] == [1280, 800])
        await display.press(["F11"])
        await made.until(lambda told: told["size"] != [1280, 800])
        await display.press(["ctrl+t"])
        await made.until(lambda told: not told["focus"])
        await display.press(["ctrl+w"])
        await made.until(lambda told: told["focus"])


async def stable(made: Desktop) -> None:
    """Wait until nothing was drawn for a while."""
    async with asyncio.timeout(30):
        while True:
            count = made.display.damage.count
            try:
                async with asyncio.timeout(0.5):
                    await made.display.damage.beyond(count)
            except TimeoutError:
                return


async def xterm(made: Desktop, command: str, place: str = "60x10+300+200") -> tuple[int, int]:
    """Start an xterm; gives where its content is."""
    before = await windows(made)
    await made.start(f"LC_ALL=C.UTF-8 xterm -fn fixed -geometry {place} -e '{command}'")
    async with asyncio.timeout(20):
        while not (
            new := [at for window, at in (await windows(made)).items() if window not in before]
        ):
            await asyncio.sleep(0.05)
    await stable(made)
    return new[0]


async def windows(made: Desktop) -> dict[str, tuple[int, int]]:
    """The windows that the window manager knows, and where they are."""
    listed = await made.run(
        "for w in $(xprop -root _NET_CLIENT_LIST | grep -o '0x[0-9a-f]*');"
        " do echo $w $(xwininfo -id $w | sed -n 's/.*Absolute upper-left .: *//p'); done"
    )
    return {
        (words := line.split())[0]: (int(words[1]), int(words[2]))
        for line in listed.splitlines()
        if len(line.split()) == 3
    }


async def managed(made: Desktop) -> None:
    """Wait until the window manager is there."""
    async with asyncio.timeout(20):
        while "#" not in await made.run("xprop -root _NET_SUPPORTING_WM_CHECK"):
            await asyncio.sleep(0.05)


async def test_a_terminal_takes_any_script(app: App, project: Path) -> None:
    async with desktop(app, project) as made:
        await managed(made)
        x, y = await xterm(made, "cat >typed")
        await made.display.click(Point(x + 50, y + 50), button="left", count=1)
        await made.display.type_text(f"{TEXT}\n{MIXED}\n")
        await made.display.press(["Caps_Lock"])
        await made.display.type_text("aBcÄé1!\n")
        await made.display.press(["Caps_Lock", "ctrl+d"])
        expected = f"{TEXT}\n{MIXED}\naBcÄé1!\n"
        await eventually(lambda: (project / "typed").read_text() == expected, 20)


async def test_another_layout_makes_no_difference(app: App, project: Path) -> None:
    async with desktop(app, project) as made:
        await managed(made)
        await made.run("setxkbmap us,ru")
        x, y = await xterm(made, "cat >typed")
        await made.display.click(Point(x + 50, y + 50), button="left", count=1)
        await made.display.press(["ISO_Next_Group"])
        await made.display.type_text("Latin, жЖ, ё, 中\n")
        await eventually(lambda: (project / "typed").read_text() == "Latin, жЖ, ё, 中\n", 20)


async def test_windows_are_focused_moved_and_closed(app: App, project: Path) -> None:
    async with desktop(app, project) as made:
        await managed(made)
        display = made.display
        first = await xterm(made, "cat >first", "40x6+100+100")
        second = await xterm(made, "cat >second", "40x6+600+500")
        for (x, y), text in ((first, "to the first\n"), (second, "to the second\n")):
            await display.click(Point(x + 20, y + 20), button="left", count=1)
            await display.type_text(text)
        await eventually(lambda: (project / "second").read_text() == "to the second\n")
        assert (project / "first").read_text() == "to the first\n"
        bar = Point(first[0] + 100, first[1] - 10)
        await display.drag([bar, Point(bar.x + 200, bar.y + 150)], button="middle")
        moved = (first[0] + 200, first[1] + 150)
        async with asyncio.timeout(10):
            while set((await windows(made)).values()) != {moved, second}:
                await asyncio.sleep(0.05)
        await display.click(Point(moved[0] + 4, moved[1] - 11), button="left", count=1)
        async with asyncio.timeout(10):
            while set((await windows(made)).values()) != {second}:
                await asyncio.sleep(0.05)


async def test_no_click_starts_a_program(app: App, project: Path) -> None:
    async with desktop(app, project) as made:
        await managed(made)
        for button in ("left", "middle", "right"):
            await made.display.click(Point(900, 300), button=button, count=1)
        await stable(made)
        assert await windows(made) == {}


# The window manager beside the server


async def test_the_launcher_shows_the_window_manager_too(screen: Running) -> None:
    (screen.folders.runtime / "again").mkdir()
    folders = Folders(screen.folders.runtime / "again", screen.folders.state)
    launch = await screen.displays.prepare(folders, screen.geometry, gl=False)
    run = subprocess.run([*launch.argv, "--print-args"], capture_output=True, text=True, check=True)
    server, manager = run.stdout.split("\n\n")
    assert "lwm" not in server
    assert manager.splitlines()[-1].endswith("/lwm")
    assert str(folders.framebuffer) in server
    assert str(folders.framebuffer) not in manager


def of_display(screen: Running, program: str) -> list[int]:
    """Processes of the display that run a program."""
    pids = [screen.pid, *descendants(screen.pid)]
    return [pid for pid in pids if command_line(pid).split(" ")[0].endswith(program)]


def check_window(client: Client) -> int:
    """The window by which a window manager shows that it is there; 0 if none is."""
    name = b"_NET_SUPPORTING_WM_CHECK"
    client.request(16, struct.pack("<HH", len(name), 0) + name)  # InternAtom
    (atom,) = struct.unpack_from("<I", reply(client), 8)
    client.request(20, struct.pack("<IIIII", client.root, atom, 0, 0, 1))  # GetProperty
    value = reply(client)[32:]
    return struct.unpack("<I", value[:4])[0] if len(value) >= 4 else 0


async def test_a_window_manager_that_is_killed_comes_again(screen: Running, client: Client) -> None:
    await eventually(lambda: len(of_display(screen, "lwm")) == 1)
    await eventually(lambda: check_window(client) != 0)
    (before,) = of_display(screen, "lwm")
    client.request(113, struct.pack("<I", check_window(client)))  # KillClient
    client.sync()
    await eventually(lambda: of_display(screen, "lwm") not in ([], [before]))
    await screen.display.click(Point(4, 5), button="left", count=1)
    assert pointer(client) == (4, 5, 0)


async def test_a_window_manager_has_nothing_but_its_connection(screen: Running) -> None:
    await eventually(lambda: len(of_display(screen, "lwm")) == 1)
    (manager,), (server,) = of_display(screen, "lwm"), of_display(screen, "Xvfb")
    limits = Path(f"/proc/{manager}/limits").read_text()
    assert re.search(r"^Max processes +2 +2 ", limits, re.MULTILINE)
    status = Path(f"/proc/{manager}/status").read_text()
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    for kind in ("pid", "net", "mnt", "user", "ipc"):
        spaces = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (manager, server, "self")}
        assert len(spaces) == 3, kind


async def test_a_server_that_ends_ends_all(screen: Running) -> None:
    await eventually(lambda: len(of_display(screen, "lwm")) == 1)
    every = descendants(screen.pid)
    (server,) = of_display(screen, "Xvfb")
    os.kill(server, 9)
    await eventually(lambda: not any(alive(pid) for pid in [screen.pid, *every]))


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_a_display_works_without_a_window_manager(short_dir: Path, user: User) -> None:
    short_dir.chmod(0o755)
    displays = XvfbDisplays(bare_launchers(short_dir / "launchers").path, find_tool("Xvfb"), None)
    (problem,) = displays.problems()
    assert (problem.what, problem.fatal) == ("lwm", False)
    async with running(displays, user) as screen:
        client = Client(screen.folders)
        await screen.display.click(Point(7, 8), button="left", count=1)
        assert pointer(client) == (7, 8, 0)
        assert check_window(client) == 0
        client.close()


def test_tools_are_here() -> None:
    assert all(shutil.which(tool) for tool in ("lwm", "xterm", "xprop", "xwininfo", "chromium"))
