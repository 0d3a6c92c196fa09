"""What scripts/docs runs: generated documents, written or compared."""

import sys
from collections.abc import Callable
from pathlib import Path

from csb_mcp.transports.cli.reference import markdown
from csb_mcp.transports.http.app import all_routes
from csb_mcp.transports.http.reference import rest_reference
from csb_mcp.transports.mcp.reference import tools_reference

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENTS: dict[str, Callable[[], str]] = {
    "cli.md": markdown,
    "rest.md": lambda: rest_reference(all_routes()),
    "tools.md": tools_reference,
}
"""By name: what makes its text."""


def main(arguments: list[str]) -> int:
    """Write them, or (``--check``) fail if one is not as it would be written."""
    if arguments not in ([], ["--check"]):
        print("usage: scripts/docs [--check]", file=sys.stderr)
        return 2
    old = [name for name, make in DOCUMENTS.items() if _text(DOCS / name) != make()]
    for name in old:
        if arguments:
            print(f"docs/{name} is not what the program says: run scripts/docs", file=sys.stderr)
        else:
            (DOCS / name).write_text(DOCUMENTS[name]())
            print(f"docs/{name} written")
    return 1 if arguments and old else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
