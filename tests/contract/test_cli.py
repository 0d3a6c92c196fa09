"""Every verb as people and programs have it, before a daemon that serves a service in memory."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from csb_mcp import __version__, decode
from csb_mcp.decode.conditions import CONDITIONS as ALL_CONDITIONS
from csb_mcp.errors import InvalidInput
from csb_mcp.transports.cli import render
from csb_mcp.transports.cli.display import write_file
from csb_mcp.transports.cli.main import main
from csb_mcp.transports.cli.parser import UsageError, parse
from csb_mcp.transports.cli.render import columns, fit, size, span, sparkline
from csb_mcp.transports.cli.terminal import one_row
from csb_mcp.transports.cli.verbs import CONDITIONS, VERBS
from tests.contract.fake_service import PIXELS
from tests.support.shell import Terminal
from tests.support.station import Station, a_station, until

REAL = Path(sys.executable).with_name("csb-mcp")
PATIENCE = 40


@pytest.fixture(scope="module")
def serving() -> Iterator[Station]:
    """A daemon for all of this module, and the real command before it."""
    with a_station() as station:
        station.serve()
        station.command = REAL
        station.env["PATH"] = f"{REAL.parent}:/usr/bin:/bin"
        yield station


class Shell:
    """Types commands on folders where a daemon runs."""

    def __init__(self, station: Station) -> None:
        self.station = station

    def __call__(self, *words: str, given: str = "") -> str:
        """What a command that goes well prints."""
        status, out, err = self.station.run(*words, given=given.encode())
        assert status == 0, err
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self(words[0], "--json", *words[1:]))

    def fails(self, *words: str, status: int = 1) -> str:
        """What a command that fails says."""
        found, out, err = self.station.run(*words)
        assert (found, out) == (status, ""), err
        return err

    def terminal(self, *words: str, columns: int = 80, **env: str) -> Terminal:
        command, cwd = str(self.station.command), self.station.base
        return Terminal([command, *words], {**self.station.env, **env}, cwd, columns=columns)

    def shown(self, *words: str, status: int = 0, **options: Any) -> str:
        """All that a person sees of a command, colours included."""
        terminal = self.terminal(*words, **options)
        assert terminal.end() == status, terminal.shown
        return terminal.shown


@pytest.fixture
def shell(serving: Station) -> Shell:
    return Shell(serving)


@pytest.fixture
def web(shell: Shell) -> Iterator[str]:
    """Id of a sandbox of that name, made and removed without a process for each step."""
    transport = httpx2.HTTPTransport(uds=str(shell.station.http_socket))
    with httpx2.Client(transport=transport, base_url="http://csb/api", timeout=PATIENCE) as client:
        wanted = {"project_dir": str(shell.station.base), "name": "web"}
        yield client.post("/sandboxes", json=wanted).raise_for_status().json()["id"]
        for record in client.get("/sandboxes").raise_for_status().json():
            client.delete(f"/sandboxes/{record['id']}").raise_for_status()


# --- life of a sandbox


def test_create(shell: Shell, web: str) -> None:
    out = shell("create", ".", "--name", "second", "--ttl", "60s")
    assert re.fullmatch(r"\d{8} \(second\) running\n", out)
    record = shell.json("show", "second")
    assert record["project_dir"] == str(shell.station.base)
    assert record["limits"]["asked"] == {"ttl": "60 s"}


def test_create_with_a_command(shell: Shell, web: str) -> None:
    record = shell.json("create", ".", "--env", "A=b=c", "--gl", "--", "make", "--all", "--name=x")
    assert record["agent"] == "command"
    assert record["name"] is None


def test_create_refused(shell: Shell) -> None:
    assert "env: 'A' is not NAME=VALUE" in shell.fails("create", ".", "--env", "A")
    assert "the display did not come up" in shell.fails("create", ".", "--name", "fails")
    err = shell.fails("create", ".", "--memory", "much")
    assert "csb-mcp: memory: 'much' is not a size" in err
    problem = json.loads(shell.fails("create", ".", "--backend", "vm-9!", "--json"))
    assert problem["field"] == "backend"
    assert problem["code"] == "invalid_input"


def test_list(shell: Shell, web: str) -> None:
    head, row = shell("list").splitlines()
    assert head.split() == ["ID", "NAME", "STATE", "AGENT", "NETWORK", "AGE", "PROJECT"]
    assert row.split()[:5] == [web, "web", "running", "claude", "allowlist"]
    assert row.endswith(str(shell.station.base))
    assert [record["id"] for record in shell.json("list", "--state", "running")] == [web]
    assert shell.json("list", "--state", "dead") == []
    assert shell("list", "--quiet") == f"{web}\n"


def test_list_of_nothing(shell: Shell) -> None:
    status, out, err = shell.station.run("list")
    assert (status, out) == (0, "")
    assert "csb-mcp create ." in err
    assert shell("list", "--json") == "[]\n"


def test_list_fits_the_terminal(shell: Shell, web: str) -> None:
    deep = shell.station.base / "a-rather-long-name-of-a-folder/and-one-more-below-it/the-end"
    deep.mkdir(parents=True, exist_ok=True)
    shell("create", str(deep), "--name", "deep")
    for width in (60, 80):
        shown = shell.shown("list", columns=width, NO_COLOR="1")
        lines = shown.replace("\r", "").splitlines()
        assert max(map(len, lines)) <= width
        assert "\x1b" not in shown
        assert "…" in lines[1]
        assert lines[1].endswith("the-end")
    assert str(deep) in shell.shown("list", columns=300)


def test_colours_are_for_terminals(shell: Shell, web: str) -> None:
    assert "\x1b[32mrunning\x1b[0m" in shell.shown("list")
    assert "\x1b" not in shell.shown("list", NO_COLOR="1")
    assert "\x1b" not in shell("list")


def test_show(shell: Shell, web: str) -> None:
    shell("create", ".", "--name", "timed", "--ttl", "1m")
    lines = shell("show", "timed").splitlines()
    assert lines[0].endswith("(timed) running")
    assert "limits       ttl 60 s (by daemon)" in lines
    assert "attach       tmux -S /x attach" in lines
    assert shell.json("show", web[:7] + web[7])["name"] == "web"


def test_pause_and_resume(shell: Shell, web: str) -> None:
    assert shell("pause", "web") == f"{web} (web) paused\n"
    assert "web" in shell("list", "--state", "paused")
    assert shell.json("resume", "web")["state"] == "running"
    assert shell.json("pause", "web")["state"] == "paused"
    assert shell("resume", "web") == f"{web} (web) running\n"


def test_stop_and_delete(shell: Shell, web: str) -> None:
    assert shell("stop", "web") == f"{web} (web) stopped\n"
    assert shell.json("stop", "web")["reason"] == "stopped on request"
    assert shell("delete", "web") == f"{web} (web) deleted\n"
    other = shell.json("create", ".")["id"]
    assert shell.json("delete", other) == {"id": other, "name": None, "state": "deleted"}


def test_several_at_once(shell: Shell, web: str) -> None:
    shell("create", ".", "--name", "second")
    status, out, err = shell.station.run("stop", "web", "nobody", "second")
    assert status == 1
    assert out.splitlines() == [f"{web} (web) stopped", "00000001 (second) stopped"]
    assert "csb-mcp: nobody: " in err
    lines = shell("delete", "web", "second", "--json").splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["web", "second"]


def test_metrics(shell: Shell, web: str) -> None:
    host = shell("metrics")
    assert "12 % of 2 cores, load 0.10 0.20 0.30" in host
    assert "4.0G of 8.0G used" in host
    assert "cpu history     ▁▁" in host
    assert shell.json("metrics")["host"]["cpu_count"] == 2
    sandbox = shell("metrics", "web")
    assert "memory          64M (processes)" in sandbox
    assert "memory history  █▁" in sandbox
    assert shell.json("metrics", "web")["sandbox"]["processes"] == 5


# --- terminal and commands


def test_attach_becomes_the_tmux_client(shell: Shell, web: str) -> None:
    assert shell.json("attach", "web") == {"command": ["tmux", "-S", "/x", "attach"]}
    tmux = shell.station.base / "bin/tmux"
    tmux.parent.mkdir()
    tmux.write_text('#!/bin/sh\necho "given: $*, TMUX ${TMUX-unset}"; exit 5')
    tmux.chmod(0o755)
    path = f"{tmux.parent}:{shell.station.env['PATH']}"
    shown = shell.shown("attach", "web", status=5, TMUX="/tmp/outer,1,0", PATH=path)
    assert shown == "given: -S /x attach, TMUX unset\r\n"


def test_attach_refused(shell: Shell, web: str) -> None:
    assert "attach needs a terminal" in shell.fails("attach", "web")
    shell("stop", "web")
    shown = shell.shown("attach", "web", status=1)
    assert "it is stopped: stopped on request" in shown
    assert f"csb-mcp logs {web}" in shown


def test_send(shell: Shell, web: str) -> None:
    out = shell("send", "web", "ls", "--keys", "Enter", "--keys", "C-c Up")
    assert out == "sent: ls, Enter, C-c, Up\ncursor: ab.1\n"
    assert shell.json("send", "--keys", "F5", "web", "text") == {
        "sent": ["text", "F5"],
        "cursor": "ab.1",
    }
    assert shell("send", "web", "--", "--keys") == "sent: --keys\ncursor: ab.1\n"
    assert "neither text nor keys" in shell.fails("send", "web")


def test_read(shell: Shell, web: str) -> None:
    status, out, err = shell.station.run("read", "web", "--lines", "5", "--cursor", "ab.0")
    assert (status, out, err) == (0, "$ ls\nREADME\n", "cursor: ab.1\n")
    assert shell.json("read", "web")["rows"][1] == [1, "README"]


def test_wait(shell: Shell, web: str) -> None:
    status, out, err = shell.station.run("wait", "web", "--terminal-text", "$ ")
    assert (status, out) == (0, f"{web} terminal_text: $\n")
    assert f"cursor: {web}.2" in err
    words = ("wait", "web", "--terminal-idle", "9", "--terminal-text", "x", "--mode", "any")
    found = shell.json(*words)
    assert found["satisfied"]
    assert found["matches"][0] == {
        "sandbox": web,
        "index": 0,
        "condition": "terminal_text",
        "evidence": "x",
    }


def test_wait_for_all_drops_what_came_true(shell: Shell, web: str) -> None:
    words = ("--terminal-text", "x", "--port", "80", "--mode", "all", "--timeout", "1s", "--json")
    status, out, _ = shell.station.run("wait", "web", *words)
    assert status == 124
    found = json.loads(out)
    assert not found["satisfied"]
    assert [match["condition"] for match in found["matches"]] == ["terminal_text"]
    assert 0.9 < found["waited"] < PATIENCE


def test_wait_whose_time_is_over(shell: Shell, web: str) -> None:
    status, out, err = shell.station.run("wait", "web", "--exited", "--timeout", "300ms")
    assert (status, out) == (124, "")
    assert "did not come true within 0." in err


def test_wait_refused(shell: Shell, web: str) -> None:
    assert "until: no condition was given. valid: --terminal-text" in shell.fails("wait", "web")
    assert "timeout: 'soon' is not" in shell.fails("wait", "web", "--exited", "--timeout", "soon")
    shell("create", ".", "--name", "second")
    words = ("wait", "web", "second", "--exited", "--cursor", "a.1")
    assert "cursor: belongs to one sandbox" in shell.fails(*words)


def test_run(shell: Shell, web: str) -> None:
    assert shell("run", "web", "--", "echo", "out") == "out\n"
    assert shell.json("run", "web", "--timeout", "5", "--", "echo out") == {
        "exit_code": 0,
        "stdout": "out\n",
        "stderr": "",
        "truncated": False,
        "timed_out": False,
    }
    assert shell("run", "web", "--stdin", "-", "--cwd", "/", "--", "cat", given="in") == "out\n"


def test_run_in_the_background(shell: Shell, web: str) -> None:
    out = shell("run", "web", "--background", "--", "server")
    assert out == "pid 7, inside\nstdout: /tmp/o\nstderr: /tmp/e\n"
    assert shell.json("run", "web", "--background", "--", "server")["pid"] == 7


def test_run_fails_with_a_status_of_its_own(shell: Shell, web: str) -> None:
    assert "is called 'nobody'" in shell.fails("run", "nobody", "--", "ls", status=125)
    assert "command: is required" in shell.fails("run", "web", status=125)
    assert "run has no option --fly" in shell.fails("run", "web", "--fly", status=125)
    assert "timeout:" in shell.fails("run", "web", "--timeout", "0", "--", "ls", status=125)


def test_logs(shell: Shell, web: str) -> None:
    assert shell("logs", "web") == "one\ntwo\n"
    found = shell.json("logs", "web")
    assert found == {"offset": 0, "next": 19, "text": "one\ntwo\n"}
    assert shell("logs", "web", "--offset", "5", "--limit", "5") != "one\ntwo\n"
    assert shell.json("logs", "web", "--offset", "19") == {"offset": 19, "next": 19, "text": ""}


def test_raw_logs_never_reach_a_terminal(shell: Shell, web: str) -> None:
    assert shell("logs", "web", "--raw") == "one\r\n\x1b[31mtwo\x1b[0m\r\n"
    assert "raw bytes could act" in shell.shown("logs", "web", "--raw", status=1)
    assert shell.shown("logs", "web") == "one\r\ntwo\r\n"
    assert "raw bytes could act" in shell.fails("logs", "web", "--raw", "--json")[:80]


def test_logs_are_followed_until_the_sandbox_ends(shell: Shell, web: str) -> None:
    process = shell.station.start("logs", "web", "--follow")
    assert process.stdout
    assert process.stdout.readline() == b"one\n"
    assert process.poll() is None
    shell("stop", "web")
    assert process.stdout.read() == b"two\n"
    assert process.wait(PATIENCE) == 0
    assert shell("logs", "web", "-f", "--raw") == "one\r\n\x1b[31mtwo\x1b[0m\r\n"
    lines = shell("logs", "web", "-f", "--json").splitlines()
    assert "".join(json.loads(line)["text"] for line in lines) == "one\ntwo\n"
    assert "is called 'nobody'" in shell.fails("logs", "nobody", "--follow")


# --- display


def test_screenshot(shell: Shell, web: str) -> None:
    base = shell.station.base
    done = subprocess.run(
        [REAL, "screenshot", "web"], env=shell.station.env, capture_output=True, check=True
    )
    assert done.stdout == PIXELS
    assert shell("screenshot", "web", "-o", "a.png") == "a.png\n"
    assert (base / "a.png").read_bytes() == PIXELS
    words = ("--output", "b.webp", "--format", "webp", "--max-width", "640", "--region", "0,0,9,9")
    told = shell.json("screenshot", "web", *words)
    assert told == {
        "frame": "e-1",
        "region": [0, 0, 9, 9],
        "scale": 0.5,
        "tokens": 341,
        "bytes": len(PIXELS),
        "path": str(base / "b.webp"),
    }


def test_screenshot_at_a_terminal(shell: Shell, web: str) -> None:
    assert shell.shown("screenshot", "web") == "web-e-1.png\r\n"
    assert (shell.station.base / "web-e-1.png").read_bytes() == PIXELS
    assert "no text for a terminal" in shell.shown("screenshot", "web", "-o", "-", status=1)


def test_screenshot_of_an_unchanged_screen(shell: Shell, web: str) -> None:
    status, out, err = shell.station.run("screenshot", "web", "--if-changed-since", "e-1")
    assert (status, out, err) == (0, "", "unchanged since e-1\n")
    assert shell.json("screenshot", "web", "--if-changed-since", "e-1")["unchanged"] is True


def test_screenshot_into_a_folder_that_is_not_there(shell: Shell, web: str) -> None:
    err = shell.fails("screenshot", "web", "-o", "/no/where.png")
    assert "output: /no/where.png cannot be written" in err


@pytest.mark.parametrize(
    "words",
    [
        ("click", "web", "10", "20", "--button", "right", "--count", "2", "--frame", "e-1"),
        ("drag", "web", "1,2", "30,40", "50,60", "--button", "left"),
        ("scroll", "web", "10", "20", "--dy", "-3"),
        ("type", "web", "日本 ~é"),
    ],
    ids=lambda words: words[0],
)
def test_a_hand_on_the_display(shell: Shell, web: str, words: tuple[str, ...]) -> None:
    assert shell(*words) == "frame: e-2\n"
    assert shell.json(*words) == {"frame": "e-2"}


def test_a_hand_on_the_display_refused(shell: Shell, web: str) -> None:
    assert "path: '9' is not a point" in shell.fails("drag", "web", "1,2", "9")
    assert "dy: neither dx nor dy" in shell.fails("scroll", "web", "1", "2")
    assert "x: '-5' is not" in shell.fails("click", "web", "-5", "2")
    assert shell("type", "web", "-", given="from stdin") == "frame: e-2\n"


# --- the way out


def test_create_with_a_way_out(shell: Shell) -> None:
    hosts = ("--allow-host", "github", "--allow-host", "*.a.example")
    record = shell.json("create", ".", *hosts, "--secret", "api", "--forward", "git", "--verify")
    assert (record["network"], record["allowed_hosts"]) == ("allowlist", ["github", "*.a.example"])
    assert (record["secrets"], record["forward"]) == (["api"], ["git"])
    shown = shell("show", record["id"])
    assert re.search(r"^allowed hosts +github, \*\.a\.example$", shown, re.MULTILINE)
    err = shell.fails("create", ".", "--network", "full", "--allow-host", "github")
    assert "allow_hosts" in err


def test_egress(shell: Shell, web: str) -> None:
    shell("run", "web", "--", "ask h.example")
    shown = shell("egress", "web")
    assert re.search(r"^ASKS FOR +COUNT +LAST +PROGRAM$", shown, re.MULTILINE)
    assert re.search(r"^h\.example:443 +1 +1970-01-01 00:00:02 +curl$", shown, re.MULTILINE)
    assert re.search(r"^h\.example:443 +2 +1 +10B +20B +1970", shown, re.MULTILINE)
    assert re.search(r"forbidden +h\.example:443 +an address$", shown, re.MULTILINE)
    assert "asks for" not in shell("allow-host", "web", "h.example", "--once").lower()
    shell("run", "web", "--", "ask h.example")
    assert re.search(
        r"^allowed +h\.example$", shell("allow-host", "web", "h.example"), re.MULTILINE
    )
    assert shell.json("deny-host", "web", "*.evil.example")["denied"] == ["*.evil.example"]
    assert "host: '127.1' is an address" in shell.fails("deny-host", "web", "127.1")
    assert "egress_request: h.example:443" in shell("wait", "web", "--egress-request")


def test_a_create_with_a_task_gives_a_cursor(shell: Shell, web: str) -> None:
    assert shell("create", ".", "--task", "go").splitlines()[-1] == "cursor: ab.0"
    assert shell.json("create", ".", "--task", "go")["cursor"] == "ab.0"
    assert "cursor" not in shell.json("create", ".")


def test_the_agent_inside(shell: Shell, web: str) -> None:
    shown = shell("observe", "web")
    assert re.search(r"^disputed by +screen$", shown, re.MULTILINE)
    assert re.search(r"^hook +question: ask$", shown, re.MULTILINE)
    asked = "question q1, permission Bash: rm -rf x\n  1  Yes\n  2  No\n  text may be given\n"
    assert asked in shown
    assert re.search(r"^error +network: no way out$", shown, re.MULTILINE)
    assert re.search(r"^what to do +allow its host$", shown, re.MULTILINE)
    assert "queued: 1 prompts" in shown
    found = shell.json("observe", "web")
    assert set(found) == {"sandbox", "agent", "usage", "queued", "terminal"}
    assert (found["agent"]["state"], found["usage"]["cost"]) == ("question", 0.25)
    assert "used: 30 tokens, 1 turns, $0.2500" in shown
    assert "the proxy counted 100 ($0.7500), the transcript says 30; 3 answers estimated" in shown
    assert "submitted, proved by its hook" in shell("prompt", "web", "go")
    assert shell.json("prompt", "web", "go", "--queue")["queued"] is True
    assert shell.json("prompt", "web", "go")["proof"] == "hook"
    done = shell.json("answer", "web", "q1", "1")
    assert (done["question"], done["option"], done["next"]["id"]) == ("q1", "1", "q1")
    assert "question q1" in shell("answer", "web", "q1", "2", "--text", "no")
    assert "not on its screen" in shell.fails("answer", "web", "q0", "1")


def test_verify(shell: Shell, web: str) -> None:
    shown = shell("verify", "web")
    assert re.search(r"^held +loopback +the host's ports +ab$", shown, re.MULTILINE)
    assert shown.endswith("it holds: 2 held, 0 broken, 0 untested in 1.2 s\n")
    weak = shell.json("create", ".", "--name", "weak")["id"]
    status, out, _ = shell.station.run("verify", "weak")
    assert (status, "IT DOES NOT HOLD: 1 held, 1 broken" in out) == (1, True)
    assert json.loads(shell.station.run("verify", weak, "--json")[1])["held"] is False


def test_words_are_cut_at_their_end(shell: Shell, web: str) -> None:
    shown = shell.shown("egress", "web", columns=48)
    assert re.search(r"forbidden +h\.example:443 +an addr…", shown)


def test_doctor_attacks_a_sandbox_of_each_network(station: Station) -> None:
    status, out, err = station.run("doctor", "--attack")
    assert (status, err) == (0, "")
    assert re.findall(r"^network (\w+)$", out, re.MULTILINE) == [
        "none",
        "allowlist",
        "full",
        "host",
    ]
    assert out.count("it holds: 2 held") == 4
    status, out, _ = station.run("doctor", "--attack", "--json")
    found = json.loads(out)
    assert (status, found["held"]) == (0, True)
    assert [one["network"] for one in found["networks"]] == ["none", "allowlist", "full", "host"]
    assert station.daemon() == 0  # it had one of its own, which is gone
    assert not list(Path("/dev/shm").glob("csb-attack-*"))


# --- the program itself


@pytest.mark.parametrize(
    "words",
    [
        ("show",),
        *((verb,) for verb in ("pause", "resume", "stop", "delete", "attach", "read", "logs")),
        *((verb,) for verb in ("metrics", "screenshot", "egress", "verify")),
        ("allow-host", "h.example"),
        ("deny-host", "h.example"),
        ("send", "x"),
        ("type", "x"),
        ("wait", "--exited"),
        ("click", "1", "2"),
        ("scroll", "1", "2", "--dy", "1"),
        ("drag", "1,2", "3,4"),
    ],
    ids=lambda words: words[0],
)
def test_an_unknown_sandbox_is_told_with_those_there_are(
    shell: Shell, web: str, words: tuple[str, ...]
) -> None:
    verb, *rest = words
    err = shell.fails(verb, "nobody", *rest)
    assert err.startswith("csb-mcp: ")
    assert "no sandbox is called 'nobody'" in err
    assert web in err
    assert len(err.splitlines()) == 1
    problem = json.loads(shell.fails(verb, "nobody", *rest, "--json"))
    assert problem["code"] == "not_found"
    assert problem["choices"] == [web]


def test_a_command_line_that_makes_no_sense(shell: Shell) -> None:
    for words in (
        ("fly",),
        ("list", "--state"),
        ("list", "--state", "flying"),
        ("list", "extra"),
        ("show",),
        ("show", "web", "--fly", "high"),
        ("completion", "tcsh"),
        ("list", "--runtime-dir"),
    ):
        err = shell.fails(*words, status=2)
        assert "Try: csb-mcp" in err, words
        assert "Traceback" not in err


def test_help(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    overview = shell("--help")
    for name, verb in VERBS.items():
        assert f"csb-mcp {name}" in overview
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        told = capsys.readouterr().out
        assert told.startswith(f"usage: csb-mcp {name}")
        assert all(argument.name in told for argument in verb.arguments if argument.option)
    assert shell("list", "--help").startswith("usage: csb-mcp list")  # as a program, too
    status, out, _ = shell.station.run()
    assert (status, out) == (2, overview)


def test_settings_are_for_verbs_too(shell: Shell, web: str) -> None:
    run = str(shell.station.base / "run")
    del (env := dict(shell.station.env))["CSB_MCP_RUNTIME_DIR"]
    for words in (("--runtime-dir", run, "list"), ("list", "--runtime-dir", run, "--quiet")):
        done = subprocess.run([REAL, *words], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if words[0] == "list" else 2)
        assert done.stdout == (f"{web}\n" if words[0] == "list" else "")


def test_doctor(shell: Shell) -> None:
    status, out, _ = shell.station.run("doctor")
    assert status == 1
    assert "* bwrap: is not installed\n  repair: apt install bubblewrap" in out
    assert re.search(r"^ok +openat2 +works$", out, re.MULTILINE)
    assert re.search(r"^later +kvm ", out, re.MULTILINE)
    status, out, _ = shell.station.run("doctor", "--json")
    found = json.loads(out)
    assert (status, found["sandboxes_can_be_made"]) == (1, False)
    assert found["problems"][0]["what"] == "bwrap"
    assert found["daemon"]["pid"] == shell.station.daemon()
    assert {check["outcome"] for check in found["checks"]} <= {"ok", "weak", "missing", "later"}


def test_a_reader_that_has_enough(shell: Shell, web: str) -> None:
    read, write = os.pipe()
    os.close(read)
    for words in (("list",), ("logs", "web"), ("completion", "bash"), ("--help",)):
        done = subprocess.run(
            [REAL, *words], env=shell.station.env, stdout=write, stderr=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b""), words
    os.close(write)


def test_an_interrupt_ends_it_at_once(shell: Shell, web: str) -> None:
    process = shell.station.start("wait", "web", "--port", "80", "--timeout", "1h")
    until(lambda: connected(process.pid))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"", b"")
    assert process.returncode == -signal.SIGINT


def connected(pid: int) -> bool:
    """Whether it holds a socket at this moment."""
    found = ""
    with suppress(FileNotFoundError):  # each connection is short
        for path in Path(f"/proc/{pid}/fd").iterdir():
            found += os.readlink(path)
    return "socket:" in found


def test_what_takes_long_is_told_on_a_terminal(shell: Shell, web: str) -> None:
    words = ("wait", "web", "--port", "80", "--timeout", "2s")
    elsewhere = shell.station.start(*words)
    shown = shell.shown(*words, status=124)
    assert "\rwaiting… 1." in shown
    assert "\r\x1b[K" in shown
    said = elsewhere.communicate(timeout=PATIENCE)[1]
    assert b"did not come true" in said
    assert b"waiting" not in said


# --- the daemon


@pytest.fixture
def station() -> Iterator[Station]:
    with a_station() as station:
        yield station


def test_a_verb_starts_a_daemon_that_stays(station: Station) -> None:
    status, out, err = station.run("create", ".")
    assert (status, out, err) == (0, "00000000 running\n", "")
    assert station.log().count("serves") == 1
    assert station.run("list", "--quiet")[1] == "00000000\n"


def test_a_daemon_that_cannot_start(station: Station) -> None:
    station.env["CSB_MCP_RUN_AS"] = "broken"
    status, out, err = station.run("list", "--json")
    assert (status, out) == (3, "")
    found = json.loads(err)
    assert (found["code"], found["detail"]) == ("unreachable", "the daemon did not start")
    assert "the piece that broke" in found["hint"]
    status, out, err = station.run("run", "web", "--", "ls")
    assert (status, out) == (125, "")
    assert err.startswith("csb-mcp: the daemon did not start. ")


def test_a_daemon_of_another_version(station: Station) -> None:
    daemon = station.serve()
    newer = station.script("newer", "9.9.9")
    for _ in range(2):
        status, out, err = station.run("list", command=newer)
        assert (status, out) == (3, "")
        assert f"version {__version__}, this csb-mcp is 9.9.9" in err
        assert f"kill {daemon.pid}" in err
        # The second time it is one that is too old to serve HTTP.
        station.http_socket.unlink(missing_ok=True)


def test_what_answers_is_no_daemon(station: Station) -> None:
    folder = station.base / "run/daemon"
    folder.mkdir(parents=True)
    code = (
        "import http.server, socketserver, sys\n"
        "class Server(socketserver.UnixStreamServer):\n"
        "    def get_request(self):\n"
        "        return super().get_request()[0], ('local', 0)\n"
        "class Handler(http.server.SimpleHTTPRequestHandler):\n"
        "    def log_message(self, *_): pass\n"
        "Server(sys.argv[1], Handler).serve_forever()\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder / "http.sock")])
    try:
        until((folder / "http.sock").exists)
        status, _, err = station.run("list", command=REAL)
        assert status == 3
        assert "is no daemon of ours" in err
    finally:
        other.kill()
        other.wait()


# --- completion


def completed(shell: Shell, *words: str) -> list[str]:
    """What bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        "source <(csb-mcp completion bash)\n"
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
        "_csb_mcp; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        env=shell.station.env,
        cwd=shell.station.base,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_by_bash(shell: Shell, web: str) -> None:
    assert sorted(completed(shell, "csb-mcp", "st")) == ["stdio", "stop"]
    assert completed(shell, "csb-mcp", "stop", "") == [web, "web"]
    assert completed(shell, "csb-mcp", "stop", "we") == ["web"]
    assert completed(shell, "csb-mcp", "list", "--state", "p") == ["paused"]
    assert completed(shell, "csb-mcp", "wait", "web", "--terminal-i") == ["--terminal-idle"]
    assert completed(shell, "csb-mcp", "screenshot", "web", "-o", "run") == ["run"]
    assert "run" in completed(shell, "csb-mcp", "create", "")
    assert completed(shell, "csb-mcp", "completion", "") == ["bash", "zsh", "fish"]
    assert completed(shell, "csb-mcp", "create", ".", "--name", "") == []
    agents = completed(shell, "csb-mcp", "create", ".", "--agent", "")
    assert agents == ["claude", "codex", "shell", "command"]
    for verb in ("observe", "prompt", "answer"):
        assert completed(shell, "csb-mcp", verb, "we") == ["web"]
    assert completed(shell, "csb-mcp", "prompt", "web", "--q") == ["--queue"]


