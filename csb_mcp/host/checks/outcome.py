"""What one check found."""

from dataclasses import dataclass
from enum import StrEnum

from csb_mcp.model import Problem


class Outcome(StrEnum):
    """How it is."""

    OK = "ok"
    WEAK = "weak"  # works, with less than there could be
    MISSING = "missing"  # no sandbox can be made
    LATER = "later"  # concerns something that is not built yet


@dataclass(frozen=True, slots=True)
class Check:
    """One thing of the host. ``repair`` is a line or a sentence, where something is to be done."""

    what: str
    outcome: Outcome
    detail: str
    repair: str = ""

    def problem(self) -> Problem | None:
        """The same as a problem, if it is one."""
        if self.outcome not in (Outcome.WEAK, Outcome.MISSING):
            return None
        fatal = self.outcome is Outcome.MISSING
        return Problem(self.what, self.detail, self.repair, fatal=fatal)


def ok(what: str, detail: str) -> Check:
    """All is well."""
    return Check(what, Outcome.OK, detail)


def enough(what: str, detail: str, repair: str, *, well: bool) -> Check:
    """Well, or weak with its repair."""
    return ok(what, detail) if well else Check(what, Outcome.WEAK, detail, repair)
