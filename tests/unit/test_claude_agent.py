"""Hooks, seed, strokes and the search for the program."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.agents.claude import Claude
from csb_mcp.agents.claude.program import find
from csb_mcp.agents.spool import COMMAND, MAX_BYTES, SPOOL
from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.model import HookFact, Option, Question
from csb_mcp.ports.agent import Agent, Stroke

AGENT: Agent = Claude()
PROJECT = Path("/home/me/app")


def hook(name: str, **fields: object) -> HookFact | None:
    return AGENT.hook(json.dumps({"hook_event_name": name, **fields}).encode())


def keys(strokes: Sequence[Stroke]) -> list[str]:
    return [key for stroke in strokes for key in stroke.keys]


def asked(kind: str, *labels: str, free: bool = False, marked: str = "1") -> Question:
    options = tuple(Option(str(n), label) for n, label in enumerate(labels, 1))
    return Question(id="q", kind=kind, detail="", options=options, free=free, marked=marked)


@pytest.mark.parametrize(
    ("name", "fields", "fact"),
    [
        ("SessionStart", {"source": "startup"}, HookFact(kind="started", text="startup")),
        ("UserPromptSubmit", {"prompt": "a\nb\x1b[1m"}, HookFact(kind="prompt", text="a\nb")),
        (
            "PreToolUse",
            {"tool_name": "Bash", "tool_input": {"command": "ls"}},
            HookFact(kind="tool", text='{"command": "ls"}', tool="Bash"),
        ),
        (
            "PermissionRequest",
            {"tool_name": "X"},
            HookFact(kind="permission", text="null", tool="X"),
        ),
        (
            "UserPromptSubmit",
            {"prompt": "<task-notification>x"},
            HookFact(kind="notified", text="<task-notification>x"),
        ),
        ("Notification", {"message": "hm"}, HookFact(kind="notified", text="hm")),
        ("Stop", {"last_assistant_message": "ok"}, HookFact(kind="finished", text="ok")),
        ("StopFailure", {"last_assistant_message": "no"}, HookFact(kind="failed", text="no")),
        ("SessionEnd", {"reason": 5}, HookFact(kind="ended")),
        ("SessionStart", {"transcript_path": "/t"}, HookFact(kind="started", transcript="/t")),
        ("Unheard", {}, None),
    ],
)
def test_a_hook_is_read(name: str, fields: dict[str, object], fact: HookFact | None) -> None:
    assert hook(name, **fields) == fact


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"5", b"[" * 60_000, b'{"hook_event_name": []}', b" " * 70_000],
)
def test_what_is_no_hook_says_nothing(content: bytes) -> None:
    assert AGENT.hook(content) is None


@pytest.mark.parametrize("sign", ["x", "\n", "\u00e9", "\U0001f469"])
def test_a_hook_that_was_cut_tells_what_it_can(sign: str) -> None:
    front = {"transcript_path": "/t", "hook_event_name": "UserPromptSubmit"}
    whole = json.dumps(front | {"prompt": sign * 100_000}, separators=(",", ":"))
    for shift in range(13):
        fact = AGENT.hook((whole[:1] + " " * shift + whole[1:]).encode()[:MAX_BYTES])
        assert fact
        assert (fact.kind, fact.transcript) == ("prompt", "/t")
        assert len(fact.text) > 5000
        assert not fact.text.strip(sign)
    tool = {"hook_event_name": "PostToolUse", "tool_name": "Bash", "tool_response": "x" * 99_999}
    cut = json.dumps(tool, separators=(",", ":")).encode()[:MAX_BYTES]
    assert AGENT.hook(cut) == HookFact(kind="tool_done", text="null", tool="Bash")


def test_what_is_put_around_a_long_paste_was_not_typed() -> None:
    around = 'see\n\n<pasted_content id="a7">\none\ntwo\n</pasted_content id="a7">\n'
    assert hook("UserPromptSubmit", prompt=around) == HookFact(kind="prompt", text="seeone\ntwo")
    other = around.replace('</pasted_content id="a7">', '</pasted_content id="a8">')
    assert hook("UserPromptSubmit", prompt=other) == HookFact(kind="prompt", text=other)


@given(st.binary(max_size=200))
def test_no_hook_is_too_much(content: bytes) -> None:
    AGENT.hook(content)


def run_hook(home: Path, content: bytes) -> subprocess.CompletedProcess[bytes]:
    command = COMMAND.replace("/home/agent", str(home))
    argv = ["/bin/sh", "-c", command]
    return subprocess.run(argv, input=content, capture_output=True, timeout=5, check=False)


def test_a_hook_writes_one_file_whole_and_in_order(tmp_path: Path) -> None:
    spool = tmp_path / SPOOL
    spool.mkdir(parents=True)
    for number in range(3):
        done = run_hook(tmp_path, b"%d" % number)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [(spool / name).read_bytes() for name in sorted(os.listdir(spool))] == [b"0", b"1", b"2"]
    assert os.listdir(spool.parent) == ["spool"]
    run_hook(tmp_path, b"x" * 200_000)
    assert max(path.stat().st_size for path in spool.iterdir()) == MAX_BYTES


@pytest.mark.parametrize("state", ["gone", "a file", "a FIFO", "full"])
def test_a_hook_fails_nobody(tmp_path: Path, state: str) -> None:
    spool = tmp_path / SPOOL
    spool.parent.mkdir()
    if state == "a file":
        spool.touch()
    elif state == "a FIFO":
        os.mkfifo(spool)
    elif state == "full":
        spool.symlink_to("/proc")  # nothing can be made there
    done = run_hook(tmp_path, b"{}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_seed_passes_the_first_start() -> None:
    seed = AGENT.seed(PROJECT, "sk-ant-0123456789-0123456789")
    state = json.loads(seed.files[".claude/.claude.json"])
    assert list(state["projects"]) == ["/home/me/app"]
    assert state["projects"]["/home/me/app"]["hasTrustDialogAccepted"] is True
    assert state["customApiKeyResponses"]["approved"] == ["123456789-0123456789"]
    assert state["hasCompletedOnboarding"] is True
    settings = json.loads(seed.files[".claude/settings.json"])
    assert set(settings["hooks"]) >= {"UserPromptSubmit", "PermissionRequest", "Stop"}
    assert settings["permissions"]["defaultMode"] == "default"
    assert seed.environment["CLAUDE_CONFIG_DIR"] == "/home/agent/.claude"
    assert all(b"sk-ant-" not in content for content in seed.files.values())
    assert json.loads(AGENT.seed(PROJECT, None).files[".claude/.claude.json"])


def test_a_prompt_is_pasted_and_entered_apart() -> None:
    paste, enter = AGENT.submit("a\nb")
    assert (paste.text, paste.paste, paste.keys) == ("a\nb", True, ())
    assert enter.keys == ("Enter",)
    assert enter.pause > 0.2
    assert list(AGENT.retry()) == [enter]


@pytest.mark.parametrize(
    ("text", "typed"),
    [("/exit", " /exit"), ("  !ls", " !ls"), ("so \\", "so \\ "), (" plain ", " plain ")],
)
def test_no_prompt_is_a_command(text: str, typed: str) -> None:
    assert AGENT.submit(text)[0].text == typed


@pytest.mark.parametrize(
    ("text", "told", "same"),
    [
        ("a\tb ", "a    b", True),
        ("a", "b", False),
        ("ab", "a", False),
        ("x" * 9000, "x" * 8000, True),
        ("x" * 9000, "x" * 8000 + "y", False),
        ("x" * 9000, '\n\n<pasted_content id="a">\n' + "x" * 8000, True),
        ("x" * 8000, "x" * 9000, False),
    ],
)
def test_a_prompt_is_known_again(text: str, told: str, same: bool) -> None:
    assert AGENT.is_prompt(text, told) is same


def test_an_option_is_chosen_by_its_number() -> None:
    question = asked("permission", "Yes", "Yes, always", "No", free=True, marked="2")
    assert keys(AGENT.answer(question, "3", None)) == ["3"]
    assert keys(AGENT.answer(question, "3", "not so")) == ["Down", "Tab", "Enter"]
    assert keys(AGENT.answer(question, "1", "but so")) == ["Up", "Tab", "Enter"]


def test_an_option_without_number_is_moved_to() -> None:
    question = asked("trust", "No, exit", "Yes")
    assert keys(AGENT.answer(question, "2", None)) == ["Down", "Enter"]
    assert keys(AGENT.answer(question, "1", None)) == ["Enter"]


def test_words_of_ones_own() -> None:
    question = asked("choice", "Red", "Blue", "Type something.", "Chat about this", free=True)
    number, typed, enter = AGENT.answer(question, "3", "Violet\nor so")
    assert (number.keys, typed.text, enter.keys) == (("3",), "Violet or so", ("Enter",))


def test_several_are_ticked_and_others_cleared() -> None:
    labels = ("[✔] Small", "Large", "[✔] Huge", "Chat about this")
    several = asked("choice", *labels)
    question = Question(
        id="q", kind="choice", detail="", options=(*several.options, Option("submit", "Submit"))
    )
    assert keys(AGENT.answer(question, "1,2", None)) == ["2", "3", "Tab"]
    assert keys(AGENT.answer(question, "submit", None)) == ["Tab"]
    assert keys(AGENT.answer(question, "4", None)) == ["4"]
    for wrong in ("9", "1,9", "1,4", ""):
        with pytest.raises(InvalidInput):
            AGENT.answer(question, wrong, None)


@pytest.mark.parametrize(
    ("question", "option", "text"),
    [
        (asked("permission", "Yes", "No"), "3", None),
        (asked("permission", "Yes", "No"), "1", "text"),
        (asked("permission", "Yes", "Yes, always", "No", free=True), "2", "text"),
        (asked("choice", "Red", "Type something.", free=True), "1", "text"),
        (asked("trust", "No", "Yes", marked=""), "2", None),
    ],
)
def test_a_wrong_answer_is_refused(question: Question, option: str, text: str | None) -> None:
    with pytest.raises(InvalidInput):
        AGENT.answer(question, option, text)


def executable(path: Path, content: str = "\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


def test_a_native_program_is_shown_alone(tmp_path: Path) -> None:
    program = executable(tmp_path / ".local/share/claude/versions/2.1.9")
    newer = executable(tmp_path / ".local/share/claude/versions/2.1.10")
    assert find(None, tmp_path).argv == (str(newer),)
    link = tmp_path / ".local/bin/claude"
    link.parent.mkdir()
    link.symlink_to(program)
    found = find(None, tmp_path)
    assert (found.argv, found.shown) == ((str(program),), (program,))


def test_a_script_of_npm_runs_with_its_own_node(tmp_path: Path) -> None:
    version = tmp_path / ".nvm/versions/node/v22.1.0"
    package = version / "lib/node_modules/@anthropic-ai/claude-code"
    script = executable(package / "cli.js", "#!/usr/bin/env node\n")
    node = executable(version / "bin/node")
    (version / "bin/claude").symlink_to(script)
    found = find(None, tmp_path)
    assert found.argv == (str(node), str(script))
    assert found.shown == (version / "lib/node_modules", node)


def test_a_setting_names_the_one(tmp_path: Path) -> None:
    executable(tmp_path / ".local/bin/claude")
    chosen = executable(tmp_path / "elsewhere/claude")
    assert find(chosen, tmp_path).argv == (str(chosen),)
    chosen.chmod(0o644)
    with pytest.raises(HostUnable, match="is not a program"):
        find(chosen, tmp_path)


def test_no_path_is_trusted_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "evil/claude")
    monkeypatch.setenv("PATH", f"{tmp_path}/evil")
    monkeypatch.setattr("csb_mcp.agents.claude.program._SYSTEM", ())
    with pytest.raises(HostUnable, match="not installed"):
        find(None, tmp_path)
    assert find(None, tmp_path, [f"{tmp_path}/evil"]).argv == (f"{tmp_path}/evil/claude",)