def test_completion_starts_no_daemon(station: Station) -> None:
    assert station.run("__sandboxes", command=REAL) == (0, "", "")
    assert not station.daemon()


@pytest.mark.parametrize("kind", ["zsh", "fish"])
def test_completion_for_other_shells_names_every_verb(shell: Shell, kind: str) -> None:
    script = shell("completion", kind)
    for name, verb in VERBS.items():
        assert name in script
        for argument in verb.arguments:
            assert not argument.option or argument.name[2:] in script


# --- names and numbers


def test_a_verb_reads_nothing_heavy() -> None:
    code = "import sys; from csb_mcp.transports.cli import main, lifecycle; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"asyncio", "mcp", "pydantic", "starlette", "dataclasses", "logging", "pathlib"}
    heavy |= {"ctypes", "shutil", "threading", "csb_mcp.config", "csb_mcp.model"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    ("verb", "convert"),
    [
        ("create", decode.sandbox_spec),
        ("list", decode.list_filter),
        ("observe", decode.observe),
        ("prompt", decode.send_prompt),
        ("answer", decode.answer),
        ("read", decode.read_terminal),
        ("send", decode.send_keys),
        ("run", decode.run_command),
        ("allow-host", decode.allow_host),
        ("deny-host", decode.deny_host),
        ("screenshot", decode.screenshot),
        ("click", decode.click),
        ("drag", decode.drag),
        ("scroll", decode.scroll),
        ("type", decode.type_text),
        ("logs", decode.read_log),
    ],
)
def test_a_verb_takes_what_all_faces_take(verb: str, convert: Any) -> None:
    ours = {"json", "quiet", "output", "follow", "raw"}
    names = {argument.key for argument in VERBS[verb].arguments} - ours
    names |= {VERBS[verb].rest} - {""}
    with pytest.raises(InvalidInput) as refused:
        convert({"no-such-argument": 1})
    assert names == set(refused.value.choices)


