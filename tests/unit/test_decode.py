import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp import decode
from csb_mcp.errors import InvalidInput
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    CostOver,
    EgressAsked,
    EgressRequest,
    Exited,
    FileExists,
    Geometry,
    Limits,
    Point,
    PortOpen,
    QuestionAsked,
    Region,
    Sandbox,
    SandboxSpec,
    SandboxState,
    ScreenChanged,
    ScreenStable,
    TerminalIdle,
    TerminalRegex,
    TerminalText,
    TokensOver,
    TurnFinished,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


WRONG: tuple[object, ...] = (0, -1, "0", "", "many", True, [], float("inf"))


def refusal(call: Callable[[Any], object], value: object) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        call(value)
    return caught.value


def test_a_spec_has_the_documented_defaults() -> None:
    claude = SandboxSpec(project_dir=Path("/p"), agent="claude", network="allowlist")
    assert decode.sandbox_spec({"project_dir": "/p"}) == claude
    shell = decode.sandbox_spec({"project_dir": "/p", "agent": "shell"})
    assert shell == SandboxSpec(project_dir=Path("/p"))


def test_a_full_spec() -> None:
    spec = decode.sandbox_spec(
        {
            "project_dir": "/home/me/app",
            "name": "web-1.a",
            "backend": "bubblewrap",
            "agent": "command",
            "command": ["make", "run"],
            "network": "allowlist",
            "workspace": "direct",
            "geometry": "800x600",
            "gl": True,
            "memory": "512M",
            "cpus": 1.5,
            "pids": 100,
            "ttl": "30m",
            "idle_timeout": "10m",
            "env": {"LANG": "C.UTF-8"},
        }
    )
    assert (spec.name, spec.agent, spec.command) == ("web-1.a", "command", ("make", "run"))
    assert (spec.geometry, spec.ttl, spec.gl) == (Geometry(800, 600), 1800, True)
    assert (spec.network, spec.env) == ("allowlist", {"LANG": "C.UTF-8"})
    assert (spec.memory, spec.cpus, spec.pids) == (512 * 1024**2, 1.5, 100)
    assert spec.idle_timeout == 600


def test_null_means_not_given() -> None:
    assert decode.sandbox_spec({"project_dir": "/p", "name": None, "env": None}).name is None


def test_the_earlier_managers_body_means_what_it_meant() -> None:
    """Its sandboxes ran Claude Code, with the network or without."""
    body = {"name": "web", "backend": "bubblewrap", "project_dir": "/p"}
    for network, name in ((True, "full"), (False, "none")):
        spec = decode.sandbox_spec({**body, "network": network})
        assert (spec.agent, spec.network) == ("claude", name)


