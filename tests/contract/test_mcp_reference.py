"""docs/tools.md is what the definitions say, and they say enough."""

from pathlib import Path

import pytest

from csb_mcp.transports.mcp.reference import tools_reference
from csb_mcp.transports.mcp.tool import Definition
from csb_mcp.transports.mcp.tools import TOOLSETS

DOCUMENT = Path(__file__).parents[2] / "docs/tools.md"
TOOLS = [tool for tools in TOOLSETS.values() for tool in tools]


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == tools_reference(), "run scripts/docs"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_is_explained(tool: Definition) -> None:
    assert tool.about.endswith(".")
    assert set(tool.words) <= set(tool.arguments)
    obvious = {"sandbox", "command", "x", "y"}
    for name, schema in tool.arguments.items():
        assert name in obvious or tool.words.get(name) or schema.get("description"), name
