"""A tool as data: a schema written by hand, one function, and errors that say what to do.

The SDK would derive schemas from signatures, but those ignore unknown arguments, coerce types and
cost twice the tokens; here :mod:`csb_mcp.decode` reads the arguments, as for every other face.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent, ToolAnnotations
from typing_extensions import override

from csb_mcp.errors import CreateFailed, CsbError
from csb_mcp.lib.text import plain_text
from csb_mcp.ports import SandboxService

log = logging.getLogger(__name__)

Json = dict[str, Any]
Call = Callable[[SandboxService, Mapping[str, object]], Awaitable[CallToolResult]]

STRING: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
INTEGER: Json = {"type": "integer"}
BOOLEAN: Json = {"type": "boolean"}
STRINGS: Json = {"type": "array", "items": STRING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One tool. ``arguments`` are JSON schemas by name; ``output`` those of a structured answer.

    What follows is for people, in Markdown, and never sent to a client, who pays for each word:
    ``about`` says more than ``description``, ``words`` more than an argument's own, ``after`` goes
    below the table of arguments.
    """

    name: str
    title: str
    description: str
    call: Call
    arguments: Mapping[str, Json]
    required: tuple[str, ...] = ()
    output: Mapping[str, Json] | None = None
    output_required: tuple[str, ...] = ()
    annotations: ToolAnnotations
    about: str = ""
    words: Mapping[str, str] = field(default_factory=dict[str, str])
    after: str = ""

    @property
    def read_only(self) -> bool:
        """It changes nothing."""
        return bool(self.annotations.read_only_hint)


def hints(
    *,
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool,
) -> ToolAnnotations:
    """All four annotations: a client takes the worst for one that is missing."""
    return ToolAnnotations(
        read_only_hint=read_only,
        destructive_hint=destructive,
        idempotent_hint=idempotent,
        open_world_hint=open_world,
    )


def described(schema: Json, description: str, **more: object) -> Json:
    """A schema with a description."""
    return {**schema, "description": description, **more}


def choice(valid: tuple[str, ...], **more: object) -> Json:
    """A schema of one of some words."""
    return {"enum": list(valid), **more}


def answer(
    text: str, structured: Json | None = None, image: ImageContent | None = None
) -> CallToolResult:
    """A result. Some clients show ``structured`` *instead of* the text: both must be complete."""
    content: list[ContentBlock] = [TextContent(type="text", text=text)]
    if image is not None:
        content.insert(0, image)
    return CallToolResult(content=content, structured_content=structured)


class ServiceTool(Tool):
    """A :class:`Definition` bound to a service, in the SDK's terms."""

    @override
    async def run(
        self, arguments: dict[str, Any], context: object, convert_result: bool = False
    ) -> CallToolResult:
        """Call it. Raises ToolError with words for the model, never an empty one."""
        try:
            return await self.fn(arguments)
        except CsbError as error:
            raise ToolError(explain(error)) from error
        except (ToolError, MCPError):
            raise
        except Exception as error:
            mark = secrets.token_hex(4)
            log.exception("%s failed, id %s", self.name, mark)
            raise ToolError(
                f"internal error in {self.name}: a defect, not your mistake. "
                f"The daemon's log tells more, look for id {mark}"
            ) from error


def bind(definition: Definition, service: SandboxService) -> ServiceTool:
    """The tool, ready to be given to the SDK's server."""

    async def call(arguments: Mapping[str, object]) -> CallToolResult:
        return await definition.call(service, arguments)

    output = definition.output
    return ServiceTool(
        fn=call,
        name=definition.name,
        title=definition.title,
        description=definition.description,
        parameters=_object(definition.arguments, definition.required)
        | {"additionalProperties": False},
        fn_metadata=FuncMetadata(
            arg_model=ArgModelBase,
            output_schema=None if output is None else _object(output, definition.output_required),
        ),
        is_async=True,
        context_kwarg=None,
        annotations=definition.annotations,
    )


def _object(properties: Mapping[str, Json], required: tuple[str, ...]) -> Json:
    schema: Json = {"type": "object", "properties": dict(properties)}
    return schema | ({"required": list(required)} if required else {})


def explain(error: CsbError) -> str:
    """All that an error knows, in words. Parts may come from a sandbox, so controls are removed."""
    where = (
        f"sandbox {error.sandbox}: " if error.sandbox and error.sandbox not in str(error) else ""
    )
    stage = f" (stage: {error.stage})" if isinstance(error, CreateFailed) else ""
    return plain_text(f"{where}{error}{stage}")