def test_a_command_means_the_agent_that_runs_it() -> None:
    spec = decode.sandbox_spec({"project_dir": "/p", "command": "make && ./run"})
    assert (spec.agent, spec.command) == ("command", ("bash", "-c", "make && ./run"))
    assert spec.network == "none"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project_dir", "relative"),
        ("project_dir", "/a\nb"),
        ("project_dir", "/a\0b"),
        ("project_dir", ""),
        ("project_dir", "/" + "x" * 5000),
        ("project_dir", 7),
        ("name", "../up"),
        ("name", "a\n"),
        ("name", "A"),
        ("name", "-a"),
        ("name", "a" * 64),
        ("name", ""),
        ("agent", "clod"),
        ("agent", "command"),
        ("command", []),
        ("command", [""]),
        ("command", ["a", "b\0"]),
        ("network", "lan"),
        ("workspace", "overlay"),
        ("geometry", "63x64"),
        ("geometry", "1280"),
        ("geometry", "99999x800"),
        ("geometry", "1280x4321"),
        ("geometry", "1280x800\n"),
        ("geometry", [1280, 800]),
        ("gl", "yes"),
        ("ttl", 0),
        ("ttl", -1),
        ("ttl", "soon"),
        ("ttl", True),
        ("ttl", float("inf")),
        *((key, value) for key in ("memory", "cpus", "pids", "idle_timeout") for value in WRONG),
        ("memory", "64M"),
        ("memory", "99999T"),
        ("cpus", 5000),
        ("cpus", "half"),
        ("cpus", float("nan")),
        ("pids", 5),
        ("pids", 1.5),
        ("env", ["A=B"]),
        ("env", {"1A": "x"}),
        ("env", {"A=B": "x"}),
        ("env", {"A\n": "x"}),
        ("env", {"A": "x\0"}),
        ("env", {"A": 1}),
        ("env", {"A": "x" * 70_000}),
        ("allow_hosts", 5),
        ("allow_hosts", ["198.51.100.1"]),
        ("allow_hosts", ["0x7f.1"]),
        ("allow_hosts", "a.example, *.org"),
        ("allow_hosts", ["a.example:0"]),
        ("allow_hosts", ["a.example\0"]),
        ("allow_hosts", ["münchen.example"]),
        ("allow_hosts", [["github"]]),
        ("allow_hosts", [f"a{n}.example" for n in range(257)]),
        ("secrets", ["a b"]),
        ("secrets", [1]),
        ("forward", ["ssh"]),
        ("verify", "yes"),
    ],
)
def test_a_bad_field_is_named(key: str, value: object) -> None:
    error = refusal(decode.sandbox_spec, {"project_dir": "/p", key: value})
    assert error.field
    assert re.match(r"\w+", error.field)[0] in (key, "command")  # pyright: ignore[reportOptionalSubscript]
    assert error.hint or error.choices or error.message


def test_hosts_of_a_create() -> None:
    spec = decode.sandbox_spec({"project_dir": "/p", "allow_hosts": ["A.Example.", "github"]})
    assert (spec.network, spec.allow_hosts) == ("allowlist", ("a.example", "github"))
    hosts = "github, *.b.example:8443 github"
    text = decode.sandbox_spec({"project_dir": "/p", "allow_hosts": hosts})
    assert text.allow_hosts == ("github", "*.b.example:8443")
    none = decode.sandbox_spec({"project_dir": "/p", "agent": "shell", "allow_hosts": []})
    assert none.network == "none"
    secret = decode.sandbox_spec({"project_dir": "/p", "secrets": "api", "forward": "git gpu"})
    assert (secret.network, secret.secrets, secret.forward) == (
        *("allowlist", ("api",)),
        ("git", "gpu"),
    )
    for network in ("none", "full", True):
        wrong = {"project_dir": "/p", "network": network, "allow_hosts": ["github"]}
        assert refusal(decode.sandbox_spec, wrong).field == "allow_hosts"
    # Whether a secret needs the proxy, the settings know: one may be meant to be inside.
    inside = decode.sandbox_spec({"project_dir": "/p", "network": "full", "secrets": ["api"]})
    assert (inside.network, inside.secrets) == ("full", ("api",))


@pytest.mark.parametrize("named", [None, "none", "full", "allowlist"])
def test_an_agent_that_needs_hosts_has_the_allowlist_unless_a_network_is_named(
    named: str | None,
) -> None:
    asked = {"project_dir": "/p", "agent": "claude"} | ({"network": named} if named else {})
    assert decode.sandbox_spec(asked).network == (named or "allowlist")


def test_hosts_that_are_answered_for() -> None:
    allowed = decode.allow_host({"sandbox": "web", "host": "*.Example.org:443", "once": True})
    assert allowed == decode.AllowHost("web", "*.example.org:443", True)
    assert decode.deny_host({"sandbox": "web", "host": "npm"}) == decode.DenyHost("web", "npm")
    for wrong in ("", "[::1]", "127.1", "http://a.example", "a.example:99999", None, 7, "a..b"):
        assert refusal(decode.deny_host, {"sandbox": "web", "host": wrong}).field == "host"
    assert "presets" not in refusal(decode.allow_host, {"sandbox": "web"}).message
    assert "github" in str(refusal(decode.allow_host, {"sandbox": "web", "host": "*"}))


