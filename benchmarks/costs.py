"""What a supervisor's calls cost it in tokens, and the table of it: docs/supervision-costs.md.

Text counts a token for 4 characters, as the test of tools/list counts; a picture its width times
its height by 750, the rule of the guide to vision. A call costs what the model writes (name and
arguments, as JSON) and what it reads: the structured part of a result if there is one, for Claude
Code shows a model that in place of the text, else the text; and pictures.
"""

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

DOCUMENT = Path(__file__).parents[1] / "docs/supervision-costs.md"
CHARACTERS = 4  # for a token
PIXELS = 750  # likewise
SOURCE = "https://docs.anthropic.com/en/docs/build-with-claude/vision"
COMMAND = ".venv/bin/python benchmarks/tasks.py --write"


def text_tokens(text: str) -> float:
    """Of plain text."""
    return len(text) / CHARACTERS


def json_tokens(value: object) -> float:
    """Of a value as it goes over the wire, no blanks between."""
    return text_tokens(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def words(result: CallToolResult) -> str:
    """The text of a result."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def pictures(result: CallToolResult) -> list[Image.Image]:
    """The pictures of a result."""
    blocks = [block for block in result.content if isinstance(block, ImageContent)]
    return [Image.open(io.BytesIO(base64.b64decode(block.data))) for block in blocks]


def picture_tokens(result: CallToolResult) -> float:
    """Of its pictures."""
    return sum(picture.width * picture.height / PIXELS for picture in pictures(result))


def result_tokens(result: CallToolResult) -> float:
    """Of a result, as a model reads it."""
    if result.structured_content is not None:
        return json_tokens(result.structured_content) + picture_tokens(result)
    return text_tokens(words(result)) + picture_tokens(result)


@dataclass(slots=True)
class Spent:
    """On one task. ``seen``: tokens if each look at the terminal had been one at a picture."""

    calls: list[str] = field(default_factory=list[str])
    tokens: float = 0.0
    seen: float = 0.0

    def add(self, tool: str, written: float, read: float, seen: float | None = None) -> None:
        """One call; ``seen`` in place of ``read``."""
        self.calls.append(tool)
        self.tokens += written + read
        self.seen += written + (read if seen is None else seen)

    def told(self) -> str:
        """The calls, those in a row together."""
        runs = [(tool, len(list(same))) for tool, same in groupby(self.calls)]
        return ", ".join(f"{tool} x{count}" if count > 1 else tool for tool, count in runs)


@dataclass(frozen=True, slots=True)
class Cost:
    """What was :class:`Spent`, rounded."""

    calls: int
    tokens: int
    seen: int
    told: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a task by our tools and by keys."""

    task: str
    tools: Cost
    keys: Cost


@dataclass(frozen=True, slots=True)
class Facts:
    """What the table was made with.

    ``poll``, ``rarely``, ``work``: seconds. ``seldom``: by keys, all tasks with looks that are
    ``rarely`` apart. ``lists``: tokens of both ways' tools/list.
    """

    version: str
    agent: str
    day: str
    poll: str
    rarely: str
    work: str
    seldom: Cost
    lists: tuple[int, int]


def cost(spent: Spent) -> Cost:
    """Of a measurement."""
    return Cost(len(spent.calls), round(spent.tokens), round(spent.seen), spent.told())


def total(costs: Iterable[Cost]) -> Cost:
    """Their sum."""
    costs = list(costs)
    return Cost(
        sum(one.calls for one in costs),
        sum(one.tokens for one in costs),
        sum(one.seen for one in costs),
    )


FIGURES = """\
| task | calls, our tools | tokens | calls, keys | tokens, reading text | tokens, reading pictures |
| --- | ---: | ---: | ---: | ---: | ---: |
"""
CALLS = """\
| task | with our tools | with keys |
| --- | --- | --- |
"""
PAGE = """\
# What supervision costs

Written by `{command}`, which carries out all of it; not by hand.
csb-mcp {version}, Claude Code {agent}, {day}.

A supervisor is a model, and pays for each word that it writes and reads. Here it does ten everyday
things with an agent, Claude Code in a sandbox, in two ways: with the tools for supervision, and with
a screen and keys alone, as a person would.

{figures}
{upshot}

## The calls

{calls}
## How it was measured

- **Really carried out**, by a client of the SDK over `csb-mcp stdio`, with a daemon of its own. Inside
  is the real Claude Code; what its model says is scripted, and comes from a Messages API on the
  sandbox's own loopback. That each task was fulfilled is checked on files, on the record, or on what
  that API was asked. What leads up to a task (the work that ends in a question, the prompt that
  fails) is counted for nobody. Both ways meet the same script, each in a sandbox of its own; hosts that
  Claude Code may ask for by itself are denied before.
- **Work takes {work} s** in the tasks in which something is waited for, and a turn ends with a dozen
  lines of text. Real work takes minutes: then our tools pay for one more `wait`, below 100 tokens,
  every 45 s, and keys for one more look every {poll} s.
- **Who looks every {rarely} s only** learns of everything later, and spent {calls_seldom} calls by keys and
  {text_seldom} tokens reading text, {seen_seldom} reading pictures, for the same ten tasks.
- **With keys** a supervisor can create a sandbox, read its whole terminal, type, take a screenshot and
  allow a host. It looks one second after what it typed, and then every {poll} s. It reads a screen
  without a mistake: the project's own reader of screens stands for its eyes. Of a terminal only the
  rows count, not what our tool says around them. It is spared the first start and the trust dialog,
  for the sandbox comes up with those answered. Its tests must wait until the agent is done, for
  they need its terminal.
- **Reading pictures**: the same calls, but each look at the terminal costs what the screenshot costs
  that was taken at that moment, 1280 x 800; that depends on its size alone.
- **Tokens**: 4 characters of text are one, arguments included; a picture is its width times its height,
  divided by 750 ([the rule]({source})).
  Newer models may count more, and the rules that a screen draws may count less. What the model thinks
  is not counted, nor that the whole conversation is read again with every call: to count that would
  favour the way with fewer calls.
- **Once a session** come the lists of tools: {ours} tokens for ours, {theirs} for those that keys need.
"""  # noqa: E501  as it stands in the document


def figures(rows: Sequence[Row]) -> str:
    """The table of figures."""
    whole = Row("all", total(row.tools for row in rows), total(row.keys for row in rows))
    lines = [
        f"| {row.task} | {row.tools.calls} | {row.tools.tokens:,} | {row.keys.calls} "
        f"| {row.keys.tokens:,} | {row.keys.seen:,} |\n"
        for row in (*rows, whole)
    ]
    return "".join((FIGURES, *lines))


def upshot(rows: Sequence[Row]) -> str:
    """It in a sentence."""
    tools, keys = total(row.tools for row in rows), total(row.keys for row in rows)
    return (
        f"All ten: {tools.calls} calls instead of {keys.calls}, and\n"
        f"{1 - tools.tokens / keys.tokens:.0%} fewer tokens than reading text, "
        f"{1 - tools.tokens / keys.seen:.0%} fewer than reading pictures."
    )


def page(rows: Sequence[Row], facts: Facts) -> str:
    """The document."""
    calls = [f"| {row.task} | {row.tools.told} | {row.keys.told} |\n" for row in rows]
    return PAGE.format(
        command=COMMAND,
        source=SOURCE,
        figures=figures(rows),
        calls="".join((CALLS, *calls)),
        upshot=upshot(rows),
        version=facts.version,
        agent=facts.agent,
        day=facts.day,
        poll=facts.poll,
        rarely=facts.rarely,
        calls_seldom=facts.seldom.calls,
        text_seldom=f"{facts.seldom.tokens:,}",
        seen_seldom=f"{facts.seldom.seen:,}",
        work=facts.work,
        ours=f"{facts.lists[0]:,}",
        theirs=f"{facts.lists[1]:,}",
    )


def read_page(text: str) -> tuple[list[Row], Facts]:
    """What a document says, so that it can be written anew. Raises ValueError, AttributeError."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    told = {row[0]: row[1:] for row in cells if len(row) == 3}
    rows: list[Row] = []
    for row in cells:
        if len(row) != 6 or row[0] == "all" or not row[1].isdigit():
            continue
        tools, tokens, keys, by_text, seen = (int(one.replace(",", "")) for one in row[1:])
        ours, theirs = told[row[0]]
        rows.append(
            Row(row[0], Cost(tools, tokens, tokens, ours), Cost(keys, by_text, seen, theirs))
        )
    version, agent, day = _found(r"csb-mcp (\S+), Claude Code (\S+), (\S+)\.\n", text)
    (poll,), (work,) = _found(r"look every (\S+) s", text), _found(r"Work takes (\S+) s", text)
    (rarely,) = _found(r"Who looks every (\S+) s only", text)
    calls, tokens, seen = _numbers(
        r"spent (\S+) calls by keys and (\S+) tokens reading text, (\S+) reading", text
    )
    ours, theirs = _numbers(r"lists of tools: (\S+) tokens for ours, (\S+) for", text)
    return rows, Facts(
        version, agent, day, poll, rarely, work, Cost(calls, tokens, seen), (ours, theirs)
    )


def _numbers(pattern: str, text: str) -> tuple[int, ...]:
    return tuple(int(number.replace(",", "")) for number in _found(pattern, text))


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern.replace(" ", r"\s+"), text)  # a line may end anywhere
    if match is None:
        raise ValueError(f"{pattern} is not in it")
    return match.groups()
