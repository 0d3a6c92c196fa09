import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.lib.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30", 30), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (7, 7)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512M", 512 << 20), ("4G", 4 << 30), ("1k", 1024)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(text + "iB") == size
    assert parse_size(size) == size


@pytest.mark.parametrize("bad", [0, -1, "0s", "", "soon", "1w", None, True, [], "1e3", "٣s"])
def test_what_is_no_duration_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(bad)


@pytest.mark.parametrize("bad", [0, -1, "0", "", "big", "1X", None, True, 1.5, "0.0001"])
def test_what_is_no_size_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(bad)


@given(st.text())
def test_any_text_gives_a_number_above_zero_or_an_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) > 0
        except ValueError:
            continue
