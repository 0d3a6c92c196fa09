"""The proof that a prompt was submitted: a hook or a transcript has it."""

import logging
from collections.abc import Callable

from csb_mcp.model import Source

_log = logging.getLogger(__name__)


class Proof:
    """One prompt at a time is awaited. ``source``: who showed it submitted, None so far.

    ``same``: the adapter's word for whether what was told is the prompt that was submitted.
    """

    def __init__(self, same: Callable[[str, str], bool]) -> None:
        self._same = same
        self._awaited: str | None = None
        self.source: Source | None = None

    def expect(self, text: str) -> None:
        """From now on: ``text``."""
        self._awaited, self.source = text, None

    def forget(self) -> None:
        """Nothing is awaited."""
        self._awaited = None

    def saw(self, source: Source, text: str) -> None:
        """A prompt was submitted, it says."""
        if self._awaited is None or self.source is not None:
            return
        try:
            if self._same(self._awaited, text):
                self.source = source
        except Exception:  # noqa: BLE001 - logged; what is told is made by somebody hostile
            _log.exception("a prompt that was told of was not understood")
