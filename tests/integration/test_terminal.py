"""Terminals on real tmux servers with private sockets; the programs in them are real, too."""

import asyncio
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from csb_mcp.errors import DeadlineExceeded, InvalidInput, TerminalFailed
from csb_mcp.host.terminal.log_writer import MAX_FILE, ROTATE_AT
from csb_mcp.host.terminal.rows import HISTORY_LIMIT
from csb_mcp.host.terminal.server import ENVIRONMENT, runs
from csb_mcp.host.terminal.terminal import TmuxTerminal
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.lib.processes import ProcessHandle, descendants
from csb_mcp.model import Folders, Launch, Rows
from tests.conftest import User

pytestmark = pytest.mark.once

REPOSITORY = Path(__file__).parents[2]
IDLE = Launch(("/bin/sleep", "1000"))
RAW_TO = "stty raw -echo; echo ready; exec cat >"  # a program that takes every byte as it comes
SECONDS = 10.0


def loop_time() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Bench:
    """Makes terminals in one folder, and ends them after the test."""

    base: Path
    terminals: TmuxTerminals = field(default_factory=TmuxTerminals)
    made: list[TmuxTerminal] = field(default_factory=list[TmuxTerminal])

    def folders(self, name: str = "a") -> Folders:
        found = Folders(self.base / name, self.base / f"{name}s")
        found.runtime.mkdir(exist_ok=True)
        found.state.mkdir(exist_ok=True)
        return found

    async def start(
        self, *argv: str, name: str = "a", display: Launch = IDLE, prefix: tuple[str, ...] = ()
    ) -> TmuxTerminal:
        payload = Launch(argv or ("/bin/sh", "-c", "exec cat"), prefix)
        deadline = loop_time() + SECONDS
        terminal = await self.terminals.start(
            self.folders(name), payload, {"display": display}, deadline
        )
        self.made.append(terminal)
        return terminal

    async def shell(self, script: str, name: str = "a") -> TmuxTerminal:
        return await self.start("/bin/bash", "-c", script, name=name)

    async def adopt(self, name: str = "a") -> TmuxTerminal | None:
        terminal = await self.terminals.adopt(self.folders(name), loop_time() + SECONDS)
        if terminal is not None:
            self.made.append(terminal)
        return terminal

    async def detach(self, terminal: TmuxTerminal) -> None:
        await terminal.close()
        self.made.remove(terminal)


@pytest.fixture
async def bench(short_dir: Path) -> AsyncIterator[Bench]:
    bench = Bench(short_dir)
    yield bench
    for terminal in bench.made:
        await terminal.kill(loop_time() + 0.5)


async def until(found: Callable[[], Awaitable[bool]], terminal: TmuxTerminal) -> None:
    """Wait for the pane to have printed what ``found`` looks for."""
    async with asyncio.timeout(SECONDS):
        beats = terminal.output.count
        while not await found():
            beats = await terminal.output.beyond(beats)


async def seen(terminal: TmuxTerminal, text: str) -> Rows:
    answer: list[Rows] = []

    async def found() -> bool:
        answer[:] = [await terminal.rows(None)]
        return any(text in row for _, row in answer[0].rows)

    await until(found, terminal)
    return answer[0]


async def file_holds(path: Path, holds: Callable[[bytes], bool]) -> bytes:
    async with asyncio.timeout(SECONDS):
        while not (path.exists() and holds(path.read_bytes())):
            await asyncio.sleep(0.005)
    return path.read_bytes()


async def grown(path: Path, size: int, end: bytes) -> bytes:
    """What ``path`` holds once it is longer than ``size`` and ends so."""
    return await file_holds(path, lambda data: data[size:].endswith(end))


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(SECONDS):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.005)


# Start, arguments, environment


async def test_arguments_reach_the_programs_as_they_are(bench: Bench) -> None:
    odd = ("a b", "$(x)", ";", "x;", "\\;", "#{pane_id}", "%H", "'\"", "", "日本", "-t", "~")
    terminal = await bench.start("/usr/bin/printf", "<%s>\\n", *odd)
    assert await terminal.wait_exit() == 0
    assert [row for _, row in (await terminal.history(50)).rows] == [f"<{each}>" for each in odd]


