"""What an attack is, what a sandbox answered to it, and what that means."""

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from csb_mcp.model import Outcome, Probe

ANSWER_BYTES = 1 << 20
_LINE = re.compile(r"([0-9a-f]{32}) ([0-9]{1,4}) (refused|done|unable) ?([ -~]{0,3000})")
_DETAIL = 300  # characters of what came from inside


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack of the program ``probes.py``: its kind and arguments.

    ``token``: what only a success can bring, and what decides; without one its word does.
    ``control``: it must go through outside, or it proves nothing.
    """

    row: str
    words: tuple[object, ...]
    token: str = ""
    control: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """``word`` is refused, done or unable."""

    word: str
    text: str


@dataclass(slots=True)
class Answers:
    """What one run of the program said, read as hostile.

    ``odd``: somebody else spoke, too, or it did not come to its end.
    """

    by_number: Mapping[int, Answer] = field(default_factory=dict[int, Answer])
    everything: str = ""
    odd: bool = False


def request(attacks: Sequence[Attack], resolver: str = "") -> tuple[str, bytes]:
    """A nonce, and the program's input; it asks the ``resolver`` something before it attacks."""
    nonce = secrets.token_hex(16)
    data = {"nonce": nonce, "attacks": [attack.words for attack in attacks]}
    return nonce, json.dumps(data | ({"resolver": resolver} if resolver else {})).encode()


def parse(nonce: str, stdout: str, stderr: str = "") -> Answers:
    """Read the program's output; a number that is answered twice is not answered."""
    found: dict[int, Answer] = {}
    odd = False
    for line in stdout.split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[1] != nonce or int(match[2]) in found:
            odd = odd or bool(line)
            continue
        found[int(match[2])] = Answer(match[3], match[4])
    return Answers(found, stdout + stderr, odd)


def _went_through(attack: Attack, answer: Answer | None) -> bool:
    return answer is not None and answer.word == "done" and attack.token in answer.text


def judge(
    rows: Mapping[str, str], attacks: Sequence[Attack], inside: Answers, outside: Answers
) -> list[Probe]:
    """One row for each of ``rows`` (name to what it protects) that has an attack."""
    wanted = dict.fromkeys(attack.row for attack in attacks)
    return [_row(name, rows[name], list(enumerate(attacks)), inside, outside) for name in wanted]


def _row(
    name: str,
    protects: str,
    attacks: Iterable[tuple[int, Attack]],
    inside: Answers,
    outside: Answers,
) -> Probe:
    broken: list[str] = []
    unknown: list[str] = []
    held = missing = 0
    for number, attack in attacks:
        if attack.row != name:
            continue
        answer = inside.by_number.get(number)
        what = " ".join(str(word) for word in attack.words if not isinstance(word, list))[:60]
        if _went_through(attack, answer) or (attack.token and attack.token in inside.everything):
            broken.append(f"{what}: {answer.text if answer else 'seen in its output'}")
        elif answer is None:
            missing += 1
        elif attack.control and not _went_through(attack, outside.by_number.get(number)):
            unknown.append(f"{what}: it does not go through outside either")
        elif answer.word == "unable":
            unknown.append(answer.text)
        else:
            held += 1
    if broken:
        return _probe(name, protects, Outcome.BROKEN, "; ".join(broken))
    if missing or inside.odd:
        why = "somebody inside disturbed it" if inside.odd else f"{missing} attacks gave no answer"
        return _probe(name, protects, Outcome.UNTESTED, why)
    if not held:
        return _probe(name, protects, Outcome.UNTESTED, "; ".join(unknown))
    left = f"; not tried: {'; '.join(unknown)}" if unknown else ""
    return _probe(name, protects, Outcome.HELD, f"{held} refused{left}")


def _probe(name: str, protects: str, outcome: Outcome, detail: str) -> Probe:
    return Probe(name=name, protects=protects, outcome=outcome, detail=detail[:_DETAIL])


def looked(name: str, protects: str, wrong: Sequence[str], held: str) -> Probe:
    """A row of what was seen from outside: broken if anything is ``wrong``."""
    outcome = Outcome.BROKEN if wrong else Outcome.HELD
    return _probe(name, protects, outcome, "; ".join(wrong) or held)


def untested(name: str, protects: str, why: str) -> Probe:
    """A row of which nothing is known."""
    return _probe(name, protects, Outcome.UNTESTED, why)
