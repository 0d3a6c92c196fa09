"""What the attacking program says is read as hostile; canaries decide, not words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.host.attack.protected import TARGETS
from csb_mcp.host.attack.table import Answer, Answers, Attack, judge, parse
from csb_mcp.host.backends.bubblewrap import protected_paths
from csb_mcp.model import Outcome

NONCE = "0123456789abcdef" * 2
ROWS = {"row": "a thing"}
HELD, BROKEN, UNTESTED = Outcome.HELD, Outcome.BROKEN, Outcome.UNTESTED
CANARY = Attack("row", ("read", "/x"), "csb-canary-1", control=True)
PLAIN = Attack("row", ("writable", "/x"))
THROUGH = Answers({0: Answer("done", "csb-canary-1")})


def said(text: str) -> Answers:
    return parse(NONCE, text.replace("N ", f"{NONCE} "))


@pytest.mark.parametrize(
    ("attack", "output", "control", "outcome"),
    [
        (CANARY, "N 0 refused ENOENT\n", THROUGH, HELD),
        (CANARY, "N 0 done csb-canary-1\n", THROUGH, BROKEN),
        (CANARY, "N 0 done csb-canary-1\n", Answers(), BROKEN),
        (CANARY, "N 0 done something else\n", THROUGH, HELD),
        (CANARY, "N 0 refused ENOENT\n", Answers(), UNTESTED),
        (CANARY, "N 0 refused ENOENT\nN 0 refused ENOENT\n", THROUGH, UNTESTED),
        (CANARY, "N 0 refused ENOENT\nsomething\n", THROUGH, UNTESTED),
        (CANARY, "N 0 refused ENOENT\n0 csb-canary-1\n", THROUGH, BROKEN),
        (CANARY, "N 1 refused ENOENT\n", THROUGH, UNTESTED),
        (CANARY, f"{'f' * 32} 0 refused ENOENT\n", THROUGH, UNTESTED),
        (CANARY, "N 0 held\n", THROUGH, UNTESTED),
        (CANARY, "", THROUGH, UNTESTED),
        (PLAIN, "N 0 refused EROFS\n", Answers(), HELD),
        (PLAIN, "N 0 done /x\n", Answers(), BROKEN),
        (PLAIN, "N 0 unable ENOENT\n", Answers(), UNTESTED),
    ],
)
def test_outcomes(attack: Attack, output: str, control: Answers, outcome: Outcome) -> None:
    (row,) = judge(ROWS, [attack], said(output), control)
    assert (row.name, row.protects, row.outcome) == ("row", "a thing", outcome)


@given(st.text())
def test_nothing_that_it_says_stops_the_reader(text: str) -> None:
    (row,) = judge(ROWS, [PLAIN], parse(NONCE, text), Answers())
    assert row.outcome is UNTESTED


def test_all_that_is_guarded_is_attacked() -> None:
    assert set(TARGETS) == set(protected_paths())
