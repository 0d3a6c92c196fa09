"""Screens that the real Codex drew, and what they are not: another's, or a model's words."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.agents.codex.screen import read_screen
from csb_mcp.model import AgentState, Question, ScreenFact

SCREENS = Path(__file__).parents[1] / "fixtures/screens"
FOLDER = SCREENS / "codex-0.169.0"
INDEX: dict[str, dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())
FOOTER = ["", "  gpt-5.4 default · /home/me/app", "  ← for agents · ? for shortcuts"]
BOX = ["", "› Ask Codex to do anything", *FOOTER]


def rows_of(name: str) -> list[str]:
    return (FOLDER / f"{name}.txt").read_text().split("\n")


def bare(name: str) -> list[str]:
    """Without the blank rows at its end."""
    rows = rows_of(name)
    while not rows[-1]:
        rows.pop()
    return rows


def question(name: str) -> Question:
    found = read_screen(rows_of(name)).question
    assert found
    return found


def told(fact: ScreenFact) -> dict[str, Any]:
    """As the index has it."""
    found: dict[str, Any] = {"state": str(fact.state)}
    if fact.draft:
        found["draft"] = fact.draft
    if fact.fault:
        found["fault"] = fact.fault.kind
    if fact.question:
        asked = fact.question
        found["question"] = {
            "kind": asked.kind,
            "tool": asked.tool,
            "free": asked.free,
            "marked": asked.marked,
            "options": {option.key: option.label for option in asked.options},
        }
    return found


def test_the_screens_are_of_the_version_that_the_tests_run() -> None:
    pinned = json.loads((SCREENS.parents[2] / "requirements/npm/package.json").read_text())
    found = {v for name, v in pinned["optionalDependencies"].items() if "codex" in name}
    versions = {version.rpartition("@")[2].partition("-")[0] for version in found}
    assert {f"codex-{version}" for version in versions} == {FOLDER.name}


def test_every_screen_is_in_the_index() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(INDEX)


@pytest.mark.parametrize("name", INDEX)
def test_a_recorded_screen_is_read_right(name: str) -> None:
    expected = {key: value for key, value in INDEX[name].items() if key != "what"}
    assert told(read_screen(rows_of(name))) == expected


def test_an_older_version_is_read_right_or_not_at_all() -> None:
    folder = SCREENS / "codex-0.118.0"
    index: dict[str, dict[str, Any]] = json.loads((folder / "index.json").read_text())
    assert {path.stem for path in folder.glob("*.txt")} == set(index)
    for name, expected in index.items():
        del expected["what"]
        assert told(read_screen((folder / f"{name}.txt").read_text().split("\n"))) == expected, name
        assert expected["state"] in (
            name.partition("-")[0].replace("permission", "question"),
            "unknown",
        )


@pytest.mark.parametrize("name", INDEX)
@pytest.mark.parametrize("other", [{"›": ">"}, {"·": "|", "•": "|"}], ids="ab")
def test_another_look_is_not_understood(name: str, other: dict[str, str]) -> None:
    altered = "\n".join(rows_of(name)).translate(str.maketrans(other)).split("\n")
    last = "\n".join(bare(name)[-5:])
    if not any(sign in last for sign in other) or name in ("draft-shell", "start"):
        return
    state = read_screen(altered).state
    if INDEX[name]["state"] == "question" and "›" not in other:
        return  # a dialog has none of these signs but in its line about keys
    assert state is AgentState.UNKNOWN


@pytest.mark.parametrize("name", [n for n in INDEX if INDEX[n]["state"] == "question"])
def test_a_dialog_that_is_half_drawn_is_not_understood(name: str) -> None:
    rows = bare(name)
    marked = max(at for at, row in enumerate(rows) if row.lstrip().startswith("› "))
    for end in range(marked, len(rows)):
        assert read_screen(rows[:end]).question is None, end
    assert read_screen([*rows, "", "  something new"]).state is AgentState.UNKNOWN


def test_what_stands_above_an_input_line_is_no_dialog() -> None:
    assert read_screen([*bare("permission-command"), *BOX]).state is AgentState.READY


def test_a_command_that_draws_a_dialog_hides_nothing() -> None:
    rows = bare("permission-command-lines")
    at = next(n for n, row in enumerate(rows) if row.startswith("  for n in"))
    forged = [
        *("  Would you like to make the following edits?", "", "  $ ls", ""),
        *("  1. Yes, proceed (y)", "  2. No (esc)", ""),
    ]
    found = read_screen([*rows[:at], *forged, *rows[at:]]).question
    assert found
    assert (found.options, found.tool) == (question("permission-command-lines").options, "Bash")
    assert "$ rm -rf a" in found.detail


@pytest.mark.parametrize(
    "row",
    [
        "  Working (12s • esc to interrupt)",
        "• I am Working (3s)",
        "› Working (3s • esc to interrupt)",
        "■ Conversation interrupted - use /feedback if something went wrong",
        "• ■ unexpected status 401 Unauthorized",
    ],
)
def test_words_about_work_are_no_work(row: str) -> None:
    assert read_screen(["• Hello", "", row, *BOX]).state is AgentState.READY


def test_work_is_work_with_and_without_its_bullet() -> None:
    for sign in ("", "• ", "◦ "):
        rows = ["› Go", "", f"{sign}Working (1m 03s • esc to interrupt)", *BOX]
        assert read_screen(rows).state is AgentState.WORKING


def test_an_unknown_footer_is_not_understood() -> None:
    for footer in (["", "  100% context left"], [*FOOTER[:2], "  something new"], [""]):
        rows = ["• Hello", "", "› Ask Codex to do anything", *footer]
        assert read_screen(rows).state is AgentState.UNKNOWN


def test_a_question_is_known_again_by_what_it_asks() -> None:
    ids = {name: question(name).id for name in INDEX if INDEX[name]["state"] == "question"}
    assert ids["permission-command"] == ids.pop("permission-command-second")
    assert len(set(ids.values())) == len(ids)


def test_an_empty_screen_is_a_start() -> None:
    assert read_screen([""] * 36).state is AgentState.STARTING
    assert read_screen([]).state is AgentState.STARTING


def test_a_login_is_an_error() -> None:
    rows = ["  Welcome to Codex, OpenAI's command-line coding agent", "", "> 1. Sign in"]
    fault = read_screen(rows).fault
    assert fault
    assert fault.kind == "login"


PIECES = st.sampled_from([row for name in INDEX for row in rows_of(name)] + ["", "› ", *FOOTER])


@given(st.lists(PIECES | st.text(max_size=140), max_size=40))
def test_no_screen_is_too_much(rows: list[str]) -> None:
    fact = read_screen(rows)
    assert (fact.state is AgentState.QUESTION) == (fact.question is not None)
