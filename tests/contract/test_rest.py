"""What the HTTP face translates, over a real Unix socket, to a service in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from csb_mcp import errors
from csb_mcp.errors import CsbError, PromptNotSubmitted
from csb_mcp.model import (
    CommandResult,
    FileExists,
    Point,
    Region,
    SandboxState,
    TerminalText,
    TerminalView,
)
from csb_mcp.transports.http import reading, server
from csb_mcp.transports.http.app import all_routes
from csb_mcp.transports.http.problems import TITLES, status_of
from csb_mcp.transports.http.reading import MAX_BODY
from tests.contract.fake_service import PIXELS, FakeService
from tests.support.rest import Station, eventually, serving

ONE = "/api/sandboxes/web"
PROBLEM = "application/problem+json"
LONG = {"sandboxes": "web", "until": [{"port": 80}], "timeout": 40}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def station(service: FakeService, short_dir: Path) -> AsyncIterator[Station]:
    async with serving(service, short_dir / "s") as station:
        yield station


@pytest.fixture
async def client(station: Station) -> AsyncIterator[httpx2.AsyncClient]:
    async with station.client() as client:
        yield client


@pytest.fixture
async def web(client: httpx2.AsyncClient) -> str:
    """Id of a sandbox called web."""
    made = await client.post("/api/sandboxes", json={"project_dir": "/p", "name": "web"})
    assert made.status_code == 201, made.text
    return made.json()["id"]


def refused(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, which must be in the one shape."""
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    problem = response.json()
    assert problem["type"] == f"urn:csb-mcp:error:{code}"
    assert (problem["status"], problem["code"], problem["title"]) == (status, code, TITLES[code])
    assert problem["detail"]
    assert problem.keys() <= {
        *("type", "title", "status", "detail", "code"),
        *("field", "sandbox", "choices", "hint", "stage"),
    }
    return problem


async def test_the_life_of_a_sandbox(client: httpx2.AsyncClient, service: FakeService) -> None:
    assert (await client.get("/api/sandboxes")).json() == []
    body = {"name": "web", "backend": "bubblewrap", "project_dir": "/p", "network": True}
    made = await client.post("/api/sandboxes", json=body)
    assert made.status_code == 201
    record = made.json()
    assert made.headers["location"] == f"/api/sandboxes/{record['id']}"
    assert (record["network"], record["created_at"]) == ("full", "2023-11-14T22:13:20.250Z")
    assert (await client.get("/api/sandboxes")).json() == [record]
    for reference in (record["id"], "web", record["id"][:4]):
        assert (await client.get(f"/api/sandboxes/{reference}")).json() == record
    assert (await client.post(f"{ONE}/pause")).json()["state"] == "paused"
    assert (await client.get("/api/sandboxes?state=running")).json() == []
    assert (await client.post(f"{ONE}/resume", json={})).json()["state"] == "running"
    stopped = await client.post(f"{ONE}/stop")
    assert (stopped.status_code, stopped.content) == (204, b"")
    assert (await client.get(ONE)).json()["state"] == "stopped"
    refused(await client.post(f"{ONE}/pause"), 409, "sandbox_ended")
    assert (await client.delete(ONE)).status_code == 204
    assert (await client.get("/api/sandboxes")).json() == []
    assert service.calls.count("create") == 1


async def test_arguments_reach_the_service(
    client: httpx2.AsyncClient, service: FakeService, web: str
) -> None:
    service.view = TerminalView(((3, "a\x1b[31mb\nc"),), "c.2", True, False, 1)
    terminal = await client.get(f"{ONE}/terminal?cursor=c.1&lines=5")
    assert terminal.json() == {
        "rows": [[3, "ab c"]],
        "cursor": "c.2",
        "changed_only": True,
        "gap": False,
        "cut": 1,
    }
    assert service.arguments == {"cursor": "c.1", "lines": 5}
    keys = await client.post(f"{ONE}/keys", json={"text": "ls", "keys": "C-c Enter"})
    assert keys.json() == {"sent": ["ls", "C-c", "Enter"], "cursor": "ab.1"}
    for path, body, told in (
        ("click", {"x": 1, "y": 2, "count": 2}, {"at": Point(1, 2), "count": 2}),
        ("drag", {"path": [[1, 2], [3, 4]]}, {"path": (Point(1, 2), Point(3, 4))}),
        ("scroll", {"x": 1, "y": 2, "dy": -3, "frame": "f"}, {"dy": -3, "frame": "f"}),
        ("type", {"text": "日本"}, {"text": "日本"}),
    ):
        assert (await client.post(f"{ONE}/{path}", json=body)).json() == {"frame": "e-2"}
        assert service.arguments | told == service.arguments


