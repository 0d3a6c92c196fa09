"""The framebuffer's file without a server: what counts as a change, and huge pages below it."""

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from csb_mcp.errors import DisplayFailed
from csb_mcp.host.display.framebuffer import Framebuffer
from csb_mcp.host.display.hugepages import collapse
from csb_mcp.model import Geometry

GEOMETRY = Geometry(1280, 800)
START = 3232
SIZE = 1280 * 800 * 4
HUGE = 2 * 1024 * 1024


class Screen:
    """A file as Xvfb keeps it, full of noise."""

    def __init__(self, folder: Path) -> None:
        header = [100, 7, 2, 24, 1280, 800, 0, 0, 32, 0, 32, 32, 1280 * 4, *[0] * 6, 261, *[0] * 5]
        self.path = folder / "Xvfb_screen0"
        self.path.write_bytes(struct.pack(">25I", *header).ljust(START, b"\0") + os.urandom(SIZE))
        self.framebuffer = Framebuffer(folder, GEOMETRY)

    def draw(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(START + at)
            file.write(data)

    @property
    def pixels(self) -> bytes:
        return self.path.read_bytes()[START:]


@pytest.fixture
def screen(short_dir: Path) -> Iterator[Screen]:
    made = Screen(short_dir)
    yield made
    made.framebuffer.close()


def test_one_byte_anywhere_is_a_change_and_nothing_is_none(screen: Screen) -> None:
    look = screen.framebuffer.look
    before = look(whole=True)
    # Up, down, where it changed last, and at the ends of what is compared at once.
    for at in (SIZE - 1, SIZE - 1, 0, 131_071, 131_072, 0, 2_000_001, 2_000_002, SIZE - 1, 5):
        assert before
        screen.draw(at, bytes((before.pixels[at] ^ 1,)))
        after = look(whole=True)
        assert after
        assert (after.number, after.pixels) == (before.number + 1, screen.pixels)
        assert look(whole=True) is after
        assert look() is after
        before = after


def test_a_change_is_whole_once_two_looks_agree(screen: Screen) -> None:
    first = screen.framebuffer.look(whole=True)
    assert first
    for at in (9, 3_000_000):
        screen.draw(at, bytes((first.pixels[at] ^ 255,)))
        assert screen.framebuffer.look() is None
    second = screen.framebuffer.look()
    assert second
    assert second.pixels == screen.pixels


def test_a_frame_stays_as_it_was_when_the_screen_goes_on(screen: Screen) -> None:
    first = screen.framebuffer.look(whole=True)
    was = screen.pixels
    screen.draw(0, bytes(SIZE))
    second = screen.framebuffer.look(whole=True)
    screen.framebuffer.speed_up()
    assert first
    assert second
    assert first.pixels == was
    assert second.pixels == bytes(SIZE)


def test_it_is_sped_up_after_some_looks_once_and_shows_the_same(screen: Screen) -> None:
    framebuffer = screen.framebuffer
    seen = [framebuffer.look(whole=True)]
    while not framebuffer.speed_up_due:
        assert len(seen) < 10
        seen.append(framebuffer.look(whole=True))
    framebuffer.speed_up()
    assert framebuffer.speed_up_due is False
    assert framebuffer.look(whole=True) is seen[0]
    screen.draw(77, b"new")
    after = framebuffer.look(whole=True)
    assert after
    assert after.pixels == screen.pixels


def test_a_file_that_cannot_be_sped_up_is_tried_ever_less_often(screen: Screen) -> None:
    framebuffer, tries = screen.framebuffer, 0
    os.truncate(screen.path, START)
    os.truncate(screen.path, START + SIZE)  # one hole
    for _ in range(100):
        framebuffer.look(whole=True)
        if framebuffer.speed_up_due:
            framebuffer.speed_up()
            tries += 1
    assert 3 <= tries <= 6


def test_a_closed_one_is_not_sped_up(screen: Screen) -> None:
    screen.framebuffer.close()
    screen.framebuffer.speed_up()
    with pytest.raises(DisplayFailed):
        screen.framebuffer.look()


# Huge pages


@pytest.fixture
def file(short_dir: Path) -> Iterator[int]:
    """On a tmpfs, as a runtime folder is."""
    fd = os.open(short_dir / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def able() -> bool:
    """Whether this kernel has MADV_COLLAPSE."""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return release >= (6, 1) and Path("/sys/kernel/mm/transparent_hugepage").exists()


def test_a_full_file_moves_and_reads_the_same(file: int) -> None:
    data = os.urandom(START + SIZE)
    os.write(file, data)
    assert collapse(file, len(data)) is able()
    assert os.pread(file, len(data) + 1, 0) == data
    if able():
        assert os.fstat(file).st_blocks * 512 == 2 * HUGE


@pytest.mark.parametrize("size", [0, 100, HUGE // 2, HUGE * 3 // 4])
def test_a_file_is_not_blown_up(file: int, size: int) -> None:
    os.write(file, os.urandom(size))
    before = os.fstat(file).st_blocks
    assert collapse(file, size) is False
    assert os.fstat(file).st_blocks == before


def test_holes_are_not_filled(file: int) -> None:
    os.truncate(file, SIZE)
    os.pwrite(file, os.urandom(SIZE // 2), 0)
    before = os.fstat(file).st_blocks
    assert collapse(file, SIZE) is False
    assert os.fstat(file).st_blocks == before


def test_only_what_was_asked_for_moves(file: int) -> None:
    os.write(file, os.urandom(HUGE) + os.urandom(HUGE // 2))  # somebody made it longer
    before = os.fstat(file).st_blocks
    assert collapse(file, HUGE) is able()
    assert os.fstat(file).st_blocks == before


def test_whoever_cuts_it_short_meanwhile_does_no_harm(file: int) -> None:
    data, stop = os.urandom(SIZE), threading.Event()

    def cut() -> None:
        while not stop.is_set():
            os.truncate(file, 5000)
            os.pwrite(file, data, 0)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        for _ in range(20):
            collapse(file, SIZE)
    finally:
        stop.set()
        thread.join()
    assert os.pread(file, SIZE, 0) == data


def test_a_file_that_is_not_there_is_no_error() -> None:
    assert collapse(-1, SIZE) is False
