"""The command: serve, stdio, doctor."""

import sys
from collections.abc import Sequence

from csb_mcp import __version__

USAGE = f"""\
csb-mcp {__version__}: sandboxes for coding agents, as tools for the agent that supervises them

  csb-mcp stdio [--toolsets SET,...] [--read-only]
      speak MCP on stdin and stdout: what an MCP client is told to run. Starts the daemon if none
      runs; the daemon ends itself when nothing needs it. Sandboxes go on without either.
  csb-mcp serve
      be the daemon, in the foreground, logging to stderr
  csb-mcp doctor
      tell what keeps this host from making sandboxes, and what repairs it
  csb-mcp --version, csb-mcp --help

Every setting may be given as --NAME VALUE, as CSB_MCP_NAME in the environment, or in the file
~/.config/csb-mcp/config.toml; --config FILE names another one. Some of them:
  --project-roots DIR:...  folders below which projects may lie (default: your home)
  --state-dir DIR          records, logs and homes of sandboxes
  --runtime-dir DIR        sockets; on tmpfs, and a short path
  --max-network MODE       the widest network that may be asked for
"""

_SWITCHES = {"stdio": ("read_only",), "serve": ("auto",), "doctor": ()}


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
    if not words or not {"--help", "-h", "help"}.isdisjoint(words):
        print(USAGE, end="")
        return 0 if words else 2
    command = words[0]
    if command in ("--version", "-V"):
        print(f"csb-mcp {__version__}")
        return 0
    if command not in _SWITCHES:
        raise _UsageError(f"no such command: {command}")
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
    from csb_mcp.doctor import doctor

    report, well = doctor(flags)
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
