"""Row numbers and generations against a small model of tmux's grid, and the edges by hand."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from csb_mcp.host.terminal.rows import ANCHOR, BURST, HISTORY_LIMIT, KEEP, TRIM, Look, Screen
from csb_mcp.lib.text import screen_row
from csb_mcp.model import Rows

HEIGHT = 6


@dataclass
class Grid:
    """What tmux keeps: the screen, the history above it, cut by a tenth when it is full."""

    history: list[bytes] = field(default_factory=list[bytes])
    screen: list[bytes] = field(default_factory=lambda: [b""] * HEIGHT)
    width: int = 20
    printed: int = 0

    def scroll(self, *lines: bytes) -> None:
        for line in lines:
            if len(self.history) >= HISTORY_LIMIT:
                del self.history[:TRIM]
            self.history.append(self.screen.pop(0))
            self.screen.append(line)
            self.printed += len(line) + 2

    def write(self, row: int, text: bytes) -> None:
        self.screen[row] = text
        self.printed += len(text)

    def look(self, reach: int) -> Look:
        above = self.history[-reach:] if reach else []
        printed, self.printed = self.printed, 0
        return Look(
            history=len(self.history),
            width=self.width,
            height=HEIGHT,
            cursor_row=0,
            cursor_column=0,
            printed=printed,
            rows=[*above, *self.screen],
        )


def refresh(screen: Screen, grid: Grid) -> None:
    """As TmuxTerminal.rows does it; what was printed counts once for each attempt there, too."""
    look = grid.look(2 * ANCHOR)
    wanted = screen.take(look)
    if wanted:
        grid.printed = look.printed or 0
        assert screen.take(grid.look(KEEP + ANCHOR)) == 0


@dataclass
class Reader:
    """Keeps a copy of the terminal by nothing but changed rows."""

    generation: int | None = None
    rows: dict[int, str] = field(default_factory=dict[int, str])

    def read(self, screen: Screen) -> Rows:
        answer = screen.since(self.generation)
        if answer.gap:
            self.rows.clear()
        self.rows.update(answer.rows)
        self.generation = answer.generation
        return answer

    def shows(self, screen: Screen) -> list[str]:
        return [self.rows.get(screen.top + at, "") for at in range(HEIGHT)]


def fresh() -> tuple[Grid, Screen]:
    return Grid(), Screen(screen_row)


def numbered(begin: int, count: int) -> list[bytes]:
    return [b"line %d" % number for number in range(begin, begin + count)]


STEPS = st.one_of(
    st.tuples(st.just("scroll"), st.integers(1, 40)),
    st.tuples(st.just("scroll"), st.integers(900, 2500)),
    st.tuples(st.just("repeat"), st.integers(1, 3000)),
    st.tuples(st.just("write"), st.integers(0, HEIGHT - 1)),
    st.tuples(st.just("clear"), st.just(0)),
    st.tuples(st.just("forget"), st.just(0)),
    st.tuples(st.just("resize"), st.integers(10, 30)),
    st.tuples(st.just("read"), st.integers(0, 1)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=25), begin=st.sampled_from([0, 5, 8990, 9990, 10_000]))
def test_changed_rows_always_rebuild_the_screen(steps: list[tuple[str, int]], begin: int) -> None:
    grid, screen = fresh()
    grid.history = numbered(1_000_000, begin)
    readers, count = [Reader(), Reader()], 0
    for what, number in steps:
        count += 10_000
        if what == "scroll":
            grid.scroll(*numbered(count, number))
        elif what == "repeat":
            grid.scroll(*[b"y"] * number)
        elif what == "write":
            grid.write(number, b"text %d" % count)
        elif what == "clear":
            grid.screen = [b""] * HEIGHT
        elif what == "forget":
            grid.history.clear()
        elif what == "resize":
            grid.width = number
        else:
            refresh(screen, grid)
            readers[number].read(screen)
            assert readers[number].shows(screen) == [row.decode() for row in grid.screen]
    refresh(screen, grid)
    for reader in readers:
        reader.read(screen)
        assert reader.shows(screen) == [row.decode() for row in grid.screen]


def test_scrolled_rows_keep_their_numbers_and_come_once() -> None:
    grid, screen = fresh()
    reader = Reader()
    grid.scroll(*numbered(0, 100))
    refresh(screen, grid)
    reader.read(screen)
    first = screen.top
    grid.scroll(*numbered(100, 500))
    refresh(screen, grid)
    answer = reader.read(screen)
    assert not answer.gap
    assert [text for _, text in answer.rows] == [f"line {n}" for n in range(100, 600)]
    assert screen.top == first + 500
    assert screen.since(reader.generation).rows == ()


def test_no_look_changes_nothing() -> None:
    grid, screen = fresh()
    refresh(screen, grid)
    generation = screen.generation
    refresh(screen, grid)
    assert screen.generation == generation


def test_numbers_go_on_where_tmux_drops_a_tenth_of_its_history() -> None:
    grid, screen = fresh()
    grid.scroll(*numbered(0, HISTORY_LIMIT))
    refresh(screen, grid)
    before = screen.top
    reader = Reader()
    reader.read(screen)
    grid.scroll(*numbered(HISTORY_LIMIT, 300))
    assert len(grid.history) < HISTORY_LIMIT - TRIM + 301
    refresh(screen, grid)
    answer = reader.read(screen)
    assert not answer.gap
    assert len(answer.rows) == 300
    assert screen.top == before + 300


def test_more_than_the_history_holds_is_a_gap() -> None:
    grid, screen = fresh()
    refresh(screen, grid)
    reader = Reader()
    reader.read(screen)
    grid.scroll(*numbered(0, 3 * HISTORY_LIMIT))
    refresh(screen, grid)
    answer = reader.read(screen)
    assert answer.gap
    assert [text for _, text in answer.rows] == [row.decode() for row in grid.screen]


def test_a_burst_of_equal_rows_at_the_limit_is_a_gap_and_not_a_guess() -> None:
    grid, screen = fresh()
    grid.scroll(*[b"y"] * (HISTORY_LIMIT + 500))
    refresh(screen, grid)
    reader = Reader()
    reader.read(screen)
    grid.scroll(*[b"y"] * (TRIM + 7))
    grid.printed = BURST
    refresh(screen, grid)
    assert reader.read(screen).gap


def test_a_cleared_history_is_a_gap() -> None:
    grid, screen = fresh()
    grid.scroll(*numbered(0, 50))
    refresh(screen, grid)
    reader = Reader()
    reader.read(screen)
    grid.history.clear()
    refresh(screen, grid)
    assert reader.read(screen).gap


def test_generations_that_were_never_given_are_a_gap() -> None:
    grid, screen = fresh()
    grid.scroll(b"a")
    refresh(screen, grid)
    for unknown in (0, screen.generation + 5):
        answer = screen.since(unknown)
        assert answer.gap
        assert len(answer.rows) == HEIGHT


def test_what_is_kept_is_bounded_and_late_readers_are_told() -> None:
    grid, screen = fresh()
    refresh(screen, grid)
    late = Reader()
    late.read(screen)
    for turn in range(8):
        grid.scroll(*numbered(turn * 1000, 900))
        refresh(screen, grid)
    kept = screen._rows  # pyright: ignore[reportPrivateUsage]
    assert len(kept) <= KEEP + HEIGHT
    assert late.read(screen).gap
