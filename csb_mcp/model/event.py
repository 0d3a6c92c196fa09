"""What happened."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. ``sequence`` grows over all sandboxes and daemon restarts."""

    sequence: int
    time: float
    sandbox: str
    kind: str
    data: Mapping[str, str] = field(default_factory=dict[str, str])
