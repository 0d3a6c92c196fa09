"""Durations and sizes as people write them."""

import math
import re

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", re.ASCII)
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?)?\s*", re.ASCII | re.IGNORECASE)
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> float:
    """Seconds from a number, or text such as ``250ms``, ``30``, ``30s``, ``5m``, ``2h``, ``1d``.

    Raises ValueError for anything else, and for zero, negative and infinite ones.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match[1]) * _SECONDS[match[2]]
    else:
        raise ValueError(f"{value!r} is not a duration such as 30s, 5m or 2h")
    if not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(f"{value!r} is not a duration above zero")
    return seconds


def parse_size(value: object) -> int:
    """Bytes from a number, or text such as ``512M`` or ``4G`` (powers of 1024).

    Raises ValueError for anything else, and for zero and negative ones.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        power = " KMGT".index((match[2] or " ").upper())
        size = int(float(match[1]) * 1024**power)
    else:
        raise ValueError(f"{value!r} is not a size such as 512M or 4G")
    if size <= 0:
        raise ValueError(f"{value!r} is not a size above zero")
    return size


def size_text(size: int) -> str:
    """As :func:`parse_size` takes it: ``4G``, ``512M``, or bytes where that is not exact."""
    for power, unit in enumerate("TGMK"):
        factor = 1024 ** (4 - power)
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
