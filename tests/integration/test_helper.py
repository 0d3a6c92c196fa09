"""Commands inside through the real helper in the real sandbox, hostile payloads included."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from csb_mcp.errors import DeadlineExceeded, HelperFailed, InvalidInput, SandboxEnded
from tests.conftest import User
from tests.support.launched import DEADLINE, Host, Launched, launched

pytestmark = pytest.mark.once


@pytest.fixture
def host(short_dir: Path, user: User) -> Host:
    return Host.make(short_dir, user.uid)


@pytest.fixture
def project(host: Host, user: User) -> Path:
    path = host.base / "app"
    path.mkdir()
    os.chown(path, user.uid, user.gid)
    return path


@pytest.fixture
async def box(host: Host, project: Path) -> AsyncIterator[Launched]:
    async with launched(host, project) as box:
        yield box


async def gone(box: Launched, pattern: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while await box.out(f"pgrep -fc '^{pattern}' || true") != "0":
            await asyncio.sleep(0.01)


async def test_output_status_and_folder(box: Launched, project: Path) -> None:
    result = await box.sh("pwd; echo wrong >&2; exit 7")
    assert (result.exit_code, result.stdout, result.stderr) == (7, f"{project}\n", "wrong\n")
    assert not result.truncated
    assert not result.timed_out


async def test_death_by_signal(box: Launched) -> None:
    assert (await box.sh("kill -9 $$")).exit_code == 128 + 9


async def test_signals_have_their_usual_meaning(box: Launched) -> None:
    ignored = await box.out("grep SigIgn /proc/self/status")
    # Below 32: what is ignored above was so before us (a C library keeps 32 and 33 to itself).
    assert int(ignored.split()[1], 16) & (1 << 31) - 1 == 0
    assert (await box.sh("kill -INT $$; sleep 9")).exit_code == 128 + 2
    await box.until_printed("$ ")
    box.type("""awk '/SigIgn/ { print "is=" substr($2, 10) }' /proc/self/status\n""")
    await box.until_printed("is=0000000\r\n")


async def test_no_request_is_lost_when_it_comes_as_a_look_around_ends(
    host: Host, project: Path
) -> None:
    """The helper looks around every two seconds; its bash may stop in the middle of a line then."""
    async with AsyncExitStack() as stack:
        starts = [launched(host, project, name=f"box{i}") for i in range(10)]
        boxes = [await stack.enter_async_context(start) for start in starts]

        async def again_after(box: Launched, seconds: float) -> None:
            loop = asyncio.get_running_loop()
            for _ in range(3):
                read = loop.time()  # the helper's two seconds begin anew when it has read a line
                await box.out("true")
                await asyncio.sleep(read + seconds - loop.time())
                await box.out("true")

        await asyncio.gather(*(again_after(box, 2 + 0.0006 * i) for i, box in enumerate(boxes)))


async def test_an_end_while_the_helper_stood_still_is_told_truly(box: Launched) -> None:
    """Its time to look around is over by then, and the payload is gone: it was not killed."""
    assert box.helper
    await box.until_printed("$ ")
    os.kill(box.helper.init_pid, signal.SIGSTOP)
    box.type("exit 7\n")
    await asyncio.sleep(2.5)  # longer than the helper's two seconds
    os.kill(box.helper.init_pid, signal.SIGCONT)
    assert await box.ended() == 7


async def test_stdin_and_its_end(box: Launched) -> None:
    assert (await box.sh("wc -c", stdin=b"x" * 300_000)).stdout.strip() == "300000"
    assert (await box.sh("cat")).stdout == ""


async def test_chosen_folder(box: Launched) -> None:
    assert (await box.sh("pwd", cwd="/usr/bin")).stdout == "/usr/bin\n"
    with pytest.raises(HelperFailed) as caught:
        await box.sh("pwd", cwd="/nowhere")
    assert caught.value.field == "cwd"


async def test_quotes_newlines_and_bytes(box: Launched) -> None:
    assert (await box.sh("printf '%s' \"a'b\n\\$c\"")).stdout == "a'b\n$c"
    assert (await box.sh(r"printf '\xff\xc3\xa9'")).stdout == "\ufffdé"


async def test_much_output_is_cut_and_drained(box: Launched) -> None:
    result = await box.sh("head -c 20000000 /dev/zero; echo end >&2", max_output=1000)
    assert len(result.stdout) == 1000
    assert result.truncated
    assert (result.exit_code, result.stderr) == (0, "end\n")


async def test_many_at_once(box: Launched) -> None:
    results = await asyncio.gather(*(box.sh(f"sleep 0.1; echo {i}") for i in range(40)))
    assert [int(result.stdout) for result in results] == list(range(40))


async def test_background_children_that_hold_the_pipe_are_not_waited_for(box: Launched) -> None:
    began = time.monotonic()
    assert (await box.sh("sleep 60 & echo done")).stdout == "done\n"
    assert time.monotonic() - began < 5


async def test_closed_streams(box: Launched) -> None:
    assert (await box.sh("exec >&- 2>&-; sleep 0.2; exit 3")).exit_code == 3


async def test_timeout_kills_the_group(box: Launched) -> None:
    result = await box.sh("echo before; sleep 61 & sleep 62", timeout=0.5)
    assert result.timed_out
    assert result.exit_code == 128 + 9
    assert result.stdout == "before\n"
    await gone(box, "sleep 6[12]")


async def test_cancelling_kills_the_group(box: Launched) -> None:
    task = asyncio.create_task(box.sh("sleep 63"))
    async with asyncio.timeout(DEADLINE):
        while await box.out("pgrep -fc '^sleep 63' || true") == "0":
            await asyncio.sleep(0.01)
        task.cancel()
    await gone(box, "sleep 63")
    assert task.cancelled()


async def test_background_command(box: Launched) -> None:
    assert box.helper
    started = await box.helper.start("echo out; echo err >&2; sleep 64", cwd="/usr")
    async with asyncio.timeout(DEADLINE):
        while await box.out(f"cat {started.stdout_path} {started.stderr_path}") != "out\nerr":
            await asyncio.sleep(0.01)
    assert await box.out(f"ps -o args= -p {started.pid}") != ""
    with pytest.raises(HelperFailed):
        await box.helper.start("true", cwd="/nowhere")


async def test_nothing_of_a_request_is_left(box: Launched) -> None:
    await box.sh("true")
    assert os.listdir(box.folders.exec) == []


async def test_refused_commands(box: Launched) -> None:
    for bad in ("a\0b", "x" * 100_001, "\ud800"):
        with pytest.raises(InvalidInput) as caught:
            await box.sh(bad)
        assert caught.value.field == "command"
    assert (await box.sh("true " + "x" * 99_000)).exit_code == 0


async def test_the_helper_outlives_a_payload_that_kills_all(box: Launched) -> None:
    """The command's keeper dies with it: a typed error at once, not a wait."""
    began = time.monotonic()
    with pytest.raises(HelperFailed):
        await box.sh("kill -9 -1")
    assert time.monotonic() - began < 5
    # The payload itself is gone too, so the sandbox ends.
    assert await box.ended() == 128 + 9


