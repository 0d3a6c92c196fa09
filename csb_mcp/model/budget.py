"""What an agent may use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bounds in tokens of all kinds, US dollars, and turns; None: none.

    At 80 % there is an event, at 100 % the sandbox is paused, after its last turn if it is turns.
    What is used is counted by the sandbox's transcripts, which are its word, and by its proxy where
    that sees the API; the larger counts. Turns are told by hooks and transcripts alone.
    """

    max_tokens: int | None = None
    max_cost: float | None = None
    max_turns: int | None = None

    def over(self, changes: "Budget") -> "Budget":
        """With those of ``changes`` that are given."""
        return Budget(
            max_tokens=self.max_tokens if changes.max_tokens is None else changes.max_tokens,
            max_cost=self.max_cost if changes.max_cost is None else changes.max_cost,
            max_turns=self.max_turns if changes.max_turns is None else changes.max_turns,
        )

    @property
    def given(self) -> dict[str, float]:
        """By name, those that there are."""
        named = {
            "max_tokens": self.max_tokens,
            "max_cost": self.max_cost,
            "max_turns": self.max_turns,
        }
        return {name: bound for name, bound in named.items() if bound is not None}


NO_BUDGET = Budget()
