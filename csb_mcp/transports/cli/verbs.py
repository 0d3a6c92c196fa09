"""What there is to type: verbs and their arguments, as data.

From it come the parser, the completions and the reference. Arguments bear the names that all faces
share; what they may be is checked by the daemon, so nothing here knows bounds.
"""

from typing import Literal, NamedTuple

Files = Literal["", "file", "folder", "sandbox"]


class Argument(NamedTuple):
    """One argument: an option if its name begins with dashes, else positional.

    ``value`` is how its value is written in help; an option without one is a switch. ``many``:
    ``?`` optional, ``+`` one or more, ``*`` any number; an option with ``*`` may be repeated.
    ``default`` is only told: the daemon knows it. ``values`` is what a shell completes. ``of`` is
    the name that all faces have, where an option that is repeated gives one item of a list.
    """

    name: str
    help: str
    value: str = ""
    choices: tuple[str, ...] = ()
    many: Literal["", "?", "+", "*"] = ""
    default: str = ""
    values: Files = ""
    of: str = ""

    @property
    def option(self) -> bool:
        """It has a name on the command line."""
        return self.name.startswith("-")

    @property
    def switch(self) -> bool:
        """It is an option without a value."""
        return self.option and not self.value and not self.choices

    @property
    def key(self) -> str:
        """Its name as all faces have it."""
        return self.of or self.name.lstrip("-").replace("-", "_")


class Verb(NamedTuple):
    """One verb. ``rest``: what comes after ``--`` is a command, of which this is the name."""

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    more: str = ""
    rest: str = ""
    module: str = ""


_JSON = Argument("--json", "the daemon's answer, for programs")
_SANDBOX = Argument("sandbox", "id, unique prefix of it, or name", values="sandbox")
_SANDBOXES = _SANDBOX._replace(many="+")
_FRAME = Argument("--frame", "coordinates are pixels of this screenshot", value="FRAME")
_BUTTON = Argument("--button", "of the mouse", choices=("left", "middle", "right"), default="left")
_X, _Y = Argument("x", "pixels from the left"), Argument("y", "pixels from the top")
_CURSOR = Argument("--cursor", "from an earlier answer", value="CURSOR")
_HOST = Argument("host", "example.org, *.example.org, either with :PORT, or a preset")
_STATES = ("creating", "running", "paused", "stopped", "dead", "failed")

_BUDGET = (
    Argument("--max-tokens", "of its agent; then it is paused", value="NUMBER"),
    Argument("--max-cost", "US dollars of its agent; then it is paused", value="NUMBER"),
    Argument("--max-turns", "of its agent; then it is paused", value="NUMBER"),
)

CONDITIONS = (
    Argument("--terminal-text", "this stands on the terminal", value="TEXT", many="*"),
    Argument("--terminal-regex", "a row of the terminal matches", value="PATTERN", many="*"),
    Argument("--terminal-idle", "nothing was printed for so long", value="TIME", many="*"),
    Argument("--screen-changed", "the display differs from a frame", value="FRAME", many="*"),
    Argument("--screen-stable", "the display did not change for so long", value="TIME", many="*"),
    Argument("--exited", "the sandbox has ended"),
    Argument("--file", "a path exists inside", value="PATH", many="*"),
    Argument("--port", "something inside listens there", value="NUMBER", many="*"),
    Argument("--egress-request", "it asks for a host that nobody has answered for"),
    Argument("--agent-state", "its agent is ready, working, question ...", value="STATE", many="*"),
    Argument("--question", "its agent waits for an answer"),
    Argument("--turn-finished", "its agent has ended a turn"),
    Argument("--tokens-over", "its agent used more tokens", value="NUMBER", many="*"),
    Argument("--cost-over", "its agent used more US dollars", value="NUMBER", many="*"),
)

_RUNNING = (
    Verb(
        "stdio",
        "speak MCP on stdin and stdout: what an MCP client is told to run",
        (
            Argument("--toolsets", "sets of tools, with commas between", value="SET,..."),
            Argument("--read-only", "only tools that change nothing"),
        ),
        "A bridge of a few milliseconds to the daemon, which it starts if none runs. It ends with "
        "its client; sandboxes go on.",
    ),
    Verb(
        "serve",
        "be the daemon, in the foreground, logging to stderr",
        (),
        "Until SIGTERM, SIGINT or SIGHUP. Sandboxes go on; the next daemon takes them up. A daemon "
        "that another command started logs to daemon.log in the state folder and ends by itself "
        "when nothing needs it.",
    ),
    Verb(
        "doctor",
        "tell what keeps this host from making sandboxes, and what repairs it",
        (
            Argument("--json", "the same for programs"),
            Argument("--attack", "instead, attack a throwaway sandbox of each network"),
        ),
        "Looks at tools, kernel, limits, folders, permissions and agents; asks the daemon if one "
        "runs, for it is what makes sandboxes. Exit status 0 if sandboxes can be made, else 1. "
        "With --attack 0 if every attack failed, else 1; it takes a folder and a daemon of its "
        "own, and nothing is left.",
    ),
    Verb(
        "demo",
        "play a short story with a sandbox of its own, and clean up",
        (
            Argument("--json", "only what came of it"),
            Argument("--output", "keep the picture there", value="FILE", values="file"),
        ),
        "In a folder of its own, with a daemon of its own; nothing is left but the picture.",
        module="demo",
    ),
    Verb(
        "completion",
        "print the completions for a shell",
        (Argument("shell", "whose", choices=("bash", "zsh", "fish")),),
        "bash: source <(csb-mcp completion bash). zsh: source <(csb-mcp completion zsh). "
        "fish: csb-mcp completion fish | source.",
        module="completion",
    ),
)

