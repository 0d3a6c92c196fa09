"""The command. What must be quick (stdio) or must see every piece (serve, doctor) is done here."""

import sys
from collections.abc import Sequence

from csb_mcp import __version__

_SWITCHES = {"stdio": ("read_only",), "serve": ("auto",), "doctor": ("json", "attack")}


class _UsageError(Exception):
    """The command line makes no sense."""


def main() -> None:
    """Run the command; does not return."""
    words = sys.argv[1:]
    try:
        sys.exit(_run(words))
    except _UsageError as error:
        print(f"csb-mcp: {error}\nTry: csb-mcp --help", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        from csb_mcp.errors import CsbError

        if not isinstance(error, CsbError):
            raise
        print(f"csb-mcp: {error}", file=sys.stderr)
        sys.exit(1)


def _run(words: Sequence[str]) -> int:
    command = words[0] if words else ""
    if command in ("--version", "-V"):
        print(f"csb-mcp {__version__}")
        return 0
    if command not in _SWITCHES or not {"--help", "-h"}.isdisjoint(words):
        from csb_mcp.transports.cli.main import main as verbs

        return verbs(words)
    switches, flags = _options(words[1:], _SWITCHES[command])
    return _dispatch(command, switches, flags)


def _dispatch(command: str, switches: set[str], flags: dict[str, str]) -> int:
    if command == "stdio":
        from csb_mcp.bridge import stdio

        toolsets = flags.pop("toolsets", None)
        return stdio(flags, toolsets, read_only="read_only" in switches)
    if command == "serve":
        from csb_mcp.daemon import serve

        serve(flags, auto="auto" in switches)
        return 0
    if "attack" in switches:
        from csb_mcp.transports.cli.attack import attack

        return attack(flags, as_json="json" in switches)
    from csb_mcp.doctor import doctor

    report, well = doctor(flags, as_json="json" in switches)
    print(report)
    return 0 if well else 1


def _options(words: Sequence[str], switches: Sequence[str]) -> tuple[set[str], dict[str, str]]:
    """Switches, and the values of all other options; the settings know which of those exist."""
    found: set[str] = set()
    values: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise _UsageError(f"not an option: {word}")
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name in switches and not equals:
            found.add(name)
            continue
        if not equals and (value := next(rest, "")) == "":
            raise _UsageError(f"{word} needs a value")
        values[name] = value
    return found, values


if __name__ == "__main__":
    main()
