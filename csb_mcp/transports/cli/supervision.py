"""observe, prompt, answer."""

import sys
from collections.abc import Callable
from typing import Any

from csb_mcp.transports.cli.client import reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import note, pairs, put, say, show_json
from csb_mcp.transports.cli.terminal import one_row

Json = dict[str, Any]

_SECONDS = 90.0  # the daemon has a deadline of its own


def observe(line: Line) -> int:
    """What its agent does; the terminal's rows below it."""
    query = {"cursor": line.values["cursor"]}
    path = sandbox_path(line.values["sandbox"], "agent")
    found: Json = reach(line.settings).get(path, query).json()
    if line.values["json"]:
        show_json(found)
        return 0
    _agent(found["agent"])
    if found["queued"]:
        say(f"queued: {found['queued']} prompts")
    used = found["usage"]
    if used["turns"] or used["models"] or used["counted"]:
        _used(used)
    for _, text in found["terminal"]["rows"]:
        if row := one_row(text):
            put(row + "\n")
    note(f"cursor: {found['terminal']['cursor']}")
    return 0


def _used(used: Json) -> None:
    tokens, counted = sum(used["total"].values()), used["counted"]
    say(f"used: {tokens} tokens, {used['turns']} turns, ${used['cost']:.4f}")
    if counted and (counted["tokens"] != tokens or counted["uncounted"]):
        missed = f"; {counted['uncounted']} answers estimated" if counted["uncounted"] else ""
        cost = f"${counted['cost']:.4f}"
        say(f"the proxy counted {counted['tokens']} ({cost}), the transcript says {tokens}{missed}")


def _agent(agent: Json) -> None:
    disputed = ", ".join(agent["disputed"])
    told = f"{agent['state']} since {agent['since']}"
    said = [(one["source"], f"{one['says']}: {one['detail']}") for one in agent["evidence"]]
    error: Json = agent["error"] or {}
    what = f"{error['kind']}: {error['words']}" if error else ""
    trouble = (("error", what), ("what to do", error.get("hint", "")))
    pairs((("agent", told), ("disputed by", disputed), *said, *trouble))
    if agent["question"]:
        _question(agent["question"])


def _question(asked: Json) -> None:
    say(f"question {asked['id']}, {asked['kind']} {asked['tool']}: {asked['detail']}")
    for option in asked["options"]:
        say(f"  {option['key']}  {option['label']}")
    if asked["free"]:
        say("  text may be given")


def prompt(line: Line) -> int:
    """Submit a prompt."""
    values = line.values
    words = sys.stdin.read() if values["text"] == "-" else values["text"]
    body = {"text": words, "queue": values["queue"] or None}
    path = sandbox_path(values["sandbox"], "prompts")
    options: Json = {"timeout": _SECONDS, "doing": "submitting"}
    sent: Json = reach(line.settings).post(path, body, **options).json()
    if values["json"]:
        show_json(sent)
        return 0
    say("queued" if sent["queued"] else f"submitted, proved by its {sent['proof']}")
    say(f"cursor: {sent['cursor']}")
    return 0


def answer(line: Line) -> int:
    """Answer its question."""
    values = line.values
    body = {name: values[name] for name in ("question", "option", "text")}
    path = sandbox_path(values["sandbox"], "answers")
    options: Json = {"timeout": _SECONDS, "doing": "answering"}
    done: Json = reach(line.settings).post(path, body, **options).json()
    if values["json"]:
        show_json(done)
        return 0
    say(f"answered; the agent is {done['state']}")
    if done["next"]:
        _question(done["next"])
    say(f"cursor: {done['cursor']}")
    return 0


ACTIONS: dict[str, Callable[[Line], int]] = {
    "observe": observe,
    "prompt": prompt,
    "answer": answer,
}
