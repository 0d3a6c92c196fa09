import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.errors import InvalidInput
from csb_mcp.model import Point
from csb_mcp.service.cursor import (
    EPOCH,
    Cursor,
    View,
    frame_name,
    parse_cursor,
    parse_frame,
)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_cursor_comes_back_as_it_went(event: int, generation: int) -> None:
    cursor = Cursor("a1234567", event, generation)
    assert parse_cursor(str(cursor), "a1234567") == cursor


def test_an_older_daemons_cursor_is_known_as_such() -> None:
    old = str(Cursor("a1234567", 5, 9)).replace(EPOCH, "zzzzzz")
    assert parse_cursor(old, "a1234567") == Cursor("a1234567", 5, None, 0)
    assert parse_frame("zzzzzz-4", "frame").number is None


def test_another_sandboxs_cursor_is_refused() -> None:
    with pytest.raises(InvalidInput, match="belongs to"):
        parse_cursor(str(Cursor("b1234567", 1, 1)), "a1234567")


@given(st.text())
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cursor(text, "a1234567")
    if not frame_like(text):
        with pytest.raises(InvalidInput):
            parse_frame(text, "frame")


def frame_like(text: str) -> bool:
    _, *numbers = text.replace("-", ".", 2).split(".")
    return bool(numbers) and all(n.isascii() and n.isdigit() for n in numbers)


def test_frames_are_named_and_found() -> None:
    assert parse_frame(frame_name(17), "frame").number == 17
    bad = ("", "17", "-", f"{EPOCH}-", f"{EPOCH}-x", f"{EPOCH}-" + "9" * 99, f"{EPOCH}-1-2.3.4")
    for text in (*bad, f"{EPOCH}-1-1.2.3.-4", "last"):
        with pytest.raises(InvalidInput):
            parse_frame(text, "frame")


@given(*[st.integers(0, 4000)] * 2, *[st.integers(1, 4000)] * 2)
def test_a_place_on_a_picture_is_found_on_the_display(
    x: int, y: int, width: int, pixels: int
) -> None:
    view = View(x, y, width, min(pixels, width))
    again = parse_frame(frame_name(3, view), "frame").view
    assert again == view
    left, right = (again.on_display(Point(at, 0), ("x", "y")) for at in (0, view.pixels - 1))
    assert x <= left.x <= right.x < x + width
    with pytest.raises(InvalidInput, match="not on that picture"):
        again.on_display(Point(view.pixels, 0), ("x", "y"))


def test_a_picture_half_as_large() -> None:
    view = View(100, 50, 400, 200)
    assert view.on_display(Point(10, 20), ("x", "y")) == Point(121, 91)
    assert View().on_display(Point(10, 20), ("x", "y")) == Point(10, 20)
