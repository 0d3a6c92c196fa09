"""The proof that a prompt was submitted: a hook or a transcript has it."""

import logging
from collections.abc import Callable

from csb_mcp.model import Source

_log = logging.getLogger(__name__)


class Proof:
    """One prompt at a time is awaited. ``source``: who showed it submitted, None so far.

    ``written``: how many prompts transcripts told of.

    ``same``: the adapter's word for whether what was told is the prompt that was submitted.
    """

    def __init__(self, same: Callable[[str, str], bool]) -> None:
        self._same = same
        self._awaited: str | None = None
        self._after = 0
        self.written = 0
        self.source: Source | None = None

    def expect(self, text: str, after: int = 0) -> None:
        """From now on: ``text``. The first ``after`` prompts of the transcripts are not it."""
        self._awaited, self._after, self.source = text, after, None

    def forget(self) -> None:
        """Nothing is awaited."""
        self._awaited = None

    def saw(self, source: Source, text: str) -> None:
        """A prompt was submitted, it says."""
        if source is Source.TRANSCRIPT:
            self.written += 1
            if self.written <= self._after:
                return
        if self._awaited is not None and self.source is None and self.same(self._awaited, text):
            self.source = source

    def same(self, text: str, told: str) -> bool:
        """The adapter's word for whether what was ``told``, by somebody hostile, is ``text``."""
        try:
            return self._same(text, told)
        except Exception:  # noqa: BLE001 - logged
            _log.exception("a prompt that was told of was not understood")
            return False
