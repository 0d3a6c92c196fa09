"""What every part of the service that works with all sandboxes holds."""

from csb_mcp.config import Settings
from csb_mcp.service.events import Events
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Registry


class Core:
    """Base of those parts: settings, host pieces, records, and the event stream."""

    def __init__(
        self, settings: Settings, pieces: Pieces, registry: Registry, events: Events
    ) -> None:
        self._settings = settings
        self._pieces = pieces
        self._registry = registry
        self._events = events
