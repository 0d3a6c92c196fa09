import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from csb_mcp.host.watcher import InotifyWatcher

PATHS = [".git/hooks", ".envrc", ".claude/settings.json"]


def plain(project: Path) -> str:
    (project / ".envrc").write_text("")
    return ".envrc"


def moved_in(project: Path) -> str:
    (project / "draft").write_text("")
    (project / "draft").rename(project / ".envrc")
    return ".envrc"


def nested(project: Path) -> str:
    (project / ".claude").mkdir()
    (project / ".claude/settings.json").write_text("{}")
    return ".claude/settings.json"


def nested_moved_in(project: Path) -> str:
    (project / "x").mkdir()
    (project / "x/settings.json").write_text("{}")
    (project / "x").rename(project / ".claude")
    return ".claude/settings.json"


def linked_parent(project: Path) -> str:
    (project / ".claude").symlink_to("/nowhere")
    return ".claude/settings.json"


def in_an_existing_folder(project: Path) -> str:
    (project / ".git/hooks").symlink_to("../x")
    return ".git/hooks"


@pytest.mark.parametrize(
    "make",
    [plain, moved_in, nested, nested_moved_in, linked_parent, in_an_existing_folder],
)
async def test_a_path_is_told_when_it_appears(tmp_path: Path, make: Callable[[Path], str]) -> None:
    (tmp_path / ".git").mkdir()
    watched = InotifyWatcher().appearing(tmp_path, PATHS)
    first = asyncio.ensure_future(anext(watched))
    done, _ = await asyncio.wait({first}, timeout=0.05)
    assert not done
    (tmp_path / "unrelated").write_text("")
    expected = make(tmp_path)
    assert await asyncio.wait_for(first, 5) == expected
    await watched.aclose()


async def test_what_exists_already_is_told_at_once_and_all_end_it(tmp_path: Path) -> None:
    for path in PATHS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    before = len(os.listdir("/proc/self/fd"))
    told = [path async for path in InotifyWatcher().appearing(tmp_path, PATHS)]
    assert told == sorted(PATHS)
    assert len(os.listdir("/proc/self/fd")) == before
