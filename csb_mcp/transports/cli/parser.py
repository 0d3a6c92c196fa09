"""Words to arguments: the standard parser of one verb, settings taken out before."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from csb_mcp.transports.cli.verbs import GROUPS, SHORT, VERBS, Argument, Verb

WIDTH = 96  # of help, at most


class UsageError(Exception):
    """The command line makes no sense."""


class Line(NamedTuple):
    """A command line: values by argument name, settings, and the words after ``--``."""

    verb: Verb
    values: dict[str, Any]
    settings: dict[str, str]
    rest: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(verb: Verb, words: Sequence[str]) -> Line:
    """Read the words after a verb. Raises UsageError; exits after ``--help``."""
    words, rest = _cut(verb, list(words))
    settings, words = _take_settings(verb, words)
    values = vars(parser_of(verb).parse_intermixed_args(words))
    return Line(verb, values, settings, tuple(rest))


def parser_of(verb: Verb) -> argparse.ArgumentParser:
    """Its parser; one is made only when it is needed, for all of them take their time."""
    parser = _Parser(
        prog=f"csb-mcp {verb.name}",
        description=f"{verb.help}. {verb.more}".strip(),
        epilog="Settings may be given as --NAME VALUE, too: csb-mcp --help",
        allow_abbrev=False,
        usage=usage(verb),
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    for argument in verb.arguments:
        _add(parser, argument)
    return parser


def _add(parser: argparse.ArgumentParser, argument: Argument) -> None:
    names = [argument.name]
    if argument.name in SHORT:
        names.insert(0, SHORT[argument.name])
    given: dict[str, Any] = {"help": told(argument).replace("%", "%%")}
    if argument.switch:
        given |= {"action": "store_true"}
    elif argument.option:
        given |= {
            "dest": argument.key,
            "metavar": written(argument),
            "action": "append" if argument.many else "store",
        }
    elif argument.many:
        given |= {"nargs": argument.many}
    if argument.choices:
        given |= {"choices": argument.choices}
    parser.add_argument(*names, **given)


def told(argument: Argument) -> str:
    """Its help, with the default."""
    default = f" (default: {argument.default})" if argument.default else ""
    return argument.help + default


def written(argument: Argument) -> str:
    """How the value of an option is written in help."""
    return argument.value or "|".join(argument.choices)


def usage(verb: Verb) -> str:
    """One line: positional arguments, ``[options]``, the command."""
    shapes = {"": "{}", "?": "[{}]", "+": "{}...", "*": "[{}...]"}
    words = [
        shapes[argument.many].format("|".join(argument.choices) or argument.name.upper())
        for argument in verb.arguments
        if not argument.option
    ]
    options = ["[options]"] if any(argument.option for argument in verb.arguments) else []
    rest = {"create": ["[-- COMMAND...]"], "run": ["-- COMMAND..."]}.get(verb.name, [])
    return " ".join(["csb-mcp", verb.name, *words, *options, *rest])


def overview(version: str) -> str:
    """What ``csb-mcp --help`` says."""
    lines = [
        f"csb-mcp {version}: sandboxes for coding agents, for people, programs and the agent that",
        "supervises them",
    ]
    for title, verbs in GROUPS:
        lines += ["", f"{title}:"]
        lines += [f"  csb-mcp {verb.name:<11} {verb.help}" for verb in verbs]
    lines += ["", *_ENDING, ""]
    return "\n".join(lines)


_ENDING = """\
csb-mcp VERB --help tells its arguments; csb-mcp --version the version. Verbs start the daemon if
none runs. Every setting may be given as --NAME VALUE, as CSB_MCP_NAME in the environment, or in the
file ~/.config/csb-mcp/config.toml (root: /etc/csb-mcp/config.toml); --config FILE names another.
Some of them:
  --project-roots DIR:...  folders below which projects may lie (default: your home)
  --state-dir DIR          records, logs and homes of sandboxes
  --runtime-dir DIR        sockets; on tmpfs, and a short path
  --max-network MODE       the widest network that may be asked for
Exit status: 0 well, 1 failed or refused, 2 a command line that makes no sense, 3 no daemon can be
reached, 124 the time was over (wait, run), 125 the command could not be run (run).""".splitlines()


def _cut(verb: Verb, words: list[str]) -> tuple[list[str], list[str]]:
    """The words before ``--``, and those after it where they are a command."""
    if not verb.rest or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _take_settings(verb: Verb, words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Settings among ``words``, and the words without them."""
    own = {a.name: a for a in verb.arguments if a.option}
    settings: dict[str, str] = {}
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        argument = own.get(name)
        if word == "--":
            return settings, [*kept, word, *rest]
        if not name.startswith("--") or argument or name == "--help":
            kept.append(word)
            if argument and not argument.switch and not equals:
                kept += itertools.islice(rest, 1)
            continue
        key = _setting(name, verb)
        settings[key] = value if equals else _value(name, rest)
    return settings, kept


def _value(name: str, rest: Iterator[str]) -> str:
    if (value := next(rest, None)) is None:
        raise UsageError(f"{name} needs a value")
    return value


def _setting(name: str, verb: Verb) -> str:
    # Only here: it reads more modules than all the rest of a verb needs.
    from csb_mcp.config import SETTINGS  # noqa: PLC0415

    key = name[2:].replace("-", "_")
    if key not in (*SETTINGS, "config"):
        raise UsageError(f"{verb.name} has no option {name}")
    return key


def find(name: str) -> Verb:
    """The verb of that name. Raises UsageError."""
    if name not in VERBS:
        raise UsageError(f"no such command: {name}")
    return VERBS[name]
