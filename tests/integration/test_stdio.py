"""The command as a client starts it: bridge, daemon, and all the ways in which they end.

The daemon here serves a service in memory (tests/contract/fake_service.py), but for the last tests.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from csb_mcp import __version__, bridge
from csb_mcp.config import load_settings
from csb_mcp.errors import HostUnable
from csb_mcp.lib.processes import ProcessHandle
from csb_mcp.places import prepare, private_folder
from tests.support.station import REPOSITORY, Station, a_station, end, until

META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
CREATE = {"project_dir": "/p"}
for_any_uid = pytest.mark.once  # bytes, signals and settings: as a normal user the rest is enough
LONG_WAIT = {"sandboxes": "0", "until": [{"port": 80}], "timeout": 40}


def request(number: int, name: str, arguments: Mapping[str, object]) -> bytes:
    params = {"name": name, "arguments": arguments, "_meta": META}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(message).encode() + b"\n"


@pytest.fixture
def station() -> Iterator[Station]:
    with a_station() as station:
        yield station


@pytest.fixture(scope="module")
def shared() -> Iterator[Station]:
    """One whose daemon runs, and has a sandbox: for what disturbs neither."""
    with a_station() as station:
        station.serve()
        station.run("stdio", given=request(1, "create_sandbox", CREATE))
        yield station


def answer_of(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout
    assert select.select([process.stdout], [], [], 20)[0], "no answer"
    return json.loads(process.stdout.readline())


def ask(process: subprocess.Popen[bytes], name: str, arguments: Mapping[str, object]) -> Any:
    send(process, name, arguments)
    return answer_of(process)


def send(process: subprocess.Popen[bytes], name: str, arguments: Mapping[str, object]) -> None:
    assert process.stdin
    process.stdin.write(request(1, name, arguments))
    process.stdin.flush()


def test_the_first_bridge_starts_a_daemon_that_is_tied_to_nothing(station: Station) -> None:
    status, out, err = station.run("stdio", given=request(1, "create_sandbox", CREATE))
    assert (status, err) == (0, "")
    assert json.loads(out)["result"]["structuredContent"]["id"] == "00000000"
    pid = station.daemon()
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) != os.getsid(0)
    assert os.getsid(pid) != pid  # no session leader, so it can never acquire a terminal
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"A_SECRET" not in environment
    assert b"CSB_MCP_STATE_DIR" in environment
    held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not [name for name in held if name.startswith("pipe:")]
    assert station.log().count("serves") == 1
    status, out, _ = station.run("stdio", given=request(1, "list_sandboxes", {}))
    assert len(json.loads(out)["result"]["structuredContent"]["sandboxes"]) == 1


@for_any_uid
def test_ten_bridges_at_once_start_one_daemon(station: Station) -> None:
    bridges = [station.start("stdio") for _ in range(10)]
    for process in bridges:
        assert "result" in ask(process, "metrics", {})
    assert station.log().count("serves") == 1


def test_folders_and_socket_are_ours_alone(shared: Station) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in (shared.state, shared.socket.parent)}
    assert set(modes.values()) == {0o700}
    assert (shared.base / "run").stat().st_mode & 0o777 == (0o700 if os.getuid() else 0o711)
    assert shared.socket.stat().st_mode & 0o077 == 0


def test_end_of_input_lets_calls_finish(shared: Station) -> None:
    given = request(1, "create_sandbox", CREATE)
    given += request(2, "wait", {**LONG_WAIT, "timeout": 0.5})
    status, out, err = shared.run("stdio", given=given)
    assert (status, err) == (0, "")
    assert {json.loads(line)["id"] for line in out.splitlines()} == {1, 2}


def test_a_last_line_without_its_end_counts(shared: Station) -> None:
    _, out, _ = shared.run("stdio", given=request(1, "metrics", {})[:-1])
    assert "result" in json.loads(out)


@for_any_uid
def test_ten_megabytes_go_through(shared: Station) -> None:
    process = shared.start("stdio")
    text = ask(process, "send_keys", {"sandbox": "0", "text": "x" * 10_000_000})
    assert "10000000 bytes are too many" in text["result"]["content"][0]["text"]
    status, out, _ = shared.run(
        "stdio", given=b"".join(request(n, "metrics", {}) for n in range(3000))
    )
    assert status == 0
    assert len(out.splitlines()) == 3000


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_bridge_and_no_sandbox(shared: Station, how: signal.Signals) -> None:
    process = shared.start("stdio")
    made = ask(process, "create_sandbox", CREATE)["result"]["structuredContent"]["id"]
    process.send_signal(how)
    assert process.wait(5) == -how
    _, out, _ = shared.run("stdio", given=request(1, "list_sandboxes", {}))
    assert made in out


PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write({given!r})
child.stdin.flush()
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_the_bridge_ends_with_its_parent_whatever_it_waits_for(shared: Station) -> None:
    given = request(1, "create_sandbox", CREATE) + request(2, "wait", LONG_WAIT)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(given=given), str(shared.command), "stdio"],
        env=shared.env,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout
    child = ProcessHandle(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    until(lambda: not child.alive(), 5)
    child.close()


def test_the_bridge_ends_when_nobody_reads_its_answers(shared: Station) -> None:
    process = shared.start("stdio")
    ask(process, "metrics", {})
    send(process, "wait", LONG_WAIT)
    assert process.stdout
    process.stdout.close()
    assert process.wait(5) == 1
    process.stdout = None


@for_any_uid
def test_a_killed_daemon_is_told_and_replaced(station: Station) -> None:
    process = station.start("stdio")
    ask(process, "metrics", {})
    first = station.daemon()
    end(first, signal.SIGKILL)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 1
    assert b"the daemon has ended; sandboxes go on" in err
    assert station.socket.exists()  # stale
    status, out, err = station.run("stdio", given=request(1, "metrics", {}))
    assert (status, err) == (0, "")
    assert "result" in out
    assert station.daemon() != first


@for_any_uid
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_daemon_gracefully(station: Station, how: signal.Signals) -> None:
    daemon = station.serve()
    client = station.start("stdio")
    ask(client, "create_sandbox", CREATE)
    send(client, "wait", LONG_WAIT)
    daemon.send_signal(how)
    _, err = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert f"ending: {how.name}".encode() in err
    assert b"Traceback" not in err
    assert not station.socket.exists()
    assert (station.state / "closed").exists()
    assert client.wait(5) == 1


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(shared: Station) -> None:
    status, _, err = shared.run("serve")
    assert status == 1
    assert f"another daemon runs (pid {shared.daemon()})" in err
    assert "result" in shared.run("stdio", given=request(1, "metrics", {}))[1]


def test_one_runtime_folder_serves_one_daemon(
    shared: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shared.daemon()
    monkeypatch.setitem(shared.env, "CSB_MCP_STATE_DIR", str(shared.base / "other"))
    status, _, err = shared.run("serve")
    assert status == 1
    assert f"pid {first}" in err


def test_a_daemon_that_cannot_start_says_why(station: Station) -> None:
    station.env["CSB_MCP_RUN_AS"] = "broken"
    status, out, err = station.run("stdio", given=request(1, "metrics", {}))
    assert (status, out) == (1, "")
    assert "the daemon did not start" in err
    assert "the piece that broke" in err


def test_a_wrong_setting_is_named(station: Station) -> None:
    station.env["CSB_MCP_IDLE_EXIT"] = "soon"
    status, _, err = station.run("stdio")
    assert status == 1
    assert "idle_exit" in err
    assert "soon" in err


@for_any_uid
def test_settings_may_be_given_to_the_bridge(station: Station) -> None:
    other = station.base / "elsewhere"
    options = ("--runtime-dir", str(other))
    status, out, err = station.run("stdio", *options, given=request(1, "metrics", {}))
    assert (status, err) == (0, "")
    assert "result" in out
    assert (other / "daemon/mcp.sock").exists()
    status, _, err = station.run("stdio", "--colour", "red")
    assert status == 1
    assert "no such setting" in err


@for_any_uid
def test_a_settings_file_may_be_named_from_where_one_stands(station: Station) -> None:
    (station.base / "mine.toml").write_text(f'runtime_dir = "{station.base}/file"\n')
    del station.env["CSB_MCP_RUNTIME_DIR"]
    for options, env in ((("--config", "mine.toml"), {}), ((), {"CSB_MCP_CONFIG": "mine.toml"})):
        station.env |= env
        status, out, err = station.run("stdio", *options, given=request(1, "metrics", {}))
        assert (status, err) == (0, "")
        assert "result" in out
        assert (station.base / "file/daemon/mcp.sock").exists()
        end(station.daemon(), signal.SIGTERM)


def test_another_version_is_told_to_restart_the_daemon(shared: Station) -> None:
    newer = shared.script("newer", "9.9.9")
    status, out, err = shared.run("stdio", command=newer, given=request(1, "metrics", {}))
    assert (status, out) == (1, "")
    assert f"version {__version__}, this csb-mcp is 9.9.9" in err
    assert f"kill {shared.daemon()}" in err


def test_toolsets_and_read_only_reach_the_daemon(shared: Station) -> None:
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    given = json.dumps(listing).encode() + b"\n"
    _, out, _ = shared.run("stdio", "--read-only", "--toolsets", "core", given=given)
    assert len(json.loads(out)["result"]["tools"]) == 6
    status, _, err = shared.run("stdio", "--toolsets=core,x", given=given)
    assert status == 1
    assert "toolsets: 'x' is not a set of tools. valid: core, desktop" in err


@for_any_uid
def test_an_auto_started_daemon_ends_when_nothing_needs_it(station: Station) -> None:
    station.env["CSB_MCP_IDLE_EXIT"] = "400ms"
    client = station.start("stdio")
    ask(client, "metrics", {})
    daemon = ProcessHandle(station.daemon())
    sandbox = station.start("stdio")
    ask(sandbox, "create_sandbox", CREATE)
    for process in (client, sandbox):
        process.communicate()
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 1)
    assert daemon.alive()  # for its sandbox
    station.run("stdio", given=request(1, "stop", {"sandbox": "0"}))
    until(lambda: not daemon.alive(), 5)
    daemon.close()
    assert "nobody needed it" in station.log()
    assert not station.socket.exists()


def test_doctor_asks_the_daemon_that_runs(shared: Station) -> None:
    status, out, _ = shared.run("doctor")
    assert status == 1
    assert f"runs, pid {shared.daemon()}" in out
    assert "* bwrap: is not installed\n  repair: apt install bubblewrap" in out


def test_doctor_looks_itself_where_none_runs(station: Station) -> None:
    status, out, _ = station.run("doctor")
    assert status == 1
    assert "does not run" in out
    assert "apt install bubblewrap" in out
    (station.base / "run").chmod(0o777)
    _, out, _ = station.run("doctor")
    assert "is writable for others" in out
    assert "repair: Look through it, then: chmod" in out


def test_doctor_tells_of_agents_that_are_not_here(station: Station) -> None:
    station.command = Path(sys.executable).with_name("csb-mcp")
    station.env["CSB_MCP_CLAUDE"] = "/nowhere/claude"
    status, out, _ = station.run("doctor")
    assert status == 0, "others can be made all the same"
    words = (
        "- agent claude: /nowhere/claude is not a program\n  repair: correct the setting `claude`"
    )
    assert words in out
    problems = json.loads(station.run("doctor", "--json")[1])["problems"]
    (told,) = (problem for problem in problems if problem["what"] == "agent claude")
    assert (told["repair"], told["fatal"]) == ("correct the setting `claude`", False)


def test_help_and_version(station: Station) -> None:
    assert station.run("--version")[:2] == (0, f"csb-mcp {__version__}\n")
    status, out, _ = station.run("stdio", "--help")
    assert status == 0
    assert "--read-only" in out
    assert "csb-mcp doctor" in station.run("--help")[1]
    assert station.run()[0] == 2
    for words in (("fly",), ("stdio", "--toolsets"), ("serve", "now")):
        status, _, err = station.run(*words)
        assert status == 2
        assert "csb-mcp --help" in err


def test_the_log_is_capped_and_takes_stderr_along(station: Station) -> None:
    code = f"""
