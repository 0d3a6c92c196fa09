"""Hooks, seed, strokes and the search for the program."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from csb_mcp.agents.codex import Codex
from csb_mcp.agents.codex.program import find
from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.model import HookFact, Option, Question
from csb_mcp.ports.agent import Agent, Stroke

AGENT: Agent = Codex()
PROJECT = Path('/home/me/"app"')


def keys(strokes: Sequence[Stroke]) -> list[str]:
    return [key for stroke in strokes for key in stroke.keys]


def asked(*labels: str, free: bool = False, marked: str = "1") -> Question:
    options = tuple(Option(str(n), label) for n, label in enumerate(labels, 1))
    return Question(id="q", kind="choice", detail="", options=options, free=free, marked=marked)


@pytest.mark.parametrize(
    ("name", "fields", "fact"),
    [
        ("SessionStart", {"source": "startup"}, HookFact(kind="started", text="startup")),
        ("UserPromptSubmit", {"prompt": "a\nb\x1b[1m"}, HookFact(kind="prompt", text="a\nb")),
        (
            "PermissionRequest",
            {"tool_name": "Bash", "tool_input": {"command": "ls"}},
            HookFact(kind="permission", text='{"command": "ls"}', tool="Bash"),
        ),
        ("Stop", {"last_assistant_message": "ok"}, HookFact(kind="finished", text="ok")),
        ("Stop", {"last_assistant_message": None}, HookFact(kind="finished")),
        ("Interrupt", {}, HookFact(kind="finished")),
        ("Unheard", {}, None),
    ],
)
def test_a_hook_is_read(name: str, fields: dict[str, object], fact: HookFact | None) -> None:
    assert AGENT.hook(json.dumps({"hook_event_name": name, **fields}).encode()) == fact


def test_the_seed_passes_the_first_start() -> None:
    key = "sk-test-000"
    seed = AGENT.seed(PROJECT, key)
    settings = tomllib.loads(seed.files[".codex/config.toml"].decode())
    assert settings["projects"] == {str(PROJECT): {"trust_level": "trusted"}}
    assert settings["model_providers"][settings["model_provider"]]["env_key"] == "OPENAI_API_KEY"
    assert settings["check_for_update_on_startup"] is False
    assert settings["features"]["daemon_auto_start"] is False
    hooks = json.loads(seed.files[".codex/hooks.json"])["hooks"]
    assert set(hooks) >= {"UserPromptSubmit", "PermissionRequest", "Stop", "Interrupt"}
    assert seed.environment == {"CODEX_HOME": "/home/agent/.codex"}
    assert all(key.encode() not in content for content in seed.files.values())


def test_a_prompt_is_pasted_and_entered_apart() -> None:
    paste, enter = AGENT.submit("a\nb")
    assert (paste.text, paste.paste, paste.keys) == ("a\nb", True, ())
    assert enter.keys == ("Enter",)
    assert enter.pause > 0.2
    assert list(AGENT.retry()) == [enter]


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("/exit", " /exit "),
        ("  !ls", " !ls"),
        ("see @file", "see @file "),
        ("use $skill\n", "use $skill "),
        (" plain ", " plain "),
    ],
)
def test_no_prompt_is_a_command_or_completed(text: str, typed: str) -> None:
    assert AGENT.submit(text)[0].text == typed


@pytest.mark.parametrize(
    ("text", "told", "same"),
    [
        ("a\tb ", "a    b", True),
        ("a", "b", False),
        ("ab", "a", False),
        ("x" * 9000, "x" * 8000, True),
        ("x" * 9000, "x" * 8000 + "y", False),
    ],
)
def test_a_prompt_is_known_again(text: str, told: str, same: bool) -> None:
    assert AGENT.is_prompt(text, told) is same


def test_an_option_is_chosen_by_its_key() -> None:
    question = asked("Yes", "No")
    assert keys(AGENT.answer(question, "2", None)) == ["2"]
    cut = Question(
        id="q", kind="permission", detail="", options=(*question.options, Option("esc", "No"))
    )
    assert keys(AGENT.answer(cut, "esc", None)) == ["Escape"]


def test_trust_is_moved_to_and_entered() -> None:
    options = (Option("1", "Trust"), Option("2", "Back"))
    question = Question(id="q", kind="trust", detail="", options=options, marked="1")
    assert keys(AGENT.answer(question, "2", None)) == ["Down", "Enter"]
    assert keys(AGENT.answer(question, "1", None)) == ["Enter"]


def test_words_of_ones_own() -> None:
    question = asked("Red", "Blue", "None of the above -- add notes", free=True)
    *moved, typed, enter = AGENT.answer(question, "3", "Violet\nor so")
    assert keys(moved) == ["Down", "Down", "Tab"]
    assert (typed.text, enter.keys) == ("Violet or so", ("Enter",))


@pytest.mark.parametrize(
    ("question", "option", "text"),
    [
        (asked("Yes", "No"), "3", None),
        (asked("Yes", "No"), "1", "text"),
        (asked("Red", "None of the above", free=True), "1", "text"),
        (asked("None of the above", free=True, marked=""), "1", "text"),
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


def vendored(package: Path) -> Path:
    folder = package / "vendor/some-unknown-linux-musl"
    executable(folder / "bin/codex")
    (folder / "codex-package.json").touch()
    return folder


@pytest.mark.parametrize("below", [True, False])
def test_the_native_program_of_npm_is_started_straight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    modules = tmp_path / ".nvm/versions/node/v22.1.0/lib/node_modules"
    script = executable(modules / "@openai/codex/bin/codex.js", "#!/usr/bin/env node\n")
    link = tmp_path / ".nvm/versions/node/v22.1.0/bin/codex"
    link.parent.mkdir()
    link.symlink_to(script)
    inner = modules / "@openai/codex/node_modules" if below else modules
    folder = vendored(inner / "@openai/codex-linux-x64")
    found = find(None, tmp_path)
    assert (found.argv, found.shown) == ((str(folder / "bin/codex"),), (folder,))


def test_without_a_native_program_its_script_is_started(tmp_path: Path) -> None:
    script = executable(
        tmp_path / ".npm-global/lib/node_modules/@openai/codex/bin/codex.js",
        "#!/usr/bin/env node\n",
    )
    node = executable(tmp_path / ".npm-global/bin/node")
    (tmp_path / ".npm-global/bin/codex").symlink_to(script)
    found = find(None, tmp_path)
    assert found.argv == (str(node), str(script))
    assert found.shown == (tmp_path / ".npm-global/lib/node_modules", node)


def test_a_setting_names_the_one(tmp_path: Path) -> None:
    executable(tmp_path / ".local/bin/codex")
    folder = vendored(tmp_path / "elsewhere")
    chosen = folder / "bin/codex"
    found = find(chosen, tmp_path)
    assert (found.argv, found.shown) == ((str(chosen),), (folder,))
    chosen.chmod(0o644)
    with pytest.raises(HostUnable, match="is not a program"):
        find(chosen, tmp_path)


def test_a_lone_program_is_shown_alone(tmp_path: Path) -> None:
    program = executable(tmp_path / ".local/bin/codex")
    found = find(None, tmp_path)
    assert (found.argv, found.shown) == ((str(program),), (program,))


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csb_mcp.agents.codex.program._SYSTEM", ())
    with pytest.raises(HostUnable, match="not installed"):
        find(None, tmp_path)
    settings = Settings(
        state_dir=tmp_path, runtime_dir=tmp_path, config_file=tmp_path, project_roots=(tmp_path,)
    )
    assert not AGENT.problems(settings)  # few have both


def test_no_key_is_an_argument(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        runtime_dir=tmp_path,
        config_file=tmp_path,
        project_roots=(tmp_path,),
        codex=executable(tmp_path / "codex"),
    )
    argv = AGENT.program(settings, ("-m", "some-model")).argv
    assert argv[-2:] == ("-m", "some-model")
    assert "KEY" not in " ".join(argv)