async def test_a_single_argument_is_a_program_and_not_a_command_line(bench: Bench) -> None:
    program = bench.base / "odd $name; 'x'"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    terminal = await bench.start(str(program))
    await seen(terminal, "ran")
    assert await terminal.wait_exit() == 0


async def test_the_environment_is_clean_and_no_descriptor_leaks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    terminal = await bench.shell("env; echo open: $(ls /proc/self/fd); sleep 100")
    rows = await seen(terminal, "open:")
    text = "\n".join(row for _, row in rows.rows)
    assert "SECRET" not in text
    assert "HOME" not in text
    assert "TERM=tmux-256color" in text
    assert "open: 0 1 2 3\n" in text + "\n"  # 3 is the folder that ls reads
    environ = Path(f"/proc/{terminal.server_pid}/environ").read_bytes()
    assert {item.split(b"=")[0].decode() for item in environ.split(b"\0") if item} <= {*ENVIRONMENT}


async def test_the_lifeline_is_held_as_long_as_tmux_lives(bench: Bench) -> None:
    terminal = await bench.start()
    assert runs(bench.folders())
    with pytest.raises(TerminalFailed, match="runs already"):
        await bench.start()
    await terminal.kill(loop_time() + 2)
    assert not runs(bench.folders())


async def test_a_prefix_that_fails_is_told_with_its_words_and_leaves_nothing(bench: Bench) -> None:
    script = ("/bin/sh", "-c", "echo the stager cannot >&2; exit 1", "sh")
    with pytest.raises(TerminalFailed) as failed:
        await bench.start("/bin/true", "x", prefix=script)
    assert "the stager cannot" in (failed.value.hint or "")
    assert not runs(bench.folders())


async def test_a_prefix_that_hangs_is_ended_at_the_deadline(bench: Bench) -> None:
    payload = Launch(("/bin/true", "x"), ("/bin/sh", "-c", "exec sleep 1000", "sh"))
    with pytest.raises(DeadlineExceeded):
        await bench.terminals.start(bench.folders(), payload, {"display": IDLE}, loop_time() + 0.3)
    assert not runs(bench.folders())


async def test_a_cancelled_start_leaves_nothing(bench: Bench) -> None:
    for delay in (0.0, 0.001, 0.004, 0.008, 0.012, 0.02):
        start = asyncio.ensure_future(bench.start())
        await asyncio.wait([start], timeout=delay)
        start.cancel()
        try:
            await (await start).kill(loop_time() + 2)
        except asyncio.CancelledError:
            pass
        assert not runs(bench.folders())


async def test_arguments_too_long_for_tmux_are_refused(bench: Bench) -> None:
    with pytest.raises(InvalidInput) as refused:
        await bench.start("/bin/echo", "x" * 20_000)
    assert refused.value.field == "command"


# Typing


HARD = "aB~é中😀ß{}|\"日本;$(x)'\\ "


@pytest.mark.parametrize("paste", [False, True])
async def test_text_arrives_exactly_once(bench: Bench, paste: bool) -> None:
    out = bench.base / "typed"
    terminal = await bench.shell(f"{RAW_TO} {out}")
    await seen(terminal, "ready")
    text = HARD + "#{pane_id} %H -x\ttab" + "\u200d\u0301\ue000" + HARD[::-1]
    await terminal.send(text + "\nsecond line", ["F5", "C-c", "Up", "é", ";", "M-x"], paste=paste)
    typed = (text + "\rsecond line").encode() + b"\x1b[15~\x03\x1b[A" + "é;\x1bx".encode()
    assert await file_holds(out, lambda data: len(data) >= len(typed)) == typed


async def test_a_paste_is_bracketed_only_for_programs_that_asked(bench: Bench) -> None:
    out = bench.base / "typed"
    terminal = await bench.shell(f"printf '\\033[?2004h'; {RAW_TO} {out}")
    await seen(terminal, "ready")
    await terminal.send("one\ntwo", [], paste=True)
    await terminal.send("three", [])
    typed = b"\x1b[200~one\rtwo\x1b[201~three"
    assert await file_holds(out, lambda data: len(data) >= len(typed)) == typed