import logging, os
from pathlib import Path
from csb_mcp import daemon
daemon._LOG_BYTES = 2000
daemon._log_to(Path({str(station.base / "d.log")!r}))
for number in range(100):
    logging.info("line %d %s", number, "x" * 50)
os.write(2, b"a crash")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
    assert (station.base / "d.log").stat().st_size <= 2100
    assert (station.base / "d.log.1").stat().st_size <= 2100
    assert (station.base / "d.log").read_bytes().endswith(b"a crash")


ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"XDG_RUNTIME_DIR": "/run/user/5"},
    {"CSB_MCP_RUNTIME_DIR": "/somewhere/short"},
    {"CSB_MCP_RUNTIME_DIR": "/somewhere/short/"},
    {"CSB_MCP_RUNTIME_DIR": "~/run"},
    {"CSB_MCP_RUNTIME_DIR": ""},
    {"CSB_MCP_CONFIG": "{base}/config.toml"},
    {"CSB_MCP_CONFIG": "{base}/config.toml", "CSB_MCP_RUNTIME_DIR": "/wins"},
    {"XDG_CONFIG_HOME": "{base}/etc"},
]


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("changes", ENVIRONMENTS)
def test_the_quick_way_to_the_socket_is_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], root: bool
) -> None:
    (tmp_path / "etc/csb-mcp").mkdir(parents=True)
    for path in (tmp_path / "config.toml", tmp_path / "etc/csb-mcp/config.toml"):
        path.write_text('runtime_dir = "/from/a/file"\n')
    monkeypatch.setattr(os, "getuid", lambda: 0 if root else 5)
    for name in os.environ:
        if name.startswith(("CSB_MCP_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in changes.items():
        monkeypatch.setenv(name, value.format(base=tmp_path))
    flags: dict[str, str] = {}
    expected = outcome(lambda: str(load_settings(flags).mcp_socket))
    assert outcome(lambda: bridge.socket_path(flags)) == expected


def outcome(call: Callable[[], str]) -> str:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 the same one is wanted
        return repr(error)


def test_the_bridge_imports_nothing_heavy() -> None:
    code = "import sys, csb_mcp.bridge; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {
        "asyncio",
        "mcp",
        "pydantic",
        "starlette",
        "dataclasses",
        "typing",
        "logging",
        "pathlib",
    }
    assert not heavy & set(done.stdout.split())


def test_a_folder_that_others_can_change_is_refused(short_dir: Path) -> None:
    (short_dir / "real").mkdir()
    (short_dir / "link").symlink_to("real")
    (short_dir / "file").touch()
    (short_dir / "open").mkdir()
    (short_dir / "open").chmod(0o777)
    for name, words in (
        ("link", "cannot be used"),
        ("file", "cannot be used"),
        ("open", "writable for others"),
        ("open/below", "anybody may rename it"),
    ):
        with pytest.raises(HostUnable, match=words):
            private_folder(short_dir / name)
    (short_dir / "real").chmod(0o755)
    private_folder(short_dir / "real")
    assert (short_dir / "real").stat().st_mode & 0o777 == 0o700
    with pytest.raises(HostUnable, match="70 are the most"):
        prepare(load_settings({"runtime_dir": "/" + "x" * 80}))


@pytest.mark.root
def test_somebody_elses_folder_is_refused(short_dir: Path) -> None:
    (short_dir / "theirs").mkdir(mode=0o700)
    os.chown(short_dir / "theirs", 65533, 65533)
    with pytest.raises(HostUnable, match="belongs to uid 65533"):
        private_folder(short_dir / "theirs")


def structured(out: str) -> Any:
    return json.loads(out)["result"]["structuredContent"]


def test_a_real_sandbox_outlives_a_killed_daemon(station: Station) -> None:
    station.command = Path(sys.executable).with_name("csb-mcp")
    project = station.base / "project"
    project.mkdir()
    status, out, _ = station.run("doctor")
    assert (status, out.splitlines()[-1]) == (0, "Sandboxes can be made.")
    create = request(
        1, "create_sandbox", {"project_dir": str(project), "agent": "shell", "name": "web"}
    )
    _, out, err = station.run("stdio", given=create)
    assert structured(out)["state"] == "running", err
    try:
        end(station.daemon(), signal.SIGKILL)
        command = {"sandbox": "web", "command": "pwd; echo written > file"}
        _, out, _ = station.run("stdio", given=request(1, "run_command", command))
        assert structured(out)["stdout"] == f"{project}\n"
        assert (project / "file").read_text() == "written\n"
    finally:
        _, out, _ = station.run("stdio", given=request(1, "delete", {"sandbox": "web"}))
    assert structured(out)["state"] == "stopped"
