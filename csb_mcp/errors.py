"""What can go wrong, as types.

::

    CsbError
    ├── InvalidInput       an argument is wrong; names the field
    ├── NotFound           no sandbox answers to that id, prefix or name
    ├── Ambiguous          a prefix fits several sandboxes
    ├── Conflict           a name is taken, or the sandbox's state does not allow the call
    ├── Forbidden          the settings do not allow what was asked
    ├── HostUnable         this host lacks a tool, a kernel feature or a permission
    ├── CreateFailed       a stage of create failed; everything was rolled back
    ├── DeadlineExceeded   something did not answer in time
    ├── SandboxEnded       the sandbox ended while, or before, the call ran
    ├── HelperFailed       the helper inside was killed or could not do its work
    ├── DisplayFailed      the display did not give a picture
    ├── EgressFailed       the egress proxy went away; the way out is closed until it is back
    ├── PromptNotSubmitted a prompt was typed, and nothing proves that the agent took it
    ├── TerminalFailed     tmux refused a command or went away
    └── StoreUnusable      the state on disk is unreadable or newer than this program

Every error carries data for a program (``code``, ``field``, ``sandbox``, ``choices``) and words for
a reader (``message``, and ``hint``: what to do next). Faces translate; they never parse the text.
"""

from collections.abc import Sequence
from typing import ClassVar


class CsbError(Exception):
    """Root of all errors this program raises on purpose.

    ``message`` is one sentence without a final full stop; ``hint`` says what to do next.
    """

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        sandbox: str | None = None,
        hint: str | None = None,
        choices: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.sandbox = sandbox
        self.hint = hint
        self.choices = tuple(choices)

    def __str__(self) -> str:
        parts = [f"{self.field}: {self.message}" if self.field else self.message]
        if self.choices:
            parts.append("valid: " + ", ".join(self.choices))
        if self.hint:
            parts.append(self.hint)
        return ". ".join(parts)


class InvalidInput(CsbError):
    """An argument is malformed, out of range or unknown. ``field`` names it."""

    code = "invalid_input"


class NotFound(CsbError):
    """No sandbox has that id, unique id prefix or name. ``choices`` lists those that exist."""

    code = "not_found"


class Ambiguous(CsbError):
    """An id prefix fits more than one sandbox. ``choices`` lists them."""

    code = "ambiguous"


class Conflict(CsbError):
    """The name is taken, or the sandbox is in a state that does not allow the call."""

    code = "conflict"


class Forbidden(CsbError):
    """The settings do not allow it. The hint names the setting."""

    code = "forbidden"


class HostUnable(CsbError):
    """This host cannot do it. The hint is the line that repairs it."""

    code = "host_unable"


class CreateFailed(CsbError):
    """Create failed in ``stage`` and was rolled back: nothing runs, nothing is left."""

    code = "create_failed"

    def __init__(
        self, message: str, *, stage: str, sandbox: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, sandbox=sandbox, hint=hint)
        self.stage = stage


class DeadlineExceeded(CsbError):
    """Something did not answer before its deadline."""

    code = "deadline_exceeded"


class SandboxEnded(CsbError):
    """The sandbox is not running (any more). The hint says why and how to see its last words."""

    code = "sandbox_ended"


class HelperFailed(CsbError):
    """The helper inside could not run the command. Only this sandbox is affected."""

    code = "helper_failed"


class DisplayFailed(CsbError):
    """The display gave no usable picture or did not answer."""

    code = "display_failed"


class EgressFailed(CsbError):
    """The egress proxy did not answer, or went away. Until it is back, nothing gets out."""

    code = "egress_failed"


class PromptNotSubmitted(CsbError):
    """A prompt was typed, and nothing proves that the agent took it. The hint has its screen."""

    code = "prompt_not_submitted"


class TerminalFailed(CsbError):
    """tmux refused a command, or its server went away."""

    code = "terminal_failed"


class StoreUnusable(CsbError):
    """The state on disk cannot be read, or a newer version wrote it. Nothing was changed."""

    code = "store_unusable"