def test_every_condition_can_be_waited_for() -> None:
    assert [argument.key for argument in CONDITIONS] == list(ALL_CONDITIONS)


def test_settings_among_the_words() -> None:
    words = ["--state-dir=/x", "a", "--config", "f", "--keys", "Up", "--", "--state-dir"]
    line = parse(VERBS["send"], words)
    assert line.settings == {"state_dir": "/x", "config": "f"}
    assert (line.values["keys"], line.values["text"]) == (["Up"], "--state-dir")
    with pytest.raises(UsageError, match="has no option --fly"):
        parse(VERBS["send"], ["a", "--fly"])


def test_nothing_acts_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Even if the daemon left it in."""
    hostile = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2J\x9b31mc\u202ed"
    render.say(hostile)
    render.note(hostile)
    render.give(hostile)
    render.give(hostile, sys.stderr)
    render.table(("A", "B"), [(hostile, hostile)])
    render.pairs([("name", hostile)])
    put_row = one_row(hostile)
    render.show_json({"text": hostile})
    shown = "".join(capsys.readouterr()) + put_row
    assert not re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)


def test_words_for_numbers() -> None:
    assert [size(n) for n in (0, 1023, 1536, 64 << 20, 3 << 40)] == [
        *("0B", "1023B", "1.5K", "64M", "3072G"),
    ]
    assert [span(n) for n in (-1, 59, 61, 7300, 200000)] == ["0s", "59s", "1m", "2h", "2d"]
    assert sparkline([0, 50, 100], 100) == "▁▅█"
    assert sparkline([]) == ""
    assert columns("aé日") == 4
    assert fit("/a/日本", 5) == "…日本"


@pytest.mark.parametrize("plant", ["link", "fifo", "file"])
def test_a_picture_takes_the_name_and_touches_nothing_that_lies_there(
    tmp_path: Path, plant: str
) -> None:
    """In a project a payload may have put it there."""
    secret, target = tmp_path / "authorized_keys", tmp_path / "shot.png"
    secret.write_text("of the host")
    if plant == "link":
        target.symlink_to(secret)
    elif plant == "fifo":
        os.mkfifo(target)
    else:
        target.write_text("an older picture")
    write_file(str(target), PIXELS)
    assert secret.read_text() == "of the host"
    assert not target.is_symlink()
    assert target.read_bytes() == PIXELS
    assert sorted(path.name for path in tmp_path.iterdir()) == [secret.name, target.name]