async def test_commands(client: httpx2.AsyncClient, service: FakeService, web: str) -> None:
    service.result = CommandResult(3, "\x1b[1mout\x07 \udc80é", "err", timed_out=True)
    ended = await client.post(f"{ONE}/commands", json={"command": "x", "timeout": "2s"})
    assert ended.json() == {
        "exit_code": 3,
        "stdout": "out �é",
        "stderr": "err",
        "truncated": False,
        "timed_out": True,
    }
    assert service.arguments["timeout"] == 2.0
    started = await client.post(f"{ONE}/commands", json={"command": "x", "background": True})
    assert started.status_code == 202
    assert started.json() == {"pid": 7, "stdout_path": "/tmp/o", "stderr_path": "/tmp/e"}


async def test_wait(client: httpx2.AsyncClient, service: FakeService, web: str) -> None:
    until = [{"file": "x"}, {"terminal_text": "$ "}]
    answer = await client.post(
        "/api/wait", json={"sandboxes": "web", "until": until, "cursor": "c"}
    )
    match = {"sandbox": web, "index": 1, "condition": "terminal_text", "evidence": "$"}
    assert answer.json() == {
        "satisfied": True,
        "matches": [match],
        "cursors": {web: f"{web}.2"},
        "waited": 0.1,
    }
    assert service.arguments["until"] == (FileExists("x"), TerminalText("$ "))


async def test_screenshots(client: httpx2.AsyncClient, service: FakeService, web: str) -> None:
    shot = await client.get(f"{ONE}/screenshot?region=1,2,30,40&max_width=640&format=webp")
    assert (shot.content, shot.headers["content-type"]) == (PIXELS, "image/webp")
    assert service.arguments == {
        "region": Region(1, 2, 30, 40),
        "max_width": 640,
        "format": "webp",
    }
    told = {name: shot.headers[f"csb-{name}"] for name in ("frame", "region", "scale", "tokens")}
    assert told == {"frame": "e-1", "region": "1,2,30,40", "scale": "0.5", "tokens": "341"}
    tag = shot.headers["etag"]
    for unchanged in (
        await client.get(f"{ONE}/screenshot", headers={"if-none-match": f"W/{tag}, x"}),
        await client.get(f"{ONE}/screenshot?if_changed_since=e-1"),
    ):
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["etag"] == tag
    for other in ("*", '"e-0"', "", '"' + "x" * 300 + '"'):
        shot = await client.get(f"{ONE}/screenshot", headers={"if-none-match": other})
        assert shot.status_code == 200, other


async def test_a_log_in_parts(client: httpx2.AsyncClient, service: FakeService, web: str) -> None:
    service.log = "é\x1b[31mred\x1b[0m\r\nlast\r\n".encode()
    text, offset = "", 0
    while True:
        part = await client.get(f"{ONE}/logs?offset={offset}&limit=7")
        assert int(part.headers["csb-offset"]) == offset
        if not part.content:
            break
        text += part.text
        offset = int(part.headers["csb-next"])
    assert (text, offset) == ("éred\nlast\n", len(service.log))
    raw = await client.get(f"{ONE}/logs?raw=true&offset=2&limit=5")
    assert raw.content == b"\x1b[31m"
    assert raw.headers["content-type"] == "application/octet-stream"
    service.log_start = 100
    late = await client.get(f"{ONE}/logs?offset=5")
    assert (late.headers["csb-gap"], late.headers["csb-offset"]) == ("true", "100")
    refused(await client.get(f"{ONE}/logs?raw=yes"), 400, "invalid_input")


