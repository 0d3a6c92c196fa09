"""What a sandbox printed, made safe to show."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.lib.text import screen_row


def test_letters_of_all_kinds_stay() -> None:
    for text in ("plain", "aé中😀ß", "👩‍👩‍👧 ❤️", "  indented", "日本語"):
        assert screen_row(text.encode()) == text


def test_what_acts_on_the_reader_goes() -> None:
    assert screen_row("a\x1b[31mb\x9bc\x00\x7f".encode()) == "a[31mbc"
    assert screen_row("safe\u202egpj.exe\u2066".encode()) == "safegpj.exe"
    assert screen_row("x\U000e0041\U000e0042\ufeffy\u2028z".encode()) == "xyz"


def test_wrong_bytes_are_marked_and_trailing_blanks_go() -> None:
    assert screen_row(b"a\xff\xfeb  ") == "a��b"


@given(st.binary(max_size=300))
def test_no_control_character_ever_comes_out(raw: bytes) -> None:
    text = screen_row(raw)
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert text == text.rstrip()
