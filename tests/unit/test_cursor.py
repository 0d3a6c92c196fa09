import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.errors import InvalidInput
from csb_mcp.service.cursor import EPOCH, Cursor, frame_name, frame_number, parse_cursor


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_cursor_comes_back_as_it_went(event: int, generation: int) -> None:
    cursor = Cursor("a1234567", event, generation)
    assert parse_cursor(str(cursor), "a1234567") == cursor


def test_an_older_daemons_cursor_is_known_as_such() -> None:
    old = str(Cursor("a1234567", 5, 9)).replace(EPOCH, "zzzzzz")
    assert parse_cursor(old, "a1234567") == Cursor("a1234567", 5, None)
    assert frame_number("zzzzzz-4", "frame") is None


def test_another_sandboxs_cursor_is_refused() -> None:
    with pytest.raises(InvalidInput, match="belongs to"):
        parse_cursor(str(Cursor("b1234567", 1, 1)), "a1234567")


@given(st.text())
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cursor(text, "a1234567")
    if not frame_like(text):
        with pytest.raises(InvalidInput):
            frame_number(text, "frame")


def frame_like(text: str) -> bool:
    _, dash, number = text.partition("-")
    return bool(dash) and number.isascii() and number.isdigit()


def test_frames_are_named_and_found() -> None:
    assert frame_number(frame_name(17), "frame") == 17
    for bad in ("", "17", "-", f"{EPOCH}-", f"{EPOCH}-x", f"{EPOCH}-" + "9" * 99):
        with pytest.raises(InvalidInput):
            frame_number(bad, "frame")