async def test_metrics(client: httpx2.AsyncClient, web: str) -> None:
    system = (await client.get("/api/metrics/system")).json()
    assert system["host"]["load"] == [0.1, 0.2, 0.3]
    assert system["history"][0] == {
        "time": "2023-11-14T22:13:20.000Z",
        "cpu_percent": 5.0,
        "memory": 1 << 20,
        "processes": 3,
    }
    assert "sandbox" not in system
    one = (await client.get(f"{ONE}/metrics")).json()
    assert (one["sandbox"]["io_read"], one["sandbox"]["io_written"]) == (4096, None)


async def test_prometheus_reads_our_numbers(client: httpx2.AsyncClient) -> None:
    await client.post("/api/sandboxes", json={"project_dir": '/p"\\q'})
    response = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["system_cpu_utilization_ratio",] == 0.125
    assert values["system_memory_usage_bytes", "used"] == 4 << 30
    assert values["system_network_io_bytes_total", "transmit"] == 2000
    assert values["csb_sandbox_count", "running"] == 1
    assert values["csb_sandbox_cpu_time_seconds_total", "00000000"] == 1.5
    assert values["csb_sandbox_disk_io_bytes_total", "00000000", "read"] == 4096
    assert ("csb_sandbox_disk_io_bytes_total", "00000000", "write") not in values
    (info,) = families["csb_sandbox_info"].samples
    assert info.labels["project_dir"] == '/p"\\q'
    for family in families.values():  # what promtool's linter asks for
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter")
        counters = {sample.name.endswith("_total") for sample in family.samples}
        assert counters <= {family.type == "counter"}, family.name


async def test_health_doctor_and_head(client: httpx2.AsyncClient) -> None:
    health = (await client.get("/healthz")).json()
    assert health["status"] == "ok"
    (problem,) = (await client.get("/api/doctor")).json()["problems"]
    assert (problem["what"], problem["fatal"]) == ("bwrap", True)
    head = await client.head("/api/doctor")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 10
    assert (await client.head("/api/events")).status_code == 200
    options = await client.options("/api/sandboxes")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, POST, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "words"),
    [
        ("POST", "/api/sandboxes", {}, "project_dir", "is required"),
        ("POST", "/api/sandboxes", {"project_dir": "/p", "colour": 1}, "colour", "unknown"),
        ("POST", f"{ONE}/keys", {"sandbox": "web", "text": "x"}, "sandbox", "unknown"),
        ("POST", f"{ONE}/stop", {"force": True}, "force", "unknown"),
        ("POST", f"{ONE}/drag", {"path": [[0, 0], [0, -1]]}, "path[1][1]", "whole number"),
        ("POST", f"{ONE}/keys", [1], "body", "not a JSON object"),
        ("GET", "/api/sandboxes?colour=1", None, "colour", "unknown query parameter"),
        ("GET", "/api/sandboxes?state=running&state=dead", None, "state", "given twice"),
        ("GET", "/api/sandboxes?state=", None, "state", "not valid"),
        ("GET", "/api/sandboxes?" + "&".join("a" * 100), None, "query", "cannot be read"),
        ("GET", f"{ONE}/screenshot?region=1,2,3", None, "region", "not a region"),
        ("GET", f"{ONE}/terminal?lines=0", None, "lines", "whole number"),
        ("GET", "/api/events?after=x", None, "after", "whole number"),
        ("GET", "/api/sandboxes/%00%1b", None, "sandbox", "neither an id nor a name"),
    ],
)
async def test_what_is_wrong_is_named(  # noqa: PLR0917 one row of the table
    client: httpx2.AsyncClient, method: str, path: str, body: object, field: str, words: str
) -> None:
    given: dict[str, Any] = {} if body is None else {"json": body}
    problem = refused(await client.request(method, path, **given), 400, "invalid_input")
    assert problem["field"] == field
    assert words in problem["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b'{"text": NaN}',
        b"[" * 100_000,
        b'{"text": ' + b"1" * 5000 + b"}",
        b'{"a\\ud800": 1}',
        b'{"text": "\\ud800"}',
    ],
)
async def test_bodies_that_are_no_good_json(
    client: httpx2.AsyncClient, content: bytes, web: str
) -> None:
    json_type = {"content-type": "application/json; charset=utf-8"}
    response = await client.post(f"{ONE}/keys", content=content, headers=json_type)
    refused(response, 400, "invalid_input")


