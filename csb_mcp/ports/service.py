"""What every face translates."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from csb_mcp.model import (
    NO_BUDGET,
    Answered,
    BackgroundCommand,
    Budget,
    CommandResult,
    Condition,
    Egress,
    Event,
    KeysSent,
    LogPart,
    Metrics,
    Observation,
    Point,
    Problem,
    PromptSent,
    Region,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Screenshot,
    TerminalView,
    Verification,
    WaitResult,
)


class SandboxService(Protocol):
    """What every face translates. ``sandbox`` is an id, a unique prefix of one, or a name."""

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox; returns when display, terminal and helper have answered.

        Raises InvalidInput, Forbidden, Conflict, HostUnable; CreateFailed after a full roll-back.
        """
        ...

    async def list(self, state: SandboxState | None = None) -> list[Sandbox]:
        """Records, newest first."""
        ...

    async def get(self, sandbox: str) -> Sandbox:
        """One record. Raises NotFound, Ambiguous."""
        ...

    async def pause(self, sandbox: str) -> Sandbox:
        """Hold its payload still, until resume; terminal and screen can be read meanwhile.

        Paused already: gives the record. Raises SandboxEnded, Conflict (not up yet).
        """
        ...

    async def resume(self, sandbox: str, budget: Budget = NO_BUDGET) -> Sandbox:
        """Let it go on. Running already: gives the record. Raises as :meth:`pause`.

        What ``budget`` gives replaces what its agent has; Conflict if one is used up all the same.
        """
        ...

    async def stop(self, sandbox: str) -> Sandbox:
        """End it; keeps record, log and last screen. Ended already: gives the record."""
        ...

    async def delete(self, sandbox: str) -> Sandbox:
        """End it if need be, and remove all that is left of it; gives its last record."""
        ...

    async def send_keys(
        self, sandbox: str, *, text: str | None, keys: Sequence[str], target: str, paste: bool
    ) -> KeysSent:
        """Text, then keys, to the terminal or (``target="display"``) to the display.

        Key names are tmux's for a terminal, X's for a display; ``paste`` is the terminal's only.
        """
        ...

    async def click(
        self, sandbox: str, at: Point, *, button: str, count: int, frame: str | None
    ) -> str:
        """Click on the display; gives the name of the frame right after it.

        Here and in what follows: with ``frame``, the name of a screenshot's, coordinates are pixels
        of that picture; without, of the display.
        """
        ...

    async def drag(
        self, sandbox: str, path: Sequence[Point], *, button: str, frame: str | None
    ) -> str:
        """Drag along ``path``; gives the frame right after it."""
        ...

    async def scroll(self, sandbox: str, at: Point, dx: int, dy: int, *, frame: str | None) -> str:
        """Turn the wheel by notches; gives the frame right after it."""
        ...

    async def type_text(self, sandbox: str, text: str) -> str:
        """Type text in any script into the display's focus; gives the frame right after it."""
        ...

    async def observe(self, sandbox: str, *, cursor: str | None) -> Observation:
        """What its agent does and by which evidence, what it asks, what it used, changed rows.

        Of ended ones, and of those without an agent, as far as there is something.
        """
        ...

    async def send_prompt(self, sandbox: str, text: str, *, queue: bool) -> PromptSent:
        """Submit a prompt; returns once a hook or a transcript proves that the agent took it.

        While it is not ready: Conflict, or with ``queue`` it waits its turn, and an event
        (``prompt_submitted``, ``prompt_failed``) tells what came of it. Raises PromptNotSubmitted.
        """
        ...

    async def answer(
        self, sandbox: str, question: str, option: str, *, text: str | None
    ) -> Answered:
        """Answer the question with that id; returns once it is gone from the screen.

        Raises Conflict if it is not on the screen now, InvalidInput (no such option, no text
        taken), DeadlineExceeded.
        """
        ...

    async def read_terminal(
        self, sandbox: str, *, cursor: str | None, lines: int | None
    ) -> TerminalView:
        """Without cursor: the screen (or the last ``lines`` rows); with one: changed rows.

        Of an ended sandbox: its last screen.
        """
        ...

    async def read_log(self, sandbox: str, *, offset: int | None, limit: int) -> LogPart:
        """A part of what the terminal printed since the start, of an ended sandbox too.

        From byte ``offset`` on (None: the last ``limit`` bytes; beyond the end: an empty part), at
        most ``limit`` bytes.
        """
        ...

    def follow_log(self, sandbox: str, offset: int) -> AsyncIterator[LogPart]:
        """The log from byte ``offset`` on, and what is printed from now on, until it ends."""
        ...

    async def run_command(
        self,
        sandbox: str,
        command: str,
        *,
        timeout: float,
        cwd: str | None,
        stdin: str | None,
        background: bool,
    ) -> CommandResult | BackgroundCommand:
        """Beside the terminal, through the helper."""
        ...

    async def screenshot(
        self,
        sandbox: str,
        *,
        region: Region | None,
        max_width: int,
        format: str,
        if_changed_since: str | None,
    ) -> Screenshot:
        """A picture of the display; of an ended sandbox, its last one (png only)."""
        ...

    async def wait(
        self,
        sandboxes: Sequence[str],
        until: Sequence[Condition],
        *,
        mode: str,
        timeout: float,
        cursor: Mapping[str, str],
    ) -> WaitResult:
        """Until any (or all) conditions came true in any (or all) of the sandboxes, or timeout.

        mode "any": the first condition in any sandbox ends the wait; "all": every condition has
        to come true once in every sandbox. ``cursor``: terminal text is looked for in rows that
        changed since; without one, on the present screen first.
        """
        ...

    async def egress(self, sandbox: str) -> Egress:
        """Its way out: rules, what waits for an answer, and what it tried. Of ended ones, too."""
        ...

    async def allow_host(self, sandbox: str, host: str, *, once: bool) -> Egress:
        """Let it reach ``host`` (or a preset's hosts): for one connection, or from now on.

        Answers what was pending for that host. Raises InvalidInput, Forbidden (the settings'
        ``egress_hosts``), Conflict (its network is not ``allowlist``), SandboxEnded, EgressFailed.
        """
        ...

    async def deny_host(self, sandbox: str, host: str) -> Egress:
        """Refuse ``host`` without asking again; open connections to it are cut. Raises as above."""
        ...

    async def verify_isolation(self, sandbox: str) -> Verification:
        """Attack it from inside and tell what held. Takes seconds. Raises as run_command."""
        ...

    async def metrics(self, sandbox: str | None) -> Metrics:
        """The host, or a sandbox beside it if named, each with a short history."""
        ...

    def problems(self) -> Sequence[Problem]:
        """What this host lacks, piece by piece. Starts short processes: call it in a thread."""
        ...

    async def recent_events(self, sandbox: str, count: int) -> Sequence[Event]:
        """The last ``count`` events of a sandbox, oldest first. Raises as get."""
        ...

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events as they happen; first those after sequence number ``after``, if given."""
        ...
