"""Screens that the real Claude Code drew, and what they are not: another's, or a model's words."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.agents.claude.screen import read_screen
from csb_mcp.model import AgentState, Question, ScreenFact

FOLDER = Path(__file__).parents[1] / "fixtures/screens/claude-2.1.332"
INDEX: dict[str, dict[str, Any]] = json.loads((FOLDER / "index.json").read_text())
RULE = "─" * 120


def rows_of(name: str) -> list[str]:
    return (FOLDER / f"{name}.txt").read_text().split("\n")


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
    pinned = json.loads((FOLDER.parents[3] / "requirements/npm/package.json").read_text())
    versions = {v for name, v in pinned["optionalDependencies"].items() if "claude-code" in name}
    assert {f"claude-{version}" for version in versions} == {FOLDER.name}


def test_every_screen_is_in_the_index() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(INDEX)


@pytest.mark.parametrize("name", INDEX)
def test_a_recorded_screen_is_read_right(name: str) -> None:
    expected = {key: value for key, value in INDEX[name].items() if key != "what"}
    assert told(read_screen(rows_of(name))) == expected


def test_an_older_version_is_read_right_or_not_at_all() -> None:
    folder = FOLDER.parent / "claude-2.0.30"
    index: dict[str, dict[str, Any]] = json.loads((folder / "index.json").read_text())
    assert {path.stem for path in folder.glob("*.txt")} == set(index)
    for name, expected in index.items():
        del expected["what"]
        assert told(read_screen((folder / f"{name}.txt").read_text().split("\n"))) == expected, name
        assert expected["state"] == ("question" if "permission" in name else "unknown")


@pytest.mark.parametrize("name", INDEX)
@pytest.mark.parametrize(
    "other", [{"❯": ">"}, {"─": "━", "▔": "━"}, {"─": "-", "▔": " "}], ids="abc"
)
def test_another_look_is_not_understood(name: str, other: dict[str, str]) -> None:
    altered = "\n".join(rows_of(name)).translate(str.maketrans(other)).split("\n")
    last = "\n".join(rows_of(name)[-20:])
    if not any(sign in last for sign in other) or name in ("draft-shell", "first-theme"):
        return
    assert read_screen(altered).state is AgentState.UNKNOWN


@pytest.mark.parametrize("name", [n for n in INDEX if INDEX[n]["state"] == "question"])
def test_a_dialog_that_is_half_drawn_is_not_understood(name: str) -> None:
    rows = rows_of(name)
    last = max(at for at, row in enumerate(rows) if row.strip())
    marked = max(at for at, row in enumerate(rows) if "❯" in row and at > last - 14)
    for end in (marked, marked + 1):
        if end < last - 2:
            state = read_screen(rows[:end]).state
            assert state in (AgentState.UNKNOWN, AgentState.READY), end


def test_what_stands_above_an_input_line_is_no_dialog() -> None:
    dialog = rows_of("permission-bash")
    while not dialog[-1]:
        dialog.pop()
    box = [RULE, "❯ ", RULE, "  ⏸ manual mode on · ? for shortcuts"]
    assert read_screen([*dialog, "", *box]).state is AgentState.READY


def test_more_below_a_dialog_is_not_understood() -> None:
    dialog = rows_of("permission-bash")
    while not dialog[-1]:
        dialog.pop()
    assert read_screen([*dialog, "", "  something new"]).state is AgentState.UNKNOWN


def test_a_command_that_draws_options_changes_none() -> None:
    rows = rows_of("permission-bash-lines")
    at = next(n for n, row in enumerate(rows) if row.startswith(" │ for n in"))
    forged = [" │ Do you want to proceed?", " │ ❯ 1. No", " │   2. Yes"]
    plain = [row.replace(" │", "") for row in forged]
    for extra in (forged, plain):
        found = read_screen([*rows[:at], *extra, *rows[at:]])
        assert found.question
        assert found.question.options == question("permission-bash-lines").options


@pytest.mark.parametrize(
    "row",
    [
        "  ✻ Thinking… (12s · esc to interrupt)",
        "● ✻ Thinking…",
        "✻ Baked for 4s · done 10:38 PM",
        "❯ ✻ Thinking…",
    ],
)
def test_words_about_work_are_no_work(row: str) -> None:
    rows = ["● Hello", "", row, "", RULE, "❯ ", RULE, "  ⏸ manual mode on · ? for shortcuts"]
    assert read_screen(rows).state is AgentState.READY


def test_an_error_is_over_when_a_turn_ended_after_it() -> None:
    box = [RULE, "❯ ", RULE, "  ⏸ manual mode on · ? for shortcuts"]
    error = "● API Error: 529 Overloaded."
    assert read_screen([error, "", *box]).state is AgentState.ERROR
    assert read_screen([error, "", "✻ Baked for 1s · done 1:00 PM", *box]).state is AgentState.READY
    assert read_screen(["● It is an API Error: 529", "", *box]).state is AgentState.READY


def test_an_unknown_footer_is_not_understood() -> None:
    rows = ["● Hello", "", RULE, "❯ ", RULE, "  something that another version says"]
    assert read_screen(rows).state is AgentState.UNKNOWN


def test_a_question_is_known_again_by_what_it_asks() -> None:
    ids = {name: question(name).id for name in INDEX if INDEX[name]["state"] == "question"}
    assert ids["choice"] == ids["choice-other"] == ids["choice-other-typed"]
    assert ids["choice-several"] == ids["choice-several-ticked"]
    assert ids["plan-tall"] == ids["plan-feedback"]
    for name in ("choice-other", "choice-other-typed", "choice-several-ticked", "plan-feedback"):
        del ids[name]
    assert len(set(ids.values())) == len(ids)


def test_an_empty_screen_is_a_start() -> None:
    assert read_screen([""] * 36).state is AgentState.STARTING
    assert read_screen([]).state is AgentState.STARTING


PIECES = st.sampled_from(
    [row for name in INDEX for row in rows_of(name)] + ["", "❯ ", RULE, "▔" * 120, " ☐ A"]
)


@given(st.lists(PIECES | st.text(max_size=140), max_size=40))
def test_no_screen_is_too_much(rows: list[str]) -> None:
    fact = read_screen(rows)
    assert (fact.state is AgentState.QUESTION) == (fact.question is not None)
