import threading
from pathlib import Path

import pytest

from csb_mcp.host.log import START, read_log
from csb_mcp.model import LogPart


def shown(part: LogPart) -> tuple[bytes, int, int, bool]:
    return part.data, part.offset, part.next, part.gap


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """20 bytes were printed: the first 5 are gone, 5 are in log.1, 10 in log."""
    log = tmp_path / "log"
    log.write_bytes(b"klmnopqrst")
    (tmp_path / "log.1").write_bytes(b"fghij")
    (tmp_path / ("log" + START)).write_text("10\n")
    return log


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (10, 100, (b"klmnopqrst", 10, 20, False)),
        (8, 4, (b"ijkl", 8, 12, False)),
        (5, 3, (b"fgh", 5, 8, False)),
        (0, 3, (b"fgh", 5, 8, True)),
        (20, 9, (b"", 20, 20, False)),
        (99, 9, (b"", 20, 20, False)),
        (None, 4, (b"qrst", 16, 20, False)),
        (None, 12, (b"ijklmnopqrst", 8, 20, False)),
        (None, 100, (b"fghijklmnopqrst", 5, 20, False)),
    ],
)
def test_parts(
    log: Path, offset: int | None, limit: int, expected: tuple[bytes, int, int, bool]
) -> None:
    assert shown(read_log(log, offset, limit)) == expected


def test_what_was_never_rotated_begins_at_zero(tmp_path: Path) -> None:
    assert shown(read_log(tmp_path / "log", 0, 9)) == (b"", 0, 0, False)
    (tmp_path / "log").write_bytes(b"abc")
    assert shown(read_log(tmp_path / "log", None, 2)) == (b"bc", 1, 3, False)


@pytest.mark.parametrize("name", ["log", "log.1"])
def test_links_are_not_followed(log: Path, name: str) -> None:
    path = log.with_name(name)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        read_log(log, 0, 100)


def test_a_forged_note_harms_nobody(log: Path) -> None:
    log.with_name("log" + START).write_text("-5; rm -rf /")
    assert read_log(log, 0, 100).data in (b"fghijklmnopqrst", b"klmnopqrst")


def test_a_note_that_was_lost_gives_no_offset_below_zero(log: Path) -> None:
    log.with_name("log" + START).write_text("")  # what a full disk leaves of it
    part = read_log(log, None, 100)
    assert (part.offset, part.data) == (0, b"fghijklmnopqrst")


def test_following_through_rotations_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """The writer's own steps, in its order, while somebody reads on from where it was."""
    log, step, ended = tmp_path / "log", b"0123456789" * 100, threading.Event()

    def write() -> None:
        printed = 0
        for part in range(300):
            with log.open("ab") as file:
                file.write(step)
            printed += len(step)
            if part % 10 == 9:
                log.with_name("log.new").write_text(str(printed))
                log.rename(log.with_name("log.1"))
                log.with_name("log.new").rename(log.with_name("log" + START))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    read, offset, gaps = 0, 0, 0
    while not ended.is_set() or offset < 300 * len(step):
        part = read_log(log, offset, 4096)
        gaps += part.gap
        expected = step[part.offset % 10 :] + step * 5
        assert part.data == expected[: len(part.data)], (offset, part.offset)
        assert part.gap or part.offset == offset
        read, offset = read + len(part.data), part.next
    writer.join()
    assert gaps or read == 300 * len(step)
