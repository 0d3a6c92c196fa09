"""Rollouts, well-behaved and hostile ones."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.agents.codex.rollout import Rollouts
from csb_mcp.agents.lines import LIMIT
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import ModelUsage, Transcript

ONE = {
    "input_tokens": 16,
    "cached_input_tokens": 5,
    "cache_write_input_tokens": 3,
    "output_tokens": 7,
    "reasoning_output_tokens": 2,
    "total_tokens": 23,
}
COUNTED = ModelUsage(input=8, output=7, cache_creation=3, cache_read=5)
NOTHING = ModelUsage()


def line(kind: str, **payload: Any) -> str:
    stamp = "2026-11-25T22:38:41.807Z"
    return json.dumps({"timestamp": stamp, "type": kind, "payload": payload}) + "\n"


def event(kind: str, **payload: Any) -> str:
    return line("event_msg", type=kind, **payload)


def many(count: int) -> dict[str, int]:
    return {name: tokens * count for name, tokens in ONE.items()}


def record(response: str, total: int) -> str:
    used = {"usage": ONE, "thread_token_usage": many(total)}
    return line("token_usage_record", response_id=response, **used)


def total(count: int) -> str:
    return event("token_count", info={"total_token_usage": many(count), "last_token_usage": ONE})


def said(words: str, **more: Any) -> str:
    content = [{"type": "output_text", "text": words}]
    return line("response_item", type="message", role="assistant", id="m", content=content, **more)


def typed(words: str) -> str:
    item = {"type": "UserMessage", "id": "u", "content": [{"type": "text", "text": words}]}
    return event("item_completed", item=item)


START = line("session_meta", id="t", thread_source="user") + line("turn_context", model="gpt")


class Home:
    """A home with one rollout, and its reader."""

    def __init__(self, path: Path) -> None:
        self.folder = path / ".codex/sessions/2026/11/26"
        self.folder.mkdir(parents=True)
        self.file = self.folder / "rollout-one.jsonl"
        self.fd = open_folder(path)
        self.reader = Rollouts(self.fd, ".codex/sessions")

    def add(self, *lines: str) -> Transcript:
        """What is new with them."""
        with self.file.open("a") as file:
            file.writelines(lines)
        return self.reader.read()

    def used(self, found: Transcript) -> ModelUsage:
        return sum((one.usage for one in found.messages), NOTHING)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.reader.close()
    os.close(home.fd)


def test_a_turn_is_told_whole_and_once(home: Home) -> None:
    call = line("response_item", type="function_call", id="c", name="exec", arguments='{"a":\n1}')
    found = home.add(
        START, typed("Do it\nnow"), call, record("r1", 1), total(1), said("Done."),
        record("r2", 2), total(2), event("task_complete", turn_id="x", last_agent_message="Done."),
    )  # fmt: skip
    assert found.prompts == ("Do it\nnow",)
    assert home.used(found) == COUNTED + COUNTED
    assert [one.tools for one in found.messages if one.tools] == [(("exec", '{"a": 1}'),)]
    assert [one.text for one in found.messages if one.text] == ["Done."]
    assert [one.turn_over for one in found.messages] == [False] * 4 + [True]
    assert {one.model for one in found.messages} == {"gpt"}
    assert found.messages[0].time == pytest.approx(1795646321.807)
    assert home.add() == Transcript()


def test_a_prompt_of_an_older_version_is_told_once(home: Home) -> None:
    found = home.add(START, event("user_message", message="Go"), typed("Go"), typed("Go"))
    assert found.prompts == ("Go", "Go")
    assert home.add(event("user_message", message=["no"])).prompts == ()


def test_totals_alone_are_counted_by_what_they_grow(home: Home) -> None:
    assert home.used(home.add(START, total(1), total(1))) == COUNTED
    assert home.used(home.add(total(3))) == COUNTED + COUNTED
    assert not home.add(total(2)).messages


def test_a_thread_that_was_copied_is_not_counted_twice(home: Home) -> None:
    home.add(START, record("r1", 1))
    (home.folder / "rollout-two.jsonl").write_text(START + record("r1", 1) + record("r2", 2))
    assert home.used(home.reader.read()) == COUNTED


def test_a_subagent_counts_and_says_nothing(home: Home) -> None:
    meta = line("session_meta", thread_source="subagent")
    found = home.add(
        meta, typed("its task"), said("mine"), record("r", 1), event("task_complete", turn_id="x")
    )
    assert home.used(found) == COUNTED
    assert not found.prompts
    assert not any(one.text or one.turn_over for one in found.messages)


def test_an_error_is_a_fault_and_the_end_of_a_turn(home: Home) -> None:
    error = {"message": "exceeded retry limit, last status: 429 Too Many Requests"}
    found = home.add(START, event("task_complete", turn_id="x", error=error))
    assert [fault.kind for fault in found.faults] == ["rate_limit"]
    found = home.add(event("turn_aborted", turn_id="y", reason="interrupted"))
    assert [one.turn_over for one in found.messages] == [True]
    assert not found.faults


def test_a_file_that_is_replaced_is_read_anew(home: Home) -> None:
    home.add(START, record("r1", 1))
    home.file.unlink()
    assert home.used(home.add(START, record("r1", 1), record("r9", 1))) == COUNTED


def test_what_is_hostile_stops_nothing(home: Home) -> None:
    (home.folder.parent / "27").symlink_to("/etc")
    (home.folder / "link.jsonl").symlink_to("/etc/passwd")
    os.mkfifo(home.folder / "fifo.jsonl")
    (home.folder / "long.jsonl").write_text('"assistant"' * (LIMIT // 8))
    found = home.add("{\n", "[]\n", "5\n", '{"type": "event_msg", "payload": "task_complete"}\n')
    wrong = {"input_tokens": -1, "output_tokens": True, "cached_input_tokens": 10**30}
    found = home.add(line("token_usage_record", response_id="w", usage=wrong), START)
    while home.reader.read() != Transcript():
        pass
    assert not found.messages
    assert home.used(home.add(record("r", 1))) == COUNTED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
KINDS = st.sampled_from(
    ["session_meta", "turn_context", "token_usage_record", "response_item", "event_msg"]
)
NAMES = st.sampled_from(["type", "id", "usage", "info", "content", "item", "error", "arguments"])
TYPES = st.sampled_from(["token_count", "item_completed", "task_complete", "function_call"])


@given(st.lists(st.tuples(KINDS, st.dictionaries(NAMES, JSON | TYPES, max_size=5))))
def test_no_line_is_too_much(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[str, dict[str, Any]]]
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    home.add(*(line(kind, **payload) for kind, payload in given))
    os.close(home.fd)
