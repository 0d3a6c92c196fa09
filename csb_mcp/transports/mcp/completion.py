"""Completion: which sandboxes fit what was typed so far."""

from mcp_types import CompleteRequestParams, CompleteResult, Completion, PromptReference

from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.resources import TEMPLATES

_MAX_VALUES = 100  # by the protocol
_ADDRESSES = {template.uri_template for template in TEMPLATES}


class Completions:
    """The handler: ``{id}`` of resource templates, and argument ``sandbox`` of prompts."""

    def __init__(self, service: SandboxService) -> None:
        self._service = service

    async def complete(self, _: object, params: CompleteRequestParams) -> CompleteResult:
        """Ids, and names, that begin with it; newest sandbox first. Nothing for other arguments."""
        values = await self._sandboxes(params.argument.value) if _names_sandbox(params) else []
        shown = values[:_MAX_VALUES]
        return CompleteResult(
            completion=Completion(
                values=shown, total=len(values), has_more=len(values) > len(shown)
            )
        )

    async def _sandboxes(self, typed: str) -> list[str]:
        called = [
            reference
            for sandbox in await self._service.list()
            for reference in (sandbox.name, sandbox.id)
            if reference
        ]
        return [reference for reference in called if reference.startswith(typed)]


def _names_sandbox(params: CompleteRequestParams) -> bool:
    if isinstance(params.ref, PromptReference):
        return params.argument.name == "sandbox"
    return str(params.ref.uri) in _ADDRESSES and params.argument.name == "id"
