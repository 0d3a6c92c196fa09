"""PNG files and the encoder of frames, decoded again by Pillow."""

import io
import os
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from csb_mcp.errors import InvalidInput
from csb_mcp.host.display.encode import FORMATS, encode
from csb_mcp.lib.png import rgb_png
from csb_mcp.model import Frame, Region


def noise(width: int, height: int, extra: int = 0) -> Frame:
    """A frame in which no two pixels are likely to be the same; ``extra`` bytes behind each row."""
    stride = width * 4 + extra
    return Frame(1, width, height, stride, os.urandom(stride * height))


def truth(frame: Frame) -> Pillow.Image:
    size = frame.width, frame.height
    return Pillow.frombuffer("RGB", size, frame.pixels, "raw", "BGRX", frame.stride, 1)


def whole(frame: Frame) -> Region:
    return Region(0, 0, frame.width, frame.height)


def decoded(data: bytes) -> Pillow.Image:
    return Pillow.open(io.BytesIO(data)).convert("RGB")


def test_rows_of_rgb_become_a_file() -> None:
    rows = b"\0\xff\0\0\0\xff\0" + b"\0\0\0\xff\1\2\3"
    picture = Pillow.open(io.BytesIO(rgb_png(2, 2, zlib.compress(rows))))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (2, 2))
    assert picture.tobytes() == bytes.fromhex("ff0000 00ff00 0000ff 010203")


def test_each_chunk_has_its_length_and_checksum() -> None:
    data = rgb_png(2, 1, b"deflated")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    kinds: list[bytes] = []
    at = 8
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        assert data[at + 8 + size : at + 12 + size] == struct.pack(">I", zlib.crc32(kind + body))
        kinds.append(kind)
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


@given(data=st.data(), extra=st.sampled_from([0, 4, 60]))
@settings(deadline=None, max_examples=60)
def test_any_region_comes_back_pixel_by_pixel(data: st.DataObject, extra: int) -> None:
    frame = noise(data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)), extra)
    x = data.draw(st.integers(0, frame.width - 1))
    y = data.draw(st.integers(0, frame.height - 1))
    width = data.draw(st.integers(1, frame.width - x))
    height = data.draw(st.integers(1, frame.height - y))
    expected = truth(frame).crop((x, y, x + width, y + height))
    for name in ("png", "webp"):
        image = encode(frame, Region(x, y, width, height), max_width=4000, format=name)
        assert decoded(image.data).tobytes() == expected.tobytes()
        assert (image.width, image.height, image.scale) == (width, height, 1.0)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_of_the_format_that_was_asked_for(format: str) -> None:
    frame = noise(20, 10)
    image = encode(frame, whole(frame), max_width=20, format=format)
    assert image.format == format
    assert (Pillow.open(io.BytesIO(image.data)).format or "").lower() == format


def test_jpeg_is_near_the_picture() -> None:
    frame = Frame(1, 32, 32, 128, b"\x10\x80\xf0\x00" * (32 * 32))
    image = encode(frame, whole(frame), max_width=32, format="jpeg")
    for got, expected in zip(decoded(image.data).tobytes()[:3], (0xF0, 0x80, 0x10), strict=True):
        assert abs(got - expected) < 6


def test_halving_takes_the_mean_of_four_pixels() -> None:
    rows = bytes((0, 0, 0, 0)) + bytes((40, 80, 120, 0))
    frame = Frame(1, 2, 2, 8, rows * 2)
    image = encode(frame, whole(frame), max_width=1, format="png")
    assert (image.width, image.height, image.scale) == (1, 1, 0.5)
    assert decoded(image.data).tobytes() == bytes((60, 40, 20))


@pytest.mark.parametrize(
    ("size", "max_width", "expected"),
    [
        ((1280, 800), 1280, (1280, 800)),
        ((1280, 800), 5000, (1280, 800)),  # never enlarged
        ((1280, 800), 640, (640, 400)),
        ((1281, 801), 640, (640, 400)),
        ((1280, 800), 960, (960, 600)),
        ((1280, 800), 1, (1, 1)),
        ((3840, 2160), 1280, (1280, 720)),
        ((1000, 3), 10, (10, 1)),
    ],
)
def test_a_picture_is_as_wide_as_was_asked_at_most(
    size: tuple[int, int], max_width: int, expected: tuple[int, int]
) -> None:
    frame = Frame(1, *size, size[0] * 4, bytes(size[0] * size[1] * 4))
    image = encode(frame, whole(frame), max_width=max_width, format="png")
    assert decoded(image.data).size == (image.width, image.height) == expected
    assert image.scale == expected[0] / size[0]


@pytest.mark.parametrize(
    "region",
    [
        Region(-1, 0, 5, 5),
        Region(0, -1, 5, 5),
        Region(0, 0, 0, 5),
        Region(0, 0, 5, -1),
        Region(8, 0, 5, 5),
        Region(0, 8, 5, 5),
    ],
)
def test_a_region_outside_is_refused(region: Region) -> None:
    with pytest.raises(InvalidInput) as caught:
        encode(noise(10, 10), region, max_width=100, format="png")
    assert caught.value.field == "region"


def test_other_formats_and_widths_are_refused() -> None:
    frame = noise(10, 10)
    with pytest.raises(InvalidInput) as caught:
        encode(frame, whole(frame), max_width=100, format="gif")
    assert caught.value.choices == FORMATS
    with pytest.raises(InvalidInput) as caught:
        encode(frame, whole(frame), max_width=0, format="png")
    assert caught.value.field == "max_width"
