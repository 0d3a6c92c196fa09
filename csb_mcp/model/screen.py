"""Pictures of a display, and places on it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size of a display in pixels; the depth is always 24."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


DEFAULT_GEOMETRY = Geometry(1280, 800)
"""Size of a display, unless another is asked for."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a display, in display pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a display: ``pixels`` are rows of BGRX bytes, ``stride`` bytes a row.

    ``number`` grows by one whenever the picture differs from the one before it. It starts anew
    with each daemon, so it is only compared together with the cursor's epoch.
    """

    number: int
    width: int
    height: int
    stride: int
    pixels: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An encoded picture. ``scale`` is image pixels per display pixel (1.0, 0.5, ...)."""

    data: bytes
    format: str
    width: int
    height: int
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Screenshot:
    """``image`` is None if the screen did not change since the frame that was named.

    ``frame`` is the name of this picture, to be given back as ``if_changed_since``.
    ``tokens`` is roughly what a vision model pays for it (width * height / 750).
    """

    frame: str
    image: Image | None
    region: Region
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a display: display pixels, unless it is said that they are a picture's."""

    x: int
    y: int