_LIFE = (
    Verb(
        "create",
        "make a sandbox on a project folder; returns when it is ready",
        (
            Argument("project_dir", "the folder; the same path inside", values="folder"),
            Argument("--name", "lower-case letters, digits, . _ -", value="NAME"),
            Argument("--backend", "what isolates it", value="NAME", default="bubblewrap"),
            Argument(
                "--agent",
                "who works in it",
                choices=("claude", "codex", "shell", "command"),
                default="claude",
            ),
            Argument("--task", "the first prompt of its agent", value="TEXT"),
            *_BUDGET,
            Argument(
                "--network",
                "how far it reaches",
                choices=("none", "allowlist", "full", "host"),
            ),
            Argument(
                "--allow-host",
                "it may reach; *.HOST, HOST:PORT, presets; may be repeated",
                value="HOST",
                many="*",
                of="allow_hosts",
            ),
            Argument(
                "--secret",
                "of the settings, put into requests; may be repeated",
                value="NAME",
                many="*",
                of="secrets",
            ),
            Argument(
                "--forward",
                "let in from the host; may be repeated",
                choices=(
                    *("git", "ssh-agent", "gh", "nix-daemon", "dbus"),
                    *("gpu", "audio", "wayland", "display"),
                ),
                many="*",
            ),
            Argument("--verify", "attack it first; none if an attack succeeds"),
            Argument("--workspace", "how it has the project", choices=("direct",)),
            Argument("--geometry", "of the display", value="WxH", default="1280x800"),
            Argument("--gl", "software OpenGL"),
            Argument("--memory", "for all of it: 512M, 4G", value="SIZE", default="4G"),
            Argument("--cpus", "processors' worth of time: 1.5", value="NUMBER"),
            Argument("--pids", "processes and threads", value="NUMBER", default="1024"),
            Argument("--ttl", "it ends after so long: 30m", value="TIME"),
            Argument("--idle-timeout", "it ends after so long without use", value="TIME"),
            Argument("--env", "a variable inside; may be repeated", value="NAME=VALUE", many="*"),
            _JSON,
        ),
        "Claude Code works in it, if nothing else is named. A command after -- is what runs in the "
        "terminal instead: one word is a line for bash, more are a program and its arguments.",
        rest="command",
        module="lifecycle",
    ),
    Verb(
        "list",
        "all sandboxes, newest first, also those that ended",
        (
            Argument("--state", "only these", choices=_STATES),
            Argument("--quiet", "only ids"),
            _JSON,
        ),
        module="lifecycle",
    ),
    Verb("show", "the record of one", (_SANDBOX, _JSON), module="lifecycle"),
    Verb("pause", "hold what runs in it still", (_SANDBOXES, _JSON), module="lifecycle"),
    Verb("resume", "let it go on", (_SANDBOXES, *_BUDGET, _JSON), module="lifecycle"),
    Verb(
        "stop",
        "end all that runs in it; record, log and last screen stay",
        (_SANDBOXES, _JSON),
        module="lifecycle",
    ),
    Verb(
        "delete",
        "end it and remove its home, log and record; the project stays",
        (_SANDBOXES, _JSON),
        module="lifecycle",
    ),
    Verb(
        "metrics",
        "what the host, or one sandbox, uses",
        (_SANDBOX._replace(many="?"), _JSON),
        module="usage",
    ),
)

