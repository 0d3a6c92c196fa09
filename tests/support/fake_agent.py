"""A scripted agent: its screen, hooks and transcripts are plain words that a test writes.

Screen: the first row is a state; ``question ID KIND`` has options on the rows below, ``key label``;
the second row may be an input line, ``> draft``.
Hooks: JSON of a HookFact's fields. Transcripts: what the test puts into ``news``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import InvalidInput
from csb_mcp.model import (
    AgentFault,
    AgentState,
    HookFact,
    Option,
    Problem,
    Question,
    ScreenFact,
    Transcript,
)
from csb_mcp.ports import Program, Seed, Stroke


class FakeTranscripts:
    def __init__(self, news: list[Transcript]) -> None:
        self.news = news

    def read(self) -> Transcript:
        return self.news.pop(0) if self.news else Transcript()

    def close(self) -> None:
        pass


class FakeAgent:
    """See ``ports.Agent``. ``news``: what its transcripts give next, in every sandbox."""

    name = "fake"
    hosts = ("api.fake.example",)
    key_variables = ("FAKE_KEY",)

    def __init__(self) -> None:
        self.news: list[Transcript] = []

    def problems(self, settings: Settings) -> Sequence[Problem]:
        del settings
        return ()

    def program(self, settings: Settings, command: Sequence[str]) -> Program:
        del settings
        return Program(("/opt/fake", *command), (Path("/opt/fake"),))

    def seed(self, project: Path, key: str | None) -> Seed:
        return Seed({"fake.json": f"{project} {key}".encode(), ".csb/spool/.keep": b""}, {"F": "1"})

    def hook(self, content: bytes) -> HookFact | None:
        try:
            value = json.loads(content)
            return HookFact(**value)
        except (ValueError, TypeError):
            return None

    def screen(self, rows: Sequence[str]) -> ScreenFact:
        words = rows[0].split() if rows and rows[0] else [""]
        if words[0] == "boom":
            raise IndexError("an adapter is only a program")
        if words[0] == "question":
            options = tuple(Option(*row.split(" ", 1)) for row in rows[1:])
            asked = Question(id=words[1], kind=words[2], detail="rm -rf x", options=options)
            return ScreenFact(state=AgentState.QUESTION, question=asked)
        if words[0] == "error":
            fault = AgentFault(kind="rate_limit", words=" ".join(words[1:]), hint="wait a while")
            return ScreenFact(state=AgentState.ERROR, fault=fault)
        known = words[0] in ("ready", "working", "starting")
        draft = rows[1].removeprefix("> ") if rows[1:] and rows[1].startswith("> ") else ""
        return ScreenFact(state=AgentState(words[0]) if known else AgentState.UNKNOWN, draft=draft)

    def transcripts(self, home: int, project: Path) -> FakeTranscripts:
        del home, project
        return FakeTranscripts(self.news)

    def submit(self, text: str) -> Sequence[Stroke]:
        return (Stroke(text=text, paste=True), Stroke(keys=("Enter",), pause=0.01))

    def is_prompt(self, text: str, told: str) -> bool:
        text, told = "".join(text.split()), "".join(told.split())
        return text == told or (len(told) > 1000 and text.startswith(told))

    def retry(self) -> Sequence[Stroke]:
        return (Stroke(keys=("Enter",)),)

    def answer(self, question: Question, option: str, text: str | None) -> Sequence[Stroke]:
        if option not in {one.key for one in question.options}:
            raise InvalidInput("no such option", field="option")
        return (Stroke(keys=(option,)), *((Stroke(text=text),) if text else ()))

    def interrupt(self) -> Sequence[Stroke]:
        return (Stroke(keys=("Escape",)),)
