"""Transcripts, well-behaved and hostile ones."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.agents.claude.transcript import ClaudeTranscripts
from csb_mcp.agents.lines import LIMIT
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import ModelUsage

USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 5,
}
COUNTED = ModelUsage(input=11, output=7, cache_creation=3, cache_read=5)
NOTHING = ModelUsage()


def line(number: object, *blocks: dict[str, Any], **more: Any) -> str:
    """An assistant's line."""
    message = {
        "id": number,
        "model": "some-model",
        "content": list(blocks),
        "stop_reason": more.pop("stop", "end_turn"),
        "usage": more.pop("usage", USAGE),
    }
    fields = {"type": "assistant", "message": message, "timestamp": "2026-11-25T22:38:41.807Z"}
    return json.dumps(fields | more) + "\n"


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def typed(content: object, **more: Any) -> str:
    """A user's line."""
    return (
        json.dumps({"type": "user", "message": {"role": "user", "content": content}} | more) + "\n"
    )


class Home:
    """A home with one transcript, and its reader."""

    def __init__(self, path: Path) -> None:
        self.folder = path / ".claude/projects/-home-me-app"
        self.folder.mkdir(parents=True)
        self.file = self.folder / "one.jsonl"
        self.fd = open_folder(path)
        self.reader = ClaudeTranscripts(self.fd, ".claude/projects")

    def add(self, *lines: str) -> None:
        with self.file.open("a") as file:
            file.writelines(lines)

    def total(self) -> ModelUsage:
        """Read on until nothing is new."""
        usage = NOTHING
        while found := self.reader.read().messages:
            usage = sum((one.usage for one in found), usage)
        return usage


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.reader.close()
    os.close(home.fd)


def test_a_message_in_pieces_adds_up(home: Home) -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls\n-l"}}
    home.add(
        line("a", {"type": "thinking", "thinking": "hm"}, stop="tool_use"),
        line("a", text("I look."), stop="tool_use"),
        line("a", tool, stop="tool_use"),
        line("b", text("Done.")),
    )
    messages = home.reader.read().messages
    assert [one.id for one in messages] == ["a", "a", "a", "b"]
    assert [one.usage for one in messages] == [COUNTED, NOTHING, NOTHING, COUNTED]
    assert [one.text for one in messages] == ["", "I look.", "", "Done."]
    assert messages[2].tools == (("Bash", '{"command": "ls\\n-l"}'),)
    assert [one.turn_over for one in messages] == [False, False, False, True]
    assert messages[0].model == "some-model"
    assert messages[0].time == pytest.approx(1795646321.807)
    assert home.reader.read() == type(home.reader.read())()


def test_usage_that_grows_is_counted_once(home: Home) -> None:
    home.add(line("a", text("x"), usage=USAGE | {"output_tokens": 1}), line("a", text("y")))
    assert home.total() == COUNTED


def test_a_session_that_goes_on_in_another_file_is_not_counted_twice(home: Home) -> None:
    home.add(line("a", text("x")))
    assert home.total() == COUNTED
    (home.folder / "two.jsonl").write_text(line("a", text("x")) + line("b", text("y")))
    (one,) = home.reader.read().messages
    assert (one.id, one.usage) == ("b", COUNTED)


def test_a_subagent_counts_and_ends_no_turn(home: Home) -> None:
    folder = home.folder / "one/subagents"
    folder.mkdir(parents=True)
    (folder / "agent-x.jsonl").write_text(line("s", text("mine"), isSidechain=True))
    assert not home.reader.read().messages  # nobody's
    home.add(line("a", text("x")))
    found = {one.id: one for one in home.reader.read().messages}
    one = found["s"]
    assert len(found) == 2
    assert (one.usage, one.text, one.turn_over) == (COUNTED, "", False)


def test_prompts_are_what_was_typed(home: Home) -> None:
    home.add(
        typed("Do it\nnow"),
        typed([text("with blocks")], origin={"kind": "human"}),
        typed([{"type": "tool_result", "content": "no"}]),
        typed("not this", isMeta=True),
        typed("nor this", isSidechain=True),
        typed("nor that", origin={"kind": "program"}),
        typed("<command-name>/clear</command-name>"),
        typed([text("[Request interrupted by user]")], rowSource="harness"),
    )
    assert home.reader.read().prompts == ("Do it\nnow", "with blocks")


def test_an_error_is_a_fault_and_no_message(home: Home) -> None:
    message = {"id": "e", "model": "<synthetic>", "content": [text("API Error: 529 Overloaded")]}
    fields = {"type": "assistant", "message": message, "isApiErrorMessage": True}
    home.add(json.dumps(fields) + "\n")
    found = home.reader.read()
    assert [fault.kind for fault in found.faults] == ["overloaded"]
    assert not found.messages


def test_half_a_line_waits_for_its_end(home: Home) -> None:
    whole = line("a", text("x"))
    home.add(whole[:50])
    assert not home.reader.read().messages
    home.add(whole[50:-1])
    assert not home.reader.read().messages
    home.add("\n")
    assert home.total() == COUNTED


