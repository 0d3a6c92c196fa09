import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.lib.xauth import PROTOCOL, find_cookie, new_cookie, pack_wild, unpack_wild


def test_the_file_has_the_bytes_that_libxau_reads() -> None:
    cookie = bytes(range(16))
    assert pack_wild(cookie) == (
        b"\xff\xff"  # FamilyWild: any host
        b"\x00\x00"  # no address
        b"\x00\x00"  # any display number
        b"\x00\x12MIT-MAGIC-COOKIE-1"
        b"\x00\x10" + cookie
    )
    assert PROTOCOL == b"MIT-MAGIC-COOKIE-1"


def test_xauth_finds_the_cookie_for_any_display(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    cookie = new_cookie()
    path = tmp_path / "Xauthority"
    path.write_bytes(pack_wild(cookie))
    listed = subprocess.run(
        [require("xauth"), "-f", path, "nlist"], capture_output=True, text=True, check=True
    ).stdout
    assert listed.split()[0] == "ffff"
    assert listed.split()[-1] == cookie.hex()


def test_cookies_differ() -> None:
    assert len({new_cookie() for _ in range(100)}) == 100
    assert len(new_cookie()) == 16


@given(st.binary(min_size=1, max_size=64))
def test_a_cookie_comes_back(cookie: bytes) -> None:
    assert unpack_wild(pack_wild(cookie)) == cookie


@given(st.binary(max_size=80))
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="FamilyWild"):
        unpack_wild(content)


@pytest.mark.parametrize(
    "content", [b"", pack_wild(b""), pack_wild(b"x" * 16) + b"\0", b"\xff\xff"]
)
def test_what_is_cut_or_has_more_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="FamilyWild"):
        unpack_wild(content)


def entry(family: int, number: bytes, cookie: bytes, protocol: bytes = PROTOCOL) -> bytes:
    fields = (b"host", number, protocol, cookie)
    return family.to_bytes(2) + b"".join(len(field).to_bytes(2) + field for field in fields)


def test_the_cookie_of_one_screen() -> None:
    """Among those of other hosts, screens and protocols, in a file that may be cut short."""
    file = (
        entry(0, b"7", b"internet")
        + entry(256, b"1", b"other screen")
        + entry(256, b"7", b"other protocol", b"XDM-AUTHORIZATION-1")
        + entry(256, b"7", b"mine")
        + entry(0xFFFF, b"", b"any")
    )
    assert find_cookie(file, "7") == b"mine"
    assert find_cookie(file, "9") == b"any"
    assert find_cookie(pack_wild(b"ours"), "3") == b"ours"
    for end in range(len(file)):
        assert find_cookie(file[:end], "7") in (b"", b"mine")


@given(st.binary(max_size=200))
def test_any_file_is_read(content: bytes) -> None:
    assert isinstance(find_cookie(content, "0"), bytes)
