"""The arguments of a call as a whole: which there are, which are missing, which are unknown."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from csb_mcp.decode.values import named
from csb_mcp.errors import InvalidInput
from csb_mcp.lib.text import one_line

T = TypeVar("T")
D = TypeVar("D")


class Fields:
    """A mapping whose keys are known, read field by field; errors get the field's name.

    Raises InvalidInput if it is no mapping, or has a key that is not in ``valid``.
    """

    def __init__(self, values: object, valid: Sequence[str]) -> None:
        if not isinstance(values, Mapping):
            raise InvalidInput("arguments must be an object", choices=valid)
        self._values = cast("Mapping[str, object]", values)
        for key in self._values:
            if key not in valid:
                raise InvalidInput("unknown argument", field=one_line(str(key), 64), choices=valid)

    def need(self, key: str, convert: Callable[[object], T]) -> T:
        """The field, converted; an error if it is not there."""
        value = self._values.get(key)
        if value is None:
            raise InvalidInput("is required", field=key)
        return named(key, convert, value)

    def get(self, key: str, convert: Callable[[object], T], default: D) -> T | D:
        """The field, converted, or the default."""
        value = self._values.get(key)
        return default if value is None else named(key, convert, value)
