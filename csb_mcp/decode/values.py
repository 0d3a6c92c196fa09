"""One value each: from plain JSON to the model.

Functions raise InvalidInput without a field, or with what goes after it (``[2]``, ``.LANG``);
:func:`named` puts the field's name before that.
"""

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from csb_mcp.config import NETWORKS
from csb_mcp.errors import InvalidInput
from csb_mcp.lib.text import one_line
from csb_mcp.lib.units import parse_duration, parse_size
from csb_mcp.model import MAX_COMMAND, MAX_TEXT, MAX_WAIT, Geometry, Region

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_GEOMETRY = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_TOKEN = re.compile(r"[ -~]{1,256}")
_WHOLE = re.compile(r"-?\d{1,12}", re.ASCII)
_MAX_DOLLARS = 1_000_000
MAX_WIDTH, _MAX_HEIGHT, _MIN_SIDE = 7680, 4320, 64
MIN_PIDS, MAX_PIDS = 16, 4_194_304
MIN_MEMORY, _MAX_MEMORY = 128 * 1024**2, 16 * 1024**4
_MIN_CPUS, _MAX_CPUS = 0.05, 1024
_DECIMAL = re.compile(r"\d{1,4}(?:\.\d{1,4})?", re.ASCII)
_MAX_PATH = 4096
_MAX_ENVIRONMENT = 64 * 1024

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80

T = TypeVar("T")


def named(key: str, convert: Callable[[object], T], value: object) -> T:
    """``convert(value)``, whose errors name the field ``key``."""
    try:
        return convert(value)
    except InvalidInput as error:
        error.field = f"{key}{error.field}" if error.field else key
        raise


def name(value: object) -> str:
    """A name: lower-case letters, digits, dot, dash, underscore; at most 63; no path."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{shown(value)} is not a name",
            hint="A name has 1 to 63 lower-case letters, digits, '.', '-' or '_', and begins with "
            "a letter or digit",
        )
    return value


def reference(value: object) -> str:
    """What names a sandbox: its id, a unique prefix of it, or its name."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{shown(value)} is neither an id nor a name",
            hint="Give the id, a unique prefix of it, or the name, as the list of sandboxes has it",
        )
    return value


def geometry(value: object) -> Geometry:
    """``1280x800``, from 64x64 to 7680x4320."""
    match = _GEOMETRY.fullmatch(value) if isinstance(value, str) else None
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (_MIN_SIDE <= width <= MAX_WIDTH and _MIN_SIDE <= height <= _MAX_HEIGHT):
        raise InvalidInput(
            f"{shown(value)} is not a size of a display",
            hint=f'Give "WIDTHxHEIGHT" from {_MIN_SIDE}x{_MIN_SIDE} to {MAX_WIDTH}x{_MAX_HEIGHT}',
        )
    return Geometry(width, height)


def region(value: object) -> Region:
    """``[x, y, width, height]`` in display pixels; it may still lie outside of the display."""
    hint = "Give [x, y, width, height] in display pixels"
    items = list_items(value)
    if len(items) != 4:
        raise InvalidInput(f"{shown(value)} is not a region", hint=hint)
    x, y, width, height = (
        named(f"[{index}]", between(least, MAX_WIDTH), item)
        for index, (least, item) in enumerate(zip((0, 0, 1, 1), items, strict=True))
    )
    return Region(x, y, width, height)


def duration(value: object) -> float:
    """Seconds above zero, from a number or text such as ``30s``, ``5m``."""
    try:
        return parse_duration(value)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{shown(value)} is not a duration above zero such as 30 or 5m"
        ) from error


def memory(value: object) -> int:
    """Bytes, from a number or text such as ``512M`` or ``4G``; at least :data:`MIN_MEMORY`."""
    try:
        size = parse_size(value)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{shown(value)} is not a size such as 512M or 4G") from error
    if not MIN_MEMORY <= size <= _MAX_MEMORY:
        raise InvalidInput(
            f"{shown(value)} is not from 128M to 16T",
            hint="Display and terminal count too, and a browser wants 1G",
        )
    return size


def cpus(value: object) -> float:
    """Processors' worth of time: 0.5 is half of one, 2 all of two."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{shown(value)} is not a number of processors such as 0.5 or 2")
    if not _MIN_CPUS <= value <= _MAX_CPUS:
        raise InvalidInput(f"{shown(value)} is not from {_MIN_CPUS} to {_MAX_CPUS}")
    return float(value)


def dollars(value: object) -> float:
    """US dollars, from 0 to a million."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(f"{shown(value)} is not a number of US dollars such as 2.5")
    if not 0 <= value <= _MAX_DOLLARS:
        raise InvalidInput(f"{shown(value)} is not from 0 to {_MAX_DOLLARS}")
    return float(value)


def wait_timeout(value: object) -> float:
    """Seconds, at most :data:`MAX_WAIT`."""
    seconds = duration(value)
    if seconds > MAX_WAIT:
        raise InvalidInput(
            f"at most {MAX_WAIT:g} seconds",
            hint="Wait in slices: when one ends without a match, call wait again with its cursor",
        )
    return seconds


