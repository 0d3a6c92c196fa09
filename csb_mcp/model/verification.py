"""What came of attacking a sandbox from its inside."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How one probe ended."""

    HELD = "held"  # the attack failed, and its control succeeded
    BROKEN = "broken"  # the attack succeeded
    UNTESTED = "untested"  # the control failed, or a tool was missing: nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One attack and what came of it. ``protects`` names what is to be out of reach."""

    name: str
    protects: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The table of one sandbox. It says what was tried; it cannot say what nobody thought of."""

    sandbox: str
    probes: tuple[Probe, ...]
    seconds: float

    @property
    def held(self) -> bool:
        """No attack succeeded, and most of them could be tried at all."""
        broken = any(probe.outcome is Outcome.BROKEN for probe in self.probes)
        tried = sum(probe.outcome is Outcome.HELD for probe in self.probes)
        return not broken and tried * 2 > len(self.probes)
