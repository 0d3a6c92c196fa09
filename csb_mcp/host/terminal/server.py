"""How a sandbox's tmux server is set up: options, two sessions, log, lifeline. One command line."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from csb_mcp.errors import InvalidInput
from csb_mcp.host.terminal.log_writer import writer_command
from csb_mcp.host.terminal.rows import HISTORY_LIMIT
from csb_mcp.lib.lock_file import take_lock
from csb_mcp.model import Folders, Launch

COLUMNS, ROWS = 120, 36
CLIENT_FLAGS = "no-output"  # see control.py
TOOL_PATH = "/usr/local/bin:/usr/bin:/bin:/run/current-system/sw/bin"
ENVIRONMENT = {"PATH": TOOL_PATH, "LC_ALL": "C.UTF-8", "SHELL": "/bin/sh"}
"""All that tmux and its panes get. tmux adds TERM and TMUX; launchers start from nothing anyway."""

# The client hands its arguments to the server in one message of 16 KiB (MAX_IMSGSIZE).
MAX_ARGUMENTS = 15 * 1024

_OPTIONS = (
    ("-s", "escape-time", "0"),
    ("-s", "exit-empty", "on"),
    ("-s", "set-clipboard", "off"),  # OSC 52 has no effect
    ("-s", "default-terminal", "tmux-256color"),
    ("-g", "default-shell", "/bin/sh"),
    ("-g", "history-limit", str(HISTORY_LIMIT)),
    ("-g", "update-environment", ""),
    ("-g", "status", "off"),
    ("-g", "set-titles", "off"),
    ("-g", "bell-action", "none"),
    ("-g", "mouse", "off"),
    ("-g", "remain-on-exit", "on"),  # the last screen and the exit status stay to be read
    ("-g", "remain-on-exit-format", ""),  # and tmux writes no line of its own on it
    ("-g", "allow-rename", "off"),
    ("-g", "allow-passthrough", "off"),
    ("-g", "automatic-rename", "off"),
)

# A person who attaches may look back and leave: tmux's other keys run commands on the host.
_BINDINGS = (
    ("unbind-key", "-a", "-T", "root"),
    ("unbind-key", "-a", "-T", "prefix"),
    ("bind-key", "-T", "prefix", "d", "detach-client"),
    ("bind-key", "-T", "prefix", "[", "copy-mode"),
    ("bind-key", "-T", "prefix", "C-b", "send-prefix"),
)


def start_argv(
    tmux: Path, dd: Path, folders: Folders, payload: Launch, beside: Mapping[str, Launch]
) -> list[str]:
    """The command that starts the server and all panes, and is our control client from then on.

    Raises InvalidInput if the programs' arguments are too long for tmux.
    """
    commands = (
        *(("set-option", *option) for option in _OPTIONS),
        *_BINDINGS,
        # First, for everything else is ready before an X server is.
        *(
            ("new-session", "-d", *_session(name), *_program(launch.argv))
            for name, launch in beside.items()
        ),
        ("new-session", "-f", CLIENT_FLAGS, *_session("main"), *_program(payload.argv)),
        # In the same go, so before the server reads the pane's first byte.
        ("pipe-pane", "-t", "=main:", writer_command(dd, folders.log)),
        # Only now and only here: tmux 3.3 crashes if it is set for all windows before a session is.
        ("set-option", "-w", "-t", "=main:", "window-size", "manual"),
    )
    arguments = [argument for command in commands for argument in (*map(_literal, command), ";")]
    if sum(len(os.fsencode(argument)) + 1 for argument in arguments) > MAX_ARGUMENTS:
        raise InvalidInput(
            "the command is too long", field="command", hint="Put it into a script and run that"
        )
    client = [str(tmux), "-u", "-S", str(folders.tmux_socket), "-f", "/dev/null", "-C"]
    return [*payload.prefix, *client, *arguments[:-1]]


def attach_argv(tmux: Path, setpriv: Path, runtime: int) -> list[str]:
    """The command that connects a control client to a server that runs already.

    ``runtime`` is a descriptor of its folder, to be inherited. The client runs as the folder's
    owner: it opens whatever file its server names, and a payload may have taken the server over.
    """
    owner, become = os.stat(runtime), [str(setpriv)]
    become += [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--"]
    # By way of the descriptor: the folders above need not let that user pass.
    client = [str(tmux), "-u", "-S", f"/proc/self/fd/{runtime}/tmux", "-f", "/dev/null", "-C"]
    command = [*client, "attach-session", "-f", CLIENT_FLAGS, "-t", "=main:"]
    return command if owner.st_uid == os.geteuid() else [*become, *command]


def _session(name: str) -> tuple[str, ...]:
    return ("-s", name, "-n", name, "-x", str(COLUMNS), "-y", str(ROWS), "-c", "/", "--")


def _program(argv: Sequence[str]) -> tuple[str, ...]:
    # tmux gives a single argument to a shell; more it executes as they are.
    return tuple(argv) if len(argv) > 1 else ("exec " + shlex.quote(argv[0]),)


def _literal(argument: str) -> str:
    """An argument that ends in ``;`` would end the command, but for a backslash before that."""
    return argument[:-1] + "\\;" if argument.endswith(";") else argument


def runs(folders: Folders) -> bool:
    """Whether anything holds the lifeline: the server, or what is about to become it.

    Raises OSError.
    """
    try:
        fd = take_lock(folders.lifeline, create=False)
    except FileNotFoundError:
        return False
    if fd is not None:
        os.close(fd)
    return fd is None