async def test_long_texts_of_many_senders_do_not_mix(bench: Bench) -> None:
    out = bench.base / "typed"
    terminal = await bench.shell(f"{RAW_TO} {out}")
    await seen(terminal, "ready")
    texts = [f"<{letter * 60_000}'\\\n>" for letter in "abcd中"]
    await asyncio.gather(*(terminal.send(text, ["Enter"]) for text in texts))
    typed = "".join(text.replace("\n", "\r") + "\r" for text in texts).encode()
    assert await file_holds(out, lambda data: len(data) >= len(typed)) == typed


async def test_every_accepted_key_gives_bytes_and_not_its_own_name(bench: Bench) -> None:
    out = bench.base / "typed"
    terminal = await bench.shell(f"{RAW_TO} {out}")
    await seen(terminal, "ready")
    arrows = [f"{m}{n}" for m in ("", "C-", "M-", "S-", "C-M-S-") for n in ("Up", "F1", "DC")]
    named = ["Enter", "Tab", "BTab", "Space", "BSpace", "Escape"]
    control = [f"C-{sign}" for sign in "az@[\\]^_?/-"] + ["C-Space", "C-M-x"]
    for key in [*arrows, *named, *(f"M-{name}" for name in named), *control]:
        before = out.read_bytes()
        await terminal.send(None, [key, "~"])
        typed = await grown(out, len(before), b"~")
        sent = typed[len(before) : -1]
        assert sent, key
        assert key.encode() not in sent or len(key) == 1


async def test_nothing_is_sent_if_one_name_is_wrong(bench: Bench) -> None:
    out = bench.base / "typed"
    terminal = await bench.shell(f"{RAW_TO} {out}")
    await seen(terminal, "ready")
    with pytest.raises(InvalidInput) as refused:
        await terminal.send("text", ["Enter", "Entr"])
    assert "Enter" in refused.value.choices
    await terminal.send("end", [])
    assert await file_holds(out, lambda data: data.endswith(b"end")) == b"end"


async def test_keys_reach_the_program_while_a_person_looks_back(bench: Bench) -> None:
    out = bench.base / "typed"
    terminal = await bench.shell(f"seq 100; {RAW_TO} {out}")
    await seen(terminal, "ready")
    socket = str(bench.folders().tmux_socket)
    subprocess.run(["tmux", "-S", socket, "copy-mode", "-t", "main"], check=True)
    await terminal.send(None, ["q", "Up"])
    assert await file_holds(out, lambda data: len(data) >= 4) == b"q\x1b[A"


# Rows


async def test_rows_are_plain_text_with_wide_characters_right(bench: Bench) -> None:
    terminal = await bench.shell(
        "printf 'a\\\\b 中x😀y\\033[31mred\\033[0m   \\n\\\\101 end'; sleep 99"
    )
    rows = await seen(terminal, "end")
    assert [text for _, text in rows.rows[:2]] == ["a\\b 中x😀yred", "\\101 end"]
    assert (rows.cursor_row, rows.cursor_column) == (rows.rows[0][0] + 1, 8)
    assert len(rows.rows) == 36


async def test_changed_rows_since_a_generation(bench: Bench) -> None:
    terminal = await bench.shell("echo one; echo two; read x; echo three; sleep 99")
    first = await seen(terminal, "two")
    assert (await terminal.rows(first.generation)).rows == ()
    await terminal.send(None, ["Enter"])
    await seen(terminal, "three")
    changed = await terminal.rows(first.generation)
    assert changed.rows == ((first.rows[0][0] + 3, "three"),)
    assert not changed.gap


async def test_rows_that_go_by_after_looks_in_silence_are_told(bench: Bench) -> None:
    terminal = await bench.shell("stty -echo; seq 100; read x; seq 101 150; read x")
    first = await seen(terminal, "100")
    for _ in range(3):
        assert (await terminal.rows(first.generation)).rows == ()
    await terminal.send(None, ["Enter"])
    await seen(terminal, "150")
    changed = await terminal.rows(first.generation)
    assert not changed.gap
    assert [text for _, text in changed.rows] == [str(n) for n in range(101, 151)]


