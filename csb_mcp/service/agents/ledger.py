"""What an agent has used: tokens by model, turns, and what they cost by a price table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from csb_mcp.config import Price
from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentUsage, Counted, Message, ModelUsage

DATED = "2025-11"
"""When the built-in prices were looked up."""
PRICES: Mapping[str, Price] = {
    "claude-opus-4-5": Price(5.0, 25.0, 6.25, 0.5),
    "claude-opus-4": Price(15.0, 75.0, 18.75, 1.5),
    "claude-sonnet-4": Price(3.0, 15.0, 3.75, 0.3),
    "claude-3-7-sonnet": Price(3.0, 15.0, 3.75, 0.3),
    "claude-haiku-4-5": Price(1.0, 5.0, 1.25, 0.1),
    "claude-3-5-haiku": Price(0.8, 4.0, 1.0, 0.08),
}
"""US dollars per million tokens, by the beginning of a model's name."""
_MILLION = 1e6
_MODELS = 16  # told apart; a model's name is the sandbox's word
_NAME = 80
_NOTHING = ModelUsage()
_UNCOUNTED = Counted()


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """By the longest beginning of its name; the settings' before the built-in ones."""
    for table in (prices, PRICES):
        if fitting := [name for name in table if model.startswith(name)]:
            return table[max(fitting, key=len)]
    return None


def cost(usage: ModelUsage, price: Price) -> float:
    """In US dollars."""
    return (
        usage.input * price.input
        + usage.output * price.output
        + usage.cache_creation * price.cache_creation
        + usage.cache_read * price.cache_read
    ) / _MILLION


@dataclass(frozen=True, slots=True)
class Books:
    """All that a ledger knows."""

    models: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])
    turn: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])
    tool_calls: int = 0
    by_hook: int = 0
    by_transcript: int = 0


class Ledger:
    """Adds up messages. ``prompts`` by hooks and by transcripts: the larger number is believed.

    ``counted``: what the proxy saw, if it counts.
    """

    def __init__(
        self,
        prices: Mapping[str, Price],
        books: Books | None = None,
        counted: Counted | None = None,
    ) -> None:
        books = books or Books()
        self._prices = prices
        self._dearest = max((*prices.values(), *PRICES.values()), key=lambda price: price.output)
        self.counted = counted
        self._models = dict(books.models)
        self._turn = dict(books.turn)
        self._tool_calls = books.tool_calls
        self.by_hook, self.by_transcript = books.by_hook, books.by_transcript

    def begin(self) -> None:
        """A turn begins."""
        self._turn = {}

    def add(self, messages: Iterable[Message]) -> None:
        """Each of them once."""
        for message in messages:
            name = one_line(message.model, _NAME)
            if name not in self._models and len(self._models) >= _MODELS:
                name = "other"
            for book in (self._models, self._turn):
                book[name] = book.get(name, _NOTHING) + message.usage
            self._tool_calls += len(message.tools)

    @property
    def books(self) -> Books:
        """As they stand."""
        turn = dict(self._turn)
        return Books(dict(self._models), turn, self._tool_calls, self.by_hook, self.by_transcript)

    def raise_to(self, books: Books) -> None:
        """What those have more was used meanwhile, in this turn; what less, was deleted since."""
        for name, used in books.models.items():
            more = _beyond(used, self._models.get(name, _NOTHING))
            for book in (self._models, self._turn) if more.total else ():
                book[name] = book.get(name, _NOTHING) + more
        self._tool_calls = max(self._tool_calls, books.tool_calls)
        self.by_transcript = max(self.by_transcript, books.by_transcript)

    def _cost(self, book: Mapping[str, ModelUsage]) -> float:
        priced = ((used, price_of(name, self._prices)) for name, used in book.items())
        return sum(cost(used, price) for used, price in priced if price is not None)

    def _unpriced_cost(self, book: Mapping[str, ModelUsage]) -> float:
        """Of what has no price, by the dearest that is known."""
        unpriced = (used for name, used in book.items() if price_of(name, self._prices) is None)
        return sum(cost(used, self._dearest) for used in unpriced)

    def _counted_cost(self, counted: Counted) -> float:
        """What has no price, or was only estimated, may have been the dearest."""
        known = self._cost(counted.models) + self._unpriced_cost(counted.models)
        priced = (price_of(name, self._prices) or self._dearest for name in counted.models)
        dearest = max((price.output for price in priced), default=0.0)
        return known + counted.estimated * dearest / _MILLION

    @property
    def usage(self) -> AgentUsage:
        """As it stands."""
        models = {name: used for name, used in self._models.items() if used.total}
        counted = self.counted or _UNCOUNTED
        every = dict.fromkeys((*models, *counted.models))
        unpriced = (name for name in every if price_of(name, self._prices) is None)
        return AgentUsage(
            models=models,
            cost=self._cost(self._models),
            unpriced=tuple(unpriced),
            unpriced_cost=self._unpriced_cost(models),
            turns=max(self.by_hook, self.by_transcript),
            tool_calls=self._tool_calls,
            turn=sum(self._turn.values(), _NOTHING),
            turn_cost=self._cost(self._turn),
            counted=self.counted,
            counted_cost=self._counted_cost(counted),
        )


def _beyond(now: ModelUsage, before: ModelUsage) -> ModelUsage:
    return ModelUsage(
        input=max(0, now.input - before.input),
        output=max(0, now.output - before.output),
        cache_creation=max(0, now.cache_creation - before.cache_creation),
        cache_read=max(0, now.cache_read - before.cache_read),
    )