@pytest.mark.parametrize("how", ["rotated", "shortened", "vanished"])
def test_a_file_that_is_another_is_read_anew(home: Home, how: str) -> None:
    home.add(line("a", text("x")), line("b", text("y")))
    assert home.total().output == 14
    if how == "rotated":
        home.file.rename(home.folder / "old")
    elif how == "shortened":
        home.file.write_text("")
    else:
        home.file.unlink()
    assert not home.reader.read().messages
    home.add(line("c", text("z")))
    assert home.total() == COUNTED


def test_a_line_that_is_too_long_is_passed_over(home: Home) -> None:
    home.add(line("long", text("x" * (3 * LIMIT))), line("b", text("y")))
    found = [home.reader.read() for _ in range(6)]
    assert [one.id for each in found for one in each.messages] == ["b"]
    # While it is passed over there is more to come, though nothing was found.
    assert [one.more for one in found] == [True, True, True, True, False, False]


def test_one_look_reads_a_mebibyte(home: Home) -> None:
    count = 3 * LIMIT // len(line(1000, text("x" * 1000)))
    home.add(*(line(str(1000 + n), text("x" * 1000)) for n in range(count)))
    first = home.reader.read().messages
    assert 0 < len(first) < count / 2
    assert home.total().output + sum(one.usage.output for one in first) == 7 * count


def test_a_sparse_terabyte_stalls_nothing(home: Home) -> None:
    home.add(line("a", text("x")))
    with (home.folder / "huge.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    began = time.monotonic()
    assert sum(len(home.reader.read().messages) for _ in range(5)) == 1
    home.add(line("b", text("y")))
    assert [one.id for one in home.reader.read().messages] == ["b"]
    assert time.monotonic() - began < 2


def test_a_flood_of_names_stalls_nothing(home: Home) -> None:
    for folder in range(70):
        (home.folder.parent / f"f{folder}").mkdir()
        for number in range(30):
            (home.folder.parent / f"f{folder}/{number}").mkdir()
            (home.folder.parent / f"f{folder}/{number}.jsonl").touch()
    began = time.monotonic()
    home.reader.read()
    assert time.monotonic() - began < 1


def test_what_is_no_file_is_passed_over(home: Home, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text(line("stolen", text("x")))
    os.mkfifo(home.folder / "fifo.jsonl")
    (home.folder / "link.jsonl").symlink_to(outside / "secret.jsonl")
    (home.folder / "folder.jsonl").mkdir()
    (home.folder.parent / "elsewhere").symlink_to(outside)
    (home.folder / "loop").symlink_to(home.folder)
    home.add(line("a", text("x")))
    assert [one.id for one in home.reader.read().messages] == ["a"]


def test_a_home_without_transcripts_has_none(tmp_path: Path) -> None:
    fd = open_folder(tmp_path)
    try:
        reader = ClaudeTranscripts(fd, ".claude/projects")
        assert not reader.read().messages
        (tmp_path / ".claude").symlink_to("/")
        assert not reader.read().messages
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "bad",
    [
        "{" * 100_000 + '"assistant"\n',
        '"assistant"\n',
        '["user"]\n',
        '{"type": "assistant", "message": 5}\n',
        '{"type": "assistant", "message": {"id": ["x"]}}\n',
        '{"type": "assistant", "message": {"id": "x", "content": [1, null]}}\n',
        '{"type": "user", "message": {"content": {"a": 1}}}\n',
        '{"type": "assistant", "n": ' + "9" * 5000 + "}\n",
        line("x", text("\ud800"), timestamp="never"),
    ],
)
def test_broken_lines_break_nothing(home: Home, bad: str) -> None:
    with home.file.open("ab") as file:
        file.write(b'\xff\xfe"assistant"\n' + bad.encode(errors="surrogatepass"))
    home.add(line("after", text("x")))
    assert "after" in [one.id for one in home.reader.read().messages]


def test_no_depth_is_too_much(home: Home) -> None:
    for depth in range(200, 3000, 37):
        deep = "[" * depth + "]" * depth
        tool = {"type": "tool_use", "id": "t", "name": "Bash", "input": "HERE"}
        home.add(line(f"m{depth}", tool).replace('"HERE"', deep))
    assert home.reader.read().messages
    home.add(line("after", text("x")))
    assert [one.id for one in home.reader.read().messages] == ["after"]


def test_marks_of_pastes_without_end_cost_no_time(home: Home) -> None:
    began = time.monotonic()
    home.add(typed('\n\n<pasted_content id="a">\n' * 18_000))
    assert home.reader.read().prompts
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("value", [-5, 1e9, True, "7", 10**30, None, [1]])
def test_numbers_that_are_none_count_nothing(home: Home, value: object) -> None:
    home.add(line("a", text("x"), usage=USAGE | {"output_tokens": value}))
    assert home.total() == ModelUsage(input=11, cache_creation=3, cache_read=5)


NAMES = st.sampled_from(["type", "message", "content", "usage", "id", "text", "origin"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "message", "content", "usage", "id", "text", "origin"]), inner
        )
    ),
    max_leaves=12,
)


@given(
    message=JSON, fields=st.dictionaries(NAMES, JSON), kind=st.sampled_from(["user", "assistant"])
)
def test_no_line_is_too_much(
    tmp_path_factory: pytest.TempPathFactory, message: object, fields: dict[str, object], kind: str
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    try:
        home.add(json.dumps({**fields, "type": kind, "message": message}) + "\n")
        home.reader.read()
    finally:
        os.close(home.fd)
