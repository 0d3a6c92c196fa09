"""docs/tools.md, made from the definitions that clients get."""

import json
import textwrap

from csb_mcp.transports.mcp.prompts import PROMPTS
from csb_mcp.transports.mcp.prompts import Definition as Prompt
from csb_mcp.transports.mcp.resources import LISTED, VIEWS
from csb_mcp.transports.mcp.tool import Definition, Json
from csb_mcp.transports.mcp.tools import DEFAULT_TOOLSETS, TOOLSETS, WHEN_ASKED

_HEAD = """\
# Tools

Written by `scripts/docs` from the definitions that clients get; not by hand.

All that an MCP client sees: tools, [resources](#resources) and [prompts](#prompts). `sandbox` is
always an id, a unique prefix of one, or a name. Unknown arguments are refused. An argument without
a default may be left out.

Text that a sandbox printed is fenced and marked as data; control characters are removed. Long
answers are cut, and say so. A *cursor* names a moment of one sandbox, a *frame* one picture of its
display; give each call the newest one you have.
"""
_SETS = """\
## Sets

`csb-mcp stdio --toolsets SET,...` offers these sets only, `--read-only` only the tools in them that
change nothing. By default: {default}; and {asked} while some sandbox asks for a host that nobody
has answered for. A client is told when that begins and ends (`notifications/tools/list_changed`),
and may call those tools always.

| set | tools |
| --- | --- |
"""
_ERRORS = """\
## Errors

An error says what was wrong, which values are valid, and what to do next.

| error | example | |
| --- | --- | --- |
| `invalid_input` | `geometry: '0x0' is not a size of a display` | An argument is malformed, out \
of range or unknown |
| `not_found` | no sandbox `k3x…` | The answer lists those that exist |
| `ambiguous` | prefix `k` | It fits several, which are listed |
| `conflict` | name taken | Or the sandbox's state does not allow the call |
| `forbidden` | project outside the roots | The settings do not allow it; the answer names the \
setting |
| `host_unable` | no bwrap | This host lacks something; the answer says what repairs it |
| `create_failed` | stage: display and helper | All was rolled back |
| `deadline_exceeded` | tmux did not answer | Something took too long |
| `sandbox_ended` | `stop`ped before | The sandbox ended while, or before, the call ran |
| `helper_failed` | no such `cwd` | The helper inside could not do it; only this sandbox is \
affected |
| `display_failed` | | The display gave no picture, or did not take the input |
| `egress_failed` | | The egress proxy went away, and is started anew; until then nothing gets out |
| `prompt_not_submitted` | | A prompt was typed, and nothing proves that the agent took it; the \
answer has its screen |
| `terminal_failed` | | tmux refused a command or went away |
| `store_unusable` | newer version | The state on disk cannot be read; nothing was changed |
"""
_RESOURCES = """\
## Resources

For people who attach something to a conversation, and for clients that follow what happens. `{id}`
may also be a unique prefix or a name; clients complete it.

| address | type | |
| --- | --- | --- |
"""
_NOTICES = """\
A client that subscribes to a resource is told when it changed, at most twice a second. In the
protocol's handshake era it subscribes by `resources/subscribe`, and hears of its own accord when
sandboxes come and go; since 2026-07-28 it asks for either by `subscriptions/listen`. Nothing is
watched for nobody. To read what does not exist is error -32602, which says what does.
"""
_PROMPTS = """\
## Prompts

Texts that a person picks in a client, and that set the supervising agent to work.
"""


def tools_reference() -> str:
    """The whole document."""
    tools = [_tool(tool, name) for name, tools in TOOLSETS.items() for tool in tools]
    parts = [_HEAD, _sets(), *tools, _ERRORS, _resources(), _NOTICES, _PROMPTS]
    return "\n".join([*parts, *(_prompt(prompt) for prompt in PROMPTS)])


def _sets() -> str:
    rows = [
        f"| `{name}` | {' '.join(f'[`{tool.name}`](#{tool.name})' for tool in tools)} |"
        for name, tools in TOOLSETS.items()
    ]
    default = ", ".join(f"`{name}`" for name in DEFAULT_TOOLSETS)
    asked = ", ".join(f"`{name}`" for name in WHEN_ASKED)
    return _lines(_SETS.format(default=default, asked=asked).rstrip(), *rows)


def _tool(tool: Definition, toolset: str) -> str:
    kind = "changes nothing" if tool.read_only else "left out by `--read-only`"
    about = textwrap.fill(tool.about, 100, break_long_words=False, break_on_hyphens=False)
    lines = [f"## `{tool.name}`", "", about, "", f"Set `{toolset}`; {kind}.", ""]
    if tool.arguments:
        lines += ["| argument | default | |", "| --- | --- | --- |"]
        lines += [_argument(tool, name, schema) for name, schema in tool.arguments.items()]
    if tool.after:
        lines += ["", tool.after.rstrip()]
    return _lines(*lines)


def _argument(tool: Definition, name: str, schema: Json) -> str:
    default = f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
    default = "required" if name in tool.required else default
    return _row(f"`{name}`", default, tool.words.get(name, schema.get("description", "")))


def _resources() -> str:
    rows = [(LISTED.uri, LISTED.mime_type, LISTED.description)]
    rows += [(view.address("{id}"), view.mime_type, view.description) for view in VIEWS]
    table = [_row(f"`{uri}`", f"`{kind}`", words or "") for uri, kind, words in rows]
    return _lines(_RESOURCES.rstrip(), *table)


def _prompt(prompt: Prompt) -> str:
    rows = [
        _row(f"`{name}`", "required" if required else "", description)
        for name, (description, required) in prompt.arguments.items()
    ]
    head = ["| argument | | |", "| --- | --- | --- |"]
    return _lines(f"### `{prompt.name}`", "", f"{prompt.description}.", "", *head, *rows)


def _row(*cells: str) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _lines(*lines: str) -> str:
    return "\n".join(lines) + "\n"