async def test_a_full_screen_program_comes_and_goes(bench: Bench) -> None:
    script = (
        "seq 50; read x; printf '\\033[?1049h\\033[Halt'; read x; printf '\\033[?1049l'; read x"
    )
    terminal = await bench.shell(script)
    before = await seen(terminal, "50")
    await terminal.send(None, ["Enter"])
    full = await seen(terminal, "alt")
    assert "50" not in [text for _, text in full.rows]
    await terminal.send(None, ["Enter"])
    after = await seen(terminal, "50")
    assert not (await terminal.rows(full.generation)).gap
    assert [text for _, text in after.rows][:-3] == [text for _, text in before.rows][1:-2]


def output_script(rng: random.Random) -> str:
    """A shell script that prints, scrolls, clears and moves about."""
    steps = [
        lambda: f"seq {rng.randint(1, 10**6)} 3 {rng.randint(10**6, 10**6 + 200)}",
        lambda: f"printf '\\033[{rng.randint(1, 36)};{rng.randint(1, 100)}Hat{rng.randint(0, 99)}'",
        lambda: "printf '\\033[2J\\033[H'",
        lambda: f"printf '\\033[{rng.randint(1, 9)}M'",
        lambda: f"printf '\\033[{rng.randint(1, 9)}S'",
        lambda: f"printf '\\033[{rng.randint(1, 9)}T'",
        lambda: "printf '\\033[?1049h'; echo full",
        lambda: "printf '\\033[?1049l'",
        lambda: f"printf '中é%.0s' $(seq {rng.randint(1, 200)})",
        lambda: f"seq {rng.randint(1, 10**6)} {10**6 + 1200} | head -n {rng.randint(1, 3000)}",
        lambda: f"yes | head -n {rng.randint(1, 3000)}",
        lambda: "printf '\\033[3J'",
    ]
    return "; ".join(rng.choice(steps)() for _ in range(rng.randint(1, 4)))