def test_a_record_tells_of_its_way_out() -> None:
    spec = SandboxSpec(project_dir=Path("/p"), secrets=("api",), forward=("git",))
    plain = Sandbox(id="a", spec=spec, state=SandboxState.RUNNING, uid=1, created_at=0.0)
    assert decode.record(plain).keys() & {"allowed_hosts", "pending_hosts", "denied_hosts"} == set()
    asked = EgressRequest(host="h\x1b[31m.example", port=443, count=3, first=0.0, last=1.0)
    told = decode.record(replace(plain, allowed_hosts=("github",), pending=(asked,)))
    assert told["allowed_hosts"] == ["github"]
    assert told["pending_hosts"] == ["h.example:443 (x3)"]
    assert (told["secrets"], told["forward"]) == (["api"], ["git"])


def test_an_unknown_argument_is_refused_with_the_valid_ones() -> None:
    error = refusal(decode.sandbox_spec, {"project_dir": "/p", "projectdir": "/p"})
    assert error.field == "projectdir"
    assert "project_dir" in error.choices


def test_a_missing_argument_is_named() -> None:
    assert refusal(decode.sandbox_spec, {}).field == "project_dir"
    assert refusal(decode.wait, {"sandboxes": "ab"}).field == "until"


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_arguments_are_an_object(value: object) -> None:
    assert "object" in refusal(decode.sandbox_spec, value).message


def test_every_condition() -> None:
    found = decode.conditions(
        [
            {"terminal_text": "$ "},
            {"terminal_regex": "a+"},
            {"terminal_idle": "2s"},
            {"screen_changed": "e-1"},
            {"screen_stable": 1.5},
            {"exited": True},
            {"file": "out/log"},
            {"port": 8080},
            {"egress_request": True},
            {"agent_state": "ready"},
            {"question": True},
            {"turn_finished": True},
            {"tokens_over": "1000"},
            {"cost_over": 2.5},
        ]
    )
    assert found == (
        TerminalText("$ "),
        TerminalRegex("a+"),
        TerminalIdle(2),
        ScreenChanged("e-1"),
        ScreenStable(1.5),
        Exited(),
        FileExists("out/log"),
        PortOpen(8080),
        EgressAsked(),
        AgentStateIs(AgentState.READY),
        QuestionAsked(),
        TurnFinished(),
        TokensOver(1000),
        CostOver(2.5),
    )
    assert tuple(decode.condition_kind(condition) for condition in found) == decode.CONDITIONS


BAD_CONDITIONS: list[tuple[object, str]] = [
    ([], "until"),
    ({}, "until"),
    ([{}], "until[0]"),
    ([{"exited": True, "port": 1}], "until[0]"),
    ([{"exited": True}, {"agent": 1}], "until[1]"),
    ([{"exited": False}], "until[0].exited"),
    ([{"egress_request": "h.example"}], "until[0].egress_request"),
    ([{"port": 0}], "until[0].port"),
    ([{"port": 65536}], "until[0].port"),
    ([{"port": True}], "until[0].port"),
    ([{"terminal_idle": 0}], "until[0].terminal_idle"),
    ([{"terminal_idle": 46}], "until[0].terminal_idle"),
    ([{"terminal_text": ""}], "until[0].terminal_text"),
    ([{"terminal_regex": "x" * 1001}], "until[0].terminal_regex"),
    ([{"file": "a\nb"}], "until[0].file"),
    ([{"exited": True}] * 17, "until"),
]


@pytest.mark.parametrize(("value", "field"), BAD_CONDITIONS)
def test_a_bad_condition_is_named_by_its_place(value: Any, field: str) -> None:
    assert refusal(decode.wait, {"sandboxes": "ab", "until": value}).field == field


def test_a_longer_wait_is_told_to_come_in_slices() -> None:
    values = {"sandboxes": ["ab"], "until": [{"exited": True}], "timeout": 46}
    error = refusal(decode.wait, values)
    assert error.field == "timeout"
    assert "cursor" in str(error)
    assert decode.wait(values | {"timeout": 45}).timeout == 45


