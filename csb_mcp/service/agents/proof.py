"""The proof that a prompt was submitted: a hook or a transcript has it, word for word."""

from csb_mcp.model import Source

_LONG = 1000  # characters from which on its beginning is proof enough: what is long is cut


class Proof:
    """One prompt at a time is awaited. ``source``: who showed it submitted, None so far."""

    def __init__(self) -> None:
        self._awaited: str | None = None
        self.source: Source | None = None

    def expect(self, text: str) -> None:
        """From now on: ``text``."""
        self._awaited, self.source = _words(text), None

    def forget(self) -> None:
        """Nothing is awaited."""
        self._awaited = None

    def saw(self, source: Source, text: str) -> None:
        """A prompt was submitted, it says."""
        if self._awaited is None or self.source is not None:
            return
        said = _words(text)
        if said == self._awaited or (len(said) >= _LONG and self._awaited.startswith(said)):
            self.source = source


def _words(text: str) -> str:
    """Without blanks: terminals and agents change them."""
    return "".join(text.split())
