"""The host pieces that sandboxes are put together from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from csb_mcp.model import Problem
from csb_mcp.ports import (
    Agent,
    Backend,
    Displays,
    Gates,
    Keeper,
    Limiter,
    Prober,
    Spools,
    Terminals,
    Watcher,
)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The host pieces that a sandbox is put together from."""

    backends: Mapping[str, Backend]
    displays: Displays
    terminals: Terminals
    limiter: Limiter
    keeper: Keeper
    watcher: Watcher
    gates: Gates
    prober: Prober
    spools: Spools
    agents: Mapping[str, Agent] = field(default_factory=dict[str, Agent])

    def problems(self) -> Sequence[Problem]:
        """What this host lacks, piece by piece. Starts short processes."""
        pieces = (*self.backends.values(), self.displays, self.terminals, self.limiter, self.gates)
        return [problem for piece in pieces for problem in piece.problems()]