def test_one_sandbox_needs_no_lists() -> None:
    request = decode.wait({"sandboxes": "ab", "until": [{"exited": True}], "cursor": "ab.1"})
    assert (request.sandboxes, request.cursor, request.mode) == (("ab",), {"ab": "ab.1"}, "any")
    several = {"sandboxes": ["ab", "cd"], "until": [{"exited": True}]}
    assert refusal(decode.wait, several | {"cursor": "ab.1"}).field == "cursor"
    assert decode.wait(several | {"cursor": {"cd": "cd.1"}}).cursor == {"cd": "cd.1"}


def test_keys_come_as_a_list_or_a_string() -> None:
    assert decode.key_list("C-c  Enter") == ("C-c", "Enter")
    assert decode.key_list(["Up"]) == ("Up",)
    for bad in ([], "", [""], ["a\x1b"], ["x" * 33], [1], ["a"] * 257):
        refusal(decode.key_list, bad)


def test_sending_nothing_is_refused() -> None:
    assert refusal(decode.send_keys, {"sandbox": "ab"}).field == "keys"


def test_text_has_a_size_and_no_nul() -> None:
    assert decode.text("é" * 131_072)
    for bad in ("é" * 131_073, "a\0", "\ud800", 1):
        refusal(decode.text, bad)


def test_regions() -> None:
    assert decode.region([0, 1, 2, "3"]) == Region(0, 1, 2, 3)
    for bad in ([0, 0, 0, 1], [-1, 0, 1, 1], [0, 0, 1], "0,0,1,1", [0, 0, 1.5, 1], [0, 0, 1, 7681]):
        refusal(decode.region, bad)


def test_screenshot_and_command_arguments() -> None:
    shot = decode.screenshot({"sandbox": "ab", "format": "webp", "max_width": 320})
    assert (shot.format, shot.max_width, shot.region) == ("webp", 320, None)
    assert refusal(decode.screenshot, {"sandbox": "ab", "format": "gif"}).choices == decode.FORMATS
    command = decode.run_command({"sandbox": "ab", "command": "ls", "timeout": "5m"})
    assert (command.timeout, command.background) == (300, False)
    error = refusal(decode.run_command, {"sandbox": "ab", "command": "ls", "timeout": 601})
    assert "background" in str(error)


@pytest.mark.parametrize("sandbox", ["../x", "a/b", "a\nb", "", "x" * 64, "AB", 3, None])
def test_a_sandbox_is_named_by_id_or_name(sandbox: object) -> None:
    assert refusal(decode.named_sandbox, {"sandbox": sandbox}).field == "sandbox"


def test_states() -> None:
    assert decode.list_filter({}) is None
    assert decode.list_filter({"state": "running"}) is SandboxState.RUNNING
    assert "stopped" in refusal(decode.list_filter, {"state": "up"}).choices


def test_places_on_the_display() -> None:
    click = decode.click({"sandbox": "a", "x": 3, "y": "4", "frame": "f-1"})
    assert (click.at, click.button, click.count, click.frame) == (Point(3, 4), "left", 1, "f-1")
    drag = decode.drag({"sandbox": "a", "path": [[1, 2], [3, 4]], "button": "right"})
    assert (drag.path, drag.button) == ((Point(1, 2), Point(3, 4)), "right")
    scroll = decode.scroll({"sandbox": "a", "x": 1, "y": 2, "dy": -3})
    assert (scroll.dx, scroll.dy, scroll.frame) == (0, -3, None)
    assert decode.type_text({"sandbox": "a", "text": "日本\n"}).text == "日本\n"


def test_a_part_of_the_log() -> None:
    assert decode.read_log({"sandbox": "a"}).offset is None
    log = decode.read_log({"sandbox": "a", "offset": "0", "limit": 10})
    assert (log.offset, log.limit) == (0, 10)


