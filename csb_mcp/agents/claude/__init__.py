"""Claude Code, Anthropic's coding agent for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from csb_mcp.agents.accounts import home_of_this
from csb_mcp.agents.claude import strokes
from csb_mcp.agents.claude.hooks import read_hook
from csb_mcp.agents.claude.program import find
from csb_mcp.agents.claude.screen import read_screen
from csb_mcp.agents.claude.seed import FOLDER, KEY_VARIABLES, seed
from csb_mcp.agents.claude.transcript import ClaudeTranscripts
from csb_mcp.agents.claude.words import is_same
from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.model import HookFact, Problem, Question, ScreenFact
from csb_mcp.ports.agent import Program, Seed, Stroke


class Claude:
    """See ``ports.Agent``."""

    name = "claude"
    hosts = ("anthropic",)
    key_variables = KEY_VARIABLES

    def problems(self, settings: Settings) -> Sequence[Problem]:
        """See ``ports.Agent.problems``."""
        try:
            find(settings.claude, home_of_this())
        except HostUnable as error:
            return (Problem("claude", error.message, error.hint or "", fatal=False),)
        return ()

    def program(self, settings: Settings, command: Sequence[str]) -> Program:
        """See ``ports.Agent.program``. ``command``: arguments for it."""
        found = find(settings.claude, home_of_this())
        return Program((*found.argv, *command), found.shown)

    def seed(self, project: Path, key: str | None) -> Seed:
        """See ``ports.Agent.seed``."""
        return seed(project, key)

    def hook(self, content: bytes) -> HookFact | None:
        """See ``ports.Agent.hook``."""
        return read_hook(content)

    def screen(self, rows: Sequence[str]) -> ScreenFact:
        """See ``ports.Agent.screen``."""
        return read_screen(rows)

    def transcripts(self, home: int, project: Path) -> ClaudeTranscripts:
        """See ``ports.Agent.transcripts``."""
        del project  # a sandbox's config folder is for one project, whatever it is called there
        return ClaudeTranscripts(home, f"{FOLDER}/projects")

    def submit(self, text: str) -> Sequence[Stroke]:
        """See ``ports.Agent.submit``."""
        return strokes.submit(text)

    def is_prompt(self, text: str, told: str) -> bool:
        """See ``ports.Agent.is_prompt``."""
        return is_same(text, told)

    def retry(self) -> Sequence[Stroke]:
        """See ``ports.Agent.retry``."""
        return strokes.retry()

    def answer(self, question: Question, option: str, text: str | None) -> Sequence[Stroke]:
        """See ``ports.Agent.answer``."""
        return strokes.answer(question, option, text)

    def interrupt(self) -> Sequence[Stroke]:
        """See ``ports.Agent.interrupt``."""
        return strokes.interrupt()
