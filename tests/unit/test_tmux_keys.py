"""Key names and typed text, before anything reaches tmux."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.errors import InvalidInput
from csb_mcp.host.terminal.keys import MAX_TEXT, check_text, parse_keys, typing_lines


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Enter", "Enter"), ("return", "Enter"), ("ESC", "Escape"), ("Backspace", "BSpace"),
        ("Delete", "DC"), ("PageUp", "PPage"), ("page_down", "NPage"), ("f12", "F12"),
        ("C-c", "C-c"), ("ctrl+c", "C-c"), ("Ctrl-C", "C-c"), ("^c", "C-c"), ("CONTROL+D", "C-d"),
        ("M-x", "M-x"), ("alt+X", "M-X"), ("C-M-x", "C-M-x"), ("M-C-x", "C-M-x"),
        ("S-Up", "S-Up"), ("ctrl+shift+Left", "C-S-Left"), ("S-Tab", "BTab"), ("S-a", "A"),
        ("C-Space", "C-Space"), ("a", "a"), ("-", "-"), ("+", "+"), ("C--", "C--"), ("é", "é"),
        ("C-\\", "C-\\"), (";", ";"), ("M-Enter", "M-Enter"), ("Space", "Space"),
        ("^", "^"), (" ", "Space"), ("ArrowDown", "Down"), ("C-PageUp", "C-PPage"),
    ],
)  # fmt: skip
def test_names_as_people_write_them(written: str, meant: str) -> None:
    assert parse_keys([written]) == [meant]


@pytest.mark.parametrize(
    ("written", "suggested"), [("Entr", "Enter"), ("Escap", "Escape"), ("PgUpp", "PPage")]
)
def test_an_unknown_name_is_refused_with_close_ones(written: str, suggested: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_keys(["Enter", written])
    assert refused.value.field == "keys"
    assert suggested in refused.value.choices
    assert refused.value.hint


@pytest.mark.parametrize("written", ["", "hello", "C-1", "C-Enter", "S-Enter", "S-1", "C-é", "F13"])
def test_what_no_terminal_can_send_is_refused(written: str) -> None:
    with pytest.raises(InvalidInput):
        parse_keys([written])


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31m", "\r", "\x7f", "\x9b1m", "\ud800"])
def test_text_with_controls_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_text(text)
    assert refused.value.field == "text"


def test_text_may_have_lines_and_tabs() -> None:
    assert check_text("a\tb\r\nc\nd") == "a\tb\nc\nd"


def test_long_text_is_refused_by_its_bytes() -> None:
    assert check_text("a" * MAX_TEXT)
    for text in ("a" * (MAX_TEXT + 1), "中" * (MAX_TEXT // 2), "x" * 10_000_000):
        with pytest.raises(InvalidInput, match="256 KiB"):
            check_text(text)


@given(st.text(max_size=200), st.lists(st.sampled_from(["Enter", "C-c", "'", ";"]), max_size=4))
def test_no_text_or_key_breaks_a_command_line(text: str, keys: list[str]) -> None:
    try:
        checked = check_text(text)
    except InvalidInput:
        return
    for commands in typing_lines("%0", checked, keys, paste=False):
        assert all("\n" not in command for command in commands)