def text(value: object) -> str:
    """Text of at most :data:`MAX_TEXT` bytes in UTF-8, without NUL."""
    if not isinstance(value, str):
        raise InvalidInput(f"{shown(value)} is not text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput("holds a lone surrogate, which is no character") from error
    if size > MAX_TEXT:
        raise InvalidInput(
            f"{size} bytes are too many, {MAX_TEXT} are the most",
            hint="Send it in parts, or put it into a file in the project",
        )
    if "\0" in value:
        raise InvalidInput("holds a NUL character")
    return value


def key_list(value: object) -> tuple[str, ...]:
    """Key names from a list, or from one string in which blanks divide them: ``"C-c Up Enter"``."""
    items = value.split() if isinstance(value, str) else list_items(value)
    if not items or len(items) > 256:
        raise InvalidInput('give 1 to 256 key names, such as ["Up", "Enter"]')
    return tuple(named(f"[{index}]", key_name, item) for index, item in enumerate(items))


def environment(value: object) -> dict[str, str]:
    """Variables for the payload: names as in a shell, values without NUL, 64 KiB together."""
    if not isinstance(value, Mapping):
        raise InvalidInput('must be an object such as {"LANG": "C.UTF-8"}')
    result: dict[str, str] = {}
    for key, item in cast("Mapping[object, object]", value).items():
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            raise InvalidInput(f"{shown(key)} is not a name of a variable")
        result[key] = named(f".{key}", text, item)
    if sum(len(key) + len(item.encode()) + 2 for key, item in result.items()) > _MAX_ENVIRONMENT:
        raise InvalidInput(f"more than {_MAX_ENVIRONMENT} bytes together")
    return result


def project(value: object) -> Path:
    """An absolute path on the host."""
    path = inner_path(value)
    if not path.startswith("/"):
        raise InvalidInput(f"{shown(path)} is not an absolute path")
    return Path(path)


def inner_path(value: object) -> str:
    """A path inside, absolute or relative to the project."""
    path = non_empty(value)
    if len(path.encode()) > _MAX_PATH:
        raise InvalidInput(f"is longer than {_MAX_PATH} bytes")
    if any(ord(character) < 32 for character in path):
        raise InvalidInput("holds a control character")
    return path


def command_line(value: object) -> tuple[str, ...]:
    """An argument vector; one string is a line for bash."""
    if isinstance(value, str):
        return ("bash", "-c", non_empty(value))
    items = list_items(value)
    if not 1 <= len(items) <= 256:
        raise InvalidInput('give ["program", "argument", ...], or one line for bash')
    arguments = tuple(named(f"[{index}]", text, item) for index, item in enumerate(items))
    if not arguments[0] or sum(len(argument.encode()) for argument in arguments) > MAX_TEXT:
        raise InvalidInput(f"needs a program, and {MAX_TEXT} bytes at most")
    return arguments


def command_timeout(value: object) -> float:
    """Seconds, at most :data:`MAX_COMMAND`."""
    seconds = duration(value)
    if seconds > MAX_COMMAND:
        raise InvalidInput(
            f"at most {MAX_COMMAND:g} seconds", hint="Give background=true for a longer one"
        )
    return seconds


def network(value: object) -> str:
    """A network mode; true means ``full``, false ``none`` (the earlier manager's body)."""
    if isinstance(value, bool):
        return "full" if value else "none"
    return one_of(NETWORKS)(value)


def cursors(value: object, sandboxes: Sequence[str]) -> dict[str, str]:
    """Cursors by sandbox; a plain string will do for a single one."""
    if isinstance(value, str) and len(sandboxes) == 1:
        return {sandboxes[0]: token(value)}
    if not isinstance(value, Mapping):
        raise InvalidInput("with several sandboxes, give an object of cursors by sandbox")
    pairs = cast("Mapping[object, object]", value).items()
    return {reference(key): named(f".{key}", token, item) for key, item in pairs}


def references(value: object) -> tuple[str, ...]:
    """One sandbox, or a list of 1 to 32."""
    items = [value] if isinstance(value, str) else list_items(value)
    if not 1 <= len(items) <= 32:
        raise InvalidInput("give 1 to 32 sandboxes")
    return tuple(named(f"[{index}]", reference, item) for index, item in enumerate(items))


def one_of(valid: Sequence[str]) -> Callable[[object], str]:
    """Converts to one of ``valid``."""

    def convert(value: object) -> str:
        if not isinstance(value, str) or value not in valid:
            raise InvalidInput(f"{shown(value)} is not valid", choices=valid)
        return value

    return convert


def between(least: int, most: int) -> Callable[[object], int]:
    """Converts to a whole number within bounds, from a number or its decimal text."""

    def convert(value: object) -> int:
        number = _whole(value)
        if number is None or not least <= number <= most:
            raise InvalidInput(f"{shown(value)} is not a whole number from {least} to {most}")
        return number

    return convert


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):  # the command line has only text
        return int(value)
    return value if isinstance(value, int) else None


def truth(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{shown(value)} is neither true nor false")
    return value


def non_empty(value: object) -> str:
    """:func:`text` that is not empty."""
    content = text(value)
    if not content:
        raise InvalidInput("is empty")
    return content


def short_text(value: object) -> str:
    """:func:`non_empty` text of at most 1000 characters."""
    content = non_empty(value)
    if len(content) > 1000:
        raise InvalidInput("is longer than 1000 characters")
    return content


def token(value: object) -> str:
    """A cursor or the name of a frame: opaque, as an earlier answer gave it."""
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise InvalidInput(
            f"{shown(value)} is not what an earlier answer gave", hint="Or leave it out"
        )
    return value


def key_name(value: object) -> str:
    """One key by name. The terminal knows which names exist."""
    if not isinstance(value, str) or not 1 <= len(value) <= 32 or not value.isprintable():
        raise InvalidInput(f"{shown(value)} is not the name of a key")
    return value


def list_items(value: object) -> list[object]:
    """The items of a list."""
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(f"{shown(value)} is not a list")
    return list(cast("Sequence[object]", value))


def shown(value: object) -> str:
    """A wrong value in a message: short, on one line, however big it is."""
    return one_line(_BRIEF.repr(value), 80)
