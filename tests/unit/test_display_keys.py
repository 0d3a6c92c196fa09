"""Names of keys, text and keymaps, before anything reaches an X server."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.errors import InvalidInput
from csb_mcp.host.display.chords import MAX_KEYS, MAX_TEXT, Chord, chords_of_keys, chords_of_text
from csb_mcp.host.display.keymap import Keymap, parse, runs
from csb_mcp.host.display.keysyms import ALT, CONTROL, SHIFT, SUPER


@pytest.mark.parametrize(
    ("written", "keysym", "modifiers"),
    [
        ("Return", 0xFF0D, ()), ("Enter", 0xFF0D, ()), ("ENTER", 0xFF0D, ()),
        ("Esc", 0xFF1B, ()), ("F5", 0xFFC2, ()), ("f12", 0xFFC9, ()), ("PageUp", 0xFF55, ()),
        ("Page_Up", 0xFF55, ()), ("KP_Enter", 0xFF8D, ()), ("Up", 0xFF52, ()),
        ("Del", 0xFFFF, ()), ("Space", 0x20, ()), ("space", 0x20, ()), (" ", 0x20, ()),
        ("a", 0x61, ()), ("A", 0x41, ()), ("é", 0xE9, ()), ("日", 0x10065E5, ()),
        ("EuroSign", 0x20AC, ()), ("Cyrillic_a", 0x6C1, ()), ("Ntilde", 0xD1, ()),
        ("ntilde", 0xF1, ()), ("XF86AudioPlay", 0x1008FF14, ()), ("shift", SHIFT, ()),
        ("ctrl+shift+t", 0x74, (CONTROL, SHIFT)), ("Ctrl+T", 0x54, (CONTROL,)),
        ("alt+F4", 0xFFC1, (ALT,)), ("cmd+c", 0x63, (SUPER,)), ("win+Left", 0xFF51, (SUPER,)),
        ("+", 0x2B, ()), ("ctrl++", 0x2B, (CONTROL,)), ("ctrl+-", 0x2D, (CONTROL,)),
        ("ctrl+plus", 0x2B, (CONTROL,)),
    ],
)  # fmt: skip
def test_names_as_people_write_them(written: str, keysym: int, modifiers: tuple[int, ...]) -> None:
    assert chords_of_keys([written]) == [Chord(keysym, modifiers)]


@pytest.mark.parametrize(
    ("written", "suggested"),
    [("Retrun", "Return"), ("PageUpp", "Page_Up"), ("Excape", "Escape"), ("ctrl+Retrn", "Return")],
)
def test_an_unknown_name_comes_with_suggestions(written: str, suggested: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        chords_of_keys(["a", written])
    assert caught.value.field == "keys"
    assert suggested in caught.value.choices


@pytest.mark.parametrize(
    "written", ["", "ctrl+", "hyper+a", "a+b", "++a", "\n", "\x00", "x" * 9999]
)
def test_what_is_no_key_is_refused_shortly(written: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        chords_of_keys([written])
    assert caught.value.field == "keys"
    assert len(str(caught.value)) < 400


def test_keys_are_counted() -> None:
    for keys in ([], ["a"] * (MAX_KEYS + 1)):
        with pytest.raises(InvalidInput):
            chords_of_keys(keys)


def test_text_becomes_keys() -> None:
    keysyms = [chord.keysym for chord in chords_of_text("aé中😀\t\r\n\n")]
    assert keysyms == [0x61, 0xE9, 0x1004E2D, 0x101F600, 0xFF09, 0xFF0D, 0xFF0D]


@pytest.mark.parametrize("text", ["a\x1b[A", "\x00", "\x7f", "\x9b", "a\rb", "\udcff"])
def test_other_control_characters_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        chords_of_text(text)
    assert caught.value.field == "text"
    assert "U+" in caught.value.message


def test_a_text_that_is_too_long_is_refused() -> None:
    assert len(chords_of_text("x" * MAX_TEXT)) == MAX_TEXT
    with pytest.raises(InvalidInput):
        chords_of_text("x" * (MAX_TEXT + 1))


def rows(*keysyms: tuple[int, ...]) -> Keymap:
    width = len(keysyms[0])
    return parse(width, b"".join(struct.pack(f"<{width}I", *row) for row in keysyms))


def test_a_keymap_says_which_key_and_whether_with_shift() -> None:
    keymap = rows((0x61, 0x41, 0x6C6, 0x6E6), (0, 0, 0, 0), (0xFF61, 0xFF15, 0, 0))
    assert keymap.keys(0) == {0x61: (8, False), 0x41: (8, True), 0xFF61: (10, False)}
    assert keymap.keys(1) == {0x6C6: (8, False), 0x6E6: (8, True), 0xFF61: (10, False)}
    assert keymap.keys(2) == {0xFF61: (10, False)}
    assert keymap.spare() == [9]


@given(st.integers(0, 255), st.binary(max_size=9000))
def test_any_reply_is_some_keymap(width: int, data: bytes) -> None:
    keymap = parse(width, data)
    for group in (0, 1):
        assert all(8 <= code <= 255 for code, _ in keymap.keys(group).values())
    assert all(8 <= code <= 255 for code in keymap.spare())


@given(st.sets(st.integers(8, 255)))
def test_runs_have_no_gaps_and_lose_nothing(keycodes: set[int]) -> None:
    found = runs(keycodes)
    assert [code for run in found for code in run] == sorted(keycodes)
    assert all(list(run) == list(range(run[0], run[0] + len(run))) for run in found)