_TERMINAL = (
    Verb(
        "attach",
        "be at its terminal: the real tmux; C-b d leaves",
        (_SANDBOX, Argument("--json", "the command instead of running it")),
        module="terminal",
    ),
    Verb(
        "send",
        "type text, then press keys",
        (
            _SANDBOX,
            Argument("text", "typed as it is, without Enter", many="?"),
            Argument("--keys", 'Enter, C-c, "Up Up"; may be repeated', value="KEYS", many="*"),
            Argument("--target", "what gets them", choices=("terminal", "display")),
            _JSON,
        ),
        module="terminal",
    ),
    Verb(
        "read",
        "its terminal as text; with a cursor only rows changed since",
        (_SANDBOX, Argument("--lines", "the last so many rows", value="N"), _CURSOR, _JSON),
        module="terminal",
    ),
    Verb(
        "wait",
        "wait until conditions come true",
        (
            _SANDBOXES,
            *CONDITIONS,
            Argument("--mode", "how many of them", choices=("any", "all"), default="any"),
            Argument("--timeout", "as long as you like", value="TIME", default="30"),
            _CURSOR,
            _JSON,
        ),
        "Conditions may be repeated. Exit status 0 if they came true, 124 if the time was over.",
        module="waiting",
    ),
    Verb(
        "run",
        "run a command beside the terminal; its exit status is ours",
        (
            _SANDBOX,
            Argument("--timeout", "then it is killed, at most 600", value="TIME", default="30"),
            Argument("--cwd", "absolute, or relative to the project", value="DIR"),
            Argument("--stdin", "its input; - is ours", value="TEXT"),
            Argument("--background", "leave it running, tell its pid"),
            _JSON,
        ),
        "The command comes after --: one word is a line for bash, more are a program and its "
        "arguments. Exit status: the command's own; 124 if its time was over; 125 if it could not "
        "be run. Output comes when it has ended, without escapes and control characters.",
        rest="command",
        module="terminal",
    ),
    Verb(
        "logs",
        "all that its terminal printed, without escapes",
        (
            _SANDBOX,
            Argument("--follow", "go on until it ends"),
            Argument("--raw", "the very bytes, to a file or pipe"),
            Argument("--offset", "from this byte on", value="N"),
            Argument("--limit", "at most so many bytes; alone, the last ones", value="N"),
            _JSON,
        ),
        module="logs",
    ),
)

_OUTSIDE = (
    Verb(
        "egress",
        "which hosts it may reach, which it asks for, what it tried",
        (_SANDBOX, _JSON),
        "Names are the sandbox's word.",
        module="egress",
    ),
    Verb(
        "allow-host",
        "let it reach a host",
        (
            _SANDBOX,
            _HOST,
            Argument("--once", "one connection only, within ten minutes"),
            _JSON,
        ),
        "Answers what was pending for that host, and lifts the same denial. egress_hosts in the "
        "settings bounds it.",
        module="egress",
    ),
    Verb(
        "deny-host",
        "refuse a host without asking again",
        (_SANDBOX, _HOST, _JSON),
        "Open connections to it are cut. A denial wins over what is allowed.",
        module="egress",
    ),
    Verb(
        "verify",
        "attack it from inside, and tell what held",
        (_SANDBOX, _JSON),
        "Takes seconds. Exit status 0 if it holds, else 1.",
        module="egress",
    ),
)

_DISPLAY = (
    Verb(
        "screenshot",
        "a picture of its display",
        (
            _SANDBOX,
            Argument("--output", "where; - is stdout, as is a pipe", value="FILE", values="file"),
            Argument("--region", "a part of it", value="X,Y,W,H"),
            Argument("--max-width", "scaled down to it", value="PIXELS", default="1280"),
            Argument("--format", "of the file", choices=("png", "jpeg", "webp"), default="png"),
            Argument("--if-changed-since", "nothing if it is still that", value="FRAME"),
            _JSON,
        ),
        module="display",
    ),
    Verb(
        "click",
        "click on its display",
        (
            *(_SANDBOX, _X, _Y, _BUTTON),
            Argument("--count", "2 is a double click", value="N", default="1"),
            *(_FRAME, _JSON),
        ),
        module="display",
    ),
    Verb(
        "drag",
        "drag along points",
        (_SANDBOX, Argument("path", "X,Y X,Y ...", many="+"), _BUTTON, _FRAME, _JSON),
        module="display",
    ),
    Verb(
        "scroll",
        "turn the wheel",
        (
            *(_SANDBOX, _X, _Y),
            Argument("--dx", "notches to the right", value="N", default="0"),
            Argument("--dy", "notches down", value="N", default="0"),
            *(_FRAME, _JSON),
        ),
        module="display",
    ),
    Verb(
        "type",
        "type text in any script into its display",
        (_SANDBOX, Argument("text", "- reads it from stdin"), _JSON),
        module="display",
    ),
)

_AGENT = (
    Verb(
        "observe",
        "what its agent does, by which evidence, and what it used",
        (_SANDBOX, _CURSOR, _JSON),
        "All of it is the sandbox's word.",
        module="supervision",
    ),
    Verb(
        "prompt",
        "give its agent a prompt; returns once that is proved submitted",
        (
            _SANDBOX,
            Argument("text", "what to tell it; - reads stdin"),
            Argument("--queue", "if it is not ready, submit it later"),
            _JSON,
        ),
        module="supervision",
    ),
    Verb(
        "answer",
        "answer its agent's question",
        (
            _SANDBOX,
            Argument("question", "its id, as observe tells"),
            Argument("option", "its key"),
            Argument("--text", "to say beside it", value="TEXT"),
            _JSON,
        ),
        "Refused if that question is not on its screen now.",
        module="supervision",
    ),
)

GROUPS = (
    ("Life of a sandbox", _LIFE),
    ("Terminal and commands", _TERMINAL),
    ("Its agent", _AGENT),
    ("Display", _DISPLAY),
    ("The way out", _OUTSIDE),
    ("The program itself", _RUNNING),
)
VERBS = {verb.name: verb for _, verbs in GROUPS for verb in verbs}
SHORT = {"--output": "-o", "--follow": "-f", "--quiet": "-q"}
"""Options that have a short name, too."""
