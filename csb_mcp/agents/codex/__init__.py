"""Codex, OpenAI's coding agent for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from csb_mcp.agents.accounts import home_of_this
from csb_mcp.agents.codex import strokes
from csb_mcp.agents.codex.hooks import read_hook
from csb_mcp.agents.codex.program import find
from csb_mcp.agents.codex.rollout import Rollouts
from csb_mcp.agents.codex.screen import read_screen
from csb_mcp.agents.codex.seed import FOLDER, KEY_VARIABLES, line, seed
from csb_mcp.agents.strokes import entered
from csb_mcp.agents.words import squeezed
from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.model import HookFact, Problem, Question, ScreenFact
from csb_mcp.ports.agent import Program, Seed, Stroke

_LONG = 5000  # characters, the least of a hook that was cut


class Codex:
    """See ``ports.Agent``."""

    name = "codex"
    hosts = ("openai",)
    key_variables = KEY_VARIABLES

    def problems(self, settings: Settings) -> Sequence[Problem]:
        """See ``ports.Agent.problems``. Nothing where it is not installed: few have both."""
        if settings.codex is None:
            return ()
        try:
            find(settings.codex, home_of_this())
        except HostUnable as error:
            return (Problem("codex", error.message, error.hint or "", fatal=False),)
        return ()

    def program(self, settings: Settings, command: Sequence[str]) -> Program:
        """See ``ports.Agent.program``. ``command``: arguments for it."""
        found = find(settings.codex, home_of_this())
        return Program(line(found.argv, tuple(command)), found.shown)

    def seed(self, project: Path, key: str | None) -> Seed:
        """See ``ports.Agent.seed``."""
        del key  # it comes by the environment alone
        return seed(project)

    def hook(self, content: bytes) -> HookFact | None:
        """See ``ports.Agent.hook``."""
        return read_hook(content)

    def screen(self, rows: Sequence[str]) -> ScreenFact:
        """See ``ports.Agent.screen``."""
        return read_screen(rows)

    def transcripts(self, home: int, project: Path) -> Rollouts:
        """See ``ports.Agent.transcripts``."""
        del project  # a sandbox's config folder is for one project, whatever it is called there
        return Rollouts(home, f"{FOLDER}/sessions")

    def submit(self, text: str) -> Sequence[Stroke]:
        """See ``ports.Agent.submit``."""
        return strokes.submit(text)

    def is_prompt(self, text: str, told: str) -> bool:
        """See ``ports.Agent.is_prompt``."""
        wanted, got = squeezed(text), squeezed(told)
        return got == wanted or (len(got) >= _LONG and wanted.startswith(got))

    def retry(self) -> Sequence[Stroke]:
        """See ``ports.Agent.retry``."""
        return (entered(),)

    def answer(self, question: Question, option: str, text: str | None) -> Sequence[Stroke]:
        """See ``ports.Agent.answer``."""
        return strokes.answer(question, option, text)

    def interrupt(self) -> Sequence[Stroke]:
        """See ``ports.Agent.interrupt``."""
        return (Stroke(keys=("Escape",)),)
