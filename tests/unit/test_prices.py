"""What tokens cost: by the settings, and by what is built in."""

from pathlib import Path

import pytest

from csb_mcp.config import Price, load_settings
from csb_mcp.errors import InvalidInput
from csb_mcp.model import ModelUsage
from csb_mcp.service.agents.ledger import PRICES, cost, price_of


def loaded(tmp_path: Path, text: str) -> dict[str, Price]:
    file = tmp_path / "config.toml"
    file.write_text(text)
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    return dict(load_settings({"config": str(file)}, env).prices)


def test_the_settings_go_before_what_is_built_in(tmp_path: Path) -> None:
    table = "input = 1\noutput = 2.5\ncache_creation = 3\ncache_read = 0\n"
    prices = loaded(tmp_path, f'[prices."claude"]\n{table}')
    assert prices == {"claude": Price(1, 2.5, 3, 0)}
    assert price_of("claude-opus-4-1-2025", prices) == Price(1, 2.5, 3, 0)
    assert price_of("claude-opus-4-1-2025", {}) == PRICES["claude-opus-4"]
    assert price_of("claude-opus-4-5-x", {}) == PRICES["claude-opus-4-5"]
    assert price_of("gpt", prices) is None


def test_each_kind_has_its_price() -> None:
    used = ModelUsage(input=1_000_000, output=2_000_000, cache_creation=500_000, cache_read=10)
    assert cost(used, Price(3, 15, 4, 100)) == pytest.approx(3 + 30 + 2 + 0.001)


@pytest.mark.parametrize(
    "text",
    [
        "prices = 3",
        "[prices.m]\ninput = 1",
        "[prices.m]\ninput = 1\noutput = 1\ncache_creation = 1\ncache_read = -1",
        '[prices.m]\ninput = "1"\noutput = 1\ncache_creation = 1\ncache_read = 1',
        "[prices.m]\ninput = 1\noutput = nan\ncache_creation = 1\ncache_read = 1",
        "[prices.m]\ninput = 1\noutput = 1\ncache_creation = 1\ncache_read = 1\nmore = 1",
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput, match="prices"):
        loaded(tmp_path, text)