@pytest.mark.parametrize(
    ("call", "values", "field"),
    [
        (decode.click, {"x": -1, "y": 0}, "x"),
        (decode.click, {"x": 1, "y": 99_999}, "y"),
        (decode.click, {"y": 1}, "x"),
        (decode.click, {"x": 1, "y": 1, "button": "back"}, "button"),
        (decode.click, {"x": 1, "y": 1, "count": 4}, "count"),
        (decode.click, {"x": 1, "y": 1, "frame": ""}, "frame"),
        (decode.drag, {"path": [[1, 2]]}, "path"),
        (decode.drag, {"path": [[1, 2], [3]]}, "path[1]"),
        (decode.drag, {"path": [[1, 2], [3, "x"]]}, "path[1][1]"),
        (decode.drag, {"path": [[1, 2], {"x": 3}]}, "path[1]"),
        (decode.drag, {"path": [[1, 1]] * 101}, "path"),
        (decode.scroll, {"x": 1, "y": 1}, "dy"),
        (decode.scroll, {"x": 1, "y": 1, "dx": 101}, "dx"),
        (decode.type_text, {"text": ""}, "text"),
        (decode.type_text, {"text": "a\0"}, "text"),
        (decode.read_log, {"offset": -1}, "offset"),
        (decode.read_log, {"limit": 0}, "limit"),
        (decode.read_log, {"limit": 10**9}, "limit"),
    ],
)
def test_what_is_wrong_with_a_display_call_is_named(
    call: Callable[[Any], object], values: dict[str, object], field: str
) -> None:
    assert refusal(call, {"sandbox": "a"} | values).field == field


CALLS = (
    *(decode.sandbox_spec, decode.wait, decode.send_keys, decode.click, decode.drag),
    *(decode.scroll, decode.type_text, decode.read_log),
)


@given(JSON, st.sampled_from(CALLS))
def test_nothing_but_invalid_input_comes_out(value: object, call: Callable[[Any], object]) -> None:
    keys = ("project_dir", "sandboxes", "until", "sandbox", "keys", "env", "command", "memory")
    for key in (*keys, "cpus", "path", "x", "offset"):
        error = refused(call, value) or refused(call, {key: value})
        assert error is None or len(str(error)) < 1500
        assert error is None or plain_text(error.message) == error.message


def refused(call: Callable[[Any], object], value: object) -> InvalidInput | None:
    try:
        call(value)
    except InvalidInput as error:
        return error
    return None


@given(st.text())
def test_plain_text_is_plain_and_stays_so(text: str) -> None:
    clean = plain_text(text)
    assert all(
        character.isprintable() or character in "\t\n" or ord(character) > 159
        for character in clean
    )
    assert plain_text(clean) == clean


def test_escapes_are_removed_whole() -> None:
    assert plain_text("\x1b[31mred\x1b[0m\x1b]0;title\x07 ok\x1b(B\x1bPq\x1b\\.") == "red ok."
    assert plain_text("10 %\r20 %\r\nend\x00\x7f\x9b") == "10 %\n20 %\nend"
    assert plain_text("a\u202eb\U000e0041c\ud800") == "abc\ufffd"
    assert one_line("a\n\n b\x1b[2J", 9) == "a b"
    assert one_line("x" * 10, 4) == "xxx…"


def test_a_record_as_every_face_shows_it() -> None:
    sandbox = Sandbox(
        id="k3f9x2ab",
        spec=SandboxSpec(project_dir=Path("/p")),
        state=SandboxState.RUNNING,
        uid=1000,
        created_at=1_700_000_000.5,
        limits=Limits(asked={"ttl": "60"}, enforced_by={"ttl": "daemon"}),
        attach="tmux attach",
    )
    record = decode.record(sandbox)
    assert list(record) == [
        *("id", "name", "backend", "agent", "state", "agent_state", "project_dir", "network"),
        *("workspace", "geometry", "limits", "created_at", "attach"),
    ]
    assert record["created_at"] == "2023-11-14T22:13:20.500Z"
    assert record["limits"] == {"asked": {"ttl": "60"}, "enforced_by": {"ttl": "daemon"}}
