"""The spool of hooks, filled by somebody hostile, in a real folder."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csb_mcp.host import spool as module
from csb_mcp.host.spool import HomeSpool, InotifySpools
from csb_mcp.lib.safe_open import open_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "home/.csb/spool"
    made.mkdir(parents=True)
    return made


@pytest.fixture
async def spool(tmp_path: Path, folder: Path) -> AsyncIterator[HomeSpool]:
    assert folder.is_dir()
    home = open_folder(tmp_path / "home")
    opened = InotifySpools().open(home, ".csb/spool")
    os.close(home)
    yield opened
    opened.close()
    opened.close()


async def test_files_are_read_once_in_order_and_removed(spool: HomeSpool, folder: Path) -> None:
    for name in ("2", "1", "3"):
        (folder / name).write_text(name)
    assert await spool.take() == ([b"1", b"2", b"3"], False)
    assert await spool.take() == ([], False)
    assert list(folder.iterdir()) == []


async def test_whoever_waits_is_woken_at_once(spool: HomeSpool, folder: Path) -> None:
    await spool.take()
    took: list[float] = []
    for number in range(7):
        seen = spool.news.count
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        (folder / f".{number}").write_text("x")
        (folder / f".{number}").rename(folder / f"{number}")
        await asyncio.wait_for(spool.news.beyond(seen), 5)
        found, _ = await spool.take()
        while not found:  # it was woken by the first of both names
            found, _ = await spool.take()
            await asyncio.sleep(0)
        took.append(time.perf_counter() - began)
    assert sorted(took)[3] < 0.02


async def test_hostile_things_are_passed_over(spool: HomeSpool, folder: Path) -> None:
    secret = folder.parent.parent.parent / "secret"
    secret.write_text("mine")
    (folder / "1-link").symlink_to(secret)
    os.mkfifo(folder / "2-fifo")
    (folder / "3-folder").mkdir()
    (folder / "4-full").mkdir()
    (folder / "4-full/x").touch()
    with (folder / "5-sparse").open("wb") as file:
        file.truncate(1 << 40)
    os.link(secret, folder / "6-hard")
    (folder / "7-good").write_text("good")
    (folder / ".8-hidden").write_text("never")
    async with asyncio.timeout(5):
        assert await spool.take() == ([b"mine", b"good"], False)  # a hard link is a file like any
    assert secret.read_text() == "mine"
    assert [path.name for path in folder.iterdir()] == ["4-full"]


async def test_a_flood_is_drained_newest_first(
    spool: HomeSpool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LISTED", 500)
    for number in range(1200):
        (folder / f"{number:06d}").write_text(str(number))
    found, flood = await spool.take()
    assert (len(found), flood) == (128, True)
    assert len(list(folder.iterdir())) == 700
    for _ in range(3):
        await spool.take()
    assert list(folder.iterdir()) == []


async def test_a_link_in_its_place_is_not_followed(spool: HomeSpool, folder: Path) -> None:
    other = folder.parent.parent.parent / "other"
    other.mkdir()
    (other / "precious").write_text("x")
    folder.rmdir()
    folder.symlink_to(other)
    assert await spool.take() == ((), False)
    folder.unlink()
    folder.parent.rmdir()
    folder.parent.symlink_to(other.parent)
    assert await spool.take() == ((), False)
    assert (other / "precious").read_text() == "x"


async def test_a_folder_that_was_replaced_is_watched_again(spool: HomeSpool, folder: Path) -> None:
    await spool.take()
    folder.rename(folder.parent / "old")
    folder.mkdir()
    assert await spool.take() == ([], False)
    seen = spool.news.count
    (folder / "1").write_text("new")
    await asyncio.wait_for(spool.news.beyond(seen), 5)
    assert await spool.take() == ([b"new"], False)