async def test_the_end_of_the_sandbox_ends_a_run(box: Launched) -> None:
    task = asyncio.create_task(box.sh("sleep 65"))
    await box.out("true")
    box.type("exit 5\n")
    with pytest.raises((SandboxEnded, HelperFailed)):
        await task
    assert await box.ended() == 5
    with pytest.raises(SandboxEnded):
        await box.sh("true")


async def test_orphans_are_reaped(box: Launched) -> None:
    await box.out("for i in 1 2 3; do (setsid true &) ; done")
    async with asyncio.timeout(DEADLINE):
        while await box.out("ps -eo stat= | grep -c ^Z || true") != "0":
            await asyncio.sleep(0.02)


HOG = """
use POSIX;
my @children;
while (defined(my $pid = fork())) { if (!$pid) { sleep 600; exit } push @children, $pid }
print "full\\n"; <STDIN>;
kill 9, @children; 1 while wait() > 0;
print "empty\\n"; <STDIN>; POSIX::_exit(4);
"""


@pytest.mark.parametrize("spare", [0, 1])
async def test_no_process_left_to_give(host: Host, project: Path, spare: int) -> None:
    """fork fails, in the helper or in a command's keeper: a typed answer; then it serves again."""
    hog = ("perl", "-e", HOG.replace("<STDIN>;", "kill 9, pop @children;" * spare + "<STDIN>;", 1))
    async with launched(host, project, command=hog, extra=("--pids", "24")) as box:
        await box.until_printed("full")
        for _ in range(2 - spare):  # each takes two seconds: so long bash goes on trying
            with pytest.raises(HelperFailed, match="no process left"):
                await box.sh("true")
        box.type("\n")
        await box.until_printed("empty")
        assert await box.out("echo again") == "again"
        box.type("\n")
        assert await box.ended() == 4


async def test_signals_do_not_end_the_helper(box: Launched) -> None:
    await box.out(
        "kill -HUP 1; kill -INT 1; kill -QUIT 1; kill -TERM 1; kill -USR1 1; kill -PIPE 1"
    )
    assert await box.out("echo here") == "here"


