"""Leaves that are too small for a file each: pulse, safe_open, processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csb_mcp.lib import processes
from csb_mcp.lib.changed import changed_below
from csb_mcp.lib.pulse import Pulse
from csb_mcp.lib.safe_open import exists_in_root, open_folder, open_regular, read_regular, tail


async def test_a_pulse_wakes_all_who_wait_and_keeps_nothing_for_the_late() -> None:
    pulse = Pulse()
    waits = [asyncio.create_task(pulse.beyond(0)) for _ in range(3)]
    await asyncio.sleep(0)
    pulse.beat()
    pulse.beat()
    assert await asyncio.gather(*waits) == [2, 2, 2]
    assert await pulse.beyond(1) == 2
    late = asyncio.create_task(pulse.beyond(2))
    done, _ = await asyncio.wait({late}, timeout=0.02)
    assert not done
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert not pulse._waiters  # pyright: ignore[reportPrivateUsage]


def test_regular_files_beneath_the_root_are_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"0123456789")
    assert read_regular(tmp_path, "d/f", 4) == b"0123"
    assert tail(tmp_path / "d", "f", 4) == b"6789"


@pytest.mark.parametrize(
    "path", ["link", "out", "dir/../../x", "/etc/passwd", "fifo", "dir", "up/f"]
)
def test_links_ways_out_and_other_kinds_are_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir/f").write_text("x")
    (tmp_path / "x").write_text("secret")
    (root / "link").symlink_to("dir/f")
    (root / "up").symlink_to("dir")
    (root / "out").symlink_to(tmp_path / "x")
    os.mkfifo(root / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        open_regular(root, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_behind_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "real/in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    os.close(open_folder(tmp_path / "real/in"))
    for bad in (tmp_path / "link", tmp_path / "link/in"):
        with pytest.raises(OSError):
            open_folder(bad)


def test_links_stay_in_the_root_when_looking_in(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/inside").write_text("")
    (root / "abs").symlink_to("/etc/inside")
    (root / "host").symlink_to("/etc/passwd")
    (root / "climb").symlink_to("../../../../../../../etc/passwd")
    fd = os.open(root, os.O_PATH)
    try:
        assert exists_in_root(fd, "/etc/inside")
        assert exists_in_root(fd, "abs")
        assert not exists_in_root(fd, "host")
        assert not exists_in_root(fd, "climb")
    finally:
        os.close(fd)


async def test_a_handle_sees_the_end_and_never_hits_a_stranger() -> None:
    child = subprocess.Popen(["sleep", "100"])
    handle = processes.ProcessHandle(child.pid)
    assert handle.alive()
    assert child.pid in processes.children(os.getpid())
    handle.kill(signal.SIGTERM)
    await asyncio.wait_for(handle.wait(), 5)
    assert not handle.alive()
    child.wait()
    handle.kill()  # the pid may be somebody else's by now; the descriptor is not
    handle.close()
    handle.close()
    with pytest.raises(ProcessLookupError):
        processes.ProcessHandle(child.pid)


async def test_end_all_waits_then_kills() -> None:
    stubborn = subprocess.Popen(
        ["bash", "-c", "trap '' TERM; echo; while :; do sleep 1; done"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    tree = processes.hold([stubborn.pid, *processes.descendants(stubborn.pid), 2**22])
    for handle in tree:
        handle.kill(signal.SIGTERM)
    began = asyncio.get_running_loop().time()
    await processes.end_all(tree, began + 0.2)
    assert not any(handle.alive() for handle in tree)
    assert asyncio.get_running_loop().time() - began < 4
    for handle in tree:
        handle.close()
    stubborn.wait()
    stubborn.stdout.close()


def test_the_listener_of_a_socket_is_known(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        with pytest.raises(OSError):
            processes.peer_pid(path)
        server.listen()
        assert processes.peer_pid(path) == os.getpid()
    with pytest.raises(OSError):
        processes.peer_pid(path)


def test_fields_of_a_process_whatever_it_calls_itself() -> None:
    fields = processes.stat_fields(os.getpid())
    assert fields
    assert (fields[0], int(fields[1])) == ("R", os.getppid())
    assert processes.stat_fields(2**22) is None


def test_ignored_signals_act_again_in_what_we_start() -> None:
    script = (
        "import signal, subprocess; from csb_mcp.lib.processes import default_signals;"
        "default_signals();"
        "subprocess.run(['grep', 'SigIgn', '/proc/self/status'])"
    )
    ignoring = ["bash", "-c", 'trap "" INT QUIT HUP; exec "$@"', "bash"]
    shown = subprocess.run(
        [*ignoring, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(shown.stdout.split()[1], 16) & 0b111 == 0


def test_whether_a_tree_changed_is_seen_in_a_bounded_look(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a/b").mkdir(parents=True)
    outside.mkdir()
    (root / "a/b/deep").touch()
    (root / "out").symlink_to(outside)
    os.mkfifo(root / "fifo")
    time.sleep(0.02)  # the clock of file systems ticks slowly
    since = time.time()
    (outside / "new").touch()
    assert not changed_below(root, since, 100)
    time.sleep(0.02)  # as above
    (root / "a/b/deep").write_text("x")
    os.utime(root / "a/b/deep", (1, 1))  # whoever sets times back hides nothing
    assert changed_below(root, since, 100)
    assert not changed_below(root, since, 3)
    assert not changed_below(root, time.time() + 1, 100)
    (root / "a/b/new").touch()
    assert changed_below(root, since, 100)
    assert not changed_below(root / "missing", since, 100)
