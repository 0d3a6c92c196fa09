"""An agent that can live in a sandbox: how it is started, spoken to and understood."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from csb_mcp.config import Settings
from csb_mcp.model import HookFact, Problem, Question, ScreenFact, Transcript


@dataclass(frozen=True, slots=True)
class Program:
    """What to start inside.

    ``shown``: files and folders of the host, outside of /usr, to bind read-only at their own paths.
    """

    argv: tuple[str, ...]
    shown: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Stroke:
    """One thing to type: ``text`` (as a bracketed paste if ``paste``), then ``keys`` (tmux names).

    ``pause``: seconds to wait before it, for programs that take a burst for a paste.
    """

    text: str = ""
    keys: tuple[str, ...] = ()
    paste: bool = False
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Seed:
    """What a sandbox's home needs: files (path below the home to content), and variables.

    Files are written once, before the agent starts; the sandbox may change them.
    """

    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class Transcripts(Protocol):
    """Reads an agent's transcripts below a home, piece by piece. What is there is hostile."""

    def read(self) -> Transcript:
        """What is new since the last call; of a message no part twice, if it stands there again.

        Reads at most 1 MiB in a call (the rest comes with the next), in a millisecond where little
        is new, whatever the size of the file; follows no link, opens regular files only, survives
        half-written lines, rotated, shortened and vanished files.
        """
        ...

    def close(self) -> None:
        """Let go of descriptors. Idempotent."""
        ...


class Agent(Protocol):
    """One kind of agent. Holds no state of a sandbox."""

    @property
    def name(self) -> str:
        """As in ``create_sandbox(agent=...)``."""
        ...

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts or presets that it needs, its API's first; empty: it needs no network."""
        ...

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Environment variables that take an API key or a long-lived token, the usual one first."""
        ...

    def problems(self, settings: Settings) -> Sequence[Problem]:
        """What the host lacks for it (none of it fatal)."""
        ...

    def program(self, settings: Settings, command: Sequence[str]) -> Program:
        """Find it on the host. Raises HostUnable, with how to install it."""
        ...

    def seed(self, project: Path, key: str | None) -> Seed:
        """Past onboarding, and trusting this one project; hooks that write into ``.csb/spool``.

        ``key`` is the key or its placeholder, as the agent will see it in its environment.
        """
        ...

    def hook(self, content: bytes) -> HookFact | None:
        """Read one file of the spool; None if it says nothing that is understood. Never raises."""
        ...

    def screen(self, rows: Sequence[str]) -> ScreenFact:
        """Read the terminal's rows as they stand. Never raises, never guesses."""
        ...

    def transcripts(self, home: int, project: Path) -> Transcripts:
        """A reader below ``home``, an open O_PATH descriptor that stays the caller's."""
        ...

    def submit(self, text: str) -> Sequence[Stroke]:
        """How a prompt is typed and submitted when it is ready."""
        ...

    def is_prompt(self, text: str, told: str) -> bool:
        """Whether ``told`` (of a hook or a transcript) is the prompt ``text`` that was submitted.

        A program may change white space, and a hook may have the beginning only.
        """
        ...

    def retry(self) -> Sequence[Stroke]:
        """What submits a prompt that stands in the input line unsubmitted."""
        ...

    def answer(self, question: Question, option: str, text: str | None) -> Sequence[Stroke]:
        """How an option is chosen. Raises InvalidInput (no such option, no text taken)."""
        ...

    def interrupt(self) -> Sequence[Stroke]:
        """How its work is interrupted."""
        ...