async def test_http_itself_is_refused_in_the_one_shape(client: httpx2.AsyncClient) -> None:
    refused(await client.get("/api/nothing"), 404, "no_such_route")
    refused(await client.get("/api/sandboxes/"), 404, "no_such_route")
    refused(await client.get("/ws/sandboxes/web/logs"), 426, "upgrade_required")
    wrong = await client.put("/api/sandboxes", json={})
    refused(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, POST, HEAD, OPTIONS"
    for kind in ("text/plain", "multipart/form-data; boundary=x"):
        response = await client.post("/api/wait", content=b"{}", headers={"content-type": kind})
        refused(response, 415, "unsupported_media_type")
    refused(await client.post("/api/wait", content=b"{}"), 415, "unsupported_media_type")
    big = await client.post("/api/wait", json={"x": "y" * MAX_BODY})
    refused(big, 413, "content_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * (MAX_BODY // 32)

    refused(await client.post("/api/wait", content=chunks()), 413, "content_too_large")


async def test_a_body_has_a_deadline(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BODY_SECONDS", 0.05)
    request = b"POST /api/wait HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"
    head, _, content = (await station.raw(request)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(content)["code"] == "request_timeout"


async def test_a_client_that_says_nothing_is_let_go(
    service: FakeService, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE", 0.05)
    async with serving(service, short_dir / "s") as station:
        assert await station.raw() == b""
        answered = await station.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_is_no_http_is_refused_in_the_one_shape(station: Station) -> None:
    for request in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 100_000):
        head, _, content = (await station.raw(request)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert json.loads(content)["status"] == 400


@pytest.mark.parametrize("route", all_routes(), ids=lambda route: route.name)
async def test_every_route_fails_in_the_one_shape(
    client: httpx2.AsyncClient, service: FakeService, route: Any
) -> None:
    """An argument that is not known; a method that is not for this path."""
    path = route.path.replace("{sandbox}", "none")
    given: dict[str, Any] = {} if route.method != "POST" else {"json": {"no_such": 1}}
    query = "" if route.method == "POST" else "?no_such=1"
    problem = refused(
        await client.request(route.method, path + query, **given), 400, "invalid_input"
    )
    assert problem["field"] == "no_such"
    allowed = await client.request("PATCH", path)
    refused(allowed, 405, "method_not_allowed")
    assert route.method in allowed.headers["allow"]


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, CsbError) and kind is not CsbError
    ],
)
async def test_every_error_has_its_status_and_keeps_its_data(
    client: httpx2.AsyncClient, service: FakeService, kind: type[CsbError]
) -> None:
    failed = kind is errors.CreateFailed
    more: dict[str, Any] = {"stage": "display"} if failed else {"choices": ["a", "b"]}
    service.error = kind("it \x1b[31mbroke", sandbox="web", hint="do that", **more)
    problem = refused(await client.get("/api/sandboxes"), status_of(kind), kind.code)
    assert status_of(kind) != 500
    assert (problem["detail"], problem["hint"]) == ("it broke", "do that")
    assert problem["sandbox"] == "web"
    assert problem | more == problem


async def test_a_defect_tells_a_mark_and_no_more(
    client: httpx2.AsyncClient, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.error = RuntimeError("secret")
    response = await client.get("/api/sandboxes")
    problem = refused(response, 500, "internal")
    assert "secret" not in response.text
    mark = problem["detail"].split()[-1]
    (record,) = [record for record in caplog.records if mark in record.getMessage()]
    assert record.exc_info


async def test_a_client_that_is_gone_cancels_its_call(
    station: Station, service: FakeService, web: str
) -> None:
    async with station.client() as client:
        call = asyncio.create_task(client.post("/api/wait", json=LONG))
        await service.waiting.wait()
        call.cancel()
    await eventually(lambda: service.waits_cancelled == 1)
    assert len(service.sandboxes) == 1


async def test_states_are_what_the_schema_says(client: httpx2.AsyncClient, web: str) -> None:
    document = (await client.get("/openapi.json")).json()
    listed = document["paths"]["/api/sandboxes"]["get"]["parameters"][0]["schema"]["enum"]
    assert listed == [state.value for state in SandboxState]


async def test_the_way_out(client: httpx2.AsyncClient, service: FakeService, web: str) -> None:
    service.ask(web, "h.example", count=2, port=8443)
    found = (await client.get(f"{ONE}/egress")).json()
    assert found["pending"] == [
        {
            "host": "h.example",
            "port": 8443,
            "count": 2,
            "first": "1970-01-01T00:00:01.000Z",
            "last": "1970-01-01T00:00:02.500Z",
            "program": "curl",
        }
    ]
    assert found["connections"][0]["why"] == "an address"
    assert (await client.get(ONE)).json()["pending_hosts"] == ["h.example:8443 (x2)"]
    body = {"host": "h.example", "once": True}
    allowed = await client.post(f"{ONE}/egress/allow", json=body)
    assert (allowed.status_code, allowed.json()["pending"]) == (200, [])
    assert service.arguments == body
    denied = await client.post(f"{ONE}/egress/deny", json={"host": "*.Evil.example"})
    assert denied.json()["denied"] == ["*.evil.example"]
    problem = refused(await client.post(f"{ONE}/egress/allow", json={}), 400, "invalid_input")
    assert problem["field"] == "host"
    service.error = errors.Forbidden("not that", field="host", choices=("*.example",))
    refused(await client.post(f"{ONE}/egress/allow", json={"host": "npm"}), 403, "forbidden")
    service.error = errors.EgressFailed("it is away")
    refused(await client.post(f"{ONE}/egress/allow", json=body), 502, "egress_failed")


async def test_hosts_at_the_creation(client: httpx2.AsyncClient, service: FakeService) -> None:
    body = {"project_dir": "/p", "allow_hosts": "github, a.example", "forward": ["git"]}
    made = await client.post("/api/sandboxes", json=body)
    assert made.json()["network"] == "allowlist"
    assert made.json()["allowed_hosts"] == ["github", "a.example"]
    assert made.json()["forward"] == ["git"]


async def test_a_verification(client: httpx2.AsyncClient, web: str) -> None:
    found = (await client.post(f"{ONE}/verify")).json()
    assert (found["held"], found["seconds"], found["sandbox"]) == (True, 1.25, web)
    assert found["probes"][0] == {
        "name": "loopback",
        "protects": "the host's ports",
        "outcome": "held",
        "detail": "ab",
    }


async def test_the_agent_inside(client: httpx2.AsyncClient, service: FakeService, web: str) -> None:
    found = (await client.get(f"{ONE}/agent?cursor=c.1")).json()
    assert service.arguments == {"cursor": "c.1"}
    agent, used = found["agent"], found["usage"]
    assert (agent["state"], agent["disputed"]) == ("question", ["screen"])
    assert agent["evidence"][0] == {
        "source": "hook",
        "says": "question",
        "since": "1970-01-01T00:00:01.000Z",
        "detail": "ask",
    }
    assert agent["question"]["options"][1] == {"key": "2", "label": "No"}
    assert agent["error"]["words"] == "no way out"
    assert (used["total"]["output"], used["cost"], found["queued"]) == (20, 0.25, 1)
    counted = used["counted"]
    assert (counted["tokens"], counted["total"]["output"], counted["cost"]) == (100, 40, 0.75)
    assert (counted["uncounted"], counted["estimated"], counted["answers"]) == (3, 40, 0)
    sent = await client.post(f"{ONE}/prompts", json={"text": "go"})
    assert (sent.status_code, sent.json()["proof"]) == (200, "hook")
    queued = await client.post(f"{ONE}/prompts", json={"text": "go", "queue": True})
    assert (queued.status_code, queued.json()["queued"]) == (202, True)
    body = {"question": "q1", "option": "1"}
    assert (await client.post(f"{ONE}/answers", json=body)).json()["next"]["id"] == "q1"
    refused(await client.post(f"{ONE}/answers", json=body | {"question": "q0"}), 409, "conflict")
    service.error = PromptNotSubmitted("it was typed")
    sent = await client.post(f"{ONE}/prompts", json={"text": "go"})
    refused(sent, 502, "prompt_not_submitted")
