"""Frames as image files: crop, shrink, encode. All of it takes CPU; call it in a thread."""

import io
from collections.abc import Callable
from typing import Any

from isal import isal_zlib
from PIL import Image as Pillow

from csb_mcp.errors import InvalidInput
from csb_mcp.lib.png import rgb_png
from csb_mcp.model import Frame, Image, Region

_BAND = 32  # rows that are deflated while the cache still holds them: up to twice as fast
_JPEG_QUALITY = 80


def encode(frame: Frame, region: Region, *, max_width: int, format: str) -> Image:
    """``region`` of ``frame`` as ``png``, ``jpeg`` or ``webp`` (lossless), at most so wide.

    It is never enlarged. Raises InvalidInput for another format, a width below 1, and a region that
    is empty or not within the frame.
    """
    if format not in _ENCODERS:
        raise InvalidInput("no such image format", field="format", choices=FORMATS)
    if max_width < 1:
        raise InvalidInput(f"{max_width} is not a positive number", field="max_width")
    _check(frame, region)
    picture = _shrink(_crop(_picture(frame), region), max_width)
    data = _ENCODERS[format](picture)
    width, height = picture.size
    return Image(data, format, width, height, width / region.width)


def _check(frame: Frame, region: Region) -> None:
    right, bottom = region.x + region.width, region.y + region.height
    within = min(region.x, region.y) >= 0 and right <= frame.width and bottom <= frame.height
    if not within or min(region.width, region.height) < 1:
        where = f"x={region.x} y={region.y} width={region.width} height={region.height}"
        why = f"{where} is not a part of the screen, which is {frame.width}x{frame.height}"
        raise InvalidInput(why, field="region")


def _picture(frame: Frame) -> Pillow.Image:
    """The frame's own bytes, not a copy. Pillow has no BGRX: red and blue stay swapped inside."""
    size = frame.width, frame.height
    return Pillow.frombuffer("RGBX", size, frame.pixels, "raw", "RGBX", frame.stride, 1)


def _crop(picture: Pillow.Image, region: Region) -> Pillow.Image:
    if picture.size == (region.width, region.height):
        return picture
    right, bottom = region.x + region.width, region.y + region.height
    return picture.crop((region.x, region.y, right, bottom))


def _shrink(picture: Pillow.Image, max_width: int) -> Pillow.Image:
    # A whole factor costs a sixth of any resampling; only what is left over is resampled.
    factor = picture.width // max_width
    if factor > 1:
        picture = picture.reduce(factor)
    if picture.width <= max_width:
        return picture
    height = max(1, round(picture.height * max_width / picture.width))
    box = Pillow.Resampling.BOX
    # Its size may be a numpy array too, whose type is open as numpy is not installed.
    return picture.resize((max_width, height), box)  # pyright: ignore[reportUnknownMemberType]


def _png(picture: Pillow.Image) -> bytes:
    """With filter 0 in every row: on screens of text smaller than the others, and the fastest."""
    width, height = picture.size
    # isal's stubs leave types open.
    stream: Any = isal_zlib.compressobj(1)  # pyright: ignore[reportUnknownMemberType]
    # Rows that are one byte longer than their pixels get a zero there. Behind one leading zero,
    # these are the filter bytes of the rows that follow; the last one is too many.
    parts = [stream.compress(b"\0")]
    for top in range(0, height, _BAND):
        bottom = min(top + _BAND, height)
        rows = picture.crop((0, top, width, bottom)).tobytes("raw", "BGR", width * 3 + 1)
        parts.append(stream.compress(rows if bottom < height else rows[:-1]))
    return rgb_png(width, height, b"".join((*parts, stream.flush())))


def _jpeg(picture: Pillow.Image) -> bytes:
    out = io.BytesIO()
    _rgb(picture).save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def _webp(picture: Pillow.Image) -> bytes:
    out = io.BytesIO()
    _rgb(picture).save(out, "WEBP", lossless=True, method=0, quality=0)
    return out.getvalue()


def _rgb(picture: Pillow.Image) -> Pillow.Image:
    return Pillow.frombytes("RGB", picture.size, picture.tobytes("raw", "BGR"))


_ENCODERS: dict[str, Callable[[Pillow.Image], bytes]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
}
FORMATS = tuple(_ENCODERS)
"""Names of all formats."""
