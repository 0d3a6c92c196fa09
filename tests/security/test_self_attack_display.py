"""The table notices each protection of the X server's box, and of the window manager's, missing."""

import os
from pathlib import Path

import pytest

from csb_mcp.model import Outcome
from tests.support.attacked import Edit, alter, attack, broken, display, repository, row
from tests.support.launched import Host, launched

pytestmark = pytest.mark.once

BOTH = "display-server window-manager"


def cut(text: str, new: str = "") -> Edit:
    return "display.sh", text, new


ALTERED: dict[str, tuple[str, list[Edit]]] = {
    "nothing": ("", []),
    "ipc namespace": (BOTH, [cut("--unshare-ipc ")]),
    "uts namespace": (BOTH, [cut("--unshare-uts "), cut("--hostname display ")]),
    "cgroup namespace": (BOTH, [cut(" --unshare-cgroup-try")]),
    "network namespace": (BOTH, [cut("--unshare-net ")]),
    "pid namespace": (BOTH, [cut("--unshare-pid --as-pid-1 ")]),
    "the filter": (BOTH, [cut(" --seccomp 7")]),
    "no environment": (BOTH, [("common.sh", "exec -c ", "exec ")]),
    "arguments by descriptor": (BOTH, [("common.sh", '--args 8 -- "$@"', '"${_args[@]}" -- "$@"')]),
    "the root is read-only": (BOTH, [cut("--remount-ro / ")]),
    "files of the host": (
        BOTH,
        [cut("root_args box\n", "root_args box\nbox+=(--ro-bind /var /var)\n")],
    ),
    "no core files": ("display-server", [cut("ulimit -c 0\n")]),
    "a bound of memory": ("display-server", [cut('ulimit -v "$limit" 2>/dev/null || :')]),
    "the manager's bound of memory": (
        "window-manager",
        [cut("  ulimit -v 131072 2>/dev/null || :\n")],
    ),
    "the manager starts no program": (
        "window-manager",
        [cut("(ulimit -u 2) 2>/dev/null && ulimit -u 2 || ulimit -p 2 || exit; n=0;", "n=0;")],
    ),
    "the manager writes no socket": (
        "window-manager",
        [
            cut(
                '--ro-bind "$x11" /tmp/.X11-unix --ro-bind',
                '--bind "$x11" /tmp/.X11-unix --ro-bind',
            )
        ],
    ),
    "the server's key is read-only": (
        "display-server",
        [
            cut(
                '  --ro-bind "$xauthority" /run/xauthority\n  --remount',
                '  --bind "$xauthority" /run/xauthority\n  --remount',
            )
        ],
    ),
    "a key": ("display-key", [cut("-auth /run/xauthority\n", "-ac\n")]),
    "no abstract socket": ("display-server", [cut("-nolisten local ")]),
    "no network's socket": ("display-server", [cut("-nolisten tcp", "-listen tcp")]),
    "open files": (
        BOTH,
        [
            cut("close_others 6 7\n"),
            cut("  close_others 7\n"),
            cut("ulimit -c 0\n", "ulimit -c 0\nexec 5</var\n"),
        ],
    ),
}


@pytest.mark.parametrize("name", ALTERED)
async def test_each_protection_is_missed(
    name: str, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, edits = ALTERED[name]
    alter(monkeypatch, short_dir, edits)
    host = Host.make(short_dir, os.getuid())
    project = repository(short_dir, os.getuid())
    async with launched(host, project) as box, display(host, box):
        table = await attack(box, project, env={})
    said = broken(table)
    assert set(rows.split()) <= set(said) if rows else said == {}, said
    if not rows:
        assert all(
            row(table, name).outcome is Outcome.HELD for name in (*BOTH.split(), "display-key")
        )
