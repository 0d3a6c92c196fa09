"""Which rows of a terminal changed: absolute row numbers and generations, from looks at tmux.

tmux tells how long its history is, not how much ever went through it; at its limit it drops the
oldest tenth at once. How far the rows moved between two looks is found from both lengths, and
proven by rows of the history that both looks see: those never change.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csb_mcp.model import Rows

HISTORY_LIMIT = 10_000
TRIM = HISTORY_LIMIT // 10  # grid_collect_history() of tmux's grid.c
ANCHOR = 16  # rows above the screen that prove how far it moved
KEEP = 2_000  # rows above the screen that can still be told as changed
BURST = 8 * 1024  # with fewer bytes printed, nobody scrolls TRIM rows unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The pane at one moment: the whole screen and some rows above it.

    ``history`` is the length of tmux's history; ``printed`` how many bytes (roughly) the pane
    printed since the look before, None if that is unknown. ``rows`` are as tmux prints them, the
    screen's the last.
    """

    history: int
    width: int
    height: int
    cursor_row: int
    cursor_column: int
    printed: int | None
    rows: Sequence[bytes]

    @property
    def above(self) -> int:
        """How many rows above the screen were seen."""
        return len(self.rows) - self.height

    @property
    def burst(self) -> bool:
        """So much was printed that TRIM rows may have gone by."""
        return self.printed is None or self.printed >= BURST

    def reaches(self, rows: int) -> bool:
        """It shows so many rows above the screen, or all there are."""
        return self.above >= min(rows, self.history)


_NOTHING = Look(history=0, width=0, height=0, cursor_row=0, cursor_column=0, printed=0, rows=())


@dataclass(slots=True)
class _Row:
    raw: bytes
    generation: int


class Screen:
    """What is known of one pane. ``generation`` grows by one with each look that shows a change.

    ``text`` makes a row as tmux prints it into plain text; it is called for rows that are told.
    """

    def __init__(self, text: Callable[[bytes], str]) -> None:
        self._text = text
        self.generation = 0
        self._complete_since = 1  # readers of this generation or later missed nothing
        self._top = 0  # absolute number of the screen's first row
        self._first = 0  # absolute number of _rows[0]
        self._rows: deque[_Row] = deque()
        self._last = _NOTHING

    @property
    def top(self) -> int:
        """Absolute number of the screen's first row."""
        return self._top

    def take(self, look: Look) -> int:
        """Bring it up to date. Gives 0; or, with nothing changed, how many rows above to look at.

        Ask again with a look that reaches so far.
        """
        last = self._last
        if last is _NOTHING:
            self._restart(look, top=look.history)
        elif (last.width, last.height) != (look.width, look.height):  # tmux breaks lines anew
            self._restart(look, top=self._top + last.height)
        elif not (last.rows == look.rows and last.history == look.history):
            fits = self._movements(last, look)
            if isinstance(fits, int):
                return fits
            if len(fits) == 1:
                self._update(look, fits[0])
            else:  # none: rows in between are lost; several: the rows repeat, so nobody can tell
                least = max(look.history - last.history, last.height)
                self._restart(look, top=self._top + least)
        self._last = look
        return 0

    def since(self, generation: int | None) -> Rows:
        """Rows that changed after ``generation``; None: the whole screen."""
        if generation == self.generation:
            return self._answer((), gap=False)
        gap = generation is not None and not self._complete_since <= generation < self.generation
        if generation is None or gap:
            skipped = self._top - self._first
            shown = enumerate((row.raw for row in list(self._rows)[skipped:]), self._top)
        else:
            rows = enumerate(self._rows, self._first)
            shown = ((number, row.raw) for number, row in rows if row.generation > generation)
        return self._answer(tuple((number, self._text(raw)) for number, raw in shown), gap=gap)

    def _answer(self, rows: tuple[tuple[int, str], ...], *, gap: bool) -> Rows:
        return Rows(
            rows=rows,
            generation=self.generation,
            gap=gap,
            cursor_row=self._top + self._last.cursor_row,
            cursor_column=self._last.cursor_column,
        )

    def _movements(self, last: Look, look: Look) -> list[int] | int:
        """By how many rows the screen may have moved; or how many rows above a look must reach."""
        step = look.history - last.history
        tries = [step] if step >= 0 else []
        if look.history >= HISTORY_LIMIT - TRIM and (step < 0 or look.burst):
            tries += range(step + TRIM, KEEP + 1, TRIM) if step + TRIM > 0 else ()
        fits: list[int] = []
        for moved in tries:
            if moved > KEEP:
                continue
            if not look.reaches(moved + ANCHOR):
                return moved + ANCHOR
            if self._proven(look, moved):
                fits.append(moved)
        return fits

    def _proven(self, look: Look, moved: int) -> bool:
        """Rows of the old history stand where they must, if the screen moved by ``moved``."""
        if moved > look.above:
            return False  # rows in between are lost
        if self._last.history == 0:
            return True  # nothing stood above the screen that could prove it
        seen_from = self._top + moved - look.above
        begin = max(self._first, self._top - ANCHOR, seen_from)
        known = [self._rows[number - self._first].raw for number in range(begin, self._top)]
        at = begin - seen_from
        return bool(known) and known == list(look.rows[at : at + len(known)])

    def _update(self, look: Look, moved: int) -> None:
        top = self._top + moved
        seen_from = top - look.above
        now = self.generation + 1
        for number in range(self._top, top + look.height):
            raw = look.rows[number - seen_from]
            if number - self._first == len(self._rows):
                self._rows.append(_Row(b"", 0))  # a row that nobody saw yet was blank until now
            row = self._rows[number - self._first]
            if row.raw != raw:
                row.raw, row.generation = raw, now
                self.generation = now
        self._top = top
        self._forget(look.height)

    def _forget(self, height: int) -> None:
        while len(self._rows) > KEEP + height:
            row = self._rows.popleft()
            self._first += 1
            self._complete_since = max(self._complete_since, row.generation)

    def _restart(self, look: Look, *, top: int) -> None:
        """Nothing known before counts any more: every reader gets a gap."""
        self.generation += 1
        self._complete_since = self.generation
        self._top = top
        self._first = self._top - look.above
        self._rows = deque(_Row(raw, self.generation) for raw in look.rows)
        self._forget(look.height)
