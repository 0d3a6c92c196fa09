"""What the schemas of :mod:`csb_mcp.decode.schemas` are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csb_mcp.model import MAX_TEXT

Json = dict[str, Any]

NO_NUL = r"^[^\u0000]*$"
NO_CONTROLS = r"^[^\u0000-\u001f]*$"
_DURATION = r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)?$"


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, by name, ``sandbox`` aside. A query has no null."""

    properties: Mapping[str, Json]
    required: tuple[str, ...] = ()

    def schema(self) -> Json:
        """As one object schema, which refuses unknown arguments; null stands for "not given"."""
        found: Json = {
            "type": "object",
            "properties": {
                name: schema if name in self.required else _or_null(schema)
                for name, schema in self.properties.items()
            },
            "additionalProperties": False,
        }
        return found | ({"required": list(self.required)} if self.required else {})


def _or_null(schema: Json) -> Json:
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    enum = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | enum


def text(description: str, *, least: int = 0, most: int = MAX_TEXT, pattern: str = NO_NUL) -> Json:
    """Text of ``least`` to ``most`` characters."""
    length = {"minLength": least} if least else {}
    return {
        "type": "string",
        "description": description,
        **length,
        "maxLength": most,
        "pattern": pattern,
    }


def whole(description: str, least: int, most: int, **more: object) -> Json:
    """A whole number within bounds."""
    bounds = {"minimum": least, "maximum": most}
    return {"type": "integer", "description": description, **bounds, **more}


def seconds(description: str, most: float, **more: object) -> Json:
    """Seconds above zero, ``most`` at most."""
    bounds = {"exclusiveMinimum": 0, "maximum": most}
    return {"type": "number", "description": description, **bounds, **more}


def duration(description: str) -> Json:
    """Seconds above zero, or text such as ``30m``."""
    kinds = [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": _DURATION}]
    return {"anyOf": kinds, "description": description}


def choice(description: str, valid: tuple[str, ...], **more: object) -> Json:
    """One of some words."""
    return {"type": "string", "enum": list(valid), "description": description, **more}


def several(description: str, items: Json, most: int) -> Json:
    """A list of words, or one text in which commas or blanks divide them."""
    listed = {"type": "array", "items": items, "maxItems": most}
    kinds = [listed, {"type": "string", "maxLength": MAX_TEXT, "pattern": NO_NUL}]
    return {"anyOf": kinds, "description": description, "default": []}
