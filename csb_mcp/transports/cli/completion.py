"""completion: the words of every command line, for three shells; sandboxes are asked for then."""

from collections.abc import Callable, Iterator

from csb_mcp.errors import CsbError
from csb_mcp.transports.cli.client import reach
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import put, say
from csb_mcp.transports.cli.verbs import SHORT, VERBS, Argument, Verb

NAMES = "__sandboxes"
"""The hidden word that completions call: it starts no daemon, and never fails."""

_ASK = f"$(csb-mcp {NAMES} 2>/dev/null)"
_BASH = """\
# bash completion for csb-mcp: source <(csb-mcp completion bash)
_csb_mcp_give() {
  mapfile -t COMPREPLY < <(compgen "$@" -- "$word")
}
_csb_mcp() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    _csb_mcp_give -W '@verbs@'
    return
  fi
  case "$verb $before" in
@values@
  esac
  if [[ $word == -* ]]; then
    case $verb in
@options@
    esac
    return
  fi
  case $verb in
@places@
  esac
}
complete -F _csb_mcp csb-mcp
"""
_ZSH = """\
#compdef csb-mcp
# zsh completion for csb-mcp: source <(csb-mcp completion zsh)
_csb_mcp_sandboxes() {
  local -a found=(${(f)"@ask@"})
  compadd -a found
}
_csb_mcp() {
  local -a verbs=(
@verbs@
  )
  if ((CURRENT == 2)); then
    _describe command verbs
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
@cases@
  esac
}
compdef _csb_mcp csb-mcp
"""


def completion(line: Line) -> int:
    """Print the script."""
    scripts = {"bash": bash, "zsh": zsh, "fish": fish}
    put(scripts[line.values["shell"]]())
    return 0


def names() -> int:
    """Ids and names of all sandboxes, a line each; nothing if no daemon runs."""
    try:
        found = reach({}, start=False).get("/api/sandboxes", timeout=2.0).json()
    except CsbError:
        return 0
    for record in found:
        say(record["id"])
        if record["name"]:
            say(record["name"])
    return 0


def bash() -> str:
    """For bash 4 and newer."""
    return (
        _BASH.replace("@verbs@", " ".join(VERBS))
        .replace("@values@", "\n".join(_bash_values()))
        .replace("@options@", "\n".join(_bash_options()))
        .replace("@places@", "\n".join(_bash_places()))
    )


def _bash_values() -> Iterator[str]:
    """For each option that takes a value: what it may be."""
    for verb in VERBS.values():
        for argument in verb.arguments:
            if argument.option and not argument.switch:
                words = [argument.name, *filter(None, [SHORT.get(argument.name)])]
                pattern = " | ".join(f"'{verb.name} {word}'" for word in words)
                yield f"    {pattern}) {_bash_reply(argument) or ':'}; return ;;"


def _bash_options() -> Iterator[str]:
    for verb in VERBS.values():
        options = " ".join([*(a.name for a in verb.arguments if a.option), "--help"])
        yield f"      {verb.name}) _csb_mcp_give -W '{options}' ;;"


def _bash_places() -> Iterator[str]:
    """What stands without a name: a sandbox, a folder, a shell."""
    for verb in VERBS.values():
        replies = [_bash_reply(a) for a in verb.arguments if not a.option]
        for reply in filter(None, replies[:1]):
            yield f"    {verb.name}) {reply} ;;"


def _bash_reply(argument: Argument) -> str:
    if argument.choices:
        return f"_csb_mcp_give -W '{' '.join(argument.choices)}'"
    if argument.values == "sandbox":
        return f'_csb_mcp_give -W "{_ASK}"'
    if argument.values:
        kind = {"file": "-f", "folder": "-d"}[argument.values]
        return f"compopt -o filenames 2>/dev/null; _csb_mcp_give {kind}"
    return ""


def zsh() -> str:
    """For zsh 5 and newer."""
    verbs = [f"    {_quoted(f'{v.name}:{v.help}')}" for v in VERBS.values()]
    cases = [
        " ".join([f"    {verb.name}) _arguments", *map(_zsh_spec, verb.arguments), ";;"])
        for verb in VERBS.values()
    ]
    script = _ZSH.replace("@verbs@", "\n".join(verbs)).replace("@cases@", "\n".join(cases))
    return script.replace("@ask@", _ASK)


def _zsh_spec(argument: Argument) -> str:
    """One argument as _arguments has it."""
    told = argument.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
    actions = {"sandbox": "_csb_mcp_sandboxes", "file": "_files", "folder": "_files -/", "": " "}
    action = f"({' '.join(argument.choices)})" if argument.choices else actions[argument.values]
    if not argument.option:
        place = {"+": "*", "*": "*", "?": ":"}.get(argument.many, "")
        return _quoted(f"{place}:{argument.name}:{action}")
    value = "" if argument.switch else f":{argument.key}:{action}"
    return _quoted(f"{'*' if argument.many else ''}{argument.name}[{told}]{value}")


def fish() -> str:
    """For fish 3 and newer."""
    lines = ["# fish completion for csb-mcp: csb-mcp completion fish | source"]
    lines += ["complete -c csb-mcp -f"]
    for verb in VERBS.values():
        told = _quoted(verb.help)
        lines.append(f"complete -c csb-mcp -n __fish_use_subcommand -a {verb.name} -d {told}")
        lines += [
            _fish(verb, argument)
            for argument in verb.arguments
            if argument.option or argument.values or argument.choices
        ]
    return "\n".join(lines) + "\n"


def _fish(verb: Verb, argument: Argument) -> str:
    words = [f"complete -c csb-mcp -n '__fish_seen_subcommand_from {verb.name}'"]
    if argument.option:
        words.append(f"-l {argument.name[2:]}")
        words += [f"-s {SHORT[argument.name][1:]}"] if argument.name in SHORT else []
        words += [] if argument.switch else ["-r"]
        words.append(f"-d {_quoted(argument.help)}")
    if argument.choices:
        words.append(f"-a '{' '.join(argument.choices)}'")
    elif argument.values == "sandbox":
        words.append(f"-a '(csb-mcp {NAMES} 2>/dev/null)'")
    elif argument.values:
        words.append("-F")
    return " ".join(words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


ACTIONS: dict[str, Callable[[Line], int]] = {"completion": completion}
