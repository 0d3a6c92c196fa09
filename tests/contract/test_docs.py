"""The documents say all that the program takes, and nothing that it does not."""

import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, cast

import pytest

from csb_mcp import errors
from csb_mcp.config import SETTINGS, Settings
from csb_mcp.decode.conditions import CONDITIONS
from csb_mcp.model import SandboxState
from csb_mcp.ports import SandboxService
from csb_mcp.transports.cli.verbs import VERBS
from csb_mcp.transports.mcp.server import build_server
from csb_mcp.transports.mcp.tools import TOOLSETS
from csb_mcp.transports.mcp.updates import OF_AGENT

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PACKAGE = REPOSITORY / "csb_mcp"
ROW = re.compile(r"^\| `([^`|]+)` \|([^|]*)\|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+)(?:#([^)]*))?\)")


def sections(document: str) -> dict[str, str]:
    """Text under each ``## heading`` of a document; a tool's heading is its name as code."""
    parts = re.split(r"^## (.+)$", (DOCS / document).read_text(), flags=re.MULTILINE)
    return {name.strip("`"): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def rows(text: str) -> dict[str, str]:
    """First two columns of the tables in ``text``: a name as code, and its default."""
    return {name: second.strip().strip("`") for name, second in ROW.findall(text)}


def subsection(text: str, heading: str) -> str:
    return text.partition(f"### {heading}\n")[2].partition("\n### ")[0]


async def input_schemas() -> dict[str, dict[str, Any]]:
    """What the server itself tells of its tools' arguments; listing them calls no service."""
    server = build_server(cast("SandboxService", object()), toolsets=TOOLSETS)
    return {tool.name: tool.input_schema for tool in await server.list_tools()}


def default_of(name: str, schema: dict[str, Any]) -> str:
    if name in schema.get("required", []):
        return "required"
    properties = schema["properties"][name]
    return json.dumps(properties["default"]) if "default" in properties else ""


async def test_every_tool_has_its_section_and_no_other_has() -> None:
    documented = {name for name in sections("tools.md") if re.fullmatch(r"[a-z_]+", name)}
    assert documented == set(await input_schemas())


async def test_every_argument_is_documented_with_its_default() -> None:
    documented = sections("tools.md")
    for tool, schema in (await input_schemas()).items():
        names = schema["properties"]
        arguments = documented[tool].partition("\n### ")[0]
        assert rows(arguments) == {name: default_of(name, schema) for name in names}, tool


def test_every_condition_is_documented() -> None:
    assert set(rows(subsection(sections("tools.md")["wait"], "Conditions"))) == set(CONDITIONS)


def test_every_state_is_documented() -> None:
    states = rows(subsection(sections("tools.md")["list_sandboxes"], "States"))
    assert set(states) == {state.value for state in SandboxState}


def test_every_error_is_documented() -> None:
    codes = {
        value.code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.CsbError)
    }
    assert set(rows(sections("tools.md")["Errors"])) == codes - {errors.CsbError.code}


def test_every_kind_of_event_is_documented() -> None:
    service = "\n".join(path.read_text() for path in (PACKAGE / "service").rglob("*.py"))
    kinds = set(re.findall(r'publish\([\w.]+, "(\w+)"|changes\.append\(\s*\("(\w+)"', service))
    named = {one or other for one, other in kinds} | set(OF_AGENT)
    assert len(named) > 15, "they are published in another way now"
    documented = set(rows(sections("rest.md")["Events"]))
    assert named - documented == set()


def test_every_setting_is_documented_with_its_default() -> None:
    documented = rows((DOCS / "settings.md").read_text())
    assert set(documented) == set(SETTINGS)
    for field in fields(Settings):
        if field.name in SETTINGS and field.default is not MISSING:
            default = field.default
            text = (
                ""
                if default is None
                else f"{default:g}"
                if isinstance(default, float)
                else ", ".join(cast("tuple[str, ...]", default))
                if isinstance(default, tuple)
                else str(default)
            )
            assert documented[field.name] == text, field.name


def test_every_command_is_documented() -> None:
    assert {f"csb-mcp {verb}" for verb in VERBS} | {"claude-sandbox"} == set(sections("cli.md"))


@pytest.mark.parametrize(
    "document",
    [*sorted(DOCS.glob("*.md")), *sorted(REPOSITORY.glob("*.md"))],
    ids=lambda path: cast("Path", path).name,
)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text()):
        if target.startswith("https://"):
            continue
        path = document.parent / target
        assert path.exists(), f"{target} of {document.name}"
        assert not anchor or anchor in anchors(path), f"{target}#{anchor} of {document.name}"


def anchors(path: Path) -> set[str]:
    """Names of headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_generated_documents_are_fresh() -> None:
    """The same command as by hand."""
    script = REPOSITORY / "scripts/docs.py"
    result = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
