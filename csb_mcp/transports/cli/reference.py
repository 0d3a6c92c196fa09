"""docs/cli.md, made from the verbs themselves."""

from collections.abc import Iterator

from csb_mcp.transports.cli.parser import told, usage, written
from csb_mcp.transports.cli.verbs import GROUPS, SHORT, Argument, Verb

_BEGIN = """\
# Commands

`csb-mcp VERB [arguments]`. Every verb but `serve`, `stdio` and `doctor` is a client of
[REST](rest.md) on the daemon's own socket, and starts the daemon if none runs, also to list: what
there is lies on disk. `SANDBOX` is an id, a unique prefix of one, or a name. Arguments bear the
names that tools and REST have.

People get text and tables, fit to their terminal; with `--json` programs get the daemon's answer,
one JSON value (one line for each sandbox where several are named), and an error as a JSON object
on stderr. What takes longer than a second is told on stderr if that is a terminal. Colours are
for terminals, and not where `NO_COLOR` is set. Nothing that a sandbox printed acts on a terminal:
escapes and control characters are removed, but from `logs --raw`, which wants a pipe or a file.

| exit status | |
| --- | --- |
| 0 | Well |
| 1 | It failed, or the daemon refused it; stderr says why |
| 2 | The command line makes no sense |
| 3 | No daemon can be reached: none starts, none answers, or it is of another version |
| 124 | `wait`, `run`: the time was over |
| 125 | `run`: the command could not be run, for whatever reason. Any other is the command's own |
| 130, 141 | Ended by ^C; nobody read on (`head`) |

Besides their own, all take `--help`, `--config FILE`, and each [setting](settings.md) as `--NAME
VALUE`; `csb-mcp --help` and `csb-mcp --version` stand alone.
"""
_END = """\
## `claude-sandbox`

`claude-sandbox [--shell] [options] [project-dir] [-- command...]`: one program in a sandbox, by
hand, in this terminal, without the daemon. The program is `claude`, with `--shell` bash, or the
command. Without `project-dir` it is the current folder. Each project has a home of its own, which
stays, in `by-hand` of the state folder. Root first becomes the user who ran `sudo`, or the
project's owner. Of the settings only `max_network` bounds it: who may start it may do all the rest
without it. Exit status 125 means that the sandbox did not come up; any other is the
program's.

| option | |
| --- | --- |
| `--shell` | bash instead of `claude` |
| `--home DIR` | Another home |
| `--program PATH` | A program or folder outside `/usr` to show read-only; may be repeated |
| `--environment FILE` | `KEY=VALUE` pairs for the program, each ended by a NUL |
| `--network MODE` | How far it reaches: `none`, `allowlist`, `full` or `host`. Nobody is asked: \
what is not allowed is refused |
| `--allow-host HOST` | For `allowlist`; may be repeated |
| `--pids N` | How many processes it may have (1024) |
| `--tmp-size N`, `--shm-size N` | Bytes of its `/tmp` (1 GiB) and `/dev/shm` (512 MiB) |
| `--print-args` | Shows what would be run |
| `--contract` | Prints the version of this command line |
"""


def markdown() -> str:
    """The whole document."""
    parts = [_BEGIN]
    for title, verbs in GROUPS:
        parts.append(
            f"{title}: " + ", ".join(f"[{v.name}](#csb-mcp-{v.name})" for v in verbs) + "."
        )
        parts.append("")
    for _, verbs in GROUPS:
        for verb in verbs:
            parts += _section(verb)
    return "\n".join([*parts, _END])


def _section(verb: Verb) -> Iterator[str]:
    yield from (f"## `csb-mcp {verb.name}`", "", f"    {usage(verb)}", "")
    yield from (f"{verb.help[0].upper()}{verb.help[1:]}. {verb.more}".rstrip(), "")
    if verb.arguments:
        yield from ("| argument | default | |", "| --- | --- | --- |")
        yield from map(_row, verb.arguments)
        yield ""


def _row(argument: Argument) -> str:
    words = [argument.name if argument.option else argument.name.upper()]
    words += [f"{SHORT[argument.name]}"] if argument.name in SHORT else []
    value = "" if argument.switch or not argument.option else f" {written(argument)}"
    name = ", ".join(f"`{word}`" for word in words[1:])
    first = f"`{words[0]}{value}`".replace("|", "\\|") + (f", {name}" if name else "")
    default = f"`{argument.default}`" if argument.default else ""
    help_ = told(argument._replace(default="")).replace("|", "\\|")
    choices = "" if argument.option or not argument.choices else ": " + ", ".join(argument.choices)
    return f"| {first} | {default} | {help_[0].upper()}{help_[1:]}{choices} |"
