"""Where the pieces of a sandbox lie."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the pieces of one sandbox lie on the host. Nothing of a sandbox lies elsewhere.

    ``runtime`` (tmpfs, short path) dies with the sandbox; ``state`` (disk) stays until delete. Both
    are 0700 and belong to the uid that the sandbox's tree runs as. Of ``runtime`` only ``x11``,
    ``exec`` and ``egress`` are seen inside, read-only; of ``state`` only ``home``, read-write.
    """

    runtime: Path
    state: Path

    @property
    def tmux_socket(self) -> Path:
        """The tmux server's own socket."""
        return self.runtime / "tmux"

    @property
    def lifeline(self) -> Path:
        """Lock file whose flock(2) is held, through inheritance, exactly as long as tmux lives."""
        return self.runtime / "lifeline"

    @property
    def x11(self) -> Path:
        """Holds the X socket ``X0``; bound inside at /tmp/.X11-unix."""
        return self.runtime / "x11"

    @property
    def framebuffer(self) -> Path:
        """Folder of Xvfb's -fbdir, with ``Xvfb_screen0`` (XWD); never seen by the payload."""
        return self.runtime / "fb"

    @property
    def xauthority(self) -> Path:
        """FamilyWild MIT-MAGIC-COOKIE-1 file; bound inside at /run/csb/Xauthority."""
        return self.runtime / "xauth"

    @property
    def display_ready(self) -> Path:
        """FIFO that Xvfb's -displayfd writes its number and a newline into."""
        return self.runtime / "display.fifo"

    @property
    def exec(self) -> Path:
        """Requests of run_command: a folder each with its command and FIFOs."""
        return self.runtime / "exec"

    @property
    def control(self) -> Path:
        """FIFO from the daemon to the helper; passed inside by descriptor only."""
        return self.runtime / "control.fifo"

    @property
    def status(self) -> Path:
        """FIFO from the helper to the daemon; passed inside by descriptor only."""
        return self.runtime / "status.fifo"

    @property
    def begin(self) -> Path:
        """FIFO that the launcher waits at until it shall begin."""
        return self.runtime / "begin.fifo"

    @property
    def arguments(self) -> Path:
        """NUL-ended words: the launcher's command line, read when it begins."""
        return self.runtime / "arguments"

    @property
    def environment(self) -> Path:
        """NUL-separated KEY=VALUE pairs for the payload, read by the launcher."""
        return self.runtime / "environment"

    @property
    def egress(self) -> Path:
        """Holds ``door.sock``, the proxy's; bound inside at /run/csb/egress."""
        return self.runtime / "egress"

    @property
    def gate(self) -> Path:
        """Holds ``control.sock``, the daemon's way to the proxy, and keys; never seen inside."""
        return self.runtime / "gate"

    @property
    def authority(self) -> Path:
        """Certificate (PEM) of the sandbox's own authority, if it has one; trusted inside."""
        return self.gate / "authority.pem"

    @property
    def connections(self) -> Path:
        """Folder of the proxy's log: ``log``, one JSON object a line, and ``log.1`` before it."""
        return self.state / "connections"

    @property
    def home(self) -> Path:
        """The payload's home, bound inside at /home/agent."""
        return self.state / "home"

    @property
    def log(self) -> Path:
        """What the terminal printed, raw bytes; the part before it, if any, is ``log.1``."""
        return self.state / "log"

    @property
    def last_screen(self) -> Path:
        """PNG of the display, taken when the sandbox ended."""
        return self.state / "last-screen.png"

    @property
    def last_terminal(self) -> Path:
        """Text of the terminal, taken when the sandbox ended."""
        return self.state / "last-terminal.txt"
