"""What a proxy says that it counted, read as hostile: it may have been taken over."""

from collections.abc import Mapping
from typing import cast

from csb_mcp.lib.text import one_line
from csb_mcp.model import Counted, ModelUsage, ProxyCount
from csb_mcp.model.counted import MODELS

_MOST = 1 << 53
_NAME, _RUN = 80, 64  # characters


def count_of(value: object) -> ProxyCount:
    """Raises ValueError."""
    used = _object(value)
    run, models = used.get("run"), _object(used.get("models"))
    if not isinstance(run, str) or not 0 < len(run) <= _RUN or len(models) > MODELS + 1:
        raise ValueError("no count")
    counted = Counted(
        models={one_line(name, _NAME): _tokens(tokens) for name, tokens in models.items()},
        **{name: _whole(used, name) for name in ("answers", "uncounted", "estimated", "cut")},
    )
    return ProxyCount(run=one_line(run, _RUN), counted=counted, under_way=_whole(used, "open"))


def _tokens(value: object) -> ModelUsage:
    kinds = _object(value)
    names = ("input", "output", "cache_creation", "cache_read")
    return ModelUsage(**{name: _whole(kinds, name) for name in names})


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  one kind of error for a bad line
    return cast("Mapping[str, object]", value)


def _whole(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{name} is no number of its kind")
    return value