async def test_lies_and_garbage_are_survived(box: Launched) -> None:
    """The payload may write to the helper's own descriptors: only its own results suffer."""
    noise = await box.sh(
        "for i in $(seq 500); do printf 'exit x%s 0\\nfailed\\n\\377\\n' $i >/proc/1/fd/4; done;"
        "head -c 5000 /dev/zero >/proc/1/fd/4; echo >/proc/1/fd/4; printf 'zzz\\n' >/proc/1/fd/3"
    )
    assert noise.exit_code == 0, noise
    assert await box.out("echo fine") == "fine"


@pytest.mark.parametrize(
    "line", ["a\\n", "pong a\\n", "started $id 7\\n", "x"], ids=["lie", "pong", "again", "endless"]
)
async def test_a_flood_is_cut_off(box: Launched, line: str) -> None:
    flood = f'id=$(ls /run/csb/exec); yes "$(printf \'%0200d\' 0 | sed "s/0/{line}/g")"'
    if line == "x":
        flood = "cat /dev/zero"
    with pytest.raises(HelperFailed, match="flood"):
        await box.sh(f"{flood} >/proc/1/fd/4", timeout=20)


async def test_a_second_daemon_takes_over(host: Host, box: Launched) -> None:
    assert box.helper
    box.helper.close()
    deadline = asyncio.get_running_loop().time() + DEADLINE
    box.helper = await host.backend.connect(box.folders, box.process.pid, deadline)
    assert await box.out("echo adopted") == "adopted"


async def test_a_refusal_is_told(host: Host, project: Path) -> None:
    (project / ".vscode").symlink_to("/etc")
    with pytest.raises(HelperFailed, match=r"\.vscode is a symbolic link"):
        async with launched(host, project):
            pass


async def test_no_answer_by_the_deadline(host: Host, box: Launched) -> None:
    assert box.helper
    os.kill(box.helper.init_pid, 19)  # SIGSTOP
    try:
        deadline = asyncio.get_running_loop().time() + 0.3
        with pytest.raises(DeadlineExceeded):
            await host.backend.connect(box.folders, box.process.pid, deadline)
    finally:
        os.kill(box.helper.init_pid, 18)


async def test_looking_in_from_outside(box: Launched) -> None:
    assert box.helper
    await box.out("touch here; ln -s /etc/passwd link; ln -s /tmp/csb-nowhere dangling; mkdir sub")
    here = await box.out("pwd")
    assert box.helper.path_exists(f"{here}/here")
    assert box.helper.path_exists(f"{here}/link")
    assert not box.helper.path_exists(f"{here}/dangling")
    assert not box.helper.path_exists("/etc/shadow")
    assert box.helper.path_exists("/opt/csb/helper.sh")
    server = "import socket,time; s=socket.create_server(('127.0.0.1',4711)); time.sleep(60)"
    assert not box.helper.port_open(4711)
    await box.helper.start(f'/usr/bin/python3 -c "{server}"', cwd=None)
    async with asyncio.timeout(DEADLINE):
        while not box.helper.port_open(4711):
            await asyncio.sleep(0.02)


async def test_ask_all_to_end(box: Launched) -> None:
    assert box.helper
    await box.until_printed("$ ")
    await box.helper.terminate()
    await box.ended()


async def test_speed(box: Launched) -> None:
    """Two or three milliseconds on a quiet machine; this guards against a tenfold loss."""
    times: list[float] = []
    for _ in range(20):
        began = time.perf_counter()
        await box.sh("true")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.025, sorted(times)


USERS_DAEMON = """
import asyncio, os, sys
from pathlib import Path
from tests.support.launched import Host, launched

async def main():
    base = Path(sys.argv[1])
    async with launched(Host.make(base / "daemon", os.getuid()), base / "app", held=True) as box:
        print(await box.out("id -u; pwd; touch made; echo done"))

asyncio.run(main())
"""


def test_a_users_own_daemon(short_dir: Path, user: User) -> None:
    """Nobody is root here: the launcher reaches the project through the daemon's descriptor."""
    python = sys.executable if os.getuid() else "/usr/bin/python3"
    if not Path(python).exists():
        pytest.skip(f"no {python}")
    for name in ("daemon", "app"):
        (short_dir / name).mkdir()
        os.chown(short_dir / name, user.uid, user.gid)
    short_dir.chmod(0o755)
    done = subprocess.run(
        user.command(python, "-c", USERS_DAEMON, str(short_dir)),
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"1000\n{short_dir}/app\ndone\n", done
    assert (short_dir / "app/made").stat().st_uid == user.uid
