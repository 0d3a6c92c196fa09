"""What the egress proxy counted of the answers of agents' APIs: not the sandbox's word."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from csb_mcp.model.agent import ModelUsage

_NOTHING = ModelUsage()
MODELS = 16
"""Told apart; further ones are added up as ``other``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Tokens by model, of ``answers``.

    ``uncounted``: answers that were not understood; ``estimated``: tokens that they and their
    requests may have been, by their size. ``cut``: of ``answers``, those that the sandbox broke
    off, of which output is what came by then.
    """

    models: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])
    answers: int = 0
    uncounted: int = 0
    estimated: int = 0
    cut: int = 0

    @property
    def total(self) -> ModelUsage:
        """Of all models."""
        return sum(self.models.values(), _NOTHING)

    @property
    def tokens(self) -> int:
        """Of all kinds and models, with what was estimated."""
        return self.total.total + self.estimated

    def __add__(self, other: "Counted") -> "Counted":
        models = dict(self.models)
        for name, used in other.models.items():
            at = name if name in models or len(models) < MODELS else "other"
            models[at] = models.get(at, _NOTHING) + used
        return Counted(
            models=models,
            answers=self.answers + other.answers,
            uncounted=self.uncounted + other.uncounted,
            estimated=self.estimated + other.estimated,
            cut=self.cut + other.cut,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyCount:
    """What one proxy told, of all since it started. ``run`` tells it from the one before.

    ``under_way``: requests whose answer is not whole yet.
    """

    run: str
    counted: Counted
    under_way: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCount:
    """What is kept of a sandbox: the last proxy's count, and all of those before it."""

    run: str
    now: Counted
    before: Counted = Counted()

    @property
    def whole(self) -> Counted:
        """All of it."""
        return self.before + self.now


def kept_with(kept: KeptCount | None, told: ProxyCount) -> KeptCount:
    """With what a proxy tells now. It tells all since its start; no tokens are taken back."""
    if kept is None:
        return KeptCount(run=told.run, now=told.counted)
    if kept.run != told.run:
        return KeptCount(run=told.run, now=told.counted, before=kept.whole)
    if told.counted.tokens < kept.now.tokens:
        return kept
    return KeptCount(run=kept.run, now=told.counted, before=kept.before)