@pytest.mark.parametrize("seed", range(3))
async def test_changed_rows_rebuild_the_screen_after_any_output(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    script = "\n".join(
        f"read x; {output_script(rng)}; printf '\\033]9;\\033\\\\'; touch {bench.base}/done{n}"
        for n in range(25)
    )
    terminal = await bench.shell(f"stty -echo; echo ready; {script}; sleep 99")
    await seen(terminal, "ready")
    copy: dict[int, str] = {}
    generation: int | None = None
    for number in range(25):
        await terminal.send(None, ["Enter"])
        await file_holds(bench.base / f"done{number}", lambda _: True)
        changed = await settled_rows(terminal, generation)
        if changed.gap:
            copy.clear()
        copy.update(changed.rows)
        whole = await terminal.rows(None)
        assert {n: copy.get(n, "") for n, _ in whole.rows} == dict(whole.rows)
        generation = changed.generation
        if rng.random() < 0.3:
            generation = whole.generation
            copy = dict(whole.rows)


async def settled_rows(terminal: TmuxTerminal, generation: int | None) -> Rows:
    """Changed rows, once tmux has taken in all that was written."""
    while True:
        changed = await terminal.rows(generation)
        again = await terminal.rows(changed.generation)
        beats = terminal.output.count
        try:
            async with asyncio.timeout(0.03):
                await terminal.output.beyond(beats)
        except TimeoutError:
            if not again.rows and not again.gap:
                return await terminal.rows(generation)


async def test_history_gives_the_last_rows(bench: Bench) -> None:
    terminal = await bench.shell("seq 15000; printf '\\n\\n'; sleep 99")
    await until(lambda: history_ends(terminal, "15000"), terminal)
    last = await terminal.history(5)
    assert [text for _, text in last.rows] == [str(n) for n in range(14996, 15001)]
    everything = await terminal.history(100_000)
    numbers = [int(text) for _, text in everything.rows]
    assert numbers == list(range(numbers[0], 15001))
    assert HISTORY_LIMIT * 0.9 <= len(numbers) <= HISTORY_LIMIT + 36
    assert everything.rows[-1] == last.rows[-1]


async def history_ends(terminal: TmuxTerminal, text: str) -> bool:
    rows = (await terminal.history(1)).rows
    return bool(rows) and rows[0][1] == text


HOSTILE = (
    b"\xff\xfe\xc3(\xe2\x82 \xf0\x9f\x98 invalid\r\n"
    b"\x9b31mC1 \xc2\x9b2J\xc2\x85next\r\n"
    b"\x1b]52;c;aGFjaw==\x07\x1b]0;title\x07\x1bktitle\x1b\\\x1bPtmux;\x1b\x1b]52;c;eA==\x07\x1b\\"
    b"\x1b]2;#(touch pwned)\x07\x1b[21t\x1b[c\x1b[6n\r\n"
    b"\xe2\x80\xaegpj \xef\xbb\xbf\xf3\xa0\x81\x81\xe2\x80\xa8\r\n"
    b"%begin 1 1 1\r\n%end 1 1 1\r\n%error 1 1 1\r\n%exit\r\n%output %0 x\r\n"
    + b"L" * 50_000
    + b"\r\nlast"
)


async def test_hostile_bytes_come_out_without_control_characters(bench: Bench) -> None:
    source = bench.base / "hostile"
    source.write_bytes(HOSTILE)
    terminal = await bench.shell(f"cat {source}; sleep 99")
    await seen(terminal, "last")
    rows = (await terminal.history(1000)).rows
    text = "".join(row for _, row in rows)
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert "%exit" in [row for _, row in rows]
    assert max(len(row) for _, row in rows) <= 120
    socket = str(bench.folders().tmux_socket)
    asked = subprocess.run(
        ["tmux", "-S", socket, "list-buffers", "-F", "#{buffer_name}", ";", "display-message",
         "-p", "-t", "main", "#{window_name}"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert set(asked.split()) <= {"csb-look", "main"}


async def test_rows_that_imitate_the_protocol_do_not_break_it(bench: Bench) -> None:
    """All the ends that tmux could write in the next seconds, as rows of the screen."""
    program = (
        "import time\n"
        "while True:\n"
        "    for n in range(200, 3000):\n"
        "        print(f'%end {int(time.time())} {n} 1')\n"
        "    time.sleep(0.05)\n"
    )
    terminal = await bench.start(sys.executable, "-c", program)
    await until(lambda: has_history(terminal, 6000), terminal)
    for _ in range(200):
        assert len((await terminal.rows(None)).rows) == 36
    assert len((await terminal.history(6000)).rows) == 6000


async def has_history(terminal: TmuxTerminal, lines: int) -> bool:
    return len((await terminal.history(lines)).rows) == lines


# The end


@pytest.mark.parametrize(("script", "status"), [("true", 0), ("exit 3", 3), ("kill -9 $$", 137)])
async def test_exit_status(bench: Bench, script: str, status: int) -> None:
    terminal = await bench.shell(f"echo last words; {script}")
    async with asyncio.timeout(SECONDS):
        assert await terminal.wait_exit() == status
        assert await terminal.wait_exit() == status
    assert [text for _, text in (await terminal.history(9)).rows] == ["last words"]
    assert (await file_holds(bench.folders().log, bool)) == b"last words\r\n"


async def test_the_status_is_there_for_one_who_comes_later(bench: Bench) -> None:
    terminal = await bench.shell("exit 7")
    assert await terminal.wait_exit() == 7
    await bench.detach(terminal)
    adopted = await bench.adopt()
    assert adopted is not None
    assert await adopted.wait_exit() == 7


async def test_a_display_that_ended_tells_what_it_said(bench: Bench) -> None:
    broken = Launch(("/bin/sh", "-c", "echo cannot open :0; exit 1"))
    terminal = await bench.start(display=broken)
    async with asyncio.timeout(SECONDS):
        while (said := await terminal.error_beside("display")) is None:
            await asyncio.sleep(0.005)
    assert said == "cannot open :0"
    other = await bench.start(name="b")
    assert await other.error_beside("display") is None


async def test_what_runs_beside_is_started_anew_as_it_was(bench: Bench, short_dir: Path) -> None:
    """One that runs is ended first; one that ended is started; the tree still ends as a whole."""
    told = short_dir / "told"
    odd = "a b;$(x) #{pane_id} '\""
    script = 'echo "$$ $1" >>"$0"; [ -e "$0.quick" ] || exec sleep 1000'
    terminal = await bench.start(display=Launch(("/bin/sh", "-c", script, str(told), odd)))

    async def pid(number: int) -> int:
        lines = (await file_holds(told, lambda data: data.count(b"\n") == number)).decode()
        assert {line.partition(" ")[2] for line in lines.splitlines()} == {odd}
        return int(lines.splitlines()[-1].split()[0])

    first = await pid(1)
    await terminal.restart_beside("display")
    second = await pid(2)
    await gone([first])
    assert await terminal.error_beside("display") is None
    (short_dir / "told.quick").touch()
    await terminal.restart_beside("display")
    await pid(3)
    async with asyncio.timeout(SECONDS):
        while await terminal.error_beside("display") is None:
            await asyncio.sleep(0.005)
    (short_dir / "told.quick").unlink()
    await terminal.restart_beside("display")
    last = await pid(4)
    assert last in descendants(terminal.server_pid)
    with pytest.raises(TerminalFailed):
        await terminal.restart_beside("egress")
    await terminal.kill(loop_time() + SECONDS)
    await gone([first, second, last])


STUBBORN = (
    "trap '' TERM HUP INT; (trap '' TERM HUP; exec sleep 1000) & setsid sleep 1000 & "
    "while :; do sleep 1000; done"
)


@pytest.mark.parametrize("script", ["exec bash --norc -i", "exec cat", STUBBORN])
async def test_kill_leaves_nothing(bench: Bench, script: str) -> None:
    terminal = await bench.shell(f"echo ready; {script}")
    await seen(terminal, "ready")
    tree = [terminal.server_pid, *descendants(terminal.server_pid)]
    begun = time.monotonic()
    await terminal.kill(loop_time() + 0.5)
    assert time.monotonic() - begun < (1.5 if script is STUBBORN else 0.5)
    assert not runs(bench.folders())
    await gone(tree)
    await terminal.kill(loop_time() + 0.5)
    assert await bench.adopt() is None


async def test_a_server_that_was_killed_is_told_and_its_panes_can_be_ended(bench: Bench) -> None:
    terminal = await bench.shell(f"echo ready; {STUBBORN}")
    await seen(terminal, "ready")
    tree = [terminal.server_pid, *descendants(terminal.server_pid)]
    waiting = asyncio.ensure_future(terminal.wait_exit())
    await asyncio.sleep(0)
    os.kill(terminal.server_pid, signal.SIGKILL)
    async with asyncio.timeout(SECONDS):
        with pytest.raises(TerminalFailed):
            await waiting
        with pytest.raises(TerminalFailed):
            await terminal.rows(None)
        with pytest.raises(TerminalFailed):
            await terminal.send("x", [])
    await terminal.kill(loop_time() + 0.2)
    await gone(tree)


async def test_a_server_that_stands_still_is_a_typed_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csb_mcp.host.terminal.control.ANSWER_SECONDS", 0.2)
    terminal = await bench.start()
    os.kill(terminal.server_pid, signal.SIGSTOP)
    with pytest.raises(TerminalFailed, match="did not answer"):
        await terminal.rows(None)
    os.kill(terminal.server_pid, signal.SIGCONT)
    assert len((await terminal.rows(None)).rows) == 36


# Adoption and the log


STARTER = """
import asyncio, sys
from pathlib import Path
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.model import Folders, Launch
async def main():
    folders = Folders(Path(sys.argv[1]), Path(sys.argv[2]))
    payload, display = Launch(("/bin/bash", "-c", sys.argv[3])), Launch(("/bin/sleep", "1000"))
    loop = asyncio.get_running_loop()
    await TmuxTerminals().start(folders, payload, {"display": display}, loop.time() + 10)
    print("started", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_adoption_after_the_starter_was_killed(bench: Bench) -> None:
    folders = bench.folders()
    script = (
        "n=0; while [ $n -lt 4000 ]; do n=$((n+1)); echo $n; [ $((n % 40)) = 0 ] && sleep .01; done"
    )
    script += "; echo ready; read x; exit 9"
    argv = [sys.executable, "-c", STARTER, str(folders.runtime), str(folders.state), script]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert await asyncio.to_thread(starter.stdout.readline) == b"started\n"
        starter.kill()
    for _ in range(5):  # daemons come and go while it prints
        terminal = await bench.adopt()
        assert terminal is not None
        assert terminal.idle_seconds < 1
        await terminal.output.beyond(terminal.output.count)
        await bench.detach(terminal)
    terminal = await bench.adopt()
    assert terminal is not None
    await seen(terminal, "ready")
    await terminal.send(None, ["Enter"])
    assert await terminal.wait_exit() == 9
    numbers = folders.log.read_bytes().split()[:4000]
    assert numbers == [b"%d" % n for n in range(1, 4001)]


async def test_the_server_outlives_clients_that_go_away_amid_a_flood(bench: Bench) -> None:
    """tmux 3.3 exits, now and then, if output is queued for a control client that is gone."""
    terminal: TmuxTerminal | None = await bench.shell("while :; do seq 100; done")
    assert terminal is not None
    server = terminal.server_pid
    socket = str(bench.folders().tmux_socket)
    ask = ["tmux", "-S", socket, "list-clients", "-F", "#{client_flags}"]
    for turn in range(60):
        if turn in (0, 1):  # started, adopted
            async with asyncio.timeout(SECONDS):
                while not (flags := subprocess.check_output(ask, text=True)):
                    await asyncio.sleep(0.005)  # busy as it is, tmux loses an answer now and then
            assert "no-output" in flags
        if turn % 3:
            await terminal.output.beyond(terminal.output.count)
        await bench.detach(terminal)
        terminal = await bench.adopt()
        assert terminal is not None
        assert terminal.server_pid == server


async def test_adopting_where_nothing_runs(bench: Bench) -> None:
    assert await bench.adopt() is None


async def test_adopting_what_never_answers_is_a_typed_error(bench: Bench) -> None:
    folders = bench.folders()
    with subprocess.Popen(["flock", str(folders.lifeline), "sleep", "1000"]) as holder:
        async with asyncio.timeout(SECONDS):
            while not runs(folders):
                await asyncio.sleep(0.01)
        with pytest.raises(TerminalFailed, match="does not answer"):
            await bench.terminals.adopt(folders, loop_time() + 0.2)
        for pid in [*descendants(holder.pid), holder.pid]:
            ProcessHandle(pid).kill()


async def test_root_starts_and_adopts_a_terminal_of_another_user(bench: Bench, user: User) -> None:
    folders = bench.folders()
    bench.base.chmod(0o711)
    for folder in (folders.runtime, folders.state):
        os.chown(folder, user.uid, user.gid)
    prefix = tuple(user.command()) if os.getuid() != user.uid else ()
    terminal = await bench.start("/bin/sh", "-c", "id -u; exec cat", prefix=prefix)
    await seen(terminal, str(user.uid))
    assert Path(f"/proc/{terminal.server_pid}").stat().st_uid == user.uid
    await bench.detach(terminal)
    adopted = await bench.adopt()
    assert adopted is not None
    await adopted.send("hello", ["Enter"])
    await seen(adopted, "hello")
    assert folders.log.stat().st_uid == user.uid


async def test_the_log_is_capped_and_loses_nothing_at_the_change(bench: Bench) -> None:
    folders, lines = bench.folders(), 1_600_000
    terminal = await bench.shell(f"stty -onlcr; seq -w {lines}")
    async with asyncio.timeout(60):
        assert await terminal.wait_exit() == 0
    older = folders.log.with_name("log.1")
    sizes = [older.stat().st_size, folders.log.stat().st_size]
    assert ROTATE_AT <= sizes[0] <= MAX_FILE
    assert sizes[1] <= MAX_FILE
    kept = (older.read_bytes() + folders.log.read_bytes()).split(b"\n")[1:-1]
    first = int(kept[0])
    assert kept == [b"%07d" % n for n in range(first, lines + 1)]


async def test_a_disk_that_is_full_holds_no_program_up(bench: Bench) -> None:
    bench.folders().log.symlink_to("/dev/full")
    terminal = await bench.shell("seq 200000; echo through; exit 4")
    async with asyncio.timeout(SECONDS):
        assert await terminal.wait_exit() == 4
    assert [text for _, text in (await terminal.history(1)).rows] == ["through"]


async def test_the_log_writer_is_small(bench: Bench) -> None:
    terminal = await bench.start()
    deadline = time.monotonic() + 10
    writer: list[int] = []
    while len(writer) < 2:  # it starts beside the pane
        assert time.monotonic() < deadline
        writer = [pid for pid in descendants(terminal.server_pid) if command(pid) in ("sh", "dd")]
        await asyncio.sleep(0.01)
    private = sum(memory(pid, "Private_Clean") + memory(pid, "Private_Dirty") for pid in writer)
    assert private <= 512  # KiB


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def memory(pid: int, what: str) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split(f"{what}:")[1].split()[0])


# Floods and speed


async def test_a_flood_costs_little_and_holds_nobody_up(bench: Bench) -> None:
    """100 MB of output, with somebody who reads this terminal, and another, all the while."""
    line = "a line of output that is about as long as such lines are, 0123456789 and so on"
    flooding = await bench.shell(f"read x; yes {shlex.quote(line)} | head -c 100M; exit 5")
    other = await bench.start(name="b")
    await other.rows(None)
    before, server_before = resident(os.getpid()), resident(flooding.server_pid)
    blocked, reads = 0.0, list[float]()
    await flooding.send(None, ["Enter"])
    ending = asyncio.ensure_future(flooding.wait_exit())
    while not ending.done():
        cpu, begun = time.thread_time(), time.perf_counter()
        await other.rows(0)
        reads.append(time.perf_counter() - begun)
        await flooding.rows(0)
        begun_cpu = time.thread_time()
        await asyncio.sleep(0.02)
        # What the flood cost this thread while nobody asked for anything.
        blocked = max(blocked, time.thread_time() - begun_cpu)
        assert cpu <= begun_cpu
    assert await ending == 5
    assert blocked < 0.05
    assert sorted(reads)[int(len(reads) * 0.95)] < 0.05
    assert resident(os.getpid()) - before < 20 * 1024
    assert resident(flooding.server_pid) - server_before < 40 * 1024
    assert (await flooding.rows(None)).rows


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


async def test_reading_does_not_make_tmux_grow(bench: Bench) -> None:
    """capture-pane -p of tmux 3.3 loses what it prints to a control client."""
    terminal = await bench.shell("seq 3000; sleep 1000")
    await seen(terminal, "3000")
    for _ in range(20):
        await terminal.history(2000)
    before = resident(terminal.server_pid)
    for _ in range(300):
        await terminal.history(2000)
    assert resident(terminal.server_pid) - before < 1024


async def test_output_is_heard_of_at_once_and_idleness_is_counted(bench: Bench) -> None:
    fifo = bench.base / "fifo"
    os.mkfifo(fifo)
    terminal = await bench.shell(f"exec cat {fifo}")
    delays: list[float] = []
    with await asyncio.to_thread(open, fifo, "wb", buffering=0) as out:
        for _ in range(50):
            beats, begun = terminal.output.count, time.perf_counter()
            out.write(b"x")
            async with asyncio.timeout(SECONDS):
                await terminal.output.beyond(beats)
            delays.append(time.perf_counter() - begun)
        assert terminal.idle_seconds < 0.1
        await asyncio.sleep(0.15)
        assert 0.1 < terminal.idle_seconds < 5
    assert sorted(delays)[len(delays) // 2] < 0.005


async def test_problems_name_what_is_missing() -> None:
    assert TmuxTerminals().problems() == ()
    (problem,) = TmuxTerminals(Path("/nonexistent/tmux")).problems()
    assert problem.what == "tmux"
    assert problem.repair
