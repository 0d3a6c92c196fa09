"""The OpenAPI document and the face say the same: Schemathesis calls each route, well and badly."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.python import asgi
from starlette.applications import Starlette
from typing_extensions import override

from csb_mcp.decode.shapes import Arguments
from csb_mcp.model import Condition, Event, Sandbox, SandboxSpec, SandboxState, WaitResult
from csb_mcp.transports.http import openapi
from csb_mcp.transports.http.app import all_routes, build_http_app
from csb_mcp.transports.mcp.server import build_server
from csb_mcp.transports.mcp.tools import TOOLSETS
from tests.contract.fake_service import FakeService

EXAMPLES = 12  # of each kind, beside those that cover each bound of each schema


class AnyService(FakeService):
    """Every sandbox exists, nothing takes time, streams end."""

    @override
    def _find(self, sandbox: str) -> Sandbox:
        spec = SandboxSpec(project_dir=Path("/p"))
        return Sandbox(
            id="abcd1234", spec=spec, state=SandboxState.STOPPED, uid=1, created_at=0.0, ended_at=1
        )

    @override
    def _set_state(self, sandbox: str, state: SandboxState) -> Sandbox:
        return self._find(sandbox)

    @override
    async def delete(self, sandbox: str) -> Sandbox:
        return self._find(sandbox)

    @override
    async def wait(
        self,
        sandboxes: Sequence[str],
        until: Sequence[Condition],
        *,
        mode: str,
        timeout: float,
        cursor: Mapping[str, str],
    ) -> WaitResult:
        return await super().wait(sandboxes, until, mode=mode, timeout=0, cursor=cursor)

    @override
    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        yield Event(
            sequence=(after or 0) + 1, time=0.0, sandbox="x", kind="created", data={"a": ""}
        )


# Which arguments go together, how big their parts are, or what is a host, is said by no schema.
TOGETHER = (
    "createSandbox",
    "allowHost",
    "denyHost",
    "sendKeys",
    "scroll",
    "wait",
    "screenshot",
    "followLog",
)
# A plain GET of a WebSocket is refused, whatever it asks for.
REFUSED = ("followLog",)


@pytest.fixture
def asgi_thread() -> Iterator[None]:
    """Schemathesis keeps a thread with a loop for what it calls, until the interpreter ends."""
    yield
    asgi._shutdown()  # pyright: ignore[reportPrivateUsage] nothing public ends it


def without(check: str, operations: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"include-operation-id": name, "checks": {check: {"enabled": False}}} for name in operations
    ]


def quick(document: Any) -> Any:
    """Without the longest texts that are allowed: it tries them, and takes seconds for each."""
    if isinstance(document, dict):
        return {
            key: quick(value)
            for key, value in cast("dict[str, Any]", document).items()
            if key != "maxLength" or value <= 1000
        }
    if isinstance(document, list):
        return [quick(one) for one in cast("list[Any]", document)]
    return document


def findings(app: Starlette) -> tuple[list[str], Counter[str]]:
    """What Schemathesis finds wrong, and how often it called each operation."""
    config = SchemathesisConfig.from_dict(  # pyright: ignore[reportUnknownMemberType] its dict has no types
        {
            "generation": {
                "max-examples": EXAMPLES,
                "deterministic": True,
                "database": "none",
                "no-shrink": True,
            },
            "phases": {"stateful": {"enabled": False}},  # of a service that keeps no state
            "continue-on-failure": True,
            "operations": [
                *without("positive_data_acceptance", TOGETHER),
                *without("negative_data_rejection", REFUSED),
            ],
        }
    )
    schema = schemathesis.openapi.from_dict(quick(openapi.document(all_routes())), config=config)
    schema.app = app
    found: list[str] = []
    calls: Counter[str] = Counter()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            calls[event.recorder.label] += len(event.recorder.interactions)
            found += failures(event.recorder)
        elif isinstance(event, (events.NonFatalError, events.FatalError)):
            found.append(repr(event))
    return found, calls


def failures(recorder: ScenarioRecorder) -> Iterator[str]:
    cases = cast("Mapping[str, Any]", recorder.cases)
    for identity, checks in recorder.checks.items():
        case = cases[identity].value
        for check in checks:
            if check.failure_info is not None:
                what = f"{case.method} {case.formatted_path} {case.query} {case.body!r:.300}"
                yield f"{check.name}: {what}: {check.failure_info.failure!s:.300}"


@pytest.mark.timeout(300)  # half a minute where nothing else runs
def test_no_call_gives_what_is_not_documented(asgi_thread: None) -> None:
    """Nor a 500; and what the schema refuses is refused, what it allows is not."""
    found, calls = findings(build_http_app(AnyService()))
    assert not found, "\n".join(found)
    called = {route.name for route in all_routes() if calls[f"{route.method} {route.path}"] > 1}
    assert called == {route.name for route in all_routes()}


def test_operations_have_names_of_their_own() -> None:
    names = Counter(route.name for route in all_routes())
    assert max(names.values()) == 1


@pytest.mark.parametrize("name", openapi.document(all_routes())["components"]["schemas"])
def test_schemas_are_json_schemas(name: str) -> None:
    schema = openapi.document(all_routes())["components"]["schemas"][name]
    jsonschema.Draft202012Validator.check_schema(schema)
    for target in re.findall(r"'#/components/schemas/(\w+)'", str(schema)):
        assert target in openapi.document(all_routes())["components"]["schemas"]


async def test_rest_and_mcp_take_the_same_arguments() -> None:
    """By name, default and need; MCP's schemas are shorter, for every token of them is paid for."""
    tools = {
        tool.name: tool.input_schema
        for tool in await build_server(FakeService(), toolsets=TOOLSETS).list_tools()
    }
    seen: set[str] = set()
    for route in all_routes():
        if route.tool not in tools:
            continue
        seen.add(route.tool)
        tool = tools[route.tool]
        taken = route.body or route.query or Arguments({})
        of_path = {"sandbox"} if route.of_sandbox else set[str]()
        assert set(tool["properties"]) == {*taken.properties} | of_path, route.name
        assert {*taken.required} | of_path == set(tool.get("required", [])), route.name
        for name in set(tool["properties"]) - of_path:
            told = tool["properties"][name].get("default")
            assert told == taken.properties[name].get("default"), (route.name, name)
    assert seen == tools.keys() - {"metrics"}  # which REST has two routes for
